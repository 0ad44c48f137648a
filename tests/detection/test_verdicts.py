"""Verdicts and warnings: channels, windows that look fake, too little sound, no speech, no false probability."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nes2net_hf import detect
from nes2net_hf.audio import SAMPLING_RATE, read_audio
from nes2net_hf.detection import Detector, Result
from nes2net_hf.detection.speech import SpeechFinder
from nes2net_hf.pretrained.places import DEMO_MODEL
from nes2net_hf.samples import FOLDER as SAMPLES
from tests.helpers import FIXTURES
from tests.recordings import encode, voice

BONAFIDE, SPOOF = (read_audio(SAMPLES / f"{name}.flac") for name in ("bonafide", "spoof"))
CLEAR = read_audio(FIXTURES / "audio/test-pocketsphinx-cards-0001.flac")  # far above the threshold
LENGTH = min(len(BONAFIDE), len(SPOOF))
WINDOW = 64_600
TIME = np.arange(6 * SAMPLING_RATE) / SAMPLING_RATE
NOISE = np.random.default_rng(0).standard_normal(len(TIME))


@pytest.fixture(scope="module")
def detector() -> Detector:
    """The bundled model, which judges both samples correctly."""
    return Detector(device="cpu")


def judged(detector: Detector, *signals: np.ndarray, rate: int = SAMPLING_RATE, **settings: Any) -> list[Result]:
    """Judges a recording with these channels."""
    length = max(map(len, signals))
    array = np.stack([np.pad(signal, (0, length - len(signal))) for signal in signals]).astype(np.float32)
    before = {name: getattr(detector, name) for name in settings}
    vars(detector).update(settings)
    try:
        return list(detector.stream((array, rate)))
    finally:
        vars(detector).update(before)


def notes(frequencies: list[float], decay: float) -> np.ndarray:
    """A melody of half-second notes with seven harmonics."""
    time = np.arange(SAMPLING_RATE // 2) / SAMPLING_RATE
    tone = [sum(0.15 / k * np.sin(2 * np.pi * f * k * time) for k in range(1, 8)) for f in frequencies]
    return np.concatenate([note * np.exp(-decay * time) for note in tone])


SCALE = [262.0, 294.0, 330.0, 349.0, 392.0, 440.0, 494.0, 523.0]
WITHOUT_SPEECH = {
    "tone": 0.3 * np.sin(2 * np.pi * 440 * TIME),
    "hum": 0.3 * np.sin(2 * np.pi * 50 * TIME),
    "dial tones": sum(0.2 * np.sin(2 * np.pi * f * TIME) for f in (697, 1209)) * (np.sin(4 * np.pi * TIME) > 0),
    "sweep": 0.3 * np.sin(2 * np.pi * (100 * TIME + 300 * TIME**2)),
    "chord": sum(0.1 * np.sin(2 * np.pi * f * TIME) for f in (261, 329, 392)),
    "melody": notes(SCALE * 2, decay=0),
    "piano": notes(SCALE * 2, decay=3),
    "white noise": 0.1 * NOISE,
    "babble of noise": 0.1 * NOISE * (1 + np.sin(8 * np.pi * TIME)),
    "brown noise": 0.001 * np.cumsum(NOISE),
    "clicks": 0.01 * NOISE + np.where(np.arange(len(TIME)) % 4000 < 20, 0.5, 0.0),
}


@pytest.mark.parametrize("name", WITHOUT_SPEECH)
def test_without_speech_there_is_a_score_and_no_verdict(detector: Detector, name: str) -> None:
    [result] = judged(detector, WITHOUT_SPEECH[name])
    assert result.undecided == "no speech found" and result.error is None
    assert result.label is None and result.score is not None and result.suspicious() == []


@pytest.mark.parametrize(
    "signal",
    [
        BONAFIDE,
        SPOOF,
        0.01 * BONAFIDE / np.abs(BONAFIDE).max(),
        BONAFIDE + 0.05 * NOISE[: len(BONAFIDE)],
        voice(3),
        read_audio(FIXTURES / "speech" / "sung.ogg"),
        read_audio(FIXTURES / "speech" / "whispered.ogg"),
        np.concatenate([WITHOUT_SPEECH["melody"], BONAFIDE, WITHOUT_SPEECH["tone"]]),
        np.pad(BONAFIDE[8_000:38_000], (100_000, 100_000)),
    ],
    ids=["read", "spoofed", "faint", "in noise", "narrow", "sung", "whispered", "after music", "once in silence"],
)
def test_speech_of_any_kind_gets_a_verdict(detector: Detector, signal: np.ndarray) -> None:
    [result] = judged(detector, signal)
    assert result.undecided is None and result.label in ("bonafide", "spoof")


def test_the_speech_finder_of_onnxruntime_hears_what_that_of_torch_hears() -> None:
    pytest.importorskip("onnxruntime")
    signals = [*WITHOUT_SPEECH.values(), BONAFIDE, SPOOF, 0.01 * BONAFIDE, voice(3), voice(0.3)]
    windows = [signal[:64_600].astype(np.float32) for signal in signals]
    torch, onnx = SpeechFinder("torch"), SpeechFinder("onnx")
    assert onnx.holds_speech(windows) == torch.holds_speech(windows) == [*[False] * len(WITHOUT_SPEECH), *[True] * 5]
    whole = np.stack([BONAFIDE[:64_512], SPOOF[:64_512]])
    assert np.abs(onnx._probabilities(whole) - torch._probabilities(whole)).max() < 1e-3


def test_speech_in_eight_kilohertz_gets_a_verdict(detector: Detector) -> None:
    [result] = judged(detector, voice(3, 8_000), rate=8_000)
    assert result.undecided is None


def test_finding_speech_leaves_torch_its_threads() -> None:
    import torch

    before = torch.get_num_threads()
    SpeechFinder()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(("seconds", "verdict"), [(0.1, False), (0.4, False), (0.9, False), (1.05, True), (3, True)])
def test_below_a_second_of_sound_it_is_too_short_to_judge(detector: Detector, seconds: float, verdict: bool) -> None:
    speech = voice(4)[8_000 : 8_000 + round(seconds * SAMPLING_RATE)]
    for signal in (speech, np.pad(speech, (0, 80_000))):  # silence does not count as sound
        [result] = judged(detector, signal)
        assert (result.label is not None) == verdict
        assert result.undecided == (None if verdict else "too short to judge")
        assert (f"unreliable: only {seconds:g} s of sound" in result.warnings) == (seconds < 2)


def test_separate_speakers_are_judged_by_themselves(detector: Detector) -> None:
    left, right = judged(detector, BONAFIDE[:LENGTH], SPOOF[:LENGTH])
    assert (left.channel, left.label, right.channel, right.label) == (0, "bonafide", 1, "spoof")
    alone = [judged(detector, signal[:LENGTH])[0].score for signal in (BONAFIDE, SPOOF)]
    assert [left.score, right.score] == pytest.approx(alone, abs=1e-5)
    assert left.warnings == right.warnings == []


@pytest.mark.parametrize("kind", ["path", "bytes", "file"])
def test_channels_are_compared_whatever_the_source(detector: Detector, kind: str, tmp_path: Path) -> None:
    data = encode(np.stack([BONAFIDE[:LENGTH], SPOOF[:LENGTH]]), SAMPLING_RATE, "flac")
    path = tmp_path / "call.flac"
    path.write_bytes(data)
    with open(path, "rb") as file:
        results = list(detector.stream({"path": path, "bytes": data, "file": file}[kind]))
    assert [result.label for result in results] == ["bonafide", "spoof"]


def test_speakers_who_take_turns_and_one_who_reverses(detector: Detector) -> None:
    silence = np.zeros(LENGTH)
    turns = judged(detector, np.concatenate([BONAFIDE[:LENGTH], silence]), np.concatenate([silence, SPOOF[:LENGTH]]))
    assert [result.label for result in turns] == ["bonafide", "spoof"]
    assert len(judged(detector, SPOOF, SPOOF[::-1])) == 2
    assert [result.channel for result in judged(detector, BONAFIDE, -BONAFIDE)] == [0, 1]  # their mix would cancel


def test_channels_that_are_one_signal_are_mixed_without_a_word(detector: Detector) -> None:
    for other in (BONAFIDE, 0.3 * BONAFIDE, BONAFIDE + 0.02, BONAFIDE + 1e-3 * NOISE[: len(BONAFIDE)]):
        [result] = judged(detector, BONAFIDE, other)
        assert result.channel is None and result.warnings == []


def test_a_mix_of_channels_that_differ_says_so(detector: Detector) -> None:
    warning = "the channels differ, and their mix was judged: judge each channel"
    [result] = judged(detector, BONAFIDE, BONAFIDE + 0.5 * BONAFIDE.std() * NOISE[: len(BONAFIDE)])
    assert result.channel is None and warning in result.warnings
    [result] = judged(detector, BONAFIDE[:LENGTH], SPOOF[:LENGTH], channels="mix")
    assert result.channel is None and warning in result.warnings
    [result] = judged(detector, BONAFIDE, -0.95 * BONAFIDE, channels="mix")
    assert any("nearly cancel" in warning for warning in result.warnings)


def test_silent_channels_are_named_and_passed_over(detector: Detector) -> None:
    silence = np.zeros(LENGTH)
    for others, expected in (
        ((silence,), "channel 0 is silent, and was"),
        ((silence, 0.05 + silence), "channels 0, 1 are silent, and were"),
    ):
        [result] = judged(detector, *others, SPOOF[:LENGTH])
        assert result.channel == len(others) and result.label == "spoof"
        assert result.warnings == [f"{expected} not judged"]
    left, right = judged(detector, silence, SPOOF[:LENGTH], channels="each")
    assert left.error is not None and right.label == "spoof"
    [result] = judged(detector, silence, silence)
    assert result.error is not None and "silent" in result.error


def test_a_passing_whole_names_its_windows_that_do_not(detector: Detector) -> None:
    parts = [np.resize(CLEAR, 4 * WINDOW), np.resize(SPOOF, WINDOW), np.resize(CLEAR, 3 * WINDOW)]
    [result] = judged(detector, np.concatenate(parts))
    assert result.label == "bonafide" and result.min_window_start == pytest.approx(16.15)
    assert result.warnings == ["overall it passes, but 1 of 8 windows looks fake, most of all at 0:16.1: listen to it"]
    [stretch] = result.suspicious()
    assert (stretch.start, stretch.end) == pytest.approx((16.15, 20.1875))
    [whole] = judged(detector, np.resize(CLEAR, 4 * WINDOW))
    assert whole.warnings == [] and whole.suspicious() == []


def test_without_a_threshold_log_odds_say_which_windows_look_fake(detector: Detector) -> None:
    good, bad = np.resize(CLEAR, 2 * WINDOW), np.resize(SPOOF, WINDOW)
    before = detector.threshold
    detector.threshold = None  # as in a converted model whose score is the bona fide logit
    try:
        [result] = judged(detector, np.concatenate([good, bad, good]))
    finally:
        detector.threshold = before
    assert result.label == "bonafide" and [window.looks_fake for window in result.windows] == [
        False,
        False,
        True,
        False,
        False,
    ]
    assert "1 of 5 windows looks fake" in result.warnings[0]
    assert [(stretch.start, stretch.end) for stretch in result.suspicious()] == [pytest.approx((8.075, 12.1125))]


def test_from_the_threshold_on_it_is_bona_fide(detector: Detector) -> None:
    """The label must compare the score itself, because means of differences are rounded differently."""
    [result] = judged(detector, np.resize(BONAFIDE, 7 * WINDOW + 1234))
    assert result.score is not None
    assert judged(detector, np.resize(BONAFIDE, 7 * WINDOW + 1234), threshold=result.score)[0].label == "bonafide"


def test_a_failing_search_for_speech_withholds_no_verdict(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector.speech, "holds_speech", lambda windows: 1 / 0)
    assert judged(detector, SPOOF)[0].label == "spoof"


def test_every_output_says_that_a_passing_whole_has_windows_that_do_not(nes2net: Any, tmp_path: Path) -> None:
    parts = [np.resize(CLEAR, 3 * WINDOW), np.resize(SPOOF, WINDOW)]
    path = tmp_path / "long.wav"
    soundfile.write(path, np.concatenate(parts), SAMPLING_RATE)
    for form in ("table", "csv", "jsonl"):
        assert "overall it passes, but 1 of 4 windows looks fake" in nes2net("detect", path, "--format", form).out


def test_a_demonstration_model_gives_no_probability(nes2net: Any, detector: Detector) -> None:
    [result] = judged(detector, SPOOF)
    assert result.label == "spoof" and result.llr is None and result.spoof_probability is None and result.prior is None
    run = nes2net("detect", "--demo", "--prior", "0.1")
    assert run.code == 2 and "is a demonstration and gives no probabilities" in run.err


def test_a_calibrated_model_says_its_probability_in_words(nes2net: Any, tmp_path: Path) -> None:
    shutil.copytree(DEMO_MODEL, tmp_path, dirs_exist_ok=True)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("demonstration") is True
    (tmp_path / "config.json").write_text(json.dumps(config))
    run = nes2net("detect", "--model", tmp_path, SAMPLES / "spoof.flac", "--format", "table")
    assert "% chance of being fake, if half of such recordings are" in run.out
    assert "demonstration" not in run.err
    run = nes2net("detect", "--model", tmp_path, SAMPLES / "spoof.flac", "--format", "table", "--prior", "0.01")
    assert "if 1 % of such recordings are" in run.out


def test_help_shows_the_real_parameters() -> None:
    ours, detectors = inspect.signature(detect).parameters, inspect.signature(Detector).parameters
    assert list(ours)[1:] == list(detectors)
    for name, parameter in detectors.items():
        assert ours[name].default == parameter.default and ours[name].annotation == parameter.annotation
