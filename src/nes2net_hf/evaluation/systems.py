"""Evaluates the score files of one or more systems: all that `nes2net evaluate` prints and reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..corpora import Part, check_apart, overlap_warning
from ..corpora.registry import CORPORA
from ..corpus_facts import training_corpora, training_parts
from ..errors import CorpusError, EvaluationError, InfoError, UsageError, option
from ..metrics import ASVSPOOF5_COSTS, DetectionCosts
from ..metrics.bootstrap import Difference
from ..pretrained.info import read_recipe
from .asv import AsvScores
from .figures import Evaluation, Row, Trials, breakdown_row, compare, evaluate, match, strangers, undecided
from .keys import Keys
from .report import to_json
from .score_files import ScoreFile, find_trials, read_scores

ALL = "all"  # every condition


@dataclass(frozen=True)
class Evaluated:
    """Systems in the order of their files."""

    names: list[str]
    trials: list[Trials]
    evaluations: list[Evaluation]
    differences: list[Difference]
    """EER of every system after the first, minus that of the first."""

    def to_json(self) -> list[dict[str, Any]]:
        """Returns what `--json` prints and `figures.json` holds: one object per system."""
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
        keys: what each trial is; if None, each file has its own labels.
        benchmark: name of the corpus of the `keys`.
        condition: evaluate only its trials; if None, all.
        asv, costs, threshold, resamples: see `evaluate`.

    Raises:
        UsageError: the benchmark has no such condition.
        EvaluationError: a file cannot be read, does not match the keys, or cannot be compared with the first.
    """
    files = [read_scores(path) for path in paths]
    chosen = None if keys is None else _of_condition(keys, condition, benchmark)
    trials = [match(file, chosen) for file in files]
    names = names_of(paths)
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
            evaluation.breakdown[:0] = _published_table(file, keys, costs, resamples)
            evaluation.warnings.extend(strangers(file, keys))
            evaluation.warnings.extend(undecided(file, chosen))
        evaluation.warnings.extend(_overlap(file))
        evaluations.append(evaluation)
    return Evaluated(names, trials, evaluations, compare(_aligned(trials, paths), resamples))


def _overlap(file: ScoreFile) -> Iterator[str]:
    """Yields a warning if the model of the scores was trained on what it judged, or may know the voices."""
    recipe, model = None, file.scored.get("model")
    if model:
        with suppress(InfoError):  # the model has moved, or its recipe is damaged
            recipe = read_recipe(model, file.scored.get("revision"))
    if not recipe:
        return
    judged = Part._make(file.scored.get(key) for key in Part._fields)
    # If dev was held out, the training rows are not known, and filters may choose others.
    if not ((recipe.get("data") or {}).get("hold_out") and judged.where):
        try:
            check_apart([Part(**part) for part in training_parts(recipe)], judged)
        except CorpusError as error:
            yield str(error).rstrip(".")
    if warning := overlap_warning(training_corpora(recipe), judged.corpus):
        yield warning


def _published_table(file: ScoreFile, keys: Keys, costs: DetectionCosts, resamples: int) -> Iterator[Row]:
    """Yields a row for each condition of the organisers whose trials all have scores, whichever one is evaluated."""
    if "phase" in keys.columns:  # phases are the conditions of ASVspoof 2021: only one has a published figure
        return
    for name, belongs in keys.conditions.items():
        part = keys.take(belongs)
        ids = np.array([]) if file.ids is None else file.ids
        is_scored = find_trials(ids, part.ids, file.path, file.are_files) >= 0
        if set(part.labels) == {0, 1} and is_scored.all():
            yield breakdown_row(match(file, part), "condition", name, costs, resamples)


def find_condition(asked: str | None, benchmark: str | None) -> str | None:
    """Returns the condition to evaluate: `asked`, or the one that the organisers report. None means all."""
    if asked is not None:
        return None if asked == ALL else asked
    corpus = CORPORA.get(benchmark or "")
    return corpus.usual_condition if corpus else None


def find_costs(benchmark: str | None) -> DetectionCosts:
    """Returns the costs of the benchmark's organisers, or else those of ASVspoof 5."""
    corpus = CORPORA.get(benchmark or "")
    return corpus.costs if corpus else ASVSPOOF5_COSTS


def _of_condition(keys: Keys, condition: str | None, benchmark: str | None) -> Keys:
    if condition is None:
        return keys
    if condition not in keys.conditions:
        known = ", ".join([*keys.conditions, ALL]) if keys.conditions else "none"
        raise UsageError(f"{option('condition')} {condition!r} is unknown: {benchmark} has {known}.")
    return keys.take(keys.conditions[condition])


def names_of(paths: Sequence[Path]) -> list[str]:
    """Returns the systems' names: the stems of their files, or the whole paths if stems repeat."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _aligned(systems: list[Trials], paths: Sequence[Path]) -> list[Trials]:
    """Returns the systems with their trials in the same order. Files with their own labels may have other trials."""
    aligned = systems[:1]
    for trials, path in zip(systems[1:], paths[1:], strict=True):
        rows = find_trials(trials.keys.ids, systems[0].keys.ids, path)
        if len(trials.scores) != len(rows) or (rows < 0).any():
            raise EvaluationError(f"{path} and {paths[0]} hold scores of different trials: evaluate them separately.")
        if (trials.keys.labels[rows] != systems[0].keys.labels).any():
            raise EvaluationError(
                f"{path} and {paths[0]} label the same trials differently: pass one set of {option('keys')}."
            )
        aligned.append(trials.take(rows))
    return aligned
