"""Cost of log-likelihood ratios as a module of the `evaluate` library."""

import datasets
import evaluate
from nes2net_hf.metrics import cllr
from nes2net_hf.metrics import min_cllr

DESCRIPTION = """Cost of log-likelihood ratios in bits, before and after the best recalibration. `predictions`: natural
log-likelihood ratios, bona fide over spoof. `references`: 1 for bona fide, 0 for spoofed. Returns `cllr` and
`min_cllr`."""


class Cllr(evaluate.Metric):
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
        return {"cllr": cllr(bonafide, spoof), "min_cllr": min_cllr(bonafide, spoof)}
