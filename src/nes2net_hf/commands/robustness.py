"""`nes2net robustness`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ..errors import offering
from ..files import atomic_files, claim
from .common import as_utf8, be_quiet, ending, say, wanted

if TYPE_CHECKING:
    from ..robustness import Measured, RobustnessRun


@dataclass
class RobustnessOptions:
    """What `nes2net robustness` was asked for."""

    model: str
    corpus: str
    root: str
    split: str | None
    where: list[str]
    out: Path | None
    limit: int | None


@offering("split", "where")
def run_robustness(options: RobustnessOptions) -> int:
    """Measures, prints and writes; returns the exit code."""
    be_quiet()
    as_utf8(sys.stdout)
    interrupted = "Interrupted: what is scored is kept, and the same command goes on."
    with ExitStack() as stack, ending(interrupted, extra="train") as end:
        from datasets.utils.logging import disable_progress_bar

        from ..robustness import RobustnessRun
        from ..robustness.report import short_name

        disable_progress_bar()
        out = options.out or Path(f"robustness-{short_name(options.model).replace('/', '-')}-{options.corpus}")
        stack.enter_context(claim(out, "workplace"))
        run = RobustnessRun(
            options.model,
            out,
            corpus=options.corpus,
            root=options.root,
            split=options.split,
            where=wanted(options.where),
            limit=options.limit,
        )
        with _progress(len(run.conditions) * len(run.trials)) as (show, advance):
            rows = []
            for condition in run.conditions:
                show(f"{condition.group}, {condition.name}")
                rows.append(run.measure(condition, advance))
        end.code = 1 if run.unreadable else 0
        _report(run, rows)
    return end.code


@contextmanager
def _progress(utterances: int) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """Tells the condition and counts utterances on standard error: a bar on a terminal, else a line a condition."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("scoring", total=utterances)

        def show(condition: str) -> None:
            bar.update(task, description=condition)
            if not console.is_terminal:
                say(condition)

        yield show, lambda count: bar.advance(task, count)


def _report(run: RobustnessRun, rows: list[Measured]) -> None:
    from ..robustness.report import cells, notes_on, title, to_json, to_markdown, unit

    command = shlex.join(["nes2net", *sys.argv[1:]])
    has_plot = True
    figures = json.dumps(to_json(run, rows, command), indent=1, ensure_ascii=False)
    with atomic_files(run.out) as folder:
        try:
            from ..robustness.plot import plot_robustness

            plot_robustness(rows, folder / "robustness.png", title(run))
        except ImportError:
            has_plot = False
        (folder / "robustness.json").write_text(figures + "\n", encoding="utf-8")
        (folder / "robustness.md").write_text(to_markdown(run, rows, command, has_plot), encoding="utf-8")

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
    written = ["robustness.json", "robustness.md", *(["robustness.png"] if has_plot else [])]
    print(f"{run.out}: {', '.join(written)}")
    if not has_plot:
        say(
            "note: the plot was not drawn, for matplotlib is not installed: pip install 'nes2net_hf[plot]' and run "
            "the same command again; nothing is scored twice."
        )
