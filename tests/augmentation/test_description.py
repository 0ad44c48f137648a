"""
RawBoost, noise, rooms, silence and the recipes' augmentation against slow, direct formulations of their descriptions.

The formulations share no code with the package. They draw the same numbers in the same order.
RawBoost: Tak et al. 2022, arXiv 2111.04433.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from nes2net_hf.audio import list_audio
from nes2net_hf.augmentation import Noise, RawBoost, Room, Silence, build_chain
from nes2net_hf.augmentation.silence import CHANGES, find_speech
from tests.helpers import RATE, ROOT

WAYS = ("exact", "authors")
SEEDS = range(4)


@pytest.fixture(scope="module")
def wave(speech: list[np.ndarray]) -> np.ndarray:
    """(16000,) float32 of speech that peaks at 0.9, so that sums of it exceed 1 in some draws and not in others."""
    loudest = max(speech, key=lambda one: float(np.abs(one).mean()))[:RATE]
    return (0.9 * loudest / np.abs(loudest).max()).astype(np.float32)


def assert_same(said: np.ndarray, expected: np.ndarray) -> None:
    """Within 1e-4 of the peak."""
    assert said.dtype == np.float32 and said.shape == expected.shape
    assert np.abs(said - expected).max() <= 1e-4 * np.abs(expected).max()


# RawBoost


def band_stop(taps: int, low: float, high: float) -> np.ndarray:
    """The window method by hand: an ideal band-stop response times a Hamming window, with a gain of 1 at 0 Hz."""
    n = np.arange(taps) - (taps - 1) / 2
    ideal = np.sinc(n) - 2 * high / RATE * np.sinc(2 * high / RATE * n) + 2 * low / RATE * np.sinc(2 * low / RATE * n)
    response = ideal * (0.54 - 0.46 * np.cos(2 * np.pi * np.arange(taps) / (taps - 1)))
    return response / response.sum()


def notches(rng: np.random.Generator, low_gain: float, high_gain: float) -> np.ndarray:
    """Five notches, 20 to 8000 Hz, 100 to 1000 Hz wide, of 10 to 100 taps (odd); the largest gain is drawn, in dB."""
    taps = np.ones(1)
    for _ in range(5):
        centre, width = rng.uniform(20, 8000), rng.uniform(100, 1000)
        count = rng.integers(10, 100)
        count += 1 - count % 2
        taps = np.convolve(taps, band_stop(int(count), max(centre - width / 2, 0), min(centre + width / 2, 8000)))
    frequencies = np.arange(1025) * np.pi / 1024
    largest = np.abs(np.exp(-1j * np.outer(frequencies, np.arange(taps.size))) @ taps).max()
    return taps / largest * 10 ** (rng.uniform(low_gain, high_gain) / 20)


def filtered(wave: np.ndarray, taps: np.ndarray, way: str) -> np.ndarray:
    """Convolution by its sum. `exact` begins where the filter's delay ends, `authors` one sample later."""
    start = taps.size // 2 + (way == "authors")
    return np.convolve(np.pad(wave, (0, 1)), taps)[start : start + wave.size]


def limited(wave: np.ndarray) -> np.ndarray:
    return wave / np.abs(wave).max() if np.abs(wave).max() > 1 else wave


def convolutive(wave: np.ndarray, rng: np.random.Generator, way: str) -> np.ndarray:
    total = np.zeros(wave.size)
    for power in range(1, 6):
        total += filtered(wave**power, notches(rng, *((0, 0) if power == 1 else (-20, -5))), way)
    return limited(total - total.mean())


def impulsive(wave: np.ndarray, rng: np.random.Generator, way: str) -> np.ndarray:
    count = int(wave.size * rng.uniform(0, 10) / 100)
    places = rng.choice(wave.size, count, replace=False, shuffle=False)
    first, second = rng.uniform(-1, 1, count), rng.uniform(-1, 1, count)
    disturbed = wave.copy()
    for place, one, other in zip(places, first, second, strict=True):
        disturbed[place] += 2 * wave[place] * one * other
    return limited(disturbed)


def stationary(wave: np.ndarray, rng: np.random.Generator, way: str) -> np.ndarray:
    taps = notches(rng, 0, 0)
    noise = filtered(rng.standard_normal(wave.size), taps, way)
    snr = rng.uniform(10, 40)
    return wave + noise * np.sqrt((wave @ wave) / (noise @ noise) * 10 ** (-snr / 10))


PARTS = {"LnL": convolutive, "ISD": impulsive, "SSI": stationary}
SERIES = {1: ["LnL"], 2: ["ISD"], 3: ["SSI"], 4: ["LnL", "ISD", "SSI"], 5: ["LnL", "ISD"], 6: ["LnL", "SSI"],
          7: ["ISD", "SSI"], 11: ["LnL", "ISD", "SSI"]}  # fmt: skip
PARALLEL = {8: ["LnL", "ISD"], 9: ["LnL", "ISD", "SSI"], 10: ["LnL", "ISD"]}


def rawboost(
    wave: np.ndarray, rng: np.random.Generator, number: int, way: str, chances: dict[str, float]
) -> tuple[np.ndarray, float]:
    """Returns the boosted waveform (S,), and in parallel the peak of the sum before it is scaled (else 0)."""

    def happens(part: str) -> bool:
        return number not in (10, 11) or rng.random() < chances[part]

    wave = wave.astype(np.float64)
    if number in SERIES:
        for part in SERIES[number]:
            if happens(part):
                wave = PARTS[part](wave, rng, way)
        return wave, 0.0
    branches = [PARTS[part](wave, rng, way) for part in PARALLEL[number] if happens(part)]
    if not branches:
        return wave, 0.0
    total = sum(branches[1:], branches[0])
    return limited(total), float(np.abs(total).max())


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", range(1, 12))
def test_rawboost_is_its_description(number: int, way: str, wave: np.ndarray) -> None:
    for seed in SEEDS:
        for chances in ((1.0, 1.0, 1.0), (0.6, 0.3, 0.5)) if number in (10, 11) else ((1.0, 1.0, 1.0),):
            said = RawBoost(number, alignment=way, chances=chances)(wave, np.random.default_rng(seed))
            named = dict(zip(PARTS, chances, strict=True))
            expected, _ = rawboost(wave, np.random.default_rng(seed), number, way, named)
            assert_same(said, expected)


@pytest.mark.parametrize("number", PARALLEL)
def test_a_parallel_sum_is_scaled_down_only_where_its_peak_exceeds_1(number: int, wave: np.ndarray) -> None:
    peaks = {}
    for level in (0.3, 1.0):
        for seed in range(6):
            quieter = (level * wave).astype(np.float32)
            said = RawBoost(number)(quieter, np.random.default_rng(seed))
            _, before = rawboost(quieter, np.random.default_rng(seed), number, "exact", dict.fromkeys(PARTS, 1.0))
            peaks[before] = float(np.abs(said).max())
    assert min(peaks) < 1 < max(peaks)
    for before, after in peaks.items():
        assert after == pytest.approx(min(before, 1.0), rel=1e-4)


def test_the_authors_alignment_combs_the_sum_of_filtered_and_disturbed_speech(wave: np.ndarray) -> None:
    bins = slice(4 * RATE // 16, 6 * RATE // 16)  # 4 to 6 kHz of one second: a bin is 1 Hz
    assert wave.size == RATE
    loss = []
    for seed in range(40):
        exact, late = (
            np.abs(np.fft.rfft(RawBoost(8, alignment=way)(wave, np.random.default_rng(seed))))[bins] for way in WAYS
        )
        loss.append(20 * np.log10(np.linalg.norm(late) / np.linalg.norm(exact)))
    assert -4 < np.median(loss) < -0.5  # dB
    for number in (1, 5):  # in series, it is the same audio one sample earlier
        exact, late = (RawBoost(number, alignment=way, disturbed=0)(wave, np.random.default_rng(1)) for way in WAYS)
        assert late[:-1] == pytest.approx(exact[1:], abs=1e-4)


# Noise and rooms


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders like MUSAN and RIRS_NOISES: three noises of unequal length and level each, and rooms with a delay."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for kind in ("noise", "music", "speech"):
        (root / "musan" / kind).mkdir(parents=True)
        for index, (seconds, level) in enumerate(((0.4, 0.1), (1.3, 0.003), (2.0, 0.02))):
            samples = level * rng.standard_normal(int(seconds * RATE)).cumsum() / 5
            soundfile.write(root / "musan" / kind / f"{index}.wav", samples, RATE, subtype="FLOAT")
    (root / "RIRS_NOISES/simulated_rirs/small").mkdir(parents=True)
    for index, delay in enumerate((5, 40, 300)):
        response = rng.standard_normal(2_000) * np.exp(-np.arange(2_000) / 300) * (np.arange(2_000) >= delay)
        response[delay] = 6.0
        path = root / "RIRS_NOISES/simulated_rirs/small" / f"{index}.wav"
        soundfile.write(path, 0.1 * response, RATE, subtype="FLOAT")
    return root


def drawn(folder: Path, rng: np.random.Generator) -> np.ndarray:
    paths = list_audio(folder)
    return soundfile.read(paths[rng.integers(len(paths))])[0]


def power(wave: np.ndarray) -> float:
    return float(np.sum(wave.astype(np.float64) ** 2) / wave.size)


def noisy(
    wave: np.ndarray,
    rng: np.random.Generator,
    folder: Path,
    snr: tuple[float, float],
    files: tuple[int, int],
    way: str,
) -> np.ndarray:
    clean, stretches, added = wave.astype(np.float64), [], np.zeros(wave.size)
    for _ in range(rng.integers(files[0], files[1] + 1)):
        recording = drawn(folder, rng)
        start = rng.integers(recording.size)
        stretch = np.array([recording[(start + n) % recording.size] for n in range(wave.size)])
        if way == "authors":  # each recording at its own ratio, with 1e-4 added to both powers
            level = 10 * np.log10(power(clean) + 1e-4) - 10 * np.log10(power(stretch) + 1e-4) - rng.uniform(*snr)
            added += stretch * 10 ** (level / 20)
        else:
            stretches.append(stretch / np.sqrt(power(stretch)))
    if way == "exact":
        total = sum(stretches)
        added = total * np.sqrt(power(clean) / power(total) * 10 ** (-rng.uniform(*snr) / 10))
    return clean + added


def reverberant(wave: np.ndarray, rng: np.random.Generator, folder: Path, way: str) -> np.ndarray:
    response, clean = drawn(folder, rng), wave.astype(np.float64)
    wet = np.convolve(clean, response)
    if way == "authors":  # unit energy; the delay stays
        return wet[: wave.size] / np.sqrt(np.sum(response**2))
    direct = int(np.argmax(np.abs(response)))
    wet = wet[direct : direct + wave.size]
    return wet * np.sqrt(power(clean) / power(wet))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("snr", "files"), [((0.0, 15.0), (1, 1)), ((5.0, 25.0), (1, 1)), ((13.0, 20.0), (3, 8))])
def test_noise_is_its_description(
    snr: tuple[float, float], files: tuple[int, int], way: str, sounds: Path, wave: np.ndarray
) -> None:
    folder = sounds / "musan/noise"
    noise = Noise(str(folder), snr=snr, files=files, levels=way)
    for seed in range(8):
        quieter = (wave * (0.01 if seed % 2 else 1)).astype(np.float32)  # 1e-4 matters for quiet speech
        expected = noisy(quieter, np.random.default_rng(seed), folder, snr, files, way)
        assert_same(noise(quieter, np.random.default_rng(seed)), expected)


@pytest.mark.parametrize("way", WAYS)
def test_rooms_are_their_description(way: str, sounds: Path, wave: np.ndarray) -> None:
    folder = sounds / "RIRS_NOISES"
    room = Room(str(folder), levels=way)
    for seed in range(8):
        assert_same(
            room(wave, np.random.default_rng(seed)), reverberant(wave, np.random.default_rng(seed), folder, way)
        )


# Silence


def loud(frame: np.ndarray, level: float) -> bool:
    return 10 * np.log10(np.mean((frame - frame.mean()) ** 2) + 1e-30) >= level - 40


def silent(wave: np.ndarray, change: str, rng: np.random.Generator) -> np.ndarray:
    """One edge after the other, frame by frame of 10 ms; 40 dB below the 95th percentile is silence."""
    wave = wave.astype(np.float64)
    frames = [wave[start : start + 160] for start in range(0, wave.size - 159, 160)]
    powers = [np.mean((frame - frame.mean()) ** 2) for frame in frames]
    level = 10 * np.log10(np.percentile(powers, 95))
    first = next(number for number, frame in enumerate(frames) if loud(frame, level)) * 160
    last = wave.size
    for number in range(len(frames) - 1, -1, -1):
        if loud(frames[number], level):
            break
        last = number * 160
    before, speech, after = wave[:first], wave[first:last], wave[last:]
    rng.integers(1)  # which change: there is one
    if change == "swap":
        return np.concatenate([after, speech, before])
    one, other = rng.uniform(0, 1), rng.uniform(0, 1)
    if change == "trim":
        gone = first - round(one * first)
        return np.concatenate([before[gone:], speech, after[: round(other * after.size)]])
    longer_before = [before[mirrored(number, before.size)] for number in range(-round(one * RATE), before.size)]
    longer_after = [after[mirrored(number, after.size)] for number in range(after.size + round(other * RATE))]
    return np.concatenate([longer_before, speech, longer_after])


def mirrored(number: int, size: int) -> int:
    """Returns the place of a sample beyond the ends of a signal that goes back and forth."""
    number %= 2 * size
    return number if number < size else 2 * size - 1 - number


@pytest.mark.parametrize("change", CHANGES)
def test_silence_is_its_description(change: str, speech: list[np.ndarray]) -> None:
    waves = [wave for wave in speech if find_speech(wave)[0] > 0 and find_speech(wave)[1] < wave.size]
    assert len(waves) > 10
    for seed, wave in enumerate(waves):
        expected = silent(wave, change, np.random.default_rng(seed))
        assert_same(Silence((change,))(wave, np.random.default_rng(seed)), expected)


# The recipe of ASVspoof 5


def test_the_recipe_of_asvspoof5_is_its_description(
    sounds: Path, wave: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Half clean, a quarter in a room, a quarter with one category of MUSAN, and nothing else."""
    (tmp_path / "data").symlink_to(sounds)
    monkeypatch.chdir(tmp_path)
    recipe = yaml.safe_load((ROOT / "training/configs/asvspoof5.yaml").read_text(encoding="utf-8"))
    chain, short = build_chain(recipe["data"]["augmentation"]), wave[:1_000]
    musan = {"noise": ((0.0, 15.0), (1, 1)), "music": ((5.0, 25.0), (1, 1)), "speech": ((13.0, 20.0), (3, 8))}
    counts: Counter[str] = Counter()
    for seed in range(1_200):
        rng = np.random.default_rng(seed)
        rng.random()  # the chance of a step that is always applied
        place = rng.random()
        kind = "clean" if place < 0.5 else "room" if place < 0.75 else "musan"
        expected = short.astype(np.float64)
        if kind != "clean":
            rng.random()
        if kind == "room":
            expected = reverberant(short, rng, sounds / "RIRS_NOISES/simulated_rirs", "authors")
        if kind == "musan":
            kind = list(musan)[int(rng.random() * 3)]
            rng.random()
            expected = noisy(short, rng, sounds / "musan" / kind, *musan[kind], "authors")
        counts[kind] += 1
        assert_same(chain(short, np.random.default_rng(seed)), expected)
    shares = {"clean": 1 / 2, "room": 1 / 4, "noise": 1 / 12, "music": 1 / 12, "speech": 1 / 12}
    for kind, share in shares.items():
        deviation = np.sqrt(1_200 * share * (1 - share))
        assert abs(counts[kind] - 1_200 * share) < 3.5 * deviation, kind


@pytest.mark.parametrize(
    ("name", "number"),
    [("asvspoof2021", 4), ("asvspoof2021_nes2net", 4), ("asvspoof2021_val_aug", 4), ("partialspoof", 4),
     ("partialspoof_frames", 4), ("ctrsvdd_nes2net", 8), ("ctrsvdd_nes2net_x", 8), ("ctrsvdd_nes2net_x_selu", 8)],
)  # fmt: skip
def test_the_other_published_recipes_apply_rawboost_as_the_authors_do(
    name: str, number: int, wave: np.ndarray
) -> None:
    recipe = yaml.safe_load((ROOT / f"training/configs/{name}.yaml").read_text(encoding="utf-8"))
    rng = np.random.default_rng(2)
    rng.random()  # the chance of a step that is always applied
    expected, _ = rawboost(wave, rng, number, "authors", {})
    assert_same(build_chain(recipe["data"]["augmentation"])(wave, np.random.default_rng(2)), expected)
