"""Measures the EER of a model on degraded recordings, for `nes2net robustness`."""

from ..errors import RobustnessError
from .run import Measured, RobustnessRun

__all__ = ["Measured", "RobustnessError", "RobustnessRun"]
