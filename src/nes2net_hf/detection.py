"""
Detection: recordings in, verdicts out. What `nes2net detect` and `nes2net_hf.detect` run.

Windows over the whole of each recording, as long as in training and side by side, are judged in batches that run
across files while a background thread decodes; a recording's score is the mean over its windows that hold sound.
Score: higher = bona fide. Letters in shapes: B batch, C channels, S samples.
"""

from __future__ import annotations

import logging
import math
import os
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .audio import CHANNELS, SAMPLING_RATE, AudioError, AudioStream, find_audio, holds_sound, iter_windows, open_audio
from .calibration import Calibration, spoof_probability
from .errors import DetectionError
from .loading import BACKENDS, DEMO_MODEL, ModelError, choose_device, judges_frames, load_model, load_onnx_model
from .metrics.dcf import DetectionCosts

logger = logging.getLogger(__name__)

SCHEMA_VERSION = 1
ALL_TRACKS = "all"
DEMO_NOTICE = "demonstration model, not fit for decisions; convert or choose a real one with --model"


@dataclass
class WindowScore:
    start: float
    """Seconds."""
    end: float
    """Seconds; before the window's own end where the recording is shorter than a window."""
    score: float | None
    """None where the window holds no sound (never rises above -60 dBFS): it is not judged."""


@dataclass
class Stretch:
    """Speech that a model of frames calls spoofed, from one frame below the threshold to the last that follows it."""

    start: float
    """Seconds."""
    end: float
    score: float
    """Mean over its frames."""


@dataclass
class Result:
    """The verdict on one recording, or on one channel of it; `error` says why there is none."""

    file: str
    channel: int | None = None
    """Counted from 0 with `channels="each"`; None for mixed and mono recordings, and for one that cannot be read."""
    track: int | None = None
    """Counted from 0, of a file with several audio tracks; else None."""
    duration: float | None = None
    score: float | None = None
    """Mean over the windows that hold sound, of a model of frames the lowest of them; higher = bona fide."""
    label: str | None = None
    """`bonafide` from the threshold on, `spoof` below."""
    llr: float | None = None
    """Natural log-likelihood ratio of bona fide over spoof, of a calibrated model."""
    spoof_probability: float | None = None
    """From the ratio and the `prior`; of a calibrated model."""
    prior: float | None = None
    """Probability of spoof before listening."""
    threshold: float | None = 0.0
    """None where the score is the bona fide logit and no threshold is known: the label is that of the log-odds."""
    min_window_score: float | None = None
    min_window_start: float | None = None
    windows: list[WindowScore] = field(default_factory=list)
    spoofed: list[Stretch] | None = None
    """None of a model that judges utterances and not frames."""
    warnings: list[str] = field(default_factory=list)
    model: str = ""
    schema_version: int = SCHEMA_VERSION
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The fields in the order above, floats rounded to six decimals (times to the sample)."""
        return _rounded(asdict(self))


def detect(sources: Any, **options: Any) -> list[Result]:
    """
    Judges one recording or a list of them.

    Args:
        sources: what [`Detector.stream`] takes.
        options: what [`Detector`] takes.

    Returns:
        One result per recording, or per channel of it with `channels="each"` and per audio track of it with
        `track="all"`, in the order of the sources.

    Raises:
        ModelError: the model cannot be loaded, or an option is impossible.
        DetectionError: the model ran out of memory.
    """
    return list(Detector(**options).stream(sources))


class Detector:
    """
    A model made ready to judge recordings; it is loaded once.

    Args:
        model: Hub id or folder of a Nes2Net model; the bundled demonstration model if None.
        revision: branch, tag or commit on the Hub.
        device: `"cuda"`, `"cuda:1"`, `"mps"`, `"cpu"` ...; the first of cuda, mps, cpu that is there if None.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`, the precision the model computes in.
        batch_size: windows judged together.
        hop: seconds from one window to the next; a window's own length if None, so that they stand side by side.
        channels: `"mix"` judges the mean of the channels, `"each"` every channel for itself.
        track: of files with several audio tracks, the one to judge, counted from 0; None judges the one that the file
            marks as its default, else the first, and warns that there are others; `"all"` judges every track.
        max_duration: seconds; a longer recording is an error, whatever its header declares.
        threshold: score from which a recording is called bona fide; the model's own if None, else
            0 of the log-odds.
        prior: of a calibrated model, the probability of spoof before listening; 0.5 if None.
        costs: of a calibrated model, of rejecting bona fide and of accepting spoofed speech; with them or a prior
            the threshold is where both decisions cost the same.
        backend: `"torch"`, or `"onnx"` for a folder that `nes2net export` wrote, which onnxruntime runs on the CPU.

    Raises:
        ModelError: the model cannot be loaded, or an option is impossible.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
        batch_size: int = 8,
        hop: float | None = None,
        channels: str = "mix",
        track: int | str | None = None,
        max_duration: float | None = None,
        threshold: float | None = None,
        prior: float | None = None,
        costs: tuple[float, float] | None = None,
        backend: str = "torch",
    ) -> None:
        if batch_size < 1:
            raise ModelError(f"batch size must be at least 1, got {batch_size}.")
        if channels not in CHANNELS:
            raise ModelError(f"channels must be one of {', '.join(CHANNELS)}, got {channels!r}.")
        if isinstance(track, str) and track.isdecimal():
            track = int(track)
        if not (track is None or track == ALL_TRACKS or (isinstance(track, int) and track >= 0)):
            raise ModelError(f"track must be a number from 0 on, or {ALL_TRACKS}, got {track!r}.")
        if threshold is not None and not math.isfinite(threshold):
            raise ModelError(f"threshold must be a finite number, got {threshold}.")
        if backend not in BACKENDS:
            raise ModelError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
        self.device = choose_device("cpu" if device is None and backend == "onnx" else device)
        load: Callable[..., tuple[Any, Any]] = load_onnx_model if backend == "onnx" else load_model
        self.model, self.extractor = load(DEMO_MODEL if model is None else model, revision, self.device, dtype)
        if model is None:
            logger.warning(DEMO_NOTICE)
        if dtype == "float16" and self.device.type == "cpu":
            logger.warning("float16 is many times slower than float32 on a CPU: choose bfloat16 or float32 there")
        self.model_name = DEMO_MODEL.name if model is None else os.fspath(model) + (f"@{revision}" if revision else "")
        self.batch_size = batch_size
        self.channels, self.track, self.max_duration = channels, track, max_duration
        self.calibration: Calibration | None = None
        if self.model.config.calibration is not None:
            self.calibration = Calibration(**self.model.config.calibration)
        self.prior = 0.5 if prior is None else prior
        if prior is not None or costs is not None:
            threshold = self._least_cost(threshold, costs or (1.0, 1.0))
        self.threshold = self.model.config.threshold if threshold is None else threshold
        if self.threshold is None and self.model.config.score == "log_odds":
            self.threshold = 0.0
        self.frame: float | None = None  # seconds, where the model judges frames
        if judges_frames(self.model.config):
            self.frame = math.prod(self.model.config.encoder_config.conv_stride) / SAMPLING_RATE
        self.window_length = self.extractor.window_length
        self.hop = self.window_length if hop is None else round(hop * SAMPLING_RATE)
        if not 1 <= self.hop <= self.window_length:
            raise ModelError(
                f"hop must be above 0 and at most a window of {self.window_length / SAMPLING_RATE:.4g} s, got {hop} s."
            )

    def _least_cost(self, threshold: float | None, costs: tuple[float, float]) -> float:
        """The score at which calling a recording bona fide costs as much as calling it spoofed."""
        if self.calibration is None:
            raise ModelError(
                f"model {self.model_name} is not calibrated, so that a prior or costs say nothing of its scores: run "
                "`nes2net calibrate` first, or leave them out."
            )
        if threshold is not None:
            raise ModelError("a threshold is given, and a prior or costs that would set it: leave one of them out.")
        try:
            return self.calibration.score(DetectionCosts(*costs, spoof_prior=self.prior).threshold)
        except ValueError as error:
            raise ModelError(f"prior and costs: {error}") from None

    def stream(self, sources: Any, progress: Callable[[float], None] | None = None) -> Iterator[Result]:
        """
        Judges recordings, yielding each as soon as it and those before it are done.

        Args:
            sources: one of, or an iterable of: paths, folders (searched for audio files), `"-"` for standard input,
                bytes, binary file objects, pairs (array, sampling rate), dicts with `array` and `sampling_rate`.
            progress: called with the seconds of audio that each batch brought through the model.

        Raises:
            DetectionError: the model ran out of memory.
        """
        with closing(_in_background(self._batches(list_recordings(sources)))) as batches:
            for batch in batches:
                if batch.windows:
                    for (recording, window), judged in zip(batch.windows, self._judged(batch), strict=True):
                        if judged is None:
                            continue
                        scores, log_odds = judged
                        if self.frame is not None:
                            # Of a window that was filled up, the frames of its own sound.
                            scores = scores[: max(1, round((window.end - window.start) / self.frame))]
                            recording.frames.append((round(window.start / self.frame), scores))
                        window.score, lowest = min((score, index) for index, score in enumerate(scores))
                        recording.log_odds.append(log_odds[lowest])
                    if progress is not None:
                        progress(sum(window.end - window.start for _, window in batch.windows))
                for recording in batch.finished:
                    yield self._verdict(recording)

    def _batches(self, sources: Iterable[Any]) -> Iterator[_Batch]:
        """Windows of equal length, gathered across files, with the recordings that are done once they are scored."""
        batch = _Batch()
        for source in sources:
            for item in self._windows(source):
                if isinstance(item, _Recording):
                    batch.finished.append(item)
                    if not batch.windows:  # nothing it would have to wait for
                        yield batch.close(self.extractor)
                        batch = _Batch()
                    continue
                recording, window, samples = item
                # Only files shorter than a window differ, and only where the extractor does not fill them up.
                if batch.samples and self.extractor.length_policy == "whole" and len(samples) != len(batch.samples[0]):
                    yield batch.close(self.extractor)
                    batch = _Batch()
                batch.windows.append((recording, window))
                batch.samples.append(samples)
                if len(batch.windows) == self.batch_size:
                    yield batch.close(self.extractor)
                    batch = _Batch()
        if batch.windows:
            yield batch.close(self.extractor)

    def _windows(self, source: Any) -> Iterator[_Window | _Recording]:
        """The windows of a recording that hold sound, each with it, then the recording, or its tracks and channels."""
        if isinstance(source, Unreadable):
            yield _Recording(str(source), error=source.problem)
            return
        name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else None
        index: int | None = None
        try:
            track = None if self.track == ALL_TRACKS else self.track
            with open_audio(source, track=track, max_duration=self.max_duration) as audio:  # type: ignore[arg-type]
                name = audio.info.name
                if self.track != ALL_TRACKS or audio.info.tracks == 1:
                    yield from self._windows_of(audio)
                    return
                for index in range(audio.info.tracks):
                    try:
                        with audio.on_track(index) as one:
                            yield from self._windows_of(one)
                    except Exception as error:
                        yield _Recording(name, track=index, error=_why_unread(name, error))
        except Exception as error:  # a decoder may fail in ways nobody foresaw: this file's error, not the run's
            yield _Recording(name or "<unnamed>", error=_why_unread(name or "<unnamed>", error))

    def _windows_of(self, audio: AudioStream) -> Iterator[_Window | _Recording]:
        name, track = audio.info.name, audio.info.track if audio.info.tracks > 1 else None
        count = audio.info.channels if self.channels == "each" else 1
        recordings = [_Recording(name, index if count > 1 else None, track) for index in range(count)]
        for start, block in iter_windows(audio.blocks(self.channels), self.window_length, self.hop):
            for recording, samples in zip(recordings, block, strict=True):
                window = WindowScore(start / SAMPLING_RATE, (start + len(samples)) / SAMPLING_RATE, None)
                recording.windows.append(window)
                if holds_sound(samples):
                    yield recording, window, samples
        for recording in recordings:
            recording.conclude(audio, of_several=track is not None and self.track is None)
        yield from recordings

    def _judged(self, batch: _Batch) -> list[list[list[float]] | None]:
        """
        Of each window of a batch what `_score` gives, or None where that fails: it is then an error of its recording.
        """
        try:
            return list(self._score(batch.prepared(self.extractor)))
        except DetectionError:
            raise
        except Exception as error:
            logger.debug("a batch could not be judged", exc_info=error)
        # One window may have spoilt it for the others: each by itself.
        judged: list[list[list[float]] | None] = []
        for (recording, window), samples in zip(batch.windows, batch.samples, strict=True):
            try:
                judged += self._score(_Batch([(recording, window)], [samples]).prepared(self.extractor))
            except DetectionError:
                raise
            except Exception as error:
                logger.debug("%s could not be judged", recording.name, exc_info=error)
                recording.error = recording.error or (
                    f"{recording.name} could not be judged: the model fails on its window at {window.start:.1f} s; "
                    "try --device cpu and --dtype float32."
                )
                judged.append(None)
        return judged

    @torch.inference_mode()
    def _score(self, input_values: Tensor) -> list[list[list[float]]]:
        """
        (B, S) → of each window its scores and their log-odds, one of an utterance or one of each frame. No attention
        mask: windows of one batch are equally long.
        """
        try:
            logits = self.model(input_values=input_values.to(self.device)).logits.float()
            if self.frame is None:
                logits = logits.unsqueeze(1)
            spoof, bonafide = self.model.two_classes(logits).unbind(-1)
            return torch.stack([self.model.score(logits), bonafide - spoof], dim=1).tolist()
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or "memory" in str(error):
                raise DetectionError(
                    f"out of memory on {self.device} with batch size {len(input_values)}: lower --batch-size, or "
                    "choose another --device or --dtype."
                ) from None
            raise

    def _verdict(self, recording: _Recording) -> Result:
        result = Result(
            recording.name,
            recording.channel,
            recording.track,
            duration=recording.duration,
            threshold=self.threshold,
            model=self.model_name,
            error=recording.error,
        )
        if result.error is None:
            try:
                self._decide(recording, result)
            except Exception as error:  # it must not end the run
                logger.debug("%s has no verdict", recording.name, exc_info=error)
                result.error = f"{recording.name} has no verdict: its scores cannot be summed up; check the model."
        return result

    def _decide(self, recording: _Recording, result: Result) -> None:
        """Fills in what the windows' scores come to, or why there is no verdict."""
        judged = [window for window in recording.windows if window.score is not None]
        scores = [window.score for window in judged if window.score is not None]
        if not scores:
            result.error = recording.silent()
        elif not all(map(math.isfinite, scores)):
            result.error = (
                f"{recording.name} got a score that is not a finite number: judge it with --dtype float32, or check "
                "the model's weights."
            )
        else:
            lowest = scores.index(min(scores))
            # A mean would hide what is spoofed in part; it is what the frames are there to find.
            pool = np.mean if self.frame is None else np.min
            result.score = float(pool(scores))
            margin = float(pool(recording.log_odds)) if self.threshold is None else result.score - self.threshold
            result.label = "bonafide" if margin >= 0 else "spoof"
            if self.calibration is not None:
                result.llr, result.prior = self.calibration.llr(result.score), self.prior
                result.spoof_probability = spoof_probability(self.calibration.llr(result.score), self.prior)
            result.min_window_score, result.min_window_start = scores[lowest], judged[lowest].start
            result.windows, result.warnings = recording.windows, recording.warnings
            if self.frame is not None:
                result.spoofed = list(self._stretches(recording))

    def _stretches(self, recording: _Recording) -> Iterator[Stretch]:
        """Frames in a row below the threshold; where windows overlap, a frame's score is the mean."""
        assert self.frame is not None and recording.duration is not None
        total = np.zeros(max(start + len(scores) for start, scores in recording.frames))
        count = np.zeros(len(total))
        for start, scores in recording.frames:
            total[start : start + len(scores)] += scores
            count[start : start + len(scores)] += 1
        means = np.divide(total, count, out=np.full(len(total), np.inf), where=count > 0)
        below = np.pad(means < (self.threshold or 0.0), 1).astype(int)
        starts, ends = (np.flatnonzero(np.diff(below) == change).tolist() for change in (1, -1))
        for first, last in zip(starts, ends, strict=True):
            end = min(last * self.frame, recording.duration)
            yield Stretch(first * self.frame, end, float(means[first:last].mean()))


def list_recordings(sources: Any) -> Iterator[Any]:
    """
    One source or an iterable of them → the recordings, folders replaced by the audio files in them, sorted.

    A folder without audio files stays in the list, to be an error of its own, and so does what cannot be read below
    it; hidden files are passed over.
    """
    for source in [sources] if _is_one_recording(sources) else sources:
        if isinstance(source, Unreadable):  # of a list that was made here before
            yield source
        elif isinstance(source, (str, os.PathLike)) and os.path.isdir(source):
            found = find_audio(source)
            yield from (Unreadable(path, problem) if problem else path for path, problem, _ in found)
            if not found:
                yield Unreadable(os.fspath(source), f"{os.fspath(source)} is a folder without audio files.")
        else:
            yield source


class Unreadable(str):
    """A path in a folder that was searched, and the `problem` that makes it an error instead of a recording."""

    problem: str

    def __new__(cls, path: str, problem: str) -> Unreadable:
        unreadable = super().__new__(cls, path)
        unreadable.problem = problem
        return unreadable


def _is_one_recording(sources: Any) -> bool:
    if isinstance(sources, tuple) and len(sources) == 2:
        return isinstance(sources[1], (int, float, np.integer))
    return isinstance(sources, (str, os.PathLike, bytes, bytearray, memoryview, dict, np.ndarray, Tensor)) or hasattr(
        sources, "read"
    )


_Window = tuple["_Recording", WindowScore, np.ndarray]  # samples (S,)


@dataclass
class _Recording:
    """A recording, or one track or channel of it, on its way from the decoder to its verdict."""

    name: str
    channel: int | None = None
    track: int | None = None
    windows: list[WindowScore] = field(default_factory=list)
    log_odds: list[float] = field(default_factory=list)  # of the windows that hold sound
    frames: list[tuple[int, list[float]]] = field(default_factory=list)  # of them, the first frame and all scores
    duration: float | None = None
    warnings: list[str] = field(default_factory=list)
    error: str | None = None

    def silent(self) -> str:
        where = "" if self.channel is None else f" in channel {self.channel}"
        return f"{self.name} is silent{where}: no window peaks above -60 dBFS."

    def conclude(self, audio: AudioStream, of_several: bool) -> None:
        """Takes over what is known once all has been read; `of_several` tracks nobody chose this one."""
        assert audio.summary is not None
        summary, index = audio.summary, self.channel or 0
        self.duration = summary.duration
        if summary.silent[index]:
            self.error = self.silent()
        self.warnings += summary.warnings
        if of_several:
            self.warnings.append(
                f"{audio.info.tracks} audio tracks: only track {audio.info.track} was judged, choose another with "
                "--track, or judge each with --track all"
            )
        sound, clipped = summary.sound[index], summary.clipped[index]
        if sound < 1:
            self.warnings.append(f"under a second of sound ({sound:.2f} s)")
        if sound < summary.duration / 2:
            self.warnings.append(f"mostly silence ({sound:.1f} of {summary.duration:.1f} s hold sound)")
        if audio.info.sampling_rate <= 8000:
            self.warnings.append("8 kHz original (nothing above 4 kHz to judge by)")
        if clipped > 0.001:
            self.warnings.append(f"clipping ({100 * clipped:.1f} % of the samples at full scale)")
        if summary.cancelling:
            self.warnings.append("channels nearly cancel in the mix (opposite phase): judge each with --channels each")


@dataclass
class _Batch:
    """Windows judged together, and the recordings that are complete once they are."""

    windows: list[tuple[_Recording, WindowScore]] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)
    finished: list[_Recording] = field(default_factory=list)
    inputs: Tensor | None = None

    def close(self, extractor: Any) -> _Batch:
        """Prepares the inputs ahead of time; what goes wrong is met where they are judged."""
        if self.samples:
            with suppress(Exception):
                self.inputs = self.prepared(extractor)
        return self

    def prepared(self, extractor: Any) -> Tensor:
        """The inputs (B, S) as in training: each window filled up and normalised by itself."""
        if self.inputs is None:
            self.inputs = extractor(self.samples, sampling_rate=SAMPLING_RATE, return_tensors="pt")["input_values"]
        return self.inputs


def _why_unread(name: str, error: Exception) -> str:
    """A sentence of ours, whatever went wrong while a recording was read."""
    if isinstance(error, AudioError):
        return str(error)
    logger.debug("%s could not be read", name, exc_info=error)
    if isinstance(error, MemoryError):
        return f"{name} could not be read: it needs more memory than there is."
    if isinstance(error, OSError) and error.strerror:
        return f"{name} could not be read: {error.strerror}."
    return f"{name} could not be read: it is damaged, or of an unusual form; convert it to WAV, or download it again."


def _in_background(batches: Iterator[_Batch]) -> Generator[_Batch, None, None]:
    """Runs an iterator in a thread, two items ahead; closing it ends the thread, an error in it is raised here."""
    ready: queue.Queue[_Batch | BaseException | None] = queue.Queue(maxsize=2)
    stopped = threading.Event()

    def put(item: _Batch | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                return ready.put(item, timeout=0.1)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    # A daemon, for a read of standard input may never return; all else is waited for below.
    thread = threading.Thread(target=work, name="decoding", daemon=True)
    thread.start()
    try:
        while True:
            try:
                item = ready.get(timeout=0.5)  # with a timeout, for Windows cannot interrupt it otherwise
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        # The interpreter aborts where it ends while a thread is inside native code of torch or of a decoder.
        thread.join(timeout=5)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value
