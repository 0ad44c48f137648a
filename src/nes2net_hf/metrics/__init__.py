"""Detection metrics as plain numpy functions: higher score = bona fide, rates are fractions."""

from .bootstrap import Interval, bootstrap_eer
from .eer import EqualErrorRate, check_scores, det_curve, equal_error_rate

__all__ = ["EqualErrorRate", "Interval", "bootstrap_eer", "check_scores", "det_curve", "equal_error_rate"]
