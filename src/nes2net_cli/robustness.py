"""`nes2net robustness`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import as_utf8, be_quiet, ending, progress_bar, say
from .options import Corpus, ModelArgument, OnlySplit, Root, Where, wanted

if TYPE_CHECKING:
    from nes2net_hf.robustness import Measured, RobustnessRun


def robustness(
    model: ModelArgument,
    corpus: Corpus,
    root: Root,
    split: OnlySplit = None,
    where: Where = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder for scores and results.", show_default="robustness-MODEL-CORPUS"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Maximum number of utterances, balanced over classes and speakers.")
    ] = None,
) -> int:
    """
    Measure a model's EER on a corpus: as it is, and with codecs, noise, rooms and cuts.

    To continue after a stop, run the same command again.

    Exit codes:
      0    the EER was measured
      1    some files could not be read, or the disk is full
      2    an option, the model, the corpus or the folder is wrong
      130  interrupted
    """
    interrupted = "Interrupted: the scores so far are kept; run the same command to continue."
    with ExitStack() as stack, ending(interrupted, extra="train") as end:
        from datasets.utils.logging import disable_progress_bar

        from nes2net_hf.files import claim
        from nes2net_hf.robustness import RobustnessRun
        from nes2net_hf.robustness.report import short_name

        be_quiet()
        as_utf8(sys.stdout)
        disable_progress_bar()
        folder = out or Path(f"robustness-{short_name(model).replace('/', '-')}-{corpus}")
        stack.enter_context(claim(folder, "workplace"))
        run = RobustnessRun(model, folder, corpus=corpus, root=root, split=split, where=wanted(where), limit=limit)
        with _progress(len(run.conditions) * len(run.trials)) as (show, advance):
            rows = []
            for condition in run.conditions:
                show(f"{condition.group}, {condition.name}")
                rows.append(run.measure(condition, advance))
        end.code = 1 if run.unreadable else 0
        has_plot = _write(run, rows)
        _print(run, rows)
        written = ["robustness.json", "robustness.md", *(["robustness.png"] if has_plot else [])]
        print(f"{run.out}: {', '.join(written)}")
        if not has_plot:
            say(
                "note: the plot was not drawn, because matplotlib is not installed: pip install 'nes2net_hf[plot]', "
                "then run the same command again; nothing is scored twice."
            )
    return end.code


@contextmanager
def _progress(utterances: int) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """Shows the condition and counts utterances: a bar on a terminal, else one line per condition."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with progress_bar(*columns) as bar:
        task = bar.add_task("scoring", total=utterances)

        def show(condition: str) -> None:
            bar.update(task, description=condition)
            if not bar.console.is_terminal:
                say(condition)

        yield show, lambda count: bar.advance(task, count)


def _write(run: RobustnessRun, rows: list[Measured]) -> bool:
    """Writes the results into the run's folder. Returns whether there is a plot."""
    from nes2net_hf.files import atomic_files
    from nes2net_hf.robustness.report import title, to_json, to_markdown

    command = shlex.join(["nes2net", *sys.argv[1:]])
    has_plot = True
    figures = json.dumps(to_json(run, rows, command), indent=1, ensure_ascii=False)
    with atomic_files(run.out) as folder:
        try:
            from nes2net_hf.robustness.plot import plot_robustness

            plot_robustness(rows, folder / "robustness.png", title(run))
        except ImportError:
            has_plot = False
        (folder / "robustness.json").write_text(figures + "\n", encoding="utf-8")
        (folder / "robustness.md").write_text(to_markdown(run, rows, command, has_plot), encoding="utf-8")
    return has_plot


def _print(run: RobustnessRun, rows: list[Measured]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from nes2net_hf.robustness.report import cells, notes_on, unit

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for heading in ("", "condition"):
        table.add_column(heading, no_wrap=True)
    for heading in ("EER %", "95 % interval", "bona fide", "spoof", "left out"):
        table.add_column(heading, justify="right", no_wrap=True)
    group = ""
    for row in rows:
        if row.group != group:
            table.add_section()
        table.add_row(row.group if row.group != group else "", *cells(row)[1:])
        group = row.group
    Console().print(table)
    trials, seconds = run.trials, sum(row.seconds for row in rows) / len(rows)
    print(
        f"{trials.count('bonafide')} bona fide and {trials.count('spoof')} spoofed utterances, intervals by "
        f"{unit(rows)}; {seconds:.3f} s per utterance and condition on {run.device.type}."
    )
    for note in notes_on(run, rows):
        print(f"Left out: {note}")
