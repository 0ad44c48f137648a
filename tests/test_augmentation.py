"""Augmentation does what its definitions say, and the same generator gives the same audio."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.signal import freqz, lfilter

from nes2net_hf.augmentation import AugmentationError, RawBoost, Speed, build_chain
from nes2net_hf.augmentation.rawboost import NUMBERS

RATE = 16_000


@pytest.fixture(scope="module")
def wave(speech: list[np.ndarray]) -> np.ndarray:
    return speech[0]


def direct_convolutive(boost: RawBoost, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """LnL as the paper writes it: each power through its own filters, by direct convolution, then summed."""
    total = np.zeros(wave.size)
    for order in range(boost.powers):
        low, high = (0.0, 0.0) if order == 0 else (-boost.bias[1], -boost.bias[0])
        taps = boost._notches(rng, (low, high))
        delay = taps.size // 2
        total += lfilter(taps, 1, np.pad(wave.astype(np.float64) ** (order + 1), (0, delay)))[delay:]
    total -= total.mean()
    return total / max(1.0, np.abs(total).max())


def test_convolutive_noise_equals_the_direct_formulation(wave: np.ndarray) -> None:
    boost = RawBoost(1)
    for seed in range(3):
        expected = direct_convolutive(boost, wave, np.random.default_rng(seed))
        assert boost(wave, np.random.default_rng(seed)) == pytest.approx(expected, abs=1e-6)


def test_notches_cut_where_they_were_drawn_and_peak_at_their_gain() -> None:
    boost = RawBoost(bands=1, coefficients=(99, 100), centre=(3000, 3000), width=(900, 900))
    taps = boost._notches(np.random.default_rng(0), (-6.0, -6.0))
    frequencies, response = freqz(taps, 1, 4096, fs=RATE)
    level = 20 * np.log10(np.abs(response) + 1e-12)
    assert level.max() == pytest.approx(-6, abs=0.1)
    assert level[np.abs(frequencies - 3000) < 150].max() < -26
    assert level[np.abs(frequencies - 3000) > 900].min() > -7
    drawn = [RawBoost()._notches(np.random.default_rng(seed), (0.0, 0.0)) for seed in range(20)]
    assert all(taps.size % 2 == 1 and np.allclose(taps, taps[::-1]) for taps in drawn)


def test_the_snr_of_stationary_noise_is_uniform_over_its_range(wave: np.ndarray) -> None:
    boost, snrs = RawBoost(3), []
    for seed in range(150):
        noise = boost.stationary(wave.astype(np.float64), np.random.default_rng(seed)) - wave
        snrs.append(10 * np.log10(np.sum(wave.astype(np.float64) ** 2) / np.sum(noise**2)))
    assert 10 <= min(snrs) < 13 and 37 < max(snrs) <= 40
    assert np.mean(snrs) == pytest.approx(25, abs=2.5)


def test_impulses_disturb_up_to_a_tenth_of_the_samples_in_proportion_to_them(wave: np.ndarray) -> None:
    boost, shares = RawBoost(2), []
    for seed in range(100):
        change = boost.impulsive(wave.astype(np.float64), np.random.default_rng(seed)) - wave
        touched = np.flatnonzero(change)
        assert np.all(np.abs(change[touched]) <= 2 * np.abs(wave[touched]) + 1e-12)
        shares.append(touched.size / np.count_nonzero(wave))
    assert max(shares) <= 0.101 and np.mean(shares) == pytest.approx(0.05, abs=0.01)


@pytest.mark.parametrize("number", NUMBERS)
def test_every_number_is_bounded_reproducible_and_keeps_the_length(number: int, wave: np.ndarray) -> None:
    boost = RawBoost(number)
    first, again, other = (boost(wave, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == np.float32 and first.shape == wave.shape
    assert np.isfinite(first).all() and np.abs(first).max() <= 1.5
    assert np.array_equal(first, again)
    assert np.array_equal(first, wave) == (number == 0)
    assert np.array_equal(first, other) == (number == 0)


def test_series_and_parallel_are_made_of_the_parts(wave: np.ndarray) -> None:
    boost, rng = RawBoost(4), np.random.default_rng(5)
    step = boost.convolutive(wave.astype(np.float64), rng)
    step = boost.stationary(boost.impulsive(step, rng), rng)
    assert boost(wave, np.random.default_rng(5)) == pytest.approx(step, abs=1e-6)
    rng = np.random.default_rng(5)
    total = boost.convolutive(wave.astype(np.float64), rng) + boost.impulsive(wave.astype(np.float64), rng)
    assert RawBoost(8)(wave, np.random.default_rng(5)) == pytest.approx(total / np.abs(total).max(), abs=1e-6)
    assert np.array_equal(RawBoost(11, chances=(0.0, 0.0, 0.0))(wave, np.random.default_rng(0)), wave)
    assert np.array_equal(RawBoost(10, chances=(0.0, 0.0, 0.0))(wave, np.random.default_rng(0)), wave)


def test_speed_moves_tempo_and_pitch_together() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    fast = Speed(1.25, 1.25)(tone, np.random.default_rng(0))
    assert fast.size == pytest.approx(RATE / 1.25, abs=2) and fast.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(fast))
    assert np.fft.rfftfreq(fast.size, 1 / RATE)[spectrum.argmax()] == pytest.approx(550, abs=3)


def test_a_chain_draws_each_step_with_its_probability(wave: np.ndarray) -> None:
    chain = build_chain([{"name": "speed", "probability": 0.5, "low": 0.8, "high": 0.9}])
    changed = [chain(wave, np.random.default_rng(seed)).size != wave.size for seed in range(200)]
    assert 70 < sum(changed) < 130
    assert np.array_equal(build_chain([])(wave, np.random.default_rng(0)), wave)
    both = build_chain([{"name": "speed"}, {"name": "rawboost", "number": 8}])
    assert np.array_equal(both(wave, np.random.default_rng(3)), both(wave, np.random.default_rng(3)))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "reverb"}, "name must be one of rawboost, speed, got 'reverb'"),
        ({}, "got None"),
        ({"name": "speed", "probability": 2}, "probability must lie between 0 and 1"),
        ({"name": "speed", "lo": 0.9}, "lo is no setting of it; did you mean low"),
        ({"name": "speed", "low": 1.2}, "speed: low and high must be positive and in order"),
        ({"name": "rawboost", "number": 12}, "number must be 0 to 11, got 12"),
        ({"name": "rawboost", "snr": [40, 10]}, "snr must be a lower and an upper bound"),
        ({"name": "rawboost", "bands": 0}, "bands and powers must be at least 1"),
    ],
)
def test_what_a_recipe_gets_wrong_is_named(step: dict[str, Any], message: str) -> None:
    with pytest.raises(AugmentationError, match=message):
        build_chain([step])
