"""Build and check the demonstration model's corpus; see training/demo/README.md."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

try:
    from corpus.baseline import check as check_corpus
    from corpus.build import build as build_corpus
    from corpus.errors import CorpusError
    from corpus.export import export as export_audio
except ImportError as error:
    sys.exit(f"build_corpus: {error.name} is not installed: pip install 'nes2net_hf[corpus]'.")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
Out = Annotated[Path, typer.Option("--out", help="Folder of the corpus.")]


@app.callback(invoke_without_command=True)
def build(
    context: typer.Context,
    out: Out = Path("demo-corpus"),
    workers: Annotated[int, typer.Option(min=1, help="Number of processes.")] = 2,
    seed: Annotated[int, typer.Option(help="The same seed gives the same corpus.")] = 12345,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Omit attacks whose packages cannot be downloaded.")
    ] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Make about so many utterances, for a quick look.")] = None,
) -> None:
    """Build the corpus, or continue a build that was stopped."""
    if context.invoked_subcommand is not None:
        return
    start = time.monotonic()
    entries = build_corpus(out, seed, workers, limit, allow_missing, lambda line: print(line, flush=True))
    hours = sum(float(entry.duration) for entry in entries) / 3600
    print(f"{len(entries)} utterances, {hours:.2f} h, built in {(time.monotonic() - start) / 60:.1f} min: {out}")


@app.command()
def check(out: Out = Path("demo-corpus")) -> None:
    """Train the trivial baseline; exit with status 1 if it separates spoof from bona fide (EER below 35 %)."""
    if not check_corpus(out, print):
        sys.exit(1)


@app.command()
def export(
    bonafide: Annotated[str, typer.Option(help="Utterance id of the bona fide sample.")],
    spoof: Annotated[str, typer.Option(help="Utterance id of the spoofed sample.")],
    out: Out = Path("demo-corpus"),
    repository: Annotated[Path, typer.Option(help="Folder to write samples and fixtures to.")] = Path("."),
) -> None:
    """Copy two samples of the test partition and the tests' fixtures into the repository, with attribution."""
    export_audio(out, repository, bonafide, spoof)


if __name__ == "__main__":
    try:
        app()
    except CorpusError as error:
        sys.exit(f"build_corpus: {error}")
