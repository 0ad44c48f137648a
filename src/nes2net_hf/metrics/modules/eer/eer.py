"""Equal error rate as a module of the `evaluate` library."""

import datasets
import evaluate
from nes2net_hf.metrics import equal_error_rate

DESCRIPTION = """Equal error rate, with ties handled as in the ASVspoof evaluation packages. `predictions`:
scores, higher = bona fide; `references`: 1 for bona fide, 0 for spoofed. Returns `eer` (a fraction) and
`threshold`."""


class Eer(evaluate.Metric):
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

    def _compute(self, predictions: list[float], references: list[int]) -> dict[str, float]:
        bonafide = [score for score, label in zip(predictions, references) if label == 1]
        spoof = [score for score, label in zip(predictions, references) if label == 0]
        return equal_error_rate(bonafide, spoof)._asdict()
