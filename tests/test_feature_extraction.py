"""The feature extractor prepares waveforms as the published systems do, and refuses what it cannot judge."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoFeatureExtractor

from nes2net_hf import Nes2NetFeatureExtractor

RATE = 16_000


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def test_long_audio_gives_its_first_window_and_short_audio_is_repeated() -> None:
    extractor = Nes2NetFeatureExtractor()
    long, short = noise(100_000), noise(30_000, seed=1)
    values = extractor([long, short], sampling_rate=RATE, return_tensors="np")["input_values"]
    assert values.shape == (2, 64_600) and values.dtype == np.float32
    assert np.array_equal(values[0], long[:64_600])
    assert np.array_equal(values[1], np.concatenate([short, short, short])[:64_600])


def test_whole_utterances_are_padded_behind_a_mask() -> None:
    extractor = Nes2NetFeatureExtractor(length_policy="whole", do_normalize=True)
    features = extractor([noise(9000), noise(4000)], sampling_rate=RATE, return_tensors="np")
    assert features["input_values"].shape == features["attention_mask"].shape == (2, 9000)
    assert features["attention_mask"].sum(-1).tolist() == [9000, 4000]
    assert not features["input_values"][1, 4000:].any()
    assert features["input_values"][1, :4000].std() == pytest.approx(1, abs=1e-2)


def test_each_waveform_is_normalised_by_itself_with_the_layer_norm_epsilon() -> None:
    import torch

    quiet = 0.001 * noise(64_600) + 0.5
    values = Nes2NetFeatureExtractor(do_normalize=True)(quiet, sampling_rate=RATE, return_tensors="pt")["input_values"]
    expected = torch.nn.functional.layer_norm(torch.from_numpy(quiet).double(), (64_600,), eps=1e-5)
    torch.testing.assert_close(values[0].double(), expected, atol=1e-5, rtol=1e-4)


def test_the_audio_is_left_as_it_was() -> None:
    waveform = noise(64_600)
    before = waveform.copy()
    Nes2NetFeatureExtractor(do_normalize=True)(waveform, sampling_rate=RATE)
    assert np.array_equal(waveform, before)


def test_settings_survive_saving(tmp_path: Path) -> None:
    Nes2NetFeatureExtractor(window_length=64_000, length_policy="whole", do_normalize=True).save_pretrained(tmp_path)
    loaded = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert isinstance(loaded, Nes2NetFeatureExtractor)
    assert (loaded.window_length, loaded.length_policy, loaded.do_normalize) == (64_000, "whole", True)


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (np.zeros((2, 9000), np.float32), r"must be one mono waveform \(samples,\), got shape \(2, 9000\)"),
        (np.zeros(0, np.float32), "raw_speech is empty"),
        (np.zeros(9000, np.int16), "must hold floats in"),
        (noise(399), "too short: 399 samples, at least 400"),
        (np.full(9000, np.nan, np.float32), "holds NaN"),
        ([noise(9000), np.full(9000, np.inf, np.float32)], r"raw_speech\[1\] holds NaN or infinite"),
    ],
)
def test_audio_that_cannot_be_judged_is_an_error_in_a_sentence(audio: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Nes2NetFeatureExtractor()(audio, sampling_rate=RATE)


def test_a_wrong_rate_is_an_error() -> None:
    with pytest.raises(ValueError, match="sampling_rate must be 16000 Hz, got 8000"):
        Nes2NetFeatureExtractor()(noise(9000), sampling_rate=8000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length_policy": "middle"}, "length_policy must be one of"),
        ({"window_length": 160}, "window_length must be at least 400"),
        ({"normalize_eps": 0}, "normalize_eps must be positive"),
    ],
)
def test_impossible_settings_are_errors(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Nes2NetFeatureExtractor(**settings)
