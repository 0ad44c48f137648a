"""Augmentations follow their definitions, and the same generator state gives the same audio."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy.signal import freqz, lfilter

from nes2net_hf.audio import AudioError, list_audio, read_audio
from nes2net_hf.augmentation import AugmentationError, Codec, Noise, RawBoost, Room, Silence, Speed, build_chain
from nes2net_hf.augmentation.codec import FORMATS
from nes2net_hf.augmentation.rawboost import NUMBERS
from nes2net_hf.augmentation.silence import CHANGES, find_speech
from nes2net_hf.errors import OutputError, RecipeError
from nes2net_hf.trainer.recipe import check_same, load_recipe
from tests.helpers import RATE, band_power


def one_of(choice: Any) -> dict[str, Any]:
    """Returns a step that does nothing, or what `choice` says."""
    return {"name": "one_of", "choices": [{"weight": 0.5}, choice]}


@pytest.fixture(scope="module")
def wave(speech: list[np.ndarray]) -> np.ndarray:
    return speech[0]


def direct_convolutive(boost: RawBoost, wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns LnL as in the paper: each power with its own filters, by direct convolution, then summed."""
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
    assert RawBoost(8)(wave, np.random.default_rng(5)) == pytest.approx(
        total / max(1.0, np.abs(total).max()), abs=1e-6
    )
    assert np.array_equal(RawBoost(11, chances=(0.0, 0.0, 0.0))(wave, np.random.default_rng(0)), wave)
    assert np.array_equal(RawBoost(10, chances=(0.0, 0.0, 0.0))(wave, np.random.default_rng(0)), wave)


def test_speed_moves_tempo_and_pitch_together() -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)
    fast = Speed(1.25, 1.25)(tone, np.random.default_rng(0))
    assert fast.size == pytest.approx(RATE / 1.25, abs=2) and fast.dtype == np.float32
    spectrum = np.abs(np.fft.rfft(fast))
    assert np.fft.rfftfreq(fast.size, 1 / RATE)[spectrum.argmax()] == pytest.approx(550, abs=3)


def test_silence_changes_at_the_ends_and_speech_does_not(speech: list[np.ndarray]) -> None:
    sizes: dict[str, set[int]] = {change: set() for change in CHANGES}
    for wave in speech:
        start, end = find_speech(wave)
        middle, after = wave[start:end], wave.size - end
        for change in CHANGES:
            changed = Silence((change,))(wave, np.random.default_rng(wave.size))
            assert changed.dtype == np.float32
            where = changed.tobytes().index(middle.tobytes()) // 4
            if change == "swap":
                assert where == after and changed.size == wave.size
                assert np.array_equal(changed[:where], wave[end:])
            if change == "trim":
                assert where <= start and changed.size - where - middle.size <= after
                assert np.array_equal(changed, wave[start - where :][: changed.size])
            if change == "lengthen":
                assert start <= where <= start + RATE and changed.size <= wave.size + 2 * RATE
                assert np.array_equal(changed[where - start :][: wave.size], wave)
            sizes[change].add(changed.size - wave.size)
    assert all(len(sizes[change]) > 10 for change in ("trim", "lengthen")) and sizes["swap"] == {0}
    gone = Silence(("trim",), kept=(0, 0))(speech[0], np.random.default_rng(0))
    assert np.array_equal(Silence(("trim",), kept=(0, 0))(gone, np.random.default_rng(0)), gone)


def test_speech_is_found_next_to_digital_silence_and_not_in_noise(wave: np.ndarray) -> None:
    tone = np.sin(np.arange(RATE) / 5).astype(np.float32)
    padded = np.pad(tone, (1_600, 4_800)) + np.float32(0.1)  # a constant offset is no sound
    assert find_speech(padded) == (1_600, 1_600 + RATE)
    noisy = wave + 0.03 * np.random.default_rng(0).standard_normal(wave.size).astype(np.float32)
    assert find_speech(noisy) == (0, wave.size)
    for change in ("trim", "swap"):
        assert np.array_equal(Silence((change,))(noisy, np.random.default_rng(0)), noisy)
    longer = Silence(("lengthen",), added=(0.5, 0.5))(noisy, np.random.default_rng(0))
    assert np.array_equal(longer, np.pad(noisy, RATE // 2))
    for nothing in (np.zeros(5_000, np.float32), np.zeros(10, np.float32)):
        assert np.array_equal(Silence(("trim",))(nothing, np.random.default_rng(0)), nothing)


def test_silence_in_a_choice_of_changes_is_drawn_and_reproducible(wave: np.ndarray) -> None:
    drawn = [Silence()(wave, np.random.default_rng(seed)).size - wave.size for seed in range(60)]
    counts = [sum(size < 0 for size in drawn), sum(size > 0 for size in drawn), drawn.count(0)]
    assert min(counts) > 8  # trimmed, longer, swapped
    again = [Silence()(wave, np.random.default_rng(seed)).size - wave.size for seed in range(60)]
    assert again == drawn


@pytest.mark.parametrize("name", FORMATS)
def test_codecs_keep_the_speech_and_its_length_and_are_reproducible(name: str, wave: np.ndarray) -> None:
    codec = Codec(codecs=(name,))
    first, again = (codec(wave, np.random.default_rng(1)) for _ in range(2))
    assert first.shape == wave.shape and first.dtype == np.float32 and np.array_equal(first, again)
    correlation = np.fft.irfft(np.fft.rfft(wave, 2 * wave.size).conj() * np.fft.rfft(first, 2 * wave.size))
    assert correlation.max() > 0.7 * np.linalg.norm(wave) * np.linalg.norm(first)
    assert correlation.argmax() < 0.07 * RATE  # the delay of the codec
    assert not np.array_equal(first, wave)
    if FORMATS[name].rate < RATE:
        half = FORMATS[name].rate / 2
        assert band_power(first, half + 200, 8000) < 1e-3 * band_power(first, 0, half)


def test_a_recipe_without_codecs_draws_from_those_of_the_first_release() -> None:
    assert Codec().codecs == ("mp3", "aac", "opus", "alaw", "mulaw", "amr-nb", "gsm")


def test_bit_rates_are_drawn_and_a_telephone_line_leaves_the_narrow_band(speech: list[np.ndarray]) -> None:
    wide = max(speech, key=lambda wave: band_power(wave, 4200, 7000) / band_power(wave, 0, 4000))
    low, high = (Codec(codecs=("mp3",), bit_rates=(rate,))(wide, np.random.default_rng(0)) for rate in (8_000, 64_000))
    assert np.linalg.norm(wide - high) < 0.5 * np.linalg.norm(wide - low)
    narrow = Codec(codecs=("mp3",), bit_rates=(64_000,), narrowband=1.0)(wide, np.random.default_rng(0))
    assert band_power(narrow, 4200, 8000) < 0.1 * band_power(high, 4200, 8000)


@pytest.fixture
def folder(tmp_path: Path, speech: list[np.ndarray]) -> Path:
    """Returns a nested folder of noise recordings with different lengths and rates."""
    rng = np.random.default_rng(0)
    (tmp_path / "free-sound").mkdir()
    soundfile.write(tmp_path / "short.wav", 0.1 * rng.standard_normal(3_000), RATE)
    soundfile.write(tmp_path / "free-sound" / "long.flac", 0.02 * rng.standard_normal(441_000), 44_100)
    (tmp_path / "free-sound" / "LICENSE").write_text("")
    return tmp_path


@pytest.mark.parametrize("files", [(1, 1), (3, 7)])
def test_noise_is_mixed_in_at_the_snr_drawn(files: tuple[int, int], folder: Path, wave: np.ndarray) -> None:
    noise, snrs = Noise(str(folder), snr=(5, 15), files=files), []
    for seed in range(30):
        added = noise(wave, np.random.default_rng(seed)).astype(np.float64) - wave
        snrs.append(10 * np.log10(np.sum(wave.astype(np.float64) ** 2) / np.sum(added**2)))
    assert 4.99 < min(snrs) < 8 and 12 < max(snrs) < 15.01
    assert np.array_equal(noise(wave, np.random.default_rng(3)), noise(wave, np.random.default_rng(3)))


def test_silent_noise_is_named(tmp_path: Path, wave: np.ndarray) -> None:
    soundfile.write(tmp_path / "nothing.wav", np.zeros(5_000), RATE)
    with pytest.raises(AudioError, match=r"nothing\.wav is silent"):
        Noise(str(tmp_path))(wave, np.random.default_rng(0))


def test_noise_and_rooms_come_from_datasets_too(folder: Path, wave: np.ndarray, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    import pyarrow as pa
    from datasets.table import InMemoryTable

    files = [{"bytes": Path(path).read_bytes(), "path": "a.wav"} for path in list_audio(folder)]
    features = datasets.Features({"audio": datasets.Audio(decode=False), "licence": datasets.Value("string")})
    table = pa.table({"audio": files, "licence": ["a", "b"]}, schema=features.arrow_schema)
    (tmp_path / "noises").mkdir()
    datasets.Dataset(InMemoryTable(table)).to_parquet(tmp_path / "noises/train.parquet")
    from_folder, from_dataset = Noise(str(folder)), Noise(dataset=str(tmp_path / "noises"))
    for seed in range(4):
        mixed = (noise(wave, np.random.default_rng(seed)) for noise in (from_folder, from_dataset))
        assert np.array_equal(*mixed)
    with pytest.raises(ValueError, match=r"dataset .*nowhere could not be loaded"):
        Room(dataset=str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="set either root, a folder of recordings, or dataset"):
        Noise(str(folder), dataset="org/noise")


def test_a_room_adds_its_echo_and_keeps_place_and_power(tmp_path: Path, wave: np.ndarray) -> None:
    response = np.zeros(8_000)
    response[[200, 1_800]] = 0.5, 0.25  # direct sound after 12.5 ms, echo 100 ms later
    soundfile.write(tmp_path / "room.wav", response, RATE, subtype="FLOAT")
    wet = Room(str(tmp_path))(wave, np.random.default_rng(0)).astype(np.float64)
    expected = wave.astype(np.float64).copy()
    expected[1_600:] += 0.5 * wave[:-1_600]
    expected *= np.sqrt(np.mean(wave.astype(np.float64) ** 2) / np.mean(expected**2))
    assert wet == pytest.approx(expected, abs=1e-5)


def test_the_command_lets_one_hear_and_see_a_recipe(tmp_path: Path, fixture_audio_dir: Path, nes2net: Any) -> None:
    pytest.importorskip("matplotlib")
    source = next(fixture_audio_dir.glob("*.flac"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {encoder: {model_type: wav2vec2}}\n"
        "data: {augmentation: [{name: one_of, choices: [{steps: [{name: speed, low: 0.8, high: 0.8}]}]}, "
        "{name: rawboost, number: 4}]}\n"
    )

    def augment(*arguments: Any) -> Any:
        return nes2net("augment", *arguments, "--recipe", recipe)

    done = augment(source, tmp_path / "a.wav", "--seed", 3, "--plot", tmp_path / "a.png")
    assert done.code == 0 and (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    heard = read_audio(tmp_path / "a.wav")
    slower = {"name": "one_of", "choices": [{"steps": [{"name": "speed", "low": 0.8, "high": 0.8}]}]}
    expected = build_chain([slower, {"name": "rawboost", "number": 4}])(read_audio(source), np.random.default_rng(3))
    assert expected.size == pytest.approx(read_audio(source).size / 0.8, abs=2)
    assert heard == pytest.approx(np.clip(expected, -1, 1), abs=2e-4)
    wrong = augment(source, tmp_path / "a.mp3")
    assert wrong.code == 2 and "must end in .wav or .flac" in wrong.err
    missing = augment(tmp_path / "no.wav", tmp_path / "b.wav")
    assert missing.code == 1 and "no.wav" in missing.err
    recipe.write_text("data: {augmentation: [{name: sped}]}\n")
    unknown = augment(source, tmp_path / "b.wav")
    assert unknown.code == 2 and "data.augmentation: augmentation 0: name must be one of" in unknown.err


def test_a_chain_draws_each_step_with_its_probability(wave: np.ndarray) -> None:
    chain = build_chain([{"name": "speed", "probability": 0.5, "low": 0.8, "high": 0.9}])
    changed = [chain(wave, np.random.default_rng(seed)).size != wave.size for seed in range(200)]
    assert 70 < sum(changed) < 130
    assert np.array_equal(build_chain([])(wave, np.random.default_rng(0)), wave)
    both = build_chain([{"name": "speed"}, {"name": "rawboost", "number": 8}])
    assert np.array_equal(both(wave, np.random.default_rng(3)), both(wave, np.random.default_rng(3)))


def test_one_of_draws_a_choice_by_its_weight(wave: np.ndarray) -> None:
    choices = [
        {"weight": 6},
        {"steps": [{"name": "speed", "low": 0.8, "high": 0.8}]},
        {"weight": 3, "steps": [{"name": "speed", "low": 1.25, "high": 1.25}, {"name": "rawboost", "number": 2}]},
    ]
    chain, short = build_chain([{"name": "one_of", "choices": choices}]), wave[:800]
    sizes = [chain(short, np.random.default_rng(seed)).size for seed in range(1_000)]
    shares = [sizes.count(size) / 1_000 for size in (800, 1_000, 640)]
    assert shares == pytest.approx([0.6, 0.1, 0.3], abs=0.05) and sum(shares) == pytest.approx(1)
    never = build_chain([{"name": "one_of", "probability": 0, "choices": choices[1:]}])
    assert np.array_equal(never(wave, np.random.default_rng(0)), wave)


def test_augmentations_draw_only_from_their_generator(folder: Path, wave: np.ndarray) -> None:
    """A resumed run hears what the first one would have heard: the state of other generators has no influence."""
    steps = [
        {"name": "codec"},
        {"name": "noise", "root": str(folder), "files": [1, 3], "levels": "authors"},
        {"name": "room", "root": str(folder), "levels": "authors"},
        {"name": "speed"},
        {"name": "silence"},
    ]
    rawboost = {"name": "rawboost", "number": 10, "chances": [0.5, 0.5, 0.5], "alignment": "authors"}
    one_of = {"name": "one_of", "choices": [{}, *({"weight": 0.5, "steps": [step, rawboost]} for step in steps)]}
    for seed in range(8):
        heard = []
        for elsewhere in (1, 2):
            random.seed(elsewhere)
            np.random.seed(elsewhere)
            rng = np.random.default_rng(seed)
            # A chain of its own each time: a chain remembers nothing from one utterance to the next.
            heard.append((build_chain([one_of, rawboost])(wave, rng), rng.random()))
        assert np.array_equal(heard[0][0], heard[1][0]) and heard[0][1] == heard[1][1]


def test_a_run_with_one_of_resumes_only_with_the_same_choices(tmp_path: Path) -> None:
    choices = "augmentation: [{name: one_of, choices: [{weight: 0.5}, {steps: [{name: rawboost}]}]}]"
    (tmp_path / "recipe.yaml").write_text(f"model: {{encoder: {{model_type: wav2vec2}}}}\ndata: {{{choices}}}\n")
    recipe = load_recipe(tmp_path / "recipe.yaml")
    (tmp_path / "kept.yaml").write_text(recipe.as_yaml())
    check_same(tmp_path / "kept.yaml", recipe)
    recipe.data.augmentation[0]["choices"][0]["weight"] = 0.6
    with pytest.raises(OutputError, match=r"data\.augmentation: .* began with .*0\.5.*, not .*0\.6"):
        check_same(tmp_path / "kept.yaml", recipe)


@pytest.mark.parametrize("name", ["speed", "silence"])
def test_what_moves_sounds_is_refused_with_frame_labels_in_a_choice_too(name: str, tmp_path: Path) -> None:
    choices = "augmentation: [{name: one_of, choices: [{}, {steps: [{name: one_of, choices: [{steps: [SPEED]}]}]}]}]"
    (tmp_path / "recipe.yaml").write_text(
        f"model: {{encoder: {{model_type: wav2vec2}}, head: frames}}\n"
        f"data: {{{choices.replace('SPEED', f'{{name: {name}}}')}}}\n"
    )
    with pytest.raises(RecipeError, match=f"{name} shifts frames away from their labels"):
        load_recipe(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "reverb"}, "name must be one of codec, noise, one_of, rawboost, room, silence, speed, got 'reverb'"),
        ({"name": "noise", "root": "/no/such/folder"}, "noise: root /no/such/folder is not a folder"),
        ({"name": "noise"}, "noise: .*root"),
        ({"name": "room", "recordings": []}, "room has no setting recordings"),
        ({"name": "codec", "codecs": ["flac"]}, "codecs must be among mp3, aac, opus"),
        ({"name": "codec", "narrowband": 2}, "narrowband must be between 0 and 1"),
        ({}, "got None"),
        ({"name": "speed", "probability": 2}, "probability must be between 0 and 1"),
        ({"name": "speed", "lo": 0.9}, "speed has no setting lo; did you mean low"),
        ({"name": "silence", "changes": ["cut"]}, r"changes must be among trim, lengthen, swap, got \['cut'\]"),
        ({"name": "silence", "changes": []}, "silence: changes must be among trim"),
        ({"name": "silence", "kept": [0.5, 2]}, "kept must be a lower and an upper bound between 0 and 1"),
        ({"name": "silence", "added": [2, 1]}, "added must be a lower and an upper bound of at least 0"),
        ({"name": "speed", "low": 1.2}, "speed: low and high must be positive and in order"),
        ({"name": "rawboost", "number": 12}, "number must be 0 to 11, got 12"),
        ({"name": "rawboost", "snr": [40, 10]}, "snr must be a lower and an upper bound"),
        ({"name": "rawboost", "bands": 0}, "bands and powers must be at least 1"),
        ({"name": "rawboost", "alignment": "late"}, "rawboost: alignment must be exact or authors, got 'late'"),
        ({"name": "noise", "root": "/", "levels": "equal"}, "noise: levels must be exact or authors, got 'equal'"),
        ({"name": "room", "root": "/", "levels": "equal"}, "room: levels must be exact or authors, got 'equal'"),
        ("speed", r"augmentation 0: must be a mapping such as \{name: speed\}, got 'speed'"),
        ({"name": "one_of"}, r"one_of: choices must be a list of at least one choice, got \(\)"),
        (
            {"name": "one_of", "choices": {"a": 1}},
            "one_of: choices must be a list of at least one choice, got {'a': 1}",
        ),
        (one_of({"name": "speed"}), r"one_of: choices\[1\] may have the keys weight and steps, got {'name': 'speed'}"),
        (one_of({"weight": 0}), r"one_of: choices\[1\]: weight must be a positive number, got 0"),
        (one_of({"weight": "1"}), r"one_of: choices\[1\]: weight must be a positive number, got '1'"),
        (one_of({"steps": {"name": "speed"}}), r"choices\[1\]: steps must be a list of augmentations, got {"),
        (one_of({"steps": [{"name": "speed", "low": 1.2}]}), r"one_of: choices\[1\]: speed: low and high must be pos"),
        (
            one_of({"steps": [one_of({"steps": [{"name": "sped"}]})]}),
            r"one_of: choices\[1\]: one_of: choices\[1\]: augmentation 0: name must be one of codec, .*, got 'sped'",
        ),
    ],
)
def test_what_a_recipe_gets_wrong_is_named(step: Any, message: str) -> None:
    with pytest.raises(AugmentationError, match=message):
        build_chain([step])
