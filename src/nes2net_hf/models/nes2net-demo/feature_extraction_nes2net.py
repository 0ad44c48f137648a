"""Nes2Net feature extractor. This file travels with every released checkpoint: numpy and transformers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import logging

logger = logging.get_logger(__name__)

LENGTH_POLICIES = ("first", "whole")


class Nes2NetFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Prepares mono waveforms as the published systems do: length, then (where asked) normalisation.

    Args:
        sampling_rate (`int`, *optional*, defaults to 16000):
            Hz of the waveforms.
        window_length (`int`, *optional*, defaults to 64600):
            Samples of one window; 64,600 is 4.04 s at 16 kHz.
        length_policy (`str`, *optional*, defaults to `"first"`):
            `"first"` takes the first `window_length` samples and repeats shorter waveforms until they fill it;
            `"whole"` keeps the utterance as it is, and pads a batch with zeros behind the attention mask.
        do_normalize (`bool`, *optional*, defaults to `False`):
            Whether each waveform, after its length is settled, gets zero mean and unit variance.
        normalize_eps (`float`, *optional*, defaults to 1e-5):
            Added to the variance; 1e-5 as in the layer norm of the published CtrSVDD systems.
        min_samples (`int`, *optional*, defaults to 400):
            Shortest waveform accepted: 400 samples are 25 ms at 16 kHz, one frame of the encoder.

    Raises:
        ValueError: a setting is impossible.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012 - transformers' own form

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = 16_000,
        padding_value: float = 0.0,
        window_length: int = 64_600,
        length_policy: str = "first",
        do_normalize: bool = False,
        normalize_eps: float = 1e-5,
        min_samples: int = 400,
        **kwargs: Any,
    ) -> None:
        if length_policy not in LENGTH_POLICIES:
            raise ValueError(f"length_policy must be one of {', '.join(LENGTH_POLICIES)}, got {length_policy!r}.")
        if min_samples < 1:
            raise ValueError(f"min_samples must be at least 1, got {min_samples}.")
        if window_length < min_samples:
            raise ValueError(f"window_length must be at least {min_samples} samples, got {window_length}.")
        if normalize_eps <= 0:
            raise ValueError(f"normalize_eps must be positive, got {normalize_eps}.")
        self.window_length = window_length
        self.length_policy = length_policy
        self.do_normalize = do_normalize
        self.normalize_eps = normalize_eps
        self.min_samples = min_samples
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)

    def __call__(
        self,
        raw_speech: np.ndarray | Sequence[float] | Sequence[np.ndarray] | Sequence[Sequence[float]],
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """
        Args:
            raw_speech: one waveform (S,) of floats in [-1, 1], or a list of B of them, of any lengths.
            sampling_rate: Hz at which they were sampled; pass it, so that a wrong rate is an error.
            return_tensors: `"pt"` or `"np"`.

        Returns:
            `input_values` (B, S) float32 and `attention_mask` (B, S) with 1 for samples and 0 for padding.

        Raises:
            ValueError: a wrong rate, or a waveform that is not mono, not float, not finite, empty or too short.
        """
        if sampling_rate is None:
            logger.warning_once(
                f"sampling_rate was not given: the audio is taken to be at {self.sampling_rate} Hz. "
                "Pass it, so that a wrong rate cannot pass unseen."
            )
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"sampling_rate must be {self.sampling_rate} Hz, got {sampling_rate}: resample the audio first "
                "(nes2net_hf.detect does it by itself)."
            )
        waveforms = [self._prepare(waveform, name) for name, waveform in _as_batch(raw_speech)]
        return self.pad(
            BatchFeature({"input_values": waveforms}),
            padding="longest",
            return_attention_mask=True,
            return_tensors=return_tensors,
        )

    def _prepare(self, waveform: np.ndarray, name: str) -> np.ndarray:
        """(S,) any length → (S',) float32 of the policy's length, normalised where asked."""
        if waveform.ndim != 1:
            raise ValueError(
                f"{name} must be one mono waveform (samples,), got shape {tuple(waveform.shape)}: "
                "mix or choose a channel first, and pass a batch as a list of waveforms."
            )
        if waveform.size == 0:
            raise ValueError(f"{name} is empty.")
        if not np.issubdtype(waveform.dtype, np.floating):
            raise ValueError(
                f"{name} must hold floats in [-1, 1], got {waveform.dtype}: divide 16-bit integers by 32768."
            )
        if waveform.size < self.min_samples:
            raise ValueError(
                f"{name} is too short: {waveform.size} samples, at least {self.min_samples} "
                f"({1000 * self.min_samples / self.sampling_rate:g} ms) are needed."
            )
        waveform = waveform.astype(np.float32)
        if not np.isfinite(waveform).all():
            raise ValueError(f"{name} holds NaN or infinite samples.")
        if self.length_policy == "first":
            # np.resize repeats the waveform from its start as often as needed, as the published systems pad.
            waveform = np.resize(waveform[: self.window_length], self.window_length)
        if self.do_normalize:
            centred = waveform - waveform.mean(dtype=np.float64).astype(np.float32)
            waveform = centred / np.sqrt(centred.var(dtype=np.float64) + self.normalize_eps).astype(np.float32)
        return waveform


def _as_batch(raw_speech: Any) -> list[tuple[str, np.ndarray]]:
    """Names and waveforms of a single waveform (array, tensor, list of numbers) or of a list of waveforms."""
    if isinstance(raw_speech, (list, tuple)) and len(raw_speech) and not np.isscalar(raw_speech[0]):
        return [(f"raw_speech[{index}]", np.asarray(waveform)) for index, waveform in enumerate(raw_speech)]
    return [("raw_speech", np.asarray(raw_speech))]


Nes2NetFeatureExtractor.register_for_auto_class()
