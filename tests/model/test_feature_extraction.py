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
        (np.zeros(9000, np.int16), "must contain floats in"),
        (noise(399), "too short: 399 samples, at least 400"),
        (np.full(9000, np.nan, np.float32), "contains NaN"),
        ([noise(9000), np.full(9000, np.inf, np.float32)], r"raw_speech\[1\] contains NaN or infinite"),
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


# What transformers' own extractors take of a call ------------------------------------------------------------------


def lengths(extractor: Nes2NetFeatureExtractor, *samples: int, **asked: object) -> list[tuple[int, int]]:
    """Of waveforms of so many samples, the samples of each row and those that are its own."""
    features = extractor([noise(count) for count in samples], sampling_rate=RATE, **asked)
    own = [int(mask.sum()) for mask in features.get("attention_mask", [])] or [-1] * len(samples)
    return [(len(row), count) for row, count in zip(features["input_values"], own, strict=True)]


@pytest.mark.parametrize(
    ("policy", "asked", "expected"),
    [
        ("first", {}, [(64_600, 64_600)] * 2),
        ("first", {"max_length": 16_000}, [(16_000, 16_000)] * 2),
        ("first", {"padding": "max_length"}, [(64_600, 64_600), (64_600, 9_000)]),
        ("first", {"padding": "max_length", "max_length": 16_000}, [(16_000, 16_000), (16_000, 9_000)]),
        ("first", {"padding": True, "truncation": False}, [(70_000, 70_000), (70_000, 9_000)]),
        ("first", {"padding": "longest", "max_length": 16_000}, [(16_000, 16_000), (16_000, 9_000)]),
        ("first", {"padding": False}, [(64_600, 64_600), (9_000, 9_000)]),
        ("first", {"padding": "do_not_pad", "truncation": False}, [(70_000, 70_000), (9_000, 9_000)]),
        ("first", {"truncation": False}, [(70_000, 70_000), (70_000, 64_600)]),
        ("first", {"return_attention_mask": False}, [(64_600, -1)] * 2),
        ("whole", {}, [(70_000, 70_000), (70_000, 9_000)]),
        ("whole", {"truncation": True}, [(64_600, 64_600), (64_600, 9_000)]),
        ("whole", {"truncation": True, "max_length": 8_000}, [(8_000, 8_000)] * 2),
        ("whole", {"padding": "max_length", "max_length": 80_000}, [(80_000, 70_000), (80_000, 9_000)]),
        ("whole", {"padding": True, "pad_to_multiple_of": 16_000}, [(80_000, 70_000), (80_000, 9_000)]),
        ("whole", {"padding": False, "return_attention_mask": False}, [(70_000, -1), (9_000, -1)]),
    ],
)
def test_a_call_says_how_long_and_how_filled_up(policy: str, asked: dict, expected: list) -> None:
    assert lengths(Nes2NetFeatureExtractor(length_policy=policy), 70_000, 9_000, **asked) == expected


def test_zeros_fill_up_behind_what_is_normalised_by_itself() -> None:
    extractor = Nes2NetFeatureExtractor(do_normalize=True)
    values = extractor(3 * noise(9_000) + 1, sampling_rate=RATE, padding="max_length", return_tensors="np")
    assert values["input_values"].shape == (1, 64_600) and not values["input_values"][0, 9_000:].any()
    assert values["input_values"][0, :9_000].mean() == pytest.approx(0, abs=1e-4)
    assert values["input_values"][0, :9_000].std() == pytest.approx(1, abs=1e-3)


def test_whether_there_is_a_mask_is_kept_with_the_settings(tmp_path: Path) -> None:
    Nes2NetFeatureExtractor().save_pretrained(tmp_path)
    without = AutoFeatureExtractor.from_pretrained(tmp_path, return_attention_mask=False)
    assert list(without(noise(9_000), sampling_rate=RATE)) == ["input_values"]
    asked = without(noise(9_000), sampling_rate=RATE, return_attention_mask=True)
    assert list(asked) == ["input_values", "attention_mask"]
    without.save_pretrained(tmp_path)
    assert AutoFeatureExtractor.from_pretrained(tmp_path).return_attention_mask is False


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({"windows": 3}, TypeError, "takes no windows: it takes sampling_rate"),
        ({"max_length": 399}, ValueError, "max_length must be at least 400"),
        ({"max_length": "long"}, ValueError, "max_length must be at least 400 .* got 'long'"),
        ({"max_length": 10**12}, ValueError, "max_length must be .* at most 9600000 samples"),
        ({"padding": "left"}, ValueError, "left is not a valid PaddingStrategy"),
    ],
)
def test_a_call_that_cannot_be_followed_is_an_error(asked: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        Nes2NetFeatureExtractor()(noise(9_000), sampling_rate=RATE, **asked)
