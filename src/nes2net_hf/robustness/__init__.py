"""EER under degradations of a corpus: what `nes2net robustness` measures."""

from ..errors import RobustnessError
from .run import Measured, RobustnessRun

__all__ = ["Measured", "RobustnessError", "RobustnessRun"]
