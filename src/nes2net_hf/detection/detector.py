"""
The detector. It cuts each recording into windows as long as in training and judges them in batches that run across
files, while a background thread decodes. A recording's score is the mean over its windows with sound. Higher means
bona fide. Letters in shapes: B batch, C channels, S samples.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..audio import SAMPLING_RATE
from ..calibration import Calibration
from ..errors import CalibrationError, DetectionError, ModelError
from ..familiarity import Familiarity
from ..metrics.dcf import DetectionCosts
from ..pretrained.familiarity import load_familiarity
from ..pretrained.onnx import load_onnx_model
from ..pretrained.places import DEMO_MODEL
from ..reference import Population
from ..scores import frame_samples, frames_within, judges_frames, of_logits
from .batches import Batch, Batcher, in_background
from .deciding import DecisionRule
from .recordings import Recording, list_recordings
from .results import Result, WindowScore
from .speech import SpeechFinder
from .turns import read_rttm
from .windows import ALL_TRACKS, WindowReader

logger = logging.getLogger(__name__)

BACKENDS = ("torch", "onnx")
CHANNELS = ("auto", "mix", "each")
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
    undecided: float | None = None,
    rttm: str | os.PathLike[str] | None = None,
    backend: str = "torch",
) -> list[Result]:
    """
    Judges one recording or a list of them.

    Args:
        sources: a source or an iterable of sources. A source is a path, a folder (searched for audio files), `"-"`
            for standard input, bytes, a binary file object, a pair (array, sampling rate), or a dict with `array` and
            `sampling_rate`.
        model, revision, device, dtype, batch_size, hop, channels, track, max_duration, threshold, prior, costs,
            undecided, rttm, backend: see [`Detector`], which loads the model once. This function loads it every time.

    Returns:
        One result per recording, in the order of the sources; several if its channels, audio tracks or speakers are
        judged separately.

    Raises:
        ModelError: the model cannot be loaded, or an option is invalid.
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
        undecided=undecided,
        rttm=rttm,
        backend=backend,
    )
    return list(detector.stream(sources))


class Detector:
    """
    Loads a model once and judges recordings with it.

    Args:
        model: folder, Hub id, short name or official checkpoint: see `locate`. Default: the bundled demonstration
            model.
        revision: branch, tag or commit on the Hub.
        device: `"cuda"`, `"cuda:1"`, `"mps"`, `"cpu"`, … Default: the first available of cuda, mps and cpu.
        dtype: precision of the model: `"float32"`, `"bfloat16"`, `"float16"`, on a CPU also `"int8"` (linear layers
            in 8 bits), or `"auto"`, which is what this machine computes fastest. Only float32 gives the same scores on
            every machine. Results name the dtype.
        batch_size: windows judged together.
        hop: seconds from one window to the next. Default: the length of a window, so that windows do not overlap.
        channels: `"mix"` judges the mean of the channels, and `"each"` judges every channel. `"auto"` judges each
            channel if they have little in common (a call with one speaker on each), and otherwise the mean. It reads
            files with several channels twice and skips silent channels. A mix of channels that differ carries a
            warning.
        track: the audio track to judge, counted from 0; `"all"` judges every track. Default: the file's default track,
            or else the first, with a warning if there are others.
        max_duration: seconds. A longer recording is an error, even if its header declares less.
        threshold: lowest score that counts as bona fide. Default: the model's own, or else log-odds of 0.
        prior: prior probability of spoofing, for a calibrated model. Default: 0.5.
        costs: of rejecting bona fide and of accepting spoofed speech, for a calibrated model. With costs or a prior,
            the threshold is the score at which both decisions have the same expected cost.
        undecided: for a calibrated model, the accepted share of errors among recordings of each class that are like
            those it was calibrated on. Scores that do not allow that get the label `undecided`: see `Population.band`.
            Default: the model's own, if it has one.
        rttm: RTTM file with the turns of the speakers in every recording, by its name without the suffix. Each speaker
            gets a result of their own, on what they say alone: windows hold one speaker, turns shorter than a window
            are joined, and overlapping speech is left out.
        backend: `"torch"`, or `"onnx"` for a folder that `nes2net export` wrote; onnxruntime runs it on the CPU.

    Raises:
        ModelError: the model cannot be loaded, or an option is invalid.
        UsageError: the RTTM file cannot be read.
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
        undecided: float | None = None,
        rttm: str | os.PathLike[str] | None = None,
        backend: str = "torch",
    ) -> None:
        if batch_size < 1:
            raise ModelError(f"batch size must be at least 1, got {batch_size}.")
        if channels not in CHANNELS:
            raise ModelError(f"channels must be one of {', '.join(CHANNELS)}, got {channels!r}.")
        if isinstance(track, str) and track.isdecimal():
            track = int(track)
        if not (track is None or track == ALL_TRACKS or (isinstance(track, int) and track >= 0)):
            raise ModelError(f"track must be {ALL_TRACKS} or a number, counted from 0; got {track!r}.")
        if threshold is not None and not math.isfinite(threshold):
            raise ModelError(f"threshold must be a finite number, got {threshold}.")
        if backend not in BACKENDS:
            raise ModelError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}.")
        self.turns = None if rttm is None else read_rttm(rttm)
        if rttm is not None and channels == "each":
            raise ModelError("the turns of speakers are judged in the mix of the channels: omit channels.")
        self.source, self.revision = model, revision
        self.model: Any
        self.device: Any = "cpu"  # or a torch.device
        self.precision = "onnx"  # as results name it
        source = DEMO_MODEL if model is None else model
        if backend == "onnx":
            self.model, self.extractor = load_onnx_model(source, revision, device, dtype)
        else:
            from ..pretrained.load import choose_device, load_model  # torch and transformers take seconds
            from ..pretrained.precision import settle_dtype

            self.device = choose_device(device)
            self.precision = settle_dtype(dtype, self.device)
            self.model, self.extractor = load_model(source, revision, self.device, self.precision)
        self.is_demonstration = self.model.config.demonstration
        if self.is_demonstration:
            logger.warning("%s", DEMO_NOTICE)
        self.model_name = DEMO_MODEL.name if model is None else os.fspath(model) + (f"@{revision}" if revision else "")
        self.batch_size = batch_size
        self.last_inputs: NDArray[np.float32] | None = None  # (B, S), of the batch judged last
        self.channels, self.track, self.max_duration = channels, track, max_duration
        self._watched = False
        self._embeddings: list[NDArray[np.float32]] = []  # (B, D), of the batches judged since the last one was taken
        self.calibration: Calibration | None = None
        # People take a probability for a fact, so a model that nobody should rely on gives none.
        if self.model.config.calibration is not None and not self.is_demonstration:
            self.calibration = Calibration(**self.model.config.calibration)
        self.familiarity = self._load_familiarity(source, revision)
        if self.familiarity is not None:
            self.watch()
        self.population = Population.of(self.model.config.calibration)
        self.prior = 0.5 if prior is None else prior
        if prior is not None or costs is not None:
            threshold = self._least_cost(threshold, costs or (1.0, 1.0))
        self.threshold = self.model.config.threshold if threshold is None else threshold
        if self.threshold is None and self.model.config.score == "log_odds":
            self.threshold = 0.0
        self.band = self._undecided(undecided, is_set=threshold is not None or costs is not None)
        self.frame: float | None = None  # seconds, if the model judges frames
        if judges_frames(self.model.config):
            self.frame = frame_samples(self.model.config) / SAMPLING_RATE
            if rttm is not None:
                raise ModelError(f"model {self.model_name} judges frames, and cannot join turns: omit the RTTM file.")
        labels, self.spoof_indices = self.model.config.id2label, self.model.config.spoof_indices
        self.attacks = tuple(labels[index] for index in self.spoof_indices)
        self.speech = SpeechFinder(backend)
        self.window_length = self.extractor.window_length
        self.hop = self.window_length if hop is None else round(hop * SAMPLING_RATE)
        if not 1 <= self.hop <= self.window_length:
            raise ModelError(
                f"hop must be above 0 and at most a window of {self.window_length / SAMPLING_RATE:.4g} s, got {hop} s."
            )

    def _least_cost(self, threshold: float | None, costs: tuple[float, float]) -> float:
        """Returns the score at which the labels bona fide and spoof have the same expected cost."""
        if self.is_demonstration:
            raise ModelError(
                f"model {self.model_name} is a demonstration and gives no probabilities: omit the prior and the "
                "costs, or use another model."
            )
        if self.calibration is None:
            raise ModelError(
                f"model {self.model_name} is not calibrated, so a prior and costs have no meaning for its scores: run "
                "`nes2net calibrate` first, or omit them."
            )
        if threshold is not None:
            raise ModelError("a prior or costs set the threshold, and a threshold was passed, too: omit one of them.")
        try:
            return self.calibration.score(DetectionCosts(*costs, spoof_prior=self.prior).threshold)
        except ValueError as error:
            raise ModelError(f"prior and costs: {error}") from None

    def _undecided(self, share: float | None, is_set: bool) -> tuple[float, float, float] | None:
        """
        Returns the scores that get no label, and the share of errors that it allows. If the classes are so far apart
        that there are none, the threshold moves to where the share holds for both.

        Args:
            share: as requested; the model's own if None.
            is_set: whether a threshold was set, which then decides alone.
        """
        if share is not None and is_set:
            raise ModelError("an accepted share of errors decides about labels: omit it, or omit threshold and costs.")
        if share is None and not is_set:
            share = (self.model.config.calibration or {}).get("undecided")
        if share is None:
            return None
        if self.population is None:
            raise ModelError(
                f"model {self.model_name} does not know the scores of recordings like these: run `nes2net calibrate` "
                "first, or omit the accepted share of errors."
            )
        middle = Calibration(**self.model.config.calibration).score(0.0)
        try:
            low, high = self.population.band(share, middle if self.threshold is None else self.threshold)
        except CalibrationError as error:
            raise ModelError(f"model {self.model_name}: {error}") from None
        if low < high:
            return low, high, share
        self.threshold = low
        return None

    def stream(self, sources: Any, progress: Callable[[float], None] | None = None) -> Iterator[Result]:
        """
        Judges recordings. Yields each result as soon as it and all earlier ones are complete.

        Args:
            sources: as in [`detect`].
            progress: called after each batch with the seconds of audio that it held.

        Raises:
            DetectionError: the model ran out of memory.
        """
        yield from map(self.rule().verdict, self.recordings(sources, progress))

    def rule(self) -> DecisionRule:
        """Returns how scores become a verdict."""
        return DecisionRule(
            self.model_name,
            self.precision,
            self.threshold,
            self.calibration,
            self.prior,
            self.frame,
            self.attacks,
            self.population,
            self.band,
            self.familiarity,
        )

    def _load_familiarity(self, source: str | os.PathLike[str], revision: str | None) -> Familiarity | None:
        return None if self.calibration is None else load_familiarity(source, revision, self.calibration)

    def watch(self) -> None:
        """From now on, keeps the cues of recordings and, with torch, their embeddings."""
        if self.precision != "onnx" and not self._watched:
            kept = self._embeddings  # a reference to this detector would keep it alive
            self.model.nes2net.register_forward_hook(
                lambda module, inputs, output: kept.append(output["pooler_output"].float().cpu().numpy())
            )
        self._watched = True

    def recordings(self, sources: Any, progress: Callable[[float], None] | None = None) -> Iterator[Recording]:
        """Yields each recording once all of its windows are judged. Arguments and errors as in `stream`."""
        with closing(in_background(self.batches(sources))) as batches:
            for batch in batches:
                self.judge_windows(batch)
                if progress is not None and batch.windows:
                    progress(sum(window.end - window.start for _, window in batch.windows))
                yield from batch.finished

    def judge_windows(self, batch: Batch) -> None:
        """
        Fills in the scores of a batch's windows, and what their recordings keep of them.

        Raises:
            DetectionError: the model ran out of memory.
        """
        if not batch.windows:
            return
        self.last_inputs = batch.inputs
        every = self._judged(batch)
        embeddings = self._embeddings[-1] if self._embeddings else None
        self._embeddings.clear()
        for number, ((recording, window), judged) in enumerate(zip(batch.windows, every, strict=True)):
            if judged is not None:
                self._record(recording, window, *judged)
                self._remember(recording, batch, number, embeddings)

    def _remember(
        self, recording: Recording, batch: Batch, number: int, embeddings: NDArray[np.float32] | None
    ) -> None:
        """Adds the cues and the embedding of one window of a batch to its recording."""
        if not batch.cues:
            return
        recording.cues.append(batch.cues[number])
        if embeddings is not None and len(embeddings) == len(batch.windows):
            recording.embeddings.append(embeddings[number])

    def _record(
        self,
        recording: Recording,
        window: WindowScore,
        scores: list[float],
        log_odds: list[float],
        *kinds: list[float],
    ) -> None:
        """Keeps the scores of one window; the lowest frame decides the score of a window of frames."""
        if self.frame is not None:
            # A padded window has more frames than sound: keep those of its sound.
            samples = round((window.end - window.start) * SAMPLING_RATE)
            scores = scores[: frames_within(samples, self.model.config)]
            recording.frames.append((round(window.start / self.frame), scores))
        window.score, lowest = min((score, index) for index, score in enumerate(scores))
        recording.log_odds.append(log_odds[lowest])
        recording.kinds.append([of_frames[lowest] for of_frames in kinds])

    def batches(self, sources: Any, live: bool = False) -> Iterator[Batch]:
        """
        Yields batches of windows that are not judged yet. Of a `live` source, which can be read only once, each has
        one window of the mix.
        """
        batcher = Batcher(1 if live else self.batch_size, self.extractor, self.speech, self._watched)
        channels, track, turns = ("mix", None, None) if live else (self.channels, self.track, self.turns)
        reader = WindowReader(channels, track, self.max_duration, self.window_length, self.hop, batcher, turns)
        for source in list_recordings(sources):
            yield from reader.read(source)
        yield from batcher.flush()

    def _judged(self, batch: Batch) -> list[list[list[float]] | None]:
        """
        Returns what `_score` gives for each window of a batch. If a window fails, it gets None, and its recording an
        error.
        """
        try:
            return list(self._score(batch.prepared(self.extractor)))
        except DetectionError:
            raise
        except Exception as error:
            logger.debug("a batch could not be judged", exc_info=error)
        # A single window may have failed the batch: judge each by itself.
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

    def _logits(self, input_values: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.precision == "onnx":
            return self.model.logits(input_values)
        from ..pretrained.load import logits_of

        return logits_of(self.model, input_values, self.device)

    def _score(self, input_values: NDArray[np.float32]) -> list[list[list[float]]]:
        """
        (B, S) → for each window its scores, log-odds and the logits of each kind of spoof: one for an utterance, or
        one per frame.
        """
        try:
            logits = self._logits(input_values)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, MemoryError) or "memory" in str(error):
                raise DetectionError(
                    f"out of memory on {self.device} with batch size {len(input_values)}: lower the batch "
                    "size, or choose another device or precision."
                ) from None
            raise
        if self.frame is None:
            logits = logits[:, np.newaxis]
        kinds = [logits[..., index] for index in self.spoof_indices]
        return np.stack([*of_logits(logits, self.model.config), *kinds], axis=1).tolist()
