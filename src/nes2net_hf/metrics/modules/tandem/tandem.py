"""Tandem metrics as a module of the `evaluate` library."""

import datasets
import evaluate
from nes2net_hf.metrics import asv_error_rates
from nes2net_hf.metrics import min_tdcf
from nes2net_hf.metrics import tandem_eer

DESCRIPTION = """Minimum t-DCF in the forms of 2021 and 2019, and t-EER, of a countermeasure in tandem with speaker
verification. `predictions`: scores of the countermeasure; `asv_scores`: scores of the verification system;
`references`: 0 spoof, 1 target, 2 non-target. Returns `min_tdcf_2021`, `min_tdcf_2019`, `t_eer` (a fraction), and
its concurrent point, `asv_threshold` and `cm_threshold`."""


class Tandem(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=DESCRIPTION,
            features=datasets.Features(
                {
                    "predictions": datasets.Value("float64"),
                    "asv_scores": datasets.Value("float64"),
                    "references": datasets.Value("int64"),
                }
            ),
        )

    def _compute(self, predictions: list[float], asv_scores: list[float], references: list[int]) -> dict[str, float]:
        cm = self._by_kind(predictions, references)
        asv = self._by_kind(asv_scores, references)
        rates, _ = asv_error_rates(*asv)
        point = tandem_eer(asv, cm)
        bonafide = [*cm[0], *cm[1]]
        return {
            "min_tdcf_2021": min_tdcf(bonafide, cm[2], rates),
            "min_tdcf_2019": min_tdcf(bonafide, cm[2], rates, form="2019"),
            "t_eer": point.eer,
            "asv_threshold": point.asv_threshold,
            "cm_threshold": point.cm_threshold,
        }

    def _by_kind(self, scores: list[float], kinds: list[int]) -> tuple[list[float], list[float], list[float]]:
        """Returns the scores of targets, non-targets and spoofs."""
        target, nontarget, spoof = (
            [score for score, kind in zip(scores, kinds) if kind == wanted] for wanted in (1, 2, 0)
        )
        return target, nontarget, spoof
