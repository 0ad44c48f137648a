"""`nes2net detect`."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .console import as_utf8, be_quiet, be_quiet_on_the_hub, ending, need, progress_bar, say
from .options import Model, Precision, Revision, Version

_REAL = "For a real model, add --model asv21-df; it downloads 1.3 GB once. Others: nes2net models."
_LONG = 120.0  # seconds of judging, after which a faster precision is worth a look

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from nes2net_hf.detection import Detector, Result
    from nes2net_hf.detection.writers import Writer


def detect(
    paths: Annotated[
        list[str] | None, typer.Argument(help="Audio or video files, folders, or - for standard input.")
    ] = None,
    list_file: Annotated[
        Path | None, typer.Option("--list", metavar="FILE", help="Text file with one recording per line.")
    ] = None,
    demo: Annotated[bool, typer.Option("--demo", help="Judge the two bundled recordings.")] = False,
    model: Model = None,
    revision: Revision = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Lowest score that counts as bona fide.", show_default="the model's own, or 0"),
    ] = None,
    prior: Annotated[
        float | None,
        typer.Option(help="With a calibrated model: prior probability of spoofing.", show_default="0.5"),
    ] = None,
    costs: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="MISS FALSE-ALARM", help="With a calibrated model: set the threshold by the cost of each error."
        ),
    ] = None,
    accepted: Annotated[
        float | None,
        typer.Option(
            "--undecided",
            metavar="SHARE",
            help="With a calibrated model: accepted share of errors, such as 0.05; other scores are undecided.",
        ),
    ] = None,
    channels: Annotated[
        Literal["auto", "mix", "each"],
        typer.Option(help="Judge the mix of the channels, or each one. auto: each, if they have little in common."),
    ] = "auto",
    track: Annotated[
        str | None,
        typer.Option(
            metavar="N|all",
            help="Audio track of a video to judge, counted from 0; or all.",
            show_default="the video's default track",
        ),
    ] = None,
    rttm: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Turns of the speakers (RTTM): judge each speaker by what they say alone."),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(help="Seconds from one window to the next.", show_default="the window length: no overlap"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows per batch.")] = 8,
    device: Annotated[
        str | None, typer.Option(help="cuda, cuda:1, mps or cpu.", show_default="the fastest available")
    ] = None,
    dtype: Annotated[
        Precision, typer.Option(help="Precision of the model. auto: the fastest on this machine.")
    ] = "float32",
    output_format: Annotated[
        Literal["table", "jsonl", "csv"] | None,
        typer.Option("--format", help="Format of the results.", show_default="table on a terminal, else jsonl"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", metavar="FILE", help="Write the results to this file; .jsonl or .csv sets the format."
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip files that are in --output; retry those with errors.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw score and waveform of a single file.")
    ] = None,
    stretches: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.rttm|.txt", help="Write suspicious stretches as RTTM, or as Audacity labels of one file."
        ),
    ] = None,
    backend: Annotated[
        Literal["torch", "onnx"],
        typer.Option(help="What runs the model; onnx needs a folder that nes2net export wrote."),
    ] = "torch",
    version: Version = False,
) -> int:
    """
    Judge whether the speech in recordings is bona fide or spoofed. A higher score means bona fide.

    Exit codes:
      0    every recording was judged
      1    a recording could not be judged, or the disk or memory is full
      2    an option, the model or the output is wrong
      130  interrupted
    """
    drawn: list[Result] = []
    counts: Callable[[], str] | None = None
    with ExitStack() as stack, ending(lambda: f"Interrupted: {counts()}." if counts else "Interrupted.") as end:
        from nes2net_hf.detection import ALL_TRACKS, Detector, list_recordings
        from nes2net_hf.detection.stretches import StretchWriter
        from nes2net_hf.detection.writers import Summary, finished_files
        from nes2net_hf.errors import UsageError
        from nes2net_hf.files import check_suffix, claim, explained

        be_quiet() if backend == "torch" else be_quiet_on_the_hub()
        if not (paths or list_file or demo):
            raise UsageError("nothing to judge: name files or folders, or pass - (standard input), --list or --demo.")
        if plot is not None:
            check_suffix(plot, ".png")
        form = _form(output_format, output, resume)
        if stretches is not None:
            check_suffix(stretches, ".rttm", ".txt")
        for out in filter(None, (output, plot, stretches)):
            stack.enter_context(claim(out))
        recordings = list(list_recordings(_sources(paths or [], list_file, demo)))
        if plot is not None:
            _check_plot(recordings, track, resume, rttm)
        if stretches is not None:
            _check_stretches(stretches, recordings, resume)
        detector = Detector(
            model,
            revision=revision,
            device=device,
            dtype=dtype,
            batch_size=batch_size,
            hop=hop,
            channels=channels,
            track=track,
            threshold=threshold,
            prior=prior,
            costs=costs,
            undecided=accepted,
            rttm=rttm,
            backend=backend,
        )
        with explained(output or "standard output"), ExitStack() as written:
            if resume and output is not None and output.exists():
                several = channels != "mix" or detector.track == ALL_TRACKS or rttm is not None
                done = finished_files(output, form, detector, several)
                recordings = [recording for recording in recordings if recording not in done]
            progress = written.enter_context(_progress(len(recordings)))
            writer = _writer(output, form, progress, written, detector)
            marks = None if stretches is None else written.enter_context(StretchWriter(stretches))
            summary, start = Summary(), time.monotonic()
            counts = summary.counts
            for result in detector.stream(recordings, progress.judged):
                summary.add(result)
                writer.write(result)
                if marks is not None:
                    marks.write(result)
                progress.finish(result.file)
                drawn += [result] if plot else []  # otherwise the windows of every file would stay in memory
            took = time.monotonic() - start
        if plot is not None and any(result.error is None for result in drawn):
            from nes2net_hf.detection.plot import plot_scores

            plot_scores(drawn, recordings[0], plot, detector.is_demonstration)
        if form == "table":
            print(textwrap.fill(summary.sentence(), max(40, shutil.get_terminal_size().columns)))
        elif output is not None:
            say(f"{summary.sentence()} Results: {output}")
        if took > _LONG and detector.precision == "float32" and detector.device.type == "cpu":
            from nes2net_hf.detection.advice import faster_choice

            advice = faster_choice(detector)
            if advice is not None:
                say(advice)
        if model is None:
            say(_REAL)
        end.code = 1 if summary.failed else 0
    return end.code


def _form(asked: str | None, output: Path | None, resume: bool) -> str:
    """
    Returns the format of the results.

    Raises:
        UsageError: --output, --format and --resume contradict each other, or --output exists.
    """
    from nes2net_hf.errors import UsageError
    from nes2net_hf.files import check_suffix

    if output is None:
        if resume:
            raise UsageError("--resume needs --output: name the file to continue.")
        return asked or ("table" if sys.stdout.isatty() else "jsonl")
    if asked == "table":
        raise UsageError("--format table is for the terminal: choose jsonl or csv for --output.")
    if output.exists() and output.stat().st_size and not resume:
        raise UsageError(f"--output {output} exists: add --resume to continue it, or name another file.")
    if asked is not None:
        return asked
    check_suffix(output, ".jsonl", ".ndjson", ".csv", instead=", or choose the format with --format")
    return "csv" if output.suffix.lower() == ".csv" else "jsonl"


def _sources(paths: list[str], list_file: Path | None, demo: bool) -> list[str]:
    from nes2net_hf import samples
    from nes2net_hf.errors import UsageError

    sources = list(paths)
    if list_file is not None:
        try:
            content = list_file.read_bytes()
        except OSError as error:
            raise UsageError(f"--list {list_file} cannot be read: {error.strerror}.") from None
        if b"\0" in content:
            raise UsageError(f"--list {list_file} is not a text file: save it as UTF-8 text.")
        # A file name may contain any byte and any character but a line end.
        lines = content.decode("utf-8-sig", "surrogateescape").split("\n")
        named = [line.strip() for line in lines if line.strip()]
        if not named:
            raise UsageError(f"--list {list_file} is empty: write one recording per line.")
        sources += named
    if demo:
        sources += [str(samples.BONAFIDE), str(samples.SPOOF)]
    return sources


def _check_plot(recordings: list[Any], track: str | None, resume: bool, rttm: Path | None) -> None:
    from nes2net_hf.detection import ALL_TRACKS
    from nes2net_hf.errors import UsageError

    if len(recordings) != 1 or recordings[0] == "-":
        raise UsageError(f"--plot draws exactly one file, got {len(recordings)} recordings or standard input.")
    if track == ALL_TRACKS:
        raise UsageError("--plot draws one audio track: choose it with --track N.")
    if rttm is not None:
        raise UsageError("--plot draws whole recordings, not speakers: omit --rttm.")
    if resume:
        raise UsageError("--plot judges the file again: omit --resume.")
    need("matplotlib", "plot", "--plot")


def _check_stretches(path: Path, recordings: list[Any], resume: bool) -> None:
    from nes2net_hf.errors import UsageError

    if resume:
        raise UsageError("--stretches is written from the beginning: omit --resume.")
    if path.suffix.lower() == ".txt" and len(recordings) != 1:
        raise UsageError(
            f"--stretches {path}: Audacity labels are those of one file, got {len(recordings)} recordings: end the "
            "name in .rttm."
        )


def _writer(output: Path | None, form: str, progress: _Progress, stack: ExitStack, detector: Detector) -> Writer:
    from nes2net_hf.detection.writers import CsvWriter, JsonLinesWriter, RowFile, TableWriter

    if form == "table":
        return TableWriter(progress.console(), detector.calibration is not None)
    if output is None:
        as_utf8(sys.stdout, "surrogateescape" if form == "csv" else "backslashreplace")
        return CsvWriter(sys.stdout, mark=False) if form == "csv" else JsonLinesWriter(sys.stdout)
    fresh = not output.exists() or not output.stat().st_size
    file = stack.enter_context(RowFile(output))
    return CsvWriter(file, fresh, mark=output.is_file()) if form == "csv" else JsonLinesWriter(file, fresh)


class _Progress:
    """The bar on standard error: files done, and how much audio was judged."""

    def __init__(self, bar: Progress, files: int) -> None:
        self._bar, self._seconds, self._seen = bar, 0.0, set[str]()
        # The length of a single file is not known in advance: the bar only shows that work continues.
        self._task = bar.add_task("judging", total=files if files > 1 else None, audio="0:00.0")

    def judged(self, seconds: float) -> None:
        from nes2net_hf.detection import clock

        self._seconds += seconds
        self._bar.update(self._task, audio=clock(self._seconds))

    def finish(self, file: str) -> None:
        if file not in self._seen:  # a file may have several results, one per channel
            self._seen.add(file)
            self._bar.advance(self._task)

    def console(self) -> Console:
        """Returns the console for a table: above the bar, if both are on the terminal."""
        from rich.console import Console

        return self._bar.console if sys.stdout.isatty() and sys.stderr.isatty() else Console()


@contextmanager
def _progress(files: int) -> Iterator[_Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files, {task.fields[audio]} of audio in"),
        TimeElapsedColumn(),
    ]
    with progress_bar(*columns, redirect_stdout=False) as bar:
        yield _Progress(bar, files)
