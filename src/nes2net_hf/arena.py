"""
A Nes2Net model for the Speech Anti-Spoofing Arena, with the interface of its package `speech-spoof-bench`. This
command scores with the bundled demonstration model:

    speech-spoof-bench run --model-module nes2net_hf.arena:Nes2NetArena --datasets FOLDER

The command creates the class without arguments. For another model, write a subclass in a file `mine.py`, and pass
`--model-module mine:Mine`:

    class Mine(Nes2NetArena):
        name = "my-nes2net"

        def __init__(self) -> None:
            super().__init__("org/model")

Without the package installed, the class has no base class, but the same methods.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .audio import SAMPLING_RATE, AudioError, read_audio
from .modeling_nes2net import Nes2NetForAudioFrameClassification
from .pretrained.load import DEMO_MODEL, ModelError, choose_device, load_model


def _interface() -> Any:
    """Returns the base class of the Arena's models, or `object` if its package is not installed."""
    for module in ("speech_spoof_bench.model", "speech_spoof_bench"):
        try:
            base = getattr(importlib.import_module(module), "AntiSpoofingModel", None)
        except ModuleNotFoundError as error:
            if error.name not in ("speech_spoof_bench.model", "speech_spoof_bench"):
                raise  # the package is installed, but lacks one of its dependencies
            continue
        if base is not None:
            return base
    return object


_AntiSpoofingModel: Any = _interface()


class Nes2NetArena(_AntiSpoofingModel):
    """
    Scores like `training/score.py`: the model's feature extractor takes the first window or the whole of each
    utterance. Higher = bona fide.

    Args:
        model: folder, Hub id or official checkpoint; the bundled demonstration model if None.
        revision: branch, tag or commit on the Hub.
        device: the best available one if None.
        dtype: type of the model's weights: float32, bfloat16 or float16.
    """

    name = "Nes2Net"
    expected_sample_rate = SAMPLING_RATE
    batch_size = 16

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        revision: str | None = None,
        device: str | None = None,
        dtype: str = "float32",
    ) -> None:
        self.model = DEMO_MODEL if model is None else model
        self.revision, self.device, self.dtype = revision, device, dtype
        self._network: Any = None
        self._extractor: Any = None

    def load(self) -> None:
        """
        Loads the model.

        Raises:
            ModelError: the model cannot be loaded, or judges frames.
        """
        network, extractor = load_model(self.model, self.revision, choose_device(self.device), self.dtype)
        if isinstance(network, Nes2NetForAudioFrameClassification):
            raise ModelError(
                f"model {self.model} judges frames, but the Arena needs utterance scores: use an utterance model."
            )
        self._network, self._extractor = network, extractor

    def score_batch(self, audios: Sequence[np.ndarray], srs: Sequence[int]) -> list[float]:
        """
        Scores a batch.

        Args:
            audios: B mono waveforms (S,) of floats in [-1, 1], of any lengths.
            srs: sampling rate of each in Hz; other rates than 16 kHz are resampled.

        Returns:
            B scores.

        Raises:
            AudioError: the batch is empty, or a waveform is empty, too short, silent, or has NaN or infinite samples.
            ModelError: `load` was not called.
        """
        if self._network is None:
            raise ModelError("the model is not loaded: call load() before score_batch().")
        if not len(audios) or len(audios) != len(srs):
            raise AudioError(
                f"audios and srs must have the same length and not be empty, got {len(audios)} and {len(srs)}."
            )
        waveforms = [_read(index, audio, rate) for index, (audio, rate) in enumerate(zip(audios, srs))]
        inputs = self._extractor(
            waveforms, sampling_rate=SAMPLING_RATE, return_tensors="pt", return_attention_mask=True
        )
        with torch.inference_mode():
            logits = self._network(**inputs.to(self._network.device)).logits
            return self._network.score(logits).tolist()

    def unload(self) -> None:
        """Frees the model's memory; `load` loads it again."""
        self._network = self._extractor = None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _read(index: int, audio: np.ndarray, rate: int) -> np.ndarray:
    """Returns (S,) at any rate as (S',) at 16 kHz, with the checks of a file."""
    try:
        return read_audio((audio, rate))
    except AudioError as error:
        raise AudioError(str(error).replace("<array>", f"audios[{index}]", 1)) from None
