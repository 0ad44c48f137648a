"""What the commands of the command line do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from huggingface_hub.utils import logging as hub_logging
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from transformers.utils import logging as transformers_logging

from .audio import SAMPLING_RATE, AudioError, read_audio
from .detection import DetectionError, Detector, Result, list_recordings
from .loading import ModelError
from .reports import CsvWriter, JsonLinesWriter, OutputError, TableWriter, Writer, clock, finished_files

SAMPLES = Path(__file__).parent / "samples"


class UsageError(ValueError):
    """The command was called wrongly; the message is one sentence with the mend."""


@dataclass
class DetectOptions:
    """What `nes2net detect` was asked for; the names are those of its options."""

    paths: list[str]
    list_file: Path | None
    demo: bool
    model: str | None
    revision: str | None
    threshold: float | None
    channels: str
    hop: float | None
    batch_size: int
    device: str | None
    dtype: str
    form: str | None
    output: Path | None
    resume: bool
    plot: Path | None


def run_detect(options: DetectOptions) -> int:
    """Judges, writes and draws; returns the exit code."""
    _be_quiet()
    judged = failed = 0
    drawn: list[Result] = []
    try:
        form = _check(options)
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
            threshold=options.threshold,
        )
        with ExitStack() as stack:
            if options.resume and options.output is not None and options.output.exists():
                done = finished_files(options.output, form, detector.model_name, detector.threshold, options.channels)
                recordings = [recording for recording in recordings if recording not in done]
            progress = stack.enter_context(_progress(len(recordings)))
            writer = _writer(options, form, progress, stack)
            for result in detector.stream(recordings, progress.judged):
                judged, failed = judged + (result.error is None), failed + (result.error is not None)
                writer.write(result)
                progress.finish(result.file)
                drawn += [result] if options.plot else []  # an hour of windows a file is not kept for nothing
        if options.plot is not None and any(result.error is None for result in drawn):
            from .plotting import plot_scores

            plot_scores(drawn, recordings[0], options.plot, detector.channels)
        if options.output is not None:
            _say(f"{judged} judged, {failed} could not be: {options.output}")
        return 1 if failed else 0
    except (UsageError, ModelError, OutputError) as error:
        _say(f"Error: {error}")
        return 2
    except DetectionError as error:
        _say(f"Error: {error}")
        return 1
    except BrokenPipeError:
        raise  # the reader of our output has left; nothing is wrong
    except OSError as error:
        _say(f"Error: {error.strerror or error} while writing {error.filename or options.output or 'the results'}.")
        return 1
    except KeyboardInterrupt:
        _say(f"Interrupted: {judged} judged, {failed} could not be.")
        return 130


@dataclass
class ConvertOptions:
    """What `nes2net convert` was asked for."""

    source: str
    out: Path | None
    revision: str | None
    encoder_config: Path | None
    activation: str | None
    dilation: int | None
    dry_run: bool
    force: bool
    verify: Path | None
    back: bool
    original: Path | None


def run_convert(options: ConvertOptions) -> int:
    """Converts and says what was found; returns the exit code."""
    from .conversion import ConversionError, convert, to_official

    _be_quiet()
    _as_utf8(sys.stdout)
    try:
        _check_conversion(options)
        if options.back:
            assert options.out is not None
            to_official(options.source, options.out, original=options.original, force=options.force, report=print)
        else:
            convert(
                options.source,
                None if options.dry_run else options.out,
                revision=options.revision,
                encoder_config=options.encoder_config,
                activation=options.activation,
                dilation=options.dilation,
                force=options.force,
                verify=options.verify,
                report=print,
            )
        return 0
    except UsageError as error:
        _say(f"Error: {error}")
        return 2
    except ConversionError as error:
        _say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("Interrupted: nothing was written.")
        return 130


def _check_conversion(options: ConvertOptions) -> None:
    forward = (options.revision, options.encoder_config, options.activation, options.dilation, options.verify)
    if options.back and (options.dry_run or any(value is not None for value in forward)):
        raise UsageError("--to-official goes with --from and --force only.")
    if options.original is not None and not options.back:
        raise UsageError("--from is for --to-official.")
    if options.out is None and not options.dry_run:
        raise UsageError("name OUT, what to write, or ask for a --dry-run.")
    if options.dry_run and options.verify is not None:
        raise UsageError("--verify needs a written folder: leave --dry-run away.")


def run_augment(source: str, out: Path, recipe: Path, seed: int, plot: Path | None) -> int:
    """Augments one recording and writes it; returns the exit code."""
    try:
        from .augmentation import build_chain
        from .training.recipe import RecipeError, load_recipe
    except ImportError as error:
        return _need_train(error)
    try:
        if out.suffix.lower() not in {".wav", ".flac"}:
            raise UsageError(f"OUT {out} must end in .wav or .flac.")
        if plot is not None:
            _need_matplotlib()
        chain = build_chain(load_recipe(recipe).data.augmentation)
        before = read_audio(source)
        after = chain(before, np.random.default_rng(seed))
        soundfile.write(out, np.clip(after, -1.0, 1.0), SAMPLING_RATE)
        if plot is not None:
            from .plotting import plot_spectrograms

            plot_spectrograms(before, after, plot)
        peak = float(np.abs(after).max())
        _say(f"{out}: {after.size / SAMPLING_RATE:.2f} s, from {before.size / SAMPLING_RATE:.2f} s")
        if peak > 1:
            _say(f"note: it peaks at {peak:.2f} and was clipped in the file; training does not clip it")
        return 0
    except (UsageError, RecipeError) as error:
        _say(f"Error: {error}")
        return 2
    except AudioError as error:
        _say(f"Error: {error}")
        return 1
    except (OSError, soundfile.SoundFileError) as error:
        _say(f"Error: {out} cannot be written ({error}).")
        return 1


def run_corpus_check(
    name: str, root: Path, split: str | None, columns: list[str], labels: list[str], full: bool
) -> int:
    """Checks a corpus and says what was found; returns the exit code."""
    try:
        from .corpora.checking import check_corpus, report_check
        from .corpora.errors import CorpusError
    except ImportError as error:
        return _need_train(error)
    _as_utf8(sys.stdout)
    is_whole = True
    try:
        maps = _pairs("--column", columns), _pairs("--label", labels)
        with _counting("files looked at") as count:
            for checked in check_corpus(name, root, split, full, count, *maps):
                is_whole &= checked.is_whole
                for line in report_check(name, checked):
                    print(line, flush=True)
        return 0 if is_whole else 1
    except (CorpusError, UsageError) as error:
        _say(f"Error: {error}")
        return 2
    except KeyboardInterrupt:
        _say("Interrupted.")
        return 130


@dataclass
class ShardOptions:
    """What `nes2net corpus shard` was asked for."""

    name: str
    root: str
    out: Path
    split: str | None
    columns: list[str]
    labels: list[str]
    flac: bool
    allow_missing: bool
    shard_size: int
    push: str | None


def run_corpus_shard(options: ShardOptions) -> int:
    """Writes shards, and pushes them where asked; returns the exit code."""
    try:
        from .corpora.errors import CorpusError
        from .corpora.sharding import push_shards, shard_corpus
    except ImportError as error:
        return _need_train(error)
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        columns, label_map = _pairs("--column", options.columns), _pairs("--label", options.labels)
        with _counting("utterances in shards") as count:
            shards = shard_corpus(
                options.name,
                options.out,
                root=options.root,
                split=options.split,
                flac=options.flac,
                shard_bytes=options.shard_size * 1_000_000,
                progress=count,
                allow_missing=options.allow_missing,
                columns=columns,
                label_map=label_map,
            )
        print(f"{options.out}: {len(shards)} shards, {sum(shard.stat().st_size for shard in shards) / 1e9:.2f} GB")
        if options.push:
            print(f"pushed: {push_shards(options.out, options.push)}")
        return 0
    except UsageError as error:
        _say(f"Error: {error}")
        return 2
    except CorpusError as error:
        _say(f"Error: {error}")
        return 1
    except OSError as error:
        place = error.filename or options.out
        _say(f"Error: {error.strerror or error} while writing {place}; finished shards are kept.")
        return 1
    except KeyboardInterrupt:
        _say("Interrupted: finished shards are kept, and the same command makes the rest.")
        return 130


def _pairs(option: str, values: list[str]) -> dict[str, str] | None:
    """`["audio=wav"]` → `{"audio": "wav"}`; None of none, which leaves all to be known by name."""
    for value in values:
        if not all(value.partition("=")):
            raise UsageError(
                f"{option} {value!r}: it has the form {'OURS=THEIRS' if option == '--column' else 'THEIRS=OURS'}."
            )
    return dict(value.split("=", 1) for value in values) or None


def _need_train(error: ImportError) -> int:
    _say(f"Error: {error.name} is not installed: pip install 'nes2net_hf[train]'.")
    return 2


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int], None]]:
    """A counter on standard error, where that is a terminal."""
    console = Console(stderr=True)
    columns = [TextColumn("{task.completed:,.0f} " + what), TimeElapsedColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done: bar.advance(task, done)


def _check(options: DetectOptions) -> str:
    """The form of the output, or a UsageError."""
    if not (options.paths or options.list_file or options.demo):
        raise UsageError("nothing to judge: give audio files, folders, - for standard input, --list or --demo.")
    if options.output is None:
        if options.resume:
            raise UsageError("--resume needs the --output to take up.")
        return options.form or ("table" if sys.stdout.isatty() else "jsonl")
    if options.form == "table":
        raise UsageError("--format table is for the terminal: write --output as jsonl or csv.")
    if options.output.is_dir() or not options.output.absolute().parent.is_dir():
        raise UsageError(f"--output {options.output} cannot be written: name a file in an existing folder.")
    if options.output.exists() and options.output.stat().st_size and not options.resume:
        raise UsageError(f"--output {options.output} exists: take it up with --resume, or name another file.")
    return options.form or ("csv" if options.output.suffix.lower() == ".csv" else "jsonl")


def _sources(options: DetectOptions) -> list[str]:
    sources = list(options.paths)
    if options.list_file is not None:
        try:
            lines = options.list_file.read_text(encoding="utf-8-sig").splitlines()
        except OSError as error:
            raise UsageError(f"--list {options.list_file} cannot be read: {error.strerror}.") from None
        except UnicodeDecodeError:
            raise UsageError(f"--list {options.list_file} is not a text file in UTF-8.") from None
        named = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not named:
            raise UsageError(f"--list {options.list_file} names no recording.")
        sources += named
    if options.demo:
        sources += [str(SAMPLES / "bonafide.flac"), str(SAMPLES / "spoof.flac")]
    return sources


def _check_plot(options: DetectOptions, recordings: list[Any]) -> None:
    if len(recordings) != 1 or recordings[0] == "-":
        raise UsageError(f"--plot draws exactly one audio file, got {len(recordings)} recordings or standard input.")
    if options.resume:
        raise UsageError("--plot needs the file judged anew: leave --resume away.")
    _need_matplotlib()


def _need_matplotlib() -> None:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib: pip install 'nes2net_hf[plot]'.") from None


def _writer(options: DetectOptions, form: str, progress: _Progress, stack: ExitStack) -> Writer:
    if form == "table":
        return TableWriter(progress.console())
    make = CsvWriter if form == "csv" else JsonLinesWriter
    if options.output is None:
        _as_utf8(sys.stdout)
        return make(sys.stdout)
    try:
        fresh = not options.output.exists() or not options.output.stat().st_size
        file = open(options.output, "a", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115
    except OSError as error:
        raise OutputError(f"--output {options.output} cannot be written: {error.strerror}.") from None
    return make(stack.enter_context(file), fresh)


def _be_quiet() -> None:
    """Libraries' remarks and bars would stand between our lines."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    hub_logging.set_verbosity_error()


def _as_utf8(stream: Any) -> None:
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", newline="")


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


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
