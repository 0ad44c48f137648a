"""`nes2net evaluate`."""

from __future__ import annotations

import json
import math
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import as_utf8, be_quiet, ending, need, say
from .options import Json, Revision, Where, wanted

if TYPE_CHECKING:
    from nes2net_hf.evaluation.crossing import Crossed
    from nes2net_hf.evaluation.systems import Evaluated


def evaluate(
    context: typer.Context,
    scores: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="SCORES...",
            help="Score files: lines `utterance_id score`, CSV, Parquet, or output of detect. Several are compared.",
        ),
    ] = None,
    keys: Annotated[
        list[Path] | None,
        typer.Option(
            help="Labels: protocol of the --benchmark, lines `utterance_id label`, or a table with a header. With "
            "--cross, one for each file."
        ),
    ] = None,
    crossed: Annotated[
        bool,
        typer.Option(
            "--cross",
            help="SCORES are of one system on several corpora: apply threshold and calibration of each to all.",
        ),
    ] = False,
    benchmark: Annotated[
        str | None, typer.Option(help="Benchmark that --keys belongs to: asvspoof2021-la, asvspoof5, …")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Partition of the keys, if their file name does not show it.")
    ] = None,
    condition: Annotated[
        str | None,
        typer.Option(
            help="Condition, as the organisers name it; or all.", show_default="the one they report, e.g. eval"
        ),
    ] = None,
    asv_scores: Annotated[
        Path | None, typer.Option(help="The organisers' ASV scores, for the t-DCF (2019 and 2021).")
    ] = None,
    costs: Annotated[
        tuple[float, float, float] | None,
        typer.Option(
            metavar="MISS FALSE-ALARM PRIOR",
            help="For the DCF: costs, and prior probability of spoofing.",
            show_default="the benchmark's, or else 1 10 0.05",
        ),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Also report accuracy, F1 and error rates at this score.")
    ] = None,
    resamples: Annotated[int, typer.Option(help="Number of bootstrap resamples.")] = 1000,
    as_json: Json = False,
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for report.md, report.html and plots.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Folder, Hub id, short name or official checkpoint of a model; it first scores --corpus into SCORES."
        ),
    ] = None,
    revision: Revision = None,
    corpus: Annotated[
        str | None, typer.Option(help="Corpus on disk, instead of --keys: asvspoof2019-la, …, own-data, dataset.")
    ] = None,
    root: Annotated[
        str | None, typer.Option(help="Where --corpus is: a folder, manifest, Hub dataset id, or folder of shards.")
    ] = None,
    where: Where = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances per batch of --model.")] = 16,
    all_windows: Annotated[
        bool, typer.Option("--all-windows", help="With --model: judge whole recordings, as detect does.")
    ] = False,
) -> int:
    """
    Compute a benchmark's metrics from score files or a model, with intervals, breakdowns and plots.

    Exit codes:
      0    the metrics were computed
      1    scores or keys cannot be evaluated, or the disk is full
      2    an option, the model, the corpus or an output is wrong
      130  interrupted
    """
    kept = ": the scores so far are kept; run the same command to continue." if model else "."
    with ExitStack() as stack, ending("Interrupted" + kept, extra="eval") as end:
        from nes2net_hf import evaluation as ev
        from nes2net_hf.errors import UsageError
        from nes2net_hf.evaluation.systems import evaluate_files, find_condition, find_costs
        from nes2net_hf.files import claim
        from nes2net_hf.metrics import DetectionCosts

        be_quiet()
        as_utf8(sys.stdout)
        paths, rows, name = scores or [], wanted(where), benchmark or corpus
        if crossed:
            _refuse_unless_crossed(context)
            return _cross(paths, keys or [], benchmark, split, costs, as_json)
        if model is not None:
            _check_model(paths, corpus, root)
        _check_keys(paths, keys or [], benchmark, corpus, root)
        for option, value in (("--condition", condition), ("--split", split)):
            if value is not None and name is None:
                raise UsageError(f"{option} needs --benchmark or --corpus.")
        if all_windows and model is None:
            raise UsageError("--all-windows needs --model.")
        if rows and corpus is None:
            raise UsageError("--where needs --corpus, whose rows it selects.")
        if threshold is not None and not math.isfinite(threshold):
            raise UsageError(f"--threshold must be a finite number, got {threshold}.")
        if resamples < 100:
            raise UsageError(f"--resamples must be at least 100, got {resamples}.")
        try:
            rates = DetectionCosts(*costs) if costs else find_costs(name)
        except ValueError as error:
            raise UsageError(f"--costs: {error}") from None
        if report is not None:
            need("matplotlib", "plot", "--report")
            stack.enter_context(claim(report, "workplace"))
        chosen = find_condition(condition, name)
        if model is not None:
            from nes2net_hf.evaluation.scoring import score_corpus

            assert corpus is not None and root is not None
            score_corpus(
                model,
                paths[0],
                corpus=corpus,
                root=root,
                split=split,
                revision=revision,
                batch_size=batch_size,
                all_windows=all_windows,
                condition=chosen,
                where=rows,
            )
        known = None
        if corpus is not None and root is not None:
            known = ev.keys_of_corpus(corpus, split, root=root, where=rows)
        elif keys:
            known = ev.read_keys(keys[0], benchmark, split)
        evaluated = evaluate_files(
            paths,
            known,
            benchmark=name,
            condition=chosen,
            asv=None if asv_scores is None else ev.read_asv_scores(asv_scores, chosen),
            costs=rates,
            threshold=threshold,
            resamples=resamples,
        )
        figures = evaluated.to_json()
        if report is not None:
            _write(report, evaluated, [*paths, *(keys or []), *filter(None, [asv_scores])])
        if as_json:
            print(json.dumps(figures[0] if len(figures) == 1 else figures, ensure_ascii=False))
        else:
            _print(evaluated)
        for evaluation in evaluated.evaluations:
            for warning in evaluation.warnings:
                say(f"Warning: {evaluation.name}: {warning}.")
        if report is not None:
            say(f"report: {report / 'report.html'}")
    return end.code


def _check_model(scores: list[Path], corpus: str | None, root: str | None) -> None:
    """
    Raises:
        UsageError: --model has nothing to score, or no new file for the scores.
    """
    from nes2net_hf.errors import UsageError

    if corpus is None or root is None:
        raise UsageError("--model needs --corpus and --root, to know what to score.")
    if len(scores) != 1:
        raise UsageError("--model needs one SCORES file to write to (.parquet also keeps durations).")
    if scores[0].exists():
        raise UsageError(f"{scores[0]} exists: omit --model to evaluate it, or name another file for the scores.")


def _check_keys(
    scores: list[Path], keys: list[Path], benchmark: str | None, corpus: str | None, root: str | None
) -> None:
    """
    Raises:
        UsageError: there are no scores, or --keys, --benchmark, --corpus and --root contradict each other.
    """
    from nes2net_hf.errors import UsageError

    if corpus is not None and root is None:
        raise UsageError("--corpus needs --root: name the place of the corpus.")
    if not scores:
        raise UsageError("nothing to evaluate: name a file of scores.")
    if corpus is not None and (keys or benchmark is not None):
        raise UsageError("--corpus has its own keys: omit --keys and --benchmark.")
    if benchmark is not None and not keys:
        raise UsageError("--benchmark needs --keys: name its protocol file.")
    if len(keys) > 1:
        raise UsageError("several --keys are for --cross, with one for each file: name one, or add --cross.")


def _refuse_unless_crossed(context: typer.Context) -> None:
    """Raises UsageError if an option was set that a cross-test has no use for."""
    from nes2net_hf.errors import UsageError

    for parameter in context.command.params:
        name = str(parameter.name)
        source = context.get_parameter_source(name)
        if name not in _CROSSED and source is not None and source.name != "DEFAULT":
            raise UsageError(f"--cross has no use for {parameter.opts[0]}: omit it.")


_CROSSED = {"scores", "keys", "crossed", "benchmark", "split", "costs", "as_json"}


def _cross(
    paths: list[Path],
    keys: list[Path],
    benchmark: str | None,
    split: str | None,
    costs: tuple[float, float, float] | None,
    as_json: bool,
) -> int:
    """Prints the cross-test matrix."""
    from nes2net_hf.errors import UsageError
    from nes2net_hf.evaluation import read_keys
    from nes2net_hf.evaluation.crossing import cross
    from nes2net_hf.metrics import DetectionCosts

    try:
        rates = DetectionCosts(*costs or ())
    except ValueError as error:
        raise UsageError(f"--costs: {error}") from None
    found = cross(paths, [read_keys(one, benchmark, split) for one in keys], rates)
    if as_json:
        print(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        _print_crossed(found)
    for warning in found.warnings:
        say(f"Warning: {warning}.")
    return 0


def _print_crossed(found: Crossed) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()

    def table(title: str, corner: str, columns: list[str], rows: list[tuple[str, list[str]]]) -> None:
        made = Table(show_edge=False, pad_edge=False, title=title, title_justify="left")
        made.add_column(corner, overflow="fold")
        for column in columns:
            made.add_column(column, justify="right", overflow="fold")
        for name, cells in rows:
            made.add_row(name, *cells)
        console.print(made)
        console.print()

    rates = [(name, [f"{100 * cell.hter:.2f} %" for cell in row]) for name, row in zip(found.names, found.cells)]
    own = ("EER", [f"{100 * eer:.2f} %" for eer in found.eers])
    table("Half total error rate on", "threshold from", found.names, [*rates, own])
    for title, field in (("Actual DCF on", "act_dcf"), ("Cllr in bits on", "cllr")):
        cells = [[getattr(cell, field) for cell in row] for row in found.cells]
        shown = [["" if value is None else f"{value:.4f}" for value in row] for row in cells]
        table(title, "calibrated on", found.names, list(zip(found.names, shown)))
    for sources in found.sources:
        shown = [[f"{100 * eer:.2f} %" for eer in row] for row in sources.eers]
        title = f"EER in {sources.name}, attacks from"
        table(title, "bona fide from", sources.spoof, list(zip(sources.bonafide, shown)))


def _write(folder: Path, evaluated: Evaluated, sources: list[Path]) -> None:
    """Writes the report, its plots and `figures.json` into the folder."""
    from nes2net_hf import evaluation as ev
    from nes2net_hf.evaluation.plots import draw
    from nes2net_hf.files import atomic_files

    source = ev.provenance(shlex.join(["nes2net", *sys.argv[1:]]), sources)
    text = json.dumps(evaluated.to_json(), indent=1, ensure_ascii=False)
    with atomic_files(folder) as fresh:
        plots = draw(fresh, evaluated.names, evaluated.trials, evaluated.evaluations)
        ev.write_report(fresh, evaluated.evaluations, evaluated.differences, plots, source)
        (fresh / "figures.json").write_text(text + "\n", encoding="utf-8")


def _print(evaluated: Evaluated) -> None:
    from rich.console import Console
    from rich.table import Table

    from nes2net_hf.evaluation.report import groups, headline, percent

    console, evaluations = Console(), evaluated.evaluations
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
    for evaluation, difference in zip(evaluations[1:], evaluated.differences, strict=True):
        console.print(
            f"EER of {evaluation.name} minus that of {evaluations[0].name}: {percent(difference)}, "
            f"p = {difference.p_value:.3f}",
            soft_wrap=True,
        )
