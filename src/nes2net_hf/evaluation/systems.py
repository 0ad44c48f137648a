"""Score files of one or several systems in, everything that `nes2net evaluate` prints and reports out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..corpora.loading import CORPORA
from ..errors import EvaluationError, UsageError
from ..metrics import ASVSPOOF5_COSTS, DetectionCosts
from ..metrics.bootstrap import Difference
from .asv import AsvScores
from .figures import Evaluation, Trials, compare, evaluate, match, strangers, undecided
from .keys import Keys
from .report import to_json
from .score_files import find_trials, read_scores

ALL = "all"  # every condition


@dataclass(frozen=True)
class Evaluated:
    """Systems in the order of their files."""

    names: list[str]
    trials: list[Trials]
    evaluations: list[Evaluation]
    differences: list[Difference]
    """Of every system after the first: its EER minus that of the first."""

    def to_json(self) -> list[dict[str, Any]]:
        """What `--json` prints and `figures.json` holds, one object per system."""
        figures = [to_json(evaluation) for evaluation in self.evaluations]
        for system, difference in zip(figures[1:], self.differences, strict=True):
            system["difference"] = difference._asdict() | {"from": self.names[0]}
        return figures


def evaluate_files(
    paths: Sequence[Path],
    keys: Keys | None = None,
    *,
    benchmark: str | None = None,
    condition: str | None = None,
    asv: AsvScores | None = None,
    costs: DetectionCosts = ASVSPOOF5_COSTS,
    threshold: float | None = None,
    resamples: int = 1000,
) -> Evaluated:
    """
    Evaluates score files and compares them on the same trials.

    Args:
        keys: what each trial is; if None, each file says it itself.
        benchmark: name of the corpus that `keys` are of.
        condition: evaluate its trials only.
        asv, costs, threshold, resamples: as of `evaluate`.

    Raises:
        UsageError: the benchmark has no such condition.
        EvaluationError: a file cannot be read, the files and the keys do not fit, or the files cannot be compared.
    """
    files = [read_scores(path) for path in paths]
    chosen = None if keys is None else _of_condition(keys, condition, benchmark)
    trials = [match(file, chosen) for file in files]
    names = _names(paths)
    evaluations = []
    for name, file, its_trials in zip(names, files, trials, strict=True):
        evaluation = evaluate(
            its_trials,
            name,
            costs=costs,
            asv=asv,
            fixed_asv=CORPORA[benchmark].fixed_asv if benchmark in CORPORA else None,
            threshold=threshold,
            resamples=resamples,
        )
        if keys is not None and chosen is not None:
            evaluation.warnings.extend(strangers(file, keys))
            evaluation.warnings.extend(undecided(file, chosen))
        evaluations.append(evaluation)
    return Evaluated(names, trials, evaluations, compare(_aligned(trials, paths), resamples))


def find_condition(asked: str | None, benchmark: str | None) -> str | None:
    """The condition to evaluate: the one asked for, or the one that the benchmark's organisers report; None is all."""
    if asked is not None:
        return None if asked == ALL else asked
    corpus = CORPORA.get(benchmark or "")
    return corpus.usual_condition if corpus else None


def _of_condition(keys: Keys, condition: str | None, benchmark: str | None) -> Keys:
    if condition is None:
        return keys
    if condition not in keys.conditions:
        known = ", ".join([*keys.conditions, ALL]) if keys.conditions else "none"
        raise UsageError(f"--condition {condition!r}: {benchmark} has {known}.")
    return keys.take(keys.conditions[condition])


def _names(paths: Sequence[Path]) -> list[str]:
    """Names of the systems: what tells their files apart."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _aligned(systems: list[Trials], paths: Sequence[Path]) -> list[Trials]:
    """The same trials in the same order. Files that bring their own labels may differ in both."""
    aligned = systems[:1]
    for trials, path in zip(systems[1:], paths[1:], strict=True):
        rows = find_trials(trials.keys.ids, systems[0].keys.ids, path)
        if len(trials.scores) != len(rows) or (rows < 0).any():
            raise EvaluationError(f"{path} and {paths[0]} hold scores of different trials: they cannot be compared.")
        if (trials.keys.labels[rows] != systems[0].keys.labels).any():
            raise EvaluationError(f"{path} and {paths[0]} label the same trials differently: give one set of --keys.")
        aligned.append(trials.take(rows))
    return aligned
