"""
The detector: windows over the whole of each recording, as long as in training, are judged in batches that run across
files while a background thread decodes. A recording's score is the mean over its windows that hold sound, and higher =
bona fide. Letters in shapes: B batch, C channels, S samples.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..audio import SAMPLING_RATE, AudioStream, holds_sound, iter_windows, open_audio
from ..calibration import Calibration, spoof_probability
from ..errors import DetectionError
from ..metrics.dcf import DetectionCosts
from ..pretrained.load import (
    BACKENDS,
    DEMO_MODEL,
    ModelError,
    choose_device,
    load_model,
    load_onnx_model,
)
from ..scores import frame_samples, frames_within, judges_frames, of_file
from .batches import Batch, in_background
from .recordings import SAME_SCENE, Recording, Unreadable, list_recordings, why_unread
from .results import NO_SPEECH, TOO_SHORT, Result, Stretch, WindowScore
from .speech import SpeechFinder
from .words import clock

logger = logging.getLogger(__name__)

ALL_TRACKS = "all"
CHANNELS = ("auto", "mix", "each")
MIN_SOUND = 1.0  # s, below which a recording is too short to judge: see docs/judging.md
DEMO_NOTICE = "demonstration model: do not rely on its verdicts"


def detect(
    sources: Any,
    model: str | os.PathLike[str] | None = None,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    batch_size: int = 8,
    hop: float | None = None,
    channels: str = "auto",
    track: int | str | None = None,
    max_duration: float | None = None,
    threshold: float | None = None,
    prior: float | None = None,
    costs: tuple[float, float] | None = None,
    backend: str = "torch",
) -> list[Result]:
    """
    Judges one recording or a list of them.

    Args:
        sources: one of, or an iterable of: paths, folders (searched for audio files), `"-"` for standard input,
            bytes, binary file objects, pairs (array, sampling rate), dicts with `array` and `sampling_rate`.
        model, revision, device, dtype, batch_size, hop, channels, track, max_duration, threshold, prior, costs,
            backend: as [`Detector`] takes them. It loads a model once, where this function loads it at every call.

    Returns:
        One result per recording in the order of the sources; several where its channels or audio tracks are judged
        separately.

    Raises:
        ModelError: the model cannot be loaded, or an option is impossible.
        DetectionError: the model ran out of memory.
    """
    detector = Detector(
        model,
        revision=revision,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        hop=hop,
        channels=channels,
        track=track,
        max_duration=max_duration,
        threshold=threshold,
        prior=prior,
        costs=costs,
        backend=backend,
    )
    return list(detector.stream(sources))


class Detector:
    """
    A model made ready to judge recordings; it is loaded once.

    Args:
        model: Hub id or folder of a Nes2Net model; the bundled demonstration model if None.
        revision: branch, tag or commit on the Hub.
        device: `"cuda"`, `"cuda:1"`, `"mps"`, `"cpu"` ...; the first of cuda, mps, cpu that is there if None.
        dtype: `"float32"`, `"bfloat16"` or `"float16"`, the precision the model computes in.
        batch_size: windows judged together.
        hop: seconds from one window to the next; a window's own length if None, so that they do not overlap.
        channels: `"auto"` judges the mean of the channels, or each of them by itself where they have little in common
            (a call with one speaker on each channel); it reads a file of several channels twice, and passes over
            channels without sound. `"mix"` always judges the mean, `"each"` every channel. A mix of channels that
            differ carries a warning.
        track: of files with several audio tracks, the one to judge, counted from 0; None judges the one that the file
            marks as its default, else the first, and warns that there are others; `"all"` judges every track.
        max_duration: seconds; a longer recording is an error, whatever its header declares.
        threshold: score from which a recording is called bona fide; the model's own if None, else
            0 of the log-odds.
        prior: of a calibrated model, the share of spoofed recordings among those to be judged; 0.5 if None.
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
        channels: str = "auto",
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
        self.is_demonstration = model is None or self.model.config.demonstration
        if self.is_demonstration:
            logger.warning("%s; `nes2net convert` makes a real one, to be named with --model", DEMO_NOTICE)
        if dtype == "float16" and self.device.type == "cpu":
            logger.warning("float16 is many times slower than float32 on a CPU: choose bfloat16 or float32 there")
        self.model_name = DEMO_MODEL.name if model is None else os.fspath(model) + (f"@{revision}" if revision else "")
        self.batch_size = batch_size
        self.channels, self.track, self.max_duration = channels, track, max_duration
        self.calibration: Calibration | None = None
        # A probability would be taken for a fact: a model that nobody should rely on gives none.
        if self.model.config.calibration is not None and not self.is_demonstration:
            self.calibration = Calibration(**self.model.config.calibration)
        self.prior = 0.5 if prior is None else prior
        if prior is not None or costs is not None:
            threshold = self._least_cost(threshold, costs or (1.0, 1.0))
        self.threshold = self.model.config.threshold if threshold is None else threshold
        if self.threshold is None and self.model.config.score == "log_odds":
            self.threshold = 0.0
        self.frame: float | None = None  # seconds, where the model judges frames
        if judges_frames(self.model.config):
            self.frame = frame_samples(self.model.config) / SAMPLING_RATE
        self.speech = SpeechFinder()
        self.window_length = self.extractor.window_length
        self.hop = self.window_length if hop is None else round(hop * SAMPLING_RATE)
        if not 1 <= self.hop <= self.window_length:
            raise ModelError(
                f"hop must be above 0 and at most a window of {self.window_length / SAMPLING_RATE:.4g} s, got {hop} s."
            )

    def _least_cost(self, threshold: float | None, costs: tuple[float, float]) -> float:
        """The score at which calling a recording bona fide costs as much as calling it spoofed."""
        if self.is_demonstration:
            raise ModelError(
                f"model {self.model_name} is a demonstration and gives no probabilities: omit the prior and the "
                "costs, or choose another model."
            )
        if self.calibration is None:
            raise ModelError(
                f"model {self.model_name} is not calibrated, so that a prior or costs say nothing of its scores: run "
                "`nes2net calibrate` first, or omit them."
            )
        if threshold is not None:
            raise ModelError("a threshold is given, and a prior or costs that would set it: omit one of them.")
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
        with closing(in_background(self._batches(list_recordings(sources)))) as batches:
            for batch in batches:
                if batch.windows:
                    for (recording, window), judged in zip(batch.windows, self._judged(batch), strict=True):
                        if judged is None:
                            continue
                        scores, log_odds = judged
                        if self.frame is not None:
                            # Of a window that was filled up, the frames of its own sound.
                            samples = round((window.end - window.start) * SAMPLING_RATE)
                            scores = scores[: frames_within(samples, self.model.config)]
                            recording.frames.append((round(window.start / self.frame), scores))
                        window.score, lowest = min((score, index) for index, score in enumerate(scores))
                        recording.log_odds.append(log_odds[lowest])
                    if progress is not None:
                        progress(sum(window.end - window.start for _, window in batch.windows))
                for recording in batch.finished:
                    yield self._verdict(recording)

    def _batches(self, sources: Iterable[Any]) -> Iterator[Batch]:
        """Windows of equal length, gathered across files, with the recordings that are done once they are scored."""
        batch = Batch()
        for source in sources:
            for item in self._windows(source):
                if isinstance(item, Recording):
                    batch.finished.append(item)
                    if not batch.windows:  # nothing it would have to wait for
                        yield batch.close(self.extractor, self.speech)
                        batch = Batch()
                    continue
                recording, window, samples = item
                # Only files shorter than a window differ, and only where the extractor does not fill them up.
                if batch.samples and self.extractor.length_policy == "whole" and len(samples) != len(batch.samples[0]):
                    yield batch.close(self.extractor, self.speech)
                    batch = Batch()
                batch.windows.append((recording, window))
                batch.samples.append(samples)
                if len(batch.windows) == self.batch_size:
                    yield batch.close(self.extractor, self.speech)
                    batch = Batch()
        if batch.windows:
            yield batch.close(self.extractor, self.speech)

    def _windows(self, source: Any) -> Iterator[tuple[Recording, WindowScore, np.ndarray] | Recording]:
        """The windows of a recording that hold sound, each with it, then the recording, or its tracks and channels."""
        if isinstance(source, Unreadable):
            yield Recording(str(source), error=source.problem)
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
                        yield Recording(name, track=index, error=why_unread(name, error))
        except Exception as error:  # a decoder may fail in ways nobody foresaw: this file's error, not the run's
            yield Recording(name or "<unnamed>", error=why_unread(name or "<unnamed>", error))

    def _windows_of(self, audio: AudioStream) -> Iterator[tuple[Recording, WindowScore, np.ndarray] | Recording]:
        """The windows of one audio track, then its recordings: the mix, or channels."""
        chosen, warnings = self._channels_of(audio)
        track = audio.info.track if audio.info.tracks > 1 else None
        rows = [0] if chosen is None else chosen
        recordings = [
            Recording(audio.info.name, None if chosen is None else row, track, warnings=list(warnings)) for row in rows
        ]
        # Only what was surveyed has been read, and starts again.
        with audio.on_track(audio.info.track) if audio.summary else nullcontext(audio) as audio:
            blocks = audio.blocks("mix" if chosen is None else "each")
            for start, block in iter_windows((block[rows] for block in blocks), self.window_length, self.hop):
                for recording, samples in zip(recordings, block, strict=True):
                    window = WindowScore(start / SAMPLING_RATE, (start + len(samples)) / SAMPLING_RATE, None)
                    recording.windows.append(window)
                    if holds_sound(samples):
                        yield recording, window, samples
            mixed, of_several = chosen is None and audio.info.channels > 1, track is not None and self.track is None
            for recording, row in zip(recordings, rows, strict=True):
                recording.conclude(audio, row, mixed=mixed, of_several=of_several)
        yield from recordings

    def _channels_of(self, audio: AudioStream) -> tuple[list[int] | None, list[str]]:
        """Which channels to judge by themselves, or None for the mix; and what is to be said of the others."""
        count = audio.info.channels
        if count == 1 or self.channels == "mix":
            return None, []
        if self.channels == "each":
            return list(range(count)), []
        found = audio.survey()
        heard = list(found.sounding)
        if not heard or (len(heard) > 1 and found.likeness >= SAME_SCENE):
            return None, []
        silent = [str(channel) for channel in range(count) if channel not in heard]
        are = "channel {} is silent, and was" if len(silent) == 1 else "channels {} are silent, and were"
        return heard, [f"{are.format(', '.join(silent))} not judged"] if silent else []

    def _judged(self, batch: Batch) -> list[list[list[float]] | None]:
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
                judged += self._score(Batch([(recording, window)], [samples]).prepared(self.extractor))
            except DetectionError:
                raise
            except Exception as error:
                logger.debug("%s could not be judged", recording.name, exc_info=error)
                recording.error = recording.error or (
                    f"{recording.name} could not be judged: the model fails on its window at {window.start:.1f} s; "
                    "try the CPU and float32."
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
                    f"out of memory on {self.device} with batch size {len(input_values)}: lower the batch "
                    "size, or choose another device or precision."
                ) from None
            raise

    def _verdict(self, recording: Recording) -> Result:
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

    def _decide(self, recording: Recording, result: Result) -> None:
        """Fills in what the windows' scores come to, or why there is no verdict."""
        judged = [window for window in recording.windows if window.score is not None]
        scores = [window.score for window in judged if window.score is not None]
        if not scores:
            result.error = recording.silent()
            return
        if not all(map(math.isfinite, scores)):
            result.error = (
                f"{recording.name} got a score that is not a finite number: judge it in float32, or check "
                "the model's weights."
            )
            return
        lowest = scores.index(min(scores))
        result.score = of_file(scores, self.frame is not None)
        result.min_window_score, result.min_window_start = scores[lowest], judged[lowest].start
        result.windows, result.warnings = recording.windows, recording.warnings
        if recording.sound < MIN_SOUND:
            result.undecided = TOO_SHORT
        elif not recording.has_speech:
            result.undecided = NO_SPEECH
        else:
            self._label(recording, result, judged)

    def _label(self, recording: Recording, result: Result, judged: list[WindowScore]) -> None:
        """What is said of a recording of which something can be said."""
        assert result.score is not None
        if self.threshold is None:
            margins = recording.log_odds
            passes = of_file(margins, self.frame is not None) >= 0
        else:
            margins = [(window.score or 0.0) - self.threshold for window in judged]
            passes = result.score >= self.threshold
        result.label = "bonafide" if passes else "spoof"
        for window, margin in zip(judged, margins, strict=True):
            window.looks_fake = margin < 0
        fake = sum(window.looks_fake for window in judged)
        if passes and fake:
            looks, them = ("windows look", "them") if fake > 1 else ("windows looks", "it")
            result.warnings.append(
                f"overall it passes, but {fake} of {len(judged)} {looks} fake, most of all at "
                f"{clock(judged[int(np.argmin(margins))].start)}: listen to {them}"
            )
        if self.calibration is not None:
            result.llr, result.prior = self.calibration.llr(result.score), self.prior
            result.spoof_probability = spoof_probability(result.llr, self.prior)
        if self.frame is not None:
            result.spoofed = list(self._stretches(recording))

    def _stretches(self, recording: Recording) -> Iterator[Stretch]:
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
