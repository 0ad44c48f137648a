"""`nes2net audit`."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .console import as_utf8, be_quiet, ending, progress_bar
from .options import MODEL, Corpus, OnlySplit, Root, Where, wanted

if TYPE_CHECKING:
    from nes2net_hf.audit.corpus import AuditedCorpus
    from nes2net_hf.audit.model import Moved


def audit(
    corpus: Corpus,
    root: Root,
    model: Annotated[
        str | None, typer.Option(help=f"{MODEL} Also judges the corpus without speech, and with cues equalised.")
    ] = None,
    split: OnlySplit = None,
    where: Where = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for scores and results.", show_default="audit-CORPUS")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=20, help="Maximum number of recordings, balanced over classes and speakers.")
    ] = None,
) -> int:
    """
    Find out whether a detector must listen to speech: how far duration, silence, level, bandwidth, codec and other
    cues tell the classes of a corpus apart, and whether it holds recordings twice. With --model, also what the model
    does without speech.

    After a stop, the same command continues with a model's scores.

    Exit codes:
      0    the audit was made, whatever it found
      1    some files could not be read, or the disk is full
      2    an option, the model, the corpus or the folder is wrong
      130  interrupted
    """
    interrupted = "Interrupted: a model's scores so far are kept; run the same command to continue."
    with ExitStack() as stack, ending(interrupted, extra="audit") as end:
        from datasets.utils.logging import disable_progress_bar

        from nes2net_hf.audit.corpus import audit_corpus
        from nes2net_hf.audit.model import AuditRun, audit_model
        from nes2net_hf.files import claim

        be_quiet()
        as_utf8(sys.stdout)
        disable_progress_bar()
        folder = out or Path(f"audit-{corpus}")
        stack.enter_context(claim(folder, "workplace"))
        rows = wanted(where)
        run = None
        if model is not None:
            run = AuditRun(model, folder, corpus=corpus, root=root, split=split, where=rows, limit=limit)
        with progress_bar() as bar:
            task = bar.add_task("reading", total=None)
            found = audit_corpus(corpus, root, lambda done: bar.advance(task, done), limit, split=split, where=rows)
            moved: list[Moved] = []
            if run is not None:
                bar.update(task, description="judging", total=len(run.conditions) * len(run.trials), completed=0)
                measured = [
                    run.measure(condition, lambda done: bar.advance(task, done)) for condition in run.conditions
                ]
                moved = audit_model(run, measured)
        chosen = [split, *(f"{column} {' or '.join(values)}" for column, values in rows.items())]
        what = {
            "title": ", ".join([f"{model} on {corpus}" if model else corpus, *filter(None, chosen)]),
            "command": shlex.join(["nes2net", *sys.argv[1:]]),
            "model": model,
            "weights": run.what["weights"] if run is not None else None,
            "corpus": corpus,
            "split": split,
            "where": rows,
        }
        _write(folder, found, moved, what)
        _print(found, moved)
        print(f"{folder}: audit.json, audit.md, audit.png")
        end.code = 1 if found.unreadable else 0
    return end.code


def _write(folder: Path, found: AuditedCorpus, moved: list[Moved], what: dict[str, object]) -> None:
    from nes2net_hf.audit.report import plot_audit, to_json, to_markdown
    from nes2net_hf.files import atomic_files

    with atomic_files(folder) as fresh:
        text = json.dumps(to_json(found, moved, what), indent=1, ensure_ascii=False)
        (fresh / "audit.json").write_text(text + "\n", encoding="utf-8")
        (fresh / "audit.md").write_text(to_markdown(found, moved, what), encoding="utf-8")
        plot_audit(found, moved, fresh / "audit.png")


def _print(found: AuditedCorpus, moved: list[Moved]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from nes2net_hf.audit.report import conclusions, cue_cells, duplicate_lines, model_cells

    console = Console()

    def table(headings: list[str], rows: list[tuple[str, ...]], texts: int) -> None:
        made = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
        for place, heading in enumerate(headings):
            made.add_column(heading, justify="left" if place < texts else "right", overflow="fold")
        for row in rows:
            made.add_row(*row)
        console.print(made)

    table(["cue", "EER %", "95 % interval", "folds by", ""], [cue_cells(leak) for leak in found.leaks], 1)
    for line in duplicate_lines(found):
        console.print(line, soft_wrap=True)
    if moved:
        console.print()
        headings = ["", "condition", "EER %", "95 % interval", "shift", "corr.", "left out"]
        table(headings, [model_cells(one) for one in moved], 2)
    console.print()
    for sentence in conclusions(found, moved):
        console.print(sentence, soft_wrap=True)
    for utterance, reason in list(found.unreadable.items())[:3]:
        console.print(f"left out: {utterance}: {reason}", soft_wrap=True)
