"""Architecture-agnostic detection cost as a module of the `evaluate` library."""

import datasets
import evaluate
from nes2net_hf.metrics import min_adcf

DESCRIPTION = """Minimum a-DCF of a system with one score for spoofing-robust speaker verification.
`predictions`: its scores, higher = accept; `references`: 0 spoof, 1 target, 2 non-target. Returns `min_adcf`."""


class Adcf(evaluate.Metric):
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
        target, nontarget, spoof = (
            [score for score, kind in zip(predictions, references) if kind == wanted] for wanted in (1, 2, 0)
        )
        return {"min_adcf": min_adcf(target, nontarget, spoof)}
