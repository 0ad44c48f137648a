"""Detection cost as a module of the `evaluate` library."""

import datasets
import evaluate
from nes2net_hf.metrics import DetectionCosts
from nes2net_hf.metrics import actual_dcf
from nes2net_hf.metrics import min_dcf

DESCRIPTION = """Minimum and actual normalised detection cost (ASVspoof 5). `predictions`: scores, higher = bona fide;
the actual cost needs natural log-likelihood ratios. `references`: 1 for bona fide, 0 for spoofed. Returns `min_dcf`,
its `threshold`, and `act_dcf`."""


class Dcf(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(
        self,
        predictions: list[float],
        references: list[int],
        miss: float = 1.0,
        false_alarm: float = 10.0,
        spoof_prior: float = 0.05,
    ) -> dict[str, float]:
        costs = DetectionCosts(miss, false_alarm, spoof_prior)
        bonafide = [score for score, label in zip(predictions, references) if label == 1]
        spoof = [score for score, label in zip(predictions, references) if label == 0]
        lowest = min_dcf(bonafide, spoof, costs)
        return {"min_dcf": lowest.dcf, "threshold": lowest.threshold, "act_dcf": actual_dcf(bonafide, spoof, costs)}
