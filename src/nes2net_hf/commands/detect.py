"""`nes2net detect`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..detection import ALL_TRACKS, Detector, Result, list_recordings
from ..detection.writers import CsvWriter, JsonLinesWriter, RowFile, TableWriter, Writer, clock, finished_files
from ..files import check_suffix, claim, explained
from .common import UsageError, as_utf8, be_quiet, ending, need_matplotlib, say

SAMPLES = Path(__file__).parents[1] / "samples"


@dataclass
class DetectOptions:
    """What `nes2net detect` was asked for; the names are those of its options."""

    paths: list[str]
    list_file: Path | None
    demo: bool
    model: str | None
    revision: str | None
    threshold: float | None
    prior: float | None
    costs: tuple[float, float] | None
    channels: str
    track: str | None
    hop: float | None
    batch_size: int
    device: str | None
    dtype: str
    form: str | None
    output: Path | None
    resume: bool
    plot: Path | None
    backend: str


def run_detect(options: DetectOptions) -> int:
    """Judges, writes and draws; returns the exit code."""
    be_quiet()
    judged = undecided = failed = 0
    drawn: list[Result] = []

    def counts() -> str:
        return f"{judged} judged{f' ({undecided} undecided)' if undecided else ''}, {failed} failed"

    with (
        ExitStack() as stack,
        ending(lambda: f"Interrupted: {counts()}.") as end,
    ):
        form = _check(options)
        for out in filter(None, (options.output, options.plot)):
            stack.enter_context(claim(out))
        recordings = list(list_recordings(_sources(options)))
        if options.plot is not None:
            _check_plot(options, recordings)
        detector = Detector(
            options.model,
            revision=options.revision,
            device=options.device,
            dtype=options.dtype,
            batch_size=options.batch_size,
            hop=options.hop,
            channels=options.channels,
            track=options.track,
            threshold=options.threshold,
            prior=options.prior,
            costs=options.costs,
            backend=options.backend,
        )
        with explained(options.output or "standard output"), ExitStack() as written:
            if options.resume and options.output is not None and options.output.exists():
                several = options.channels != "mix" or detector.track == ALL_TRACKS
                done = finished_files(options.output, form, detector.model_name, detector.threshold, several)
                recordings = [recording for recording in recordings if recording not in done]
            progress = written.enter_context(_progress(len(recordings)))
            writer = _writer(options, form, progress, written)
            for result in detector.stream(recordings, progress.judged):
                judged, failed = judged + (result.error is None), failed + (result.error is not None)
                undecided += result.undecided is not None
                writer.write(result)
                progress.finish(result.file)
                drawn += [result] if options.plot else []  # an hour of windows a file is not kept for nothing
        if options.plot is not None and any(result.error is None for result in drawn):
            from ..detection.plot import plot_scores

            plot_scores(drawn, recordings[0], options.plot, detector.is_demonstration)
        if options.output is not None:
            say(f"{counts()}. Results: {options.output}")
        end.code = 1 if failed else 0
    return end.code


def _check(options: DetectOptions) -> str:
    """The form of the output, or a UsageError."""
    if not (options.paths or options.list_file or options.demo):
        raise UsageError("nothing to judge: give audio files, folders, - for standard input, --list or --demo.")
    if options.plot is not None:
        check_suffix(options.plot, ".png")
    if options.output is None:
        if options.resume:
            raise UsageError("--resume needs the --output to continue.")
        return options.form or ("table" if sys.stdout.isatty() else "jsonl")
    if options.form == "table":
        raise UsageError("--format table is for the terminal: write --output as jsonl or csv.")
    if options.output.exists() and options.output.stat().st_size and not options.resume:
        raise UsageError(f"--output {options.output} exists: continue it with --resume, or name another file.")
    if options.form is not None:
        return options.form
    check_suffix(options.output, ".jsonl", ".ndjson", ".csv", instead=", or choose the form by --format")
    return "csv" if options.output.suffix.lower() == ".csv" else "jsonl"


def _sources(options: DetectOptions) -> list[str]:
    sources = list(options.paths)
    if options.list_file is not None:
        try:
            content = options.list_file.read_bytes()
        except OSError as error:
            raise UsageError(f"--list {options.list_file} cannot be read: {error.strerror}.") from None
        if b"\0" in content:
            raise UsageError(f"--list {options.list_file} is not a text file in UTF-8.")
        # Names of any bytes, and with any character but the end of a line.
        lines = content.decode("utf-8-sig", "surrogateescape").split("\n")
        named = [line.strip() for line in lines if line.strip()]
        if not named:
            raise UsageError(f"--list {options.list_file} names no recording.")
        sources += named
    if options.demo:
        sources += [str(SAMPLES / "bonafide.flac"), str(SAMPLES / "spoof.flac")]
    return sources


def _check_plot(options: DetectOptions, recordings: list[Any]) -> None:
    if len(recordings) != 1 or recordings[0] == "-":
        raise UsageError(f"--plot draws exactly one audio file, got {len(recordings)} recordings or standard input.")
    if options.track == ALL_TRACKS:
        raise UsageError("--plot draws one audio track: choose it with --track N.")
    if options.resume:
        raise UsageError("--plot needs the file judged anew: leave --resume away.")
    need_matplotlib()


def _writer(options: DetectOptions, form: str, progress: _Progress, stack: ExitStack) -> Writer:
    if form == "table":
        return TableWriter(progress.console())
    if options.output is None:
        as_utf8(sys.stdout, "surrogateescape" if form == "csv" else "backslashreplace")
        return CsvWriter(sys.stdout, mark=False) if form == "csv" else JsonLinesWriter(sys.stdout)
    fresh = not options.output.exists() or not options.output.stat().st_size
    file = stack.enter_context(RowFile(options.output))
    return CsvWriter(file, fresh, mark=options.output.is_file()) if form == "csv" else JsonLinesWriter(file, fresh)


class _Progress:
    """The bar on standard error: files done, and how much audio went through the model."""

    def __init__(self, bar: Progress, files: int) -> None:
        self._bar, self._seconds, self._seen = bar, 0.0, set[str]()
        # One file may be an hour long: nobody knows how far it is, so the bar only shows that work goes on.
        self._task = bar.add_task("judging", total=files if files > 1 else None, audio="0:00.0")

    def judged(self, seconds: float) -> None:
        self._seconds += seconds
        self._bar.update(self._task, audio=clock(self._seconds))

    def finish(self, file: str) -> None:
        if file not in self._seen:  # a file may give a result per channel
            self._seen.add(file)
            self._bar.advance(self._task)

    def console(self) -> Console:
        """Where a table is printed: above the bar where both share the terminal."""
        return self._bar.console if sys.stdout.isatty() and sys.stderr.isatty() else Console()


@contextmanager
def _progress(files: int) -> Iterator[_Progress]:
    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files, {task.fields[audio]} of audio in"),
    ]
    console = Console(stderr=True)
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stdout=False,
        disable=not console.is_terminal,
    ) as bar:
        yield _Progress(bar, files)
