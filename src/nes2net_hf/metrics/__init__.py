"""
Metrics as plain numpy functions. A higher score means bona fide; rates and costs are fractions; Cllr is in bits.

`modules/` has the same metrics for the `evaluate` library.
"""

from .bootstrap import Difference, Interval, Intervals, bootstrap, bootstrap_eer, compare_eer
from .classification import Decisions, auc, decisions
from .cllr import cllr, min_cllr, optimal_llrs
from .dcf import ASVSPOOF5_COSTS, DetectionCosts, MinimumCost, actual_dcf, min_dcf
from .eer import EqualErrorRate, check_scores, det_curve, equal_error_rate
from .segments import range_eer, segment_eer
from .tandem import (
    ASVSPOOF5_ASV,
    AsvErrorRates,
    TandemCosts,
    TandemEqualErrorRate,
    asv_error_rates,
    min_adcf,
    min_tdcf,
    tandem_eer,
)

__all__ = [
    "ASVSPOOF5_ASV",
    "ASVSPOOF5_COSTS",
    "AsvErrorRates",
    "Decisions",
    "DetectionCosts",
    "Difference",
    "EqualErrorRate",
    "Interval",
    "Intervals",
    "MinimumCost",
    "TandemCosts",
    "TandemEqualErrorRate",
    "actual_dcf",
    "asv_error_rates",
    "auc",
    "bootstrap",
    "bootstrap_eer",
    "check_scores",
    "cllr",
    "compare_eer",
    "decisions",
    "det_curve",
    "equal_error_rate",
    "min_adcf",
    "min_cllr",
    "min_dcf",
    "min_tdcf",
    "optimal_llrs",
    "range_eer",
    "segment_eer",
    "tandem_eer",
]
