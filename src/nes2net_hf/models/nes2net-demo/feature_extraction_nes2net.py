"""Nes2Net feature extractor. This file travels with every released checkpoint: numpy and transformers only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, SequenceFeatureExtractor
from transformers.utils import FEATURE_EXTRACTOR_NAME, PaddingStrategy, logging

logger = logging.get_logger(__name__)

LENGTH_POLICIES = ("first", "whole")
_RATE = 16_000  # every encoder that Nes2Net supports has this rate
_LONGEST_WINDOW = 600 * _RATE


class Nes2NetFeatureExtractor(SequenceFeatureExtractor):
    r"""
    Prepares mono waveforms as the published systems do: first their length, then, if set, normalisation.

    Args:
        sampling_rate (`int`, *optional*, defaults to 16000):
            Sampling rate of the waveforms in Hz. The encoders read only 16 kHz.
        window_length (`int`, *optional*, defaults to 64600):
            Samples of one window, at most ten minutes; 64,600 is 4.04 s.
        length_policy (`str`, *optional*, defaults to `"first"`):
            `"first"` takes the first `window_length` samples, and repeats shorter waveforms to that length. `"whole"`
            keeps utterances as they are, and pads a batch with zeros that the attention mask marks.
        do_normalize (`bool`, *optional*, defaults to `False`):
            Whether each waveform is scaled to zero mean and unit variance, after its length is set.
        normalize_eps (`float`, *optional*, defaults to 1e-5):
            Added to the variance; 1e-5 as in the layer norm of the published CtrSVDD systems.
        min_samples (`int`, *optional*, defaults to 400):
            Shortest waveform accepted: 400 samples are 25 ms at 16 kHz, one frame of the encoder.
        return_attention_mask (`bool`, *optional*, defaults to `True`):
            Whether calls return the mask by default.

    Raises:
        ValueError: a setting is invalid.
    """

    model_input_names = ["input_values", "attention_mask"]  # noqa: RUF012 - transformers' own form

    def __init__(
        self,
        feature_size: int = 1,
        sampling_rate: int = _RATE,
        padding_value: float = 0.0,
        window_length: int = 64_600,
        length_policy: str = "first",
        do_normalize: bool = False,
        normalize_eps: float = 1e-5,
        min_samples: int = 400,
        **kwargs: Any,
    ) -> None:
        for name in kwargs:
            if callable(getattr(type(self), name, None)):
                raise ValueError(f"{name} is not a setting: remove it.")
        if length_policy not in LENGTH_POLICIES:
            raise ValueError(f"length_policy must be one of {', '.join(LENGTH_POLICIES)}, got {length_policy!r}.")
        for name, value, only in (
            ("sampling_rate", sampling_rate, _RATE),
            ("feature_size", feature_size, 1),
            ("padding_value", float(padding_value) if type(padding_value) is int else padding_value, 0.0),
            ("padding_side", kwargs.get("padding_side", "right"), "right"),
            ("model_input_names", kwargs.get("model_input_names", self.model_input_names), self.model_input_names),
        ):
            if type(value) is not type(only) or value != only:
                raise ValueError(f"{name} must be {only!r}, got {_short(value)}.")
        _check_integer("min_samples", min_samples, 1)
        _check_integer("window_length", window_length, min_samples)
        return_attention_mask = kwargs.get("return_attention_mask", True)
        for name, value in (("do_normalize", do_normalize), ("return_attention_mask", return_attention_mask)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} must be true or false, got {_short(value)}.")
        if isinstance(normalize_eps, bool) or not isinstance(normalize_eps, (int, float)) or not 0 < normalize_eps < 1:
            raise ValueError(f"normalize_eps must be positive and below 1, got {_short(normalize_eps)}.")
        self.window_length = window_length
        self.length_policy = length_policy
        self.do_normalize = do_normalize
        self.normalize_eps = normalize_eps
        self.min_samples = min_samples
        super().__init__(feature_size=feature_size, sampling_rate=sampling_rate, padding_value=padding_value, **kwargs)

    @classmethod
    def from_dict(cls, feature_extractor_dict: dict[str, Any], **kwargs: Any) -> Any:
        """Creates the extractor; every way of loading calls this. Raises ValueError for an invalid value."""
        if not isinstance(feature_extractor_dict, dict):
            raise ValueError(
                f"preprocessor_config.json must hold an object of fields, got {_short(feature_extractor_dict)}."
            )
        try:
            return super().from_dict(feature_extractor_dict, **kwargs)
        except RecursionError:
            raise ValueError("preprocessor_config.json is nested too deeply.") from None
        except Exception as error:
            raise ValueError(f"preprocessor_config.json: {' '.join(str(error).split())}") from None

    @classmethod
    def get_feature_extractor_dict(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        try:
            return super().get_feature_extractor_dict(pretrained_model_name_or_path, **kwargs)
        except RecursionError:
            raise ValueError("preprocessor_config.json is nested too deeply.") from None
        except (AttributeError, OSError, TypeError, ValueError) as error:
            file = os.path.join(pretrained_model_name_or_path, kwargs.get("subfolder") or "", FEATURE_EXTRACTOR_NAME)
            if isinstance(error, OSError) and not os.path.isfile(file):
                raise
            raise ValueError(f"preprocessor_config.json is not JSON: {' '.join(str(error).split())}") from None

    def __call__(
        self,
        raw_speech: np.ndarray | Sequence[float] | Sequence[np.ndarray] | Sequence[Sequence[float]],
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        *,
        padding: bool | str | PaddingStrategy | None = None,
        max_length: int | None = None,
        truncation: bool | None = None,
        pad_to_multiple_of: int | None = None,
        return_attention_mask: bool | None = None,
        **unknown: Any,
    ) -> BatchFeature:
        """
        Args:
            raw_speech: one waveform (S,) of floats in [-1, 1], or a list of B waveforms of any lengths.
            sampling_rate: their sampling rate in Hz. Pass it, so that a wrong rate is an error.
            return_tensors: `"pt"` or `"np"`.
            padding: `"max_length"` pads with zeros to `max_length`, `True` or `"longest"` to the longest waveform of
                the batch; `False` or `"do_not_pad"` does not pad. Default: `length_policy` decides.
            max_length: samples of a window, instead of `window_length`.
            truncation: whether to cut waveforms longer than `max_length`. Default: `length_policy` decides.
            pad_to_multiple_of: pads with zeros to a multiple of this number of samples.
            return_attention_mask: whether to return the mask. Default: the extractor's setting.

        Returns:
            `input_values` (B, S) float32 and `attention_mask` (B, S) with 1 for samples and 0 for padding.

        Raises:
            ValueError: a wrong rate, a waveform that is not mono, not float, not finite, empty or too short, or an
                invalid length.
            TypeError: an unknown argument.
        """
        if unknown:
            raise TypeError(
                f"Nes2NetFeatureExtractor takes no {', '.join(unknown)}: it takes sampling_rate, return_tensors, "
                "padding, max_length, truncation, pad_to_multiple_of and return_attention_mask."
            )
        if sampling_rate is None:
            logger.warning_once(
                f"sampling_rate was not passed, so {self.sampling_rate} Hz is assumed. Pass it, so that a wrong rate "
                "is an error."
            )
        elif sampling_rate != self.sampling_rate:
            raise ValueError(
                f"sampling_rate must be {self.sampling_rate} Hz, got {sampling_rate}: resample the audio first "
                "(nes2net_hf.detect does this itself)."
            )
        length = self.window_length if max_length is None else max_length
        _check_integer("max_length", length, self.min_samples)
        is_window = self.length_policy == "first"
        cut = length if truncation or (truncation is None and is_window) else None
        repeat = length if padding is None and is_window else None
        waveforms = [self._prepare(waveform, name, cut, repeat) for name, waveform in _as_batch(raw_speech)]
        return self.pad(
            BatchFeature({"input_values": waveforms}),
            padding="longest" if padding is None else padding,
            max_length=length,
            pad_to_multiple_of=pad_to_multiple_of,
            return_attention_mask=return_attention_mask,
            return_tensors=return_tensors,
        )

    def _prepare(self, waveform: np.ndarray, name: str, cut: int | None, repeat: int | None) -> np.ndarray:
        """(S,) → (S',) float32: cut to at most `cut` samples, repeated to at least `repeat`, and normalised if set."""
        if waveform.ndim != 1:
            raise ValueError(
                f"{name} must be one mono waveform (samples,), got shape {tuple(waveform.shape)}: "
                "mix or choose a channel first, and pass a batch as a list of waveforms."
            )
        if waveform.size == 0:
            raise ValueError(f"{name} is empty: pass a waveform with samples.")
        if not np.issubdtype(waveform.dtype, np.floating):
            raise ValueError(
                f"{name} must contain floats in [-1, 1], got {waveform.dtype}: divide 16-bit integers by 32768."
            )
        if waveform.size < self.min_samples:
            raise ValueError(
                f"{name} is too short: {waveform.size} samples, at least {self.min_samples} "
                f"({1000 * self.min_samples / self.sampling_rate:g} ms) are needed."
            )
        waveform = waveform.astype(np.float32)
        if not np.isfinite(waveform).all():
            raise ValueError(f"{name} contains NaN or infinite samples: replace them, or record it again.")
        waveform = waveform[:cut]
        if repeat is not None and waveform.size < repeat:
            # The published systems pad by repeating the waveform from its start; np.resize does that.
            waveform = np.resize(waveform, repeat)
        if self.do_normalize:
            centred = waveform - waveform.mean(dtype=np.float64).astype(np.float32)
            waveform = centred / np.sqrt(centred.var(dtype=np.float64) + self.normalize_eps).astype(np.float32)
        return waveform


def _as_batch(raw_speech: Any) -> list[tuple[str, np.ndarray]]:
    """Returns names and waveforms, from one waveform (array, tensor, list of numbers) or a list of waveforms."""
    if isinstance(raw_speech, (list, tuple)) and len(raw_speech) and not np.isscalar(raw_speech[0]):
        return [(f"raw_speech[{index}]", np.asarray(waveform)) for index, waveform in enumerate(raw_speech)]
    return [("raw_speech", np.asarray(raw_speech))]


def _check_integer(name: str, value: Any, least: int) -> None:
    if type(value) is not int or not least <= value <= _LONGEST_WINDOW:
        raise ValueError(
            f"{name} must be at least {least} and at most {_LONGEST_WINDOW} samples, got {_short(value)}."
        )


def _short(value: Any) -> str:
    try:
        return repr(value)[:100]
    except (RecursionError, ValueError):
        return f"a {type(value).__name__} too large to show"


Nes2NetFeatureExtractor.register_for_auto_class()
