"""`nes2net evaluate`."""

from __future__ import annotations

import json
import math
import shlex
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ..errors import offering
from ..files import atomic_files, claim
from .common import UsageError, as_utf8, be_quiet, ending, need_matplotlib, say, wanted

if TYPE_CHECKING:
    from ..evaluation import Evaluation, Keys, Trials

# The condition that a benchmark's organisers report, where nobody asks for another.
_USUAL_CONDITIONS = {"asvspoof2021-la": "eval", "asvspoof2021-df": "eval", "ctrsvdd": "without-acesinger"}
ALL = "all"


@dataclass
class EvaluateOptions:
    """What `nes2net evaluate` was asked for."""

    scores: list[Path]
    keys: Path | None
    benchmark: str | None
    split: str | None
    condition: str | None
    asv_scores: Path | None
    costs: tuple[float, float, float] | None
    threshold: float | None
    resamples: int
    as_json: bool
    report: Path | None
    model: str | None
    revision: str | None
    corpus: str | None
    root: str | None
    where: list[str]
    batch_size: int
    all_windows: bool


@offering("keys", "benchmark", "split", "condition", "where")
def run_evaluate(options: EvaluateOptions) -> int:
    """Evaluates, prints and reports; returns the exit code."""
    be_quiet()
    as_utf8(sys.stdout)
    interrupted = "Interrupted" + (": what is scored is kept, and the same command goes on." if options.model else ".")
    with ExitStack() as stack, ending(interrupted, extra="eval") as end:
        from .. import evaluation as ev
        from ..metrics import ASVSPOOF5_COSTS, DetectionCosts

        _check(options)
        if options.report is not None:
            need_matplotlib("--report")
            stack.enter_context(claim(options.report, "workplace"))
        try:
            costs = DetectionCosts(*options.costs) if options.costs else ASVSPOOF5_COSTS
        except ValueError as error:
            raise UsageError(f"--costs: {error}") from None
        if options.model is not None:
            _score(options)
        files = [ev.read_scores(path) for path in options.scores]
        every_key = _keys(options)
        keys = None if every_key is None else _of_condition(options, every_key)
        names = _names(options.scores)
        systems = [ev.match(file, keys) for file in files]
        asv = None
        if options.asv_scores is not None:
            asv = ev.read_asv_scores(options.asv_scores, _condition(options))
        evaluations = []
        for name, file, trials in zip(names, files, systems, strict=True):
            evaluation = ev.evaluate(
                trials,
                name,
                costs=costs,
                asv=asv,
                asvspoof5=(options.benchmark or options.corpus) == "asvspoof5",
                threshold=options.threshold,
                resamples=options.resamples,
            )
            if every_key is not None and keys is not None:
                evaluation.warnings.extend(ev.strangers(file, every_key))
                evaluation.warnings.extend(ev.undecided(file, keys))
            evaluations.append(evaluation)
        differences = ev.compare(_aligned(systems, options.scores), options.resamples)
        figures = [ev.to_json(evaluation) for evaluation in evaluations]
        for system, difference in zip(figures[1:], differences, strict=True):
            system["difference"] = difference._asdict() | {"from": names[0]}
        if options.report is not None:
            from ..evaluation.plots import draw

            sources = [*options.scores, *filter(None, (options.keys, options.asv_scores))]
            source = ev.provenance(shlex.join(["nes2net", *sys.argv[1:]]), sources)
            text = json.dumps(figures, indent=1, ensure_ascii=False)
            with atomic_files(options.report) as folder:
                plots = draw(folder, names, systems, evaluations)
                ev.write_report(folder, evaluations, differences, plots, source)
                (folder / "figures.json").write_text(text + "\n", encoding="utf-8")
        if options.as_json:
            print(json.dumps(figures[0] if len(figures) == 1 else figures, ensure_ascii=False))
        else:
            _print(evaluations, differences)
        for evaluation in evaluations:
            for warning in evaluation.warnings:
                say(f"Warning: {evaluation.name}: {warning}.")
        if options.report is not None:
            say(f"report: {options.report / 'report.html'}")
    return end.code


def _check(options: EvaluateOptions) -> None:
    by_corpus = options.corpus is not None
    if options.model is not None:
        if not by_corpus or options.root is None:
            raise UsageError("--model needs the --corpus and its --root that it is to score.")
        if len(options.scores) != 1:
            raise UsageError("--model needs one SCORES, the file to write the scores to (.parquet keeps durations).")
        if options.scores[0].exists():
            raise UsageError(
                f"{options.scores[0]} exists: leave --model out to evaluate it, or name another file for the scores."
            )
    elif by_corpus and options.root is None:
        raise UsageError("--corpus needs its --root.")
    if not options.scores:
        raise UsageError("nothing to evaluate: name the file of scores.")
    if by_corpus and (options.keys is not None or options.benchmark is not None):
        raise UsageError("--corpus has its own keys: leave --keys and --benchmark out.")
    if options.threshold is not None and not math.isfinite(options.threshold):
        raise UsageError(f"--threshold must be a finite number, got {options.threshold}.")
    if options.condition is not None and not by_corpus and options.benchmark is None:
        raise UsageError("--condition is of a --benchmark or a --corpus.")
    if options.split is not None and not by_corpus and options.benchmark is None:
        raise UsageError("--split is of a --benchmark or a --corpus.")
    if options.all_windows and options.model is None:
        raise UsageError("--all-windows is of a --model.")
    if options.where and not by_corpus:
        raise UsageError("--where chooses rows of a --corpus.")
    if options.benchmark is not None and options.keys is None:
        raise UsageError("--benchmark says how to read --keys, its protocol file: name that, too.")
    if options.resamples < 100:
        raise UsageError(f"--resamples must be at least 100, got {options.resamples}.")


def _score(options: EvaluateOptions) -> None:
    from ..evaluation.scoring import score_corpus

    assert options.model is not None and options.corpus is not None and options.root is not None
    score_corpus(
        options.model,
        options.scores[0],
        corpus=options.corpus,
        root=options.root,
        split=options.split,
        revision=options.revision,
        batch_size=options.batch_size,
        all_windows=options.all_windows,
        condition=_condition(options),
        where=wanted(options.where),
    )


def _keys(options: EvaluateOptions) -> Keys | None:
    from .. import evaluation as ev

    if options.corpus is not None:
        assert options.root is not None
        return ev.keys_of_corpus(options.corpus, options.split, root=options.root, where=wanted(options.where))
    if options.keys is None:
        return None
    return ev.read_keys(options.keys, options.benchmark, options.split)


def _condition(options: EvaluateOptions) -> str | None:
    """The organisers' usual one unless another, or all, is asked for."""
    if options.condition is not None:
        return None if options.condition == ALL else options.condition
    return _USUAL_CONDITIONS.get(options.benchmark or options.corpus or "")


def _of_condition(options: EvaluateOptions, keys: Keys) -> Keys:
    condition = _condition(options)
    if condition is None:
        return keys
    if condition not in keys.conditions:
        known = ", ".join([*keys.conditions, ALL]) if keys.conditions else "none"
        raise UsageError(f"--condition {condition!r}: {options.benchmark or options.corpus} has {known}.")
    return keys.take(keys.conditions[condition])


def _names(paths: list[Path]) -> list[str]:
    """Of systems: what tells their files apart."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _aligned(systems: list[Trials], paths: list[Path]) -> list[Trials]:
    """The same trials in the same order, which files that bring their own labels need not have."""
    from ..evaluation import EvaluationError
    from ..evaluation.score_files import find_trials

    aligned = systems[:1]
    for trials, path in zip(systems[1:], paths[1:], strict=True):
        rows = find_trials(trials.keys.ids, systems[0].keys.ids, path)
        if len(trials.scores) != len(rows) or (rows < 0).any():
            raise EvaluationError(f"{path} and {paths[0]} hold scores of other trials: they cannot be compared.")
        if (trials.keys.labels[rows] != systems[0].keys.labels).any():
            raise EvaluationError(f"{path} and {paths[0]} label the same trials otherwise: give one set of --keys.")
        aligned.append(trials.take(rows))
    return aligned


def _print(evaluations: list[Evaluation], differences: list[Any]) -> None:
    from ..evaluation.report import groups, headline, percent

    console = Console()
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("")
    for evaluation in evaluations:
        table.add_column(evaluation.name)
    columns = [dict(headline(evaluation)) for evaluation in evaluations]
    for what in dict.fromkeys(what for column in columns for what in column):
        table.add_row(what, *(column.get(what, "") for column in columns))
    console.print(table)
    unit = evaluations[0].intervals.eer.unit
    console.print(f"brackets: 95 % bootstrap intervals, by {unit}\n", style="dim")
    for evaluation in evaluations:
        for name, rows in groups(evaluation):
            part = Table(show_edge=False, pad_edge=False, title=evaluation.name if len(evaluations) > 1 else None)
            part.add_column(name)
            for column in ("bona fide", "spoof", "EER", "min DCF"):
                part.add_column(column, justify="right")
            for row in rows:
                figures = (f"{row.n_bonafide:,}", f"{row.n_spoof:,}", percent(row.eer), f"{row.min_dcf:.4f}")
                part.add_row(row.value, *figures)
            console.print(part)
            console.print()
    for evaluation, difference in zip(evaluations[1:], differences, strict=True):
        console.print(
            f"EER of {evaluation.name} minus that of {evaluations[0].name}: {percent(difference)}, "
            f"p = {difference.p_value:.3f}",
            soft_wrap=True,
        )
