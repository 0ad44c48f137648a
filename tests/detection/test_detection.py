"""Recordings are judged over their whole length, in batches across files, even if some are broken."""

from __future__ import annotations

import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from nes2net_hf import Nes2NetFeatureExtractor, Nes2NetForAudioClassification
from nes2net_hf.audio import SAMPLING_RATE
from nes2net_hf.detection import DetectionError, Detector, Result, detect
from nes2net_hf.detection import windows as windows_module
from nes2net_hf.detection.batches import Batch
from nes2net_hf.pretrained.load import DEMO_MODEL, ModelError, choose_device
from tests.helpers import KEYS, tiny_model
from tests.recordings import encode, melody, muxed, voice

WINDOW = 64_600


@pytest.fixture(scope="module")
def detector(tiny_model_dir: Path) -> Detector:
    return Detector(tiny_model_dir, device="cpu", batch_size=4)


def by_hand(folder: Path, samples: np.ndarray) -> float:
    """Returns the score of one window, directly from extractor and model."""
    model = Nes2NetForAudioClassification.from_pretrained(folder).eval()
    extractor = Nes2NetFeatureExtractor.from_pretrained(folder)
    with torch.inference_mode():
        logits = model(**extractor([samples], sampling_rate=SAMPLING_RATE, return_tensors="pt")).logits
    return float(model.score(logits))


def one(detector: Detector, source: Any) -> Result:
    [result] = detector.stream(source)
    return result


def test_the_score_is_the_mean_over_windows_of_the_whole_file(detector: Detector, tiny_model_dir: Path) -> None:
    signal = melody(10)
    result = one(detector, (signal, SAMPLING_RATE))
    starts = [0, WINDOW, len(signal) - WINDOW]
    expected = [by_hand(tiny_model_dir, signal[start : start + WINDOW]) for start in starts]
    assert [window.start for window in result.windows] == [start / SAMPLING_RATE for start in starts]
    assert [window.score for window in result.windows] == pytest.approx(expected, abs=1e-5)
    assert result.score == pytest.approx(np.mean(expected), abs=1e-5)
    assert result.min_window_score == pytest.approx(min(expected), abs=1e-5)
    assert result.min_window_start == starts[int(np.argmin(expected))] / SAMPLING_RATE
    assert result.duration == 10.0 and result.error is None


def test_a_short_file_is_judged_repeat_padded(detector: Detector, tiny_model_dir: Path) -> None:
    signal = melody(1.5)
    result = one(detector, (signal, SAMPLING_RATE))
    assert result.score == pytest.approx(by_hand(tiny_model_dir, np.resize(signal, WINDOW)), abs=1e-5)
    assert [(window.start, window.end) for window in result.windows] == [(0.0, 1.5)]


def test_hop_makes_windows_overlap(tiny_model_dir: Path) -> None:
    [result] = detect((melody(8), SAMPLING_RATE), model=tiny_model_dir, device="cpu", hop=1.0)
    assert [window.start for window in result.windows] == [0, 1, 2, 3, (8 * SAMPLING_RATE - WINDOW) / SAMPLING_RATE]


def test_windows_without_sound_are_not_judged(detector: Detector) -> None:
    signal = melody(4 * WINDOW / SAMPLING_RATE)
    loud = one(detector, (signal, SAMPLING_RATE))
    holed = signal.copy()
    holed[WINDOW : 2 * WINDOW] = 0.0009  # below -60 dBFS
    result = one(detector, (holed, SAMPLING_RATE))
    scores = [window.score for window in result.windows]
    assert scores[1] is None
    kept = [loud.windows[index].score for index in (0, 2, 3)]
    assert [scores[0], *scores[2:]] == pytest.approx(kept, abs=1e-5)
    assert result.score == pytest.approx(np.mean(kept), abs=1e-5)  # type: ignore[arg-type]


def test_batches_run_across_files_and_results_keep_their_order(detector: Detector, monkeypatch: Any) -> None:
    sizes: list[int] = []
    score = detector._score
    monkeypatch.setattr(detector, "_score", lambda inputs: sizes.append(len(inputs)) or score(inputs))
    signals = [melody(seconds, seed) for seed, seconds in enumerate((5, 1, 9, 3, 2, 9))]
    results = list(detector.stream([(signal, SAMPLING_RATE) for signal in signals]))
    assert sizes == [4, 4, 3]  # 2 + 1 + 3 + 1 + 1 + 3 windows
    assert [result.duration for result in results] == [5, 1, 9, 3, 2, 9]
    alone = [one(detector, (signal, SAMPLING_RATE)).score for signal in signals]
    assert [result.score for result in results] == pytest.approx(alone, abs=1e-5)


def test_unpadded_short_files_are_not_batched_with_others(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    Nes2NetFeatureExtractor(length_policy="whole", do_normalize=True).save_pretrained(tmp_path)
    signals = [melody(seconds, seed) for seed, seconds in enumerate((1, 2, 2, 9, 0.5))]
    results = detect([(signal, SAMPLING_RATE) for signal in signals], model=tmp_path, device="cpu")
    for signal, result in zip(signals, results, strict=True):
        if len(signal) < WINDOW:
            assert result.score == pytest.approx(by_hand(tmp_path, signal), abs=1e-5)


def test_a_bad_file_is_a_result_with_its_error_and_the_rest_goes_on(detector: Detector, tmp_path: Path) -> None:
    good = encode(melody(2), SAMPLING_RATE, "flac")
    (tmp_path / "a.flac").write_bytes(good)
    (tmp_path / "b.wav").write_text("no audio")
    (tmp_path / "c.flac").write_bytes(encode(melody(12), SAMPLING_RATE, "flac")[:-9_000])
    (tmp_path / "d.flac").write_bytes(good)
    results = list(detector.stream([tmp_path, tmp_path / "e.wav"]))
    assert [Path(result.file).name for result in results] == ["a.flac", "b.wav", "c.flac", "d.flac", "e.wav"]
    errors = [result.error for result in results]
    assert errors[0] is None and errors[3] is None
    for result in (results[1], results[2], results[4]):
        assert result.error is not None and result.file in result.error
        assert result.score is None and result.label is None and result.windows == []
    assert results[0].score == pytest.approx(results[3].score, abs=1e-5)


def test_the_tracks_of_a_film_are_chosen_or_judged_each(tiny_model_dir: Path, detector: Detector) -> None:
    film = muxed(melody(5), "mp4", "aac", tracks=2)
    default = one(detector, film)
    assert default.track == 0 and default.warnings == [
        "2 audio tracks: only track 0 was judged; choose another track or all"
    ]
    each = detect(film, model=tiny_model_dir, device="cpu", track="all")
    assert [result.track for result in each] == [0, 1]
    assert each[0].score == pytest.approx(default.score, abs=1e-5) and each[1].score != each[0].score
    assert not each[0].warnings
    [second] = detect(film, model=tiny_model_dir, device="cpu", track=1)
    assert second.score == each[1].score and second.track == 1 and not second.warnings
    mono = detect((melody(2), SAMPLING_RATE), model=tiny_model_dir, device="cpu", track="all")
    assert [result.track for result in mono] == [None]
    assert "no track 7" in detect(film, model=tiny_model_dir, device="cpu", track="7")[0].error
    with pytest.raises(ModelError, match="track"):
        Detector(tiny_model_dir, device="cpu", track="first")


def test_a_peak_at_the_threshold_of_silence_is_an_error_line(detector: Detector) -> None:
    edge = np.where(np.arange(16_000) % 2, np.float32(0.001), np.float32(-0.001))
    sources = [(melody(2), SAMPLING_RATE), (edge, SAMPLING_RATE), (np.full(16_000, 0.05, np.float32), SAMPLING_RATE)]
    good, at_edge, offset, last = detector.stream([*sources, sources[0]])
    assert good.error is None and last.error is None
    assert "silent" in at_edge.error and "silent" in offset.error


def test_a_muted_channel_with_an_offset_is_silent(tiny_model_dir: Path) -> None:
    for rate in (16_000, 44_100):
        muted = np.full(5 * rate, 0.05, np.float32)
        call = (np.stack([voice(5, rate), muted]), rate)
        left, right = detect(call, model=tiny_model_dir, device="cpu", channels="each")
        assert left.error is None and "silent in channel 1" in right.error


def test_a_window_that_the_model_fails_on_is_its_recordings_error(detector: Detector, monkeypatch: Any) -> None:
    score = detector._score

    def failing(inputs: torch.Tensor) -> Any:
        if bool((inputs.abs().max(dim=-1).values < 0.2).any()):
            raise IndexError("list index out of range")
        return score(inputs)

    monkeypatch.setattr(detector, "_score", failing)
    loud, quiet = melody(2), 0.1 * melody(9, 1)
    first, bad, last = detector.stream([(loud, SAMPLING_RATE), (quiet, SAMPLING_RATE), (loud, SAMPLING_RATE)])
    assert first.score == pytest.approx(last.score, abs=1e-5)
    assert bad.error is not None and "the model fails on its window at 0.0 s" in bad.error


def test_an_extractor_that_fails_is_its_recordings_error(detector: Detector, monkeypatch: Any) -> None:
    extractor = detector.extractor

    class Failing:
        length_policy = extractor.length_policy

        def __call__(self, windows: list[np.ndarray], **options: Any) -> Any:
            if any(np.abs(window).max() < 0.2 for window in windows):
                raise ValueError("no")
            return extractor(windows, **options)

    monkeypatch.setattr(detector, "extractor", Failing())
    loud, quiet = melody(2), 0.1 * melody(2)
    first, bad = detector.stream([(loud, SAMPLING_RATE), (quiet, SAMPLING_RATE)])
    assert first.error is None and "could not be judged" in bad.error


def test_an_unforeseen_failure_of_a_decoder_is_that_files_error(detector: Detector, monkeypatch: Any) -> None:
    def broken(source: Any, **options: Any) -> None:
        raise RuntimeError("decoder\nexploded")

    monkeypatch.setattr(windows_module, "open_audio", broken)
    assert one(detector, "x.wav").error == (
        "x.wav could not be read: it is damaged or in an unusual format; convert it to WAV, or download it again."
    )


def test_folders_are_searched_for_audio_in_order(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("b.WAV", "deep/a.wav", "._b.wav", "notes.txt"):
        (tmp_path / name).write_bytes(encode(voice(0.2), SAMPLING_RATE, "wav"))
    found = [result.file for result in detector.stream(tmp_path)]
    assert found == [str(tmp_path / "b.WAV"), str(tmp_path / "deep" / "a.wav")]
    error = one(detector, tmp_path / "empty").error
    assert error is not None and "without audio files" in error


def test_each_channel_is_judged_for_itself(tiny_model_dir: Path) -> None:
    left, right = melody(5, 1), melody(5, 2)
    stereo = np.stack([left, right, 0 * left])
    options: dict[str, Any] = {"model": tiny_model_dir, "device": "cpu"}
    results = detect((stereo, SAMPLING_RATE), channels="each", **options)
    assert [result.channel for result in results] == [0, 1, 2]
    alone = [detect((signal, SAMPLING_RATE), **options)[0].score for signal in (left, right)]
    assert [result.score for result in results[:2]] == pytest.approx(alone, abs=1e-5)
    assert results[2].error is not None and "silent in channel 2" in results[2].error
    [mono] = detect((left, SAMPLING_RATE), channels="each", **options)
    assert mono.channel is None


def test_a_result_has_the_keys_of_its_schema(detector: Detector) -> None:
    record = one(detector, encode(melody(5), SAMPLING_RATE, "flac")).to_dict()
    assert list(record) == KEYS
    assert record["schema_version"] == 2 and record["file"] == "<bytes>" and record["channel"] is None
    assert set(record["windows"][0]) == {"start", "end", "score", "parts", "looks_fake"}
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_the_threshold_is_the_callers_or_the_models_or_zero(tmp_path: Path, tiny_model_dir: Path) -> None:
    source = (melody(1), SAMPLING_RATE)
    [plain] = detect(source, model=tiny_model_dir, device="cpu")
    assert plain.threshold == 0 and plain.score is not None
    [given] = detect(source, model=tiny_model_dir, device="cpu", threshold=plain.score)
    assert given.label == "bonafide"
    [given] = detect(source, model=tiny_model_dir, device="cpu", threshold=plain.score + 1e-4)
    assert given.label == "spoof"
    tiny_model(threshold=-5.0).save_pretrained(tmp_path)
    Nes2NetFeatureExtractor().save_pretrained(tmp_path)
    [calibrated] = detect(source, model=tmp_path, device="cpu")
    assert calibrated.threshold == -5.0 and calibrated.label == "bonafide"


@pytest.mark.parametrize(
    ("signal", "rate", "words"),
    [
        (voice(1.3), 16_000, ["unreliable: only 1.3 s of sound"]),
        (voice(3, 8_000), 8_000, ["8 kHz recording"]),
        (np.clip(9 * voice(3), -1, 1), 16_000, ["clipping"]),
        (np.pad(voice(3), (0, 80_000)), 16_000, ["mostly silence: 3.0 of 8.0 s"]),
        (voice(3), 16_000, []),
    ],
)
def test_weak_scores_carry_warnings(detector: Detector, signal: np.ndarray, rate: int, words: list[str]) -> None:
    warnings = one(detector, (signal, rate)).warnings
    assert len(warnings) == len(words)
    for warning, word in zip(warnings, words, strict=True):
        assert word in warning


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_lower_precision_stays_near_float32(detector: Detector, tiny_model_dir: Path, dtype: str) -> None:
    source = (melody(5), SAMPLING_RATE)
    [result] = detect(source, model=tiny_model_dir, device="cpu", dtype=dtype)
    assert result.score == pytest.approx(one(detector, source).score, abs=0.05)
    assert result.score != one(detector, source).score


def test_a_score_that_is_no_number_is_an_error(detector: Detector, monkeypatch: Any) -> None:
    monkeypatch.setattr(detector, "_score", lambda inputs: [[[float("nan")]] * 2] * len(inputs))
    result = one(detector, (melody(1), SAMPLING_RATE))
    assert result.score is None and result.error is not None and "float32" in result.error


def test_running_out_of_memory_names_the_batch_size(detector: Detector, monkeypatch: Any) -> None:
    def forward(**inputs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(detector, "model", forward)
    with pytest.raises(DetectionError, match=r"batch size 1: lower the batch size"):
        list(detector.stream((melody(1), SAMPLING_RATE)))


def test_reading_runs_ahead_only_a_little_and_ends_with_the_stream(detector: Detector) -> None:
    opened: list[int] = []

    def sources() -> Any:
        for index in range(1000):
            opened.append(index)
            yield melody(0.5, index), SAMPLING_RATE

    stream = detector.stream(sources())
    next(stream)
    time.sleep(0.3)
    assert len(opened) <= 5 * detector.batch_size
    stream.close()  # type: ignore[attr-defined]
    # The thread must be gone: the interpreter aborts if it exits while a thread runs native code.
    assert "decoding" not in [thread.name for thread in threading.enumerate()]


def test_progress_tells_seconds_of_audio(detector: Detector) -> None:
    seconds: list[float] = []
    list(detector.stream([(melody(4.0375), SAMPLING_RATE)] * 5, seconds.append))
    assert seconds == pytest.approx([16.15, 4.0375])


def test_paths_are_taken_one_or_many(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    path.write_bytes(encode(melody(1), SAMPLING_RATE, "flac"))
    assert one(detector, path).file == str(path)
    both = [result.score for result in detector.stream((path, str(path)))]
    assert both == pytest.approx([one(detector, path).score] * 2, abs=1e-5)
    with open(path, "rb") as file:
        assert one(detector, file).score == one(detector, path).score
    assert list(detector.stream([])) == []


def test_the_bundled_model_says_what_it_is(caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        [result] = detect((melody(1), SAMPLING_RATE), device="cpu")
    assert "demonstration model: do not rely on its verdicts" in caplog.text
    assert result.model == DEMO_MODEL.name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch size"),
        ({"channels": "left"}, "auto, mix, each"),
        ({"dtype": "int4"}, "float32, bfloat16, float16"),
        ({"hop": 0.0}, "hop"),
        ({"hop": 4.1}, "4.037 s"),
        ({"threshold": float("nan")}, "threshold"),
        ({"device": "toaster"}, "toaster"),
    ],
)
def test_impossible_options_are_named(tiny_model_dir: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Detector(tiny_model_dir, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelError, match="cuda is not available"):
        choose_device("cuda")


def test_models_that_cannot_be_loaded_say_why(tmp_path: Path, tiny_model_dir: Path) -> None:
    other = tmp_path / "other"
    tiny_model().nes2net.encoder.save_pretrained(other)
    torn = tmp_path / "torn"
    model = tiny_model()
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("classifier")}
    model.save_pretrained(torn, state_dict=state)
    Nes2NetFeatureExtractor().save_pretrained(torn)
    garbled = tmp_path / "garbled"
    garbled.mkdir()
    (garbled / "config.json").write_text('{"model_type": "nes2net", "outer_scale": 7}')
    weights = tmp_path / "model.pth"
    weights.write_bytes(b"x")
    for place, words in {
        str(tmp_path): "no config.json",
        str(other): "'wav2vec2', not 'nes2net'",
        str(torn): "lacks 2 of its weights",
        str(garbled): "could not be loaded",
        str(weights): "state it, as in",
        f"{weights}:dilation=2": "is a text file, not a PyTorch or safetensors checkpoint",
        str(tmp_path / "none"): "does not exist",
        "nobody/nothing": "HF_HUB_OFFLINE|cannot be reached",
    }.items():
        with pytest.raises(ModelError, match=words) as caught:
            Detector(place, device="cpu")
        assert place.split(":dil")[0] in str(caught.value) and "\n" not in str(caught.value)


def test_no_code_from_a_model_folder_is_run(tiny_model_dir: Path, tmp_path: Path) -> None:
    for file in tiny_model_dir.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name in ("modeling", "configuration", "feature_extraction"):
        (tmp_path / f"{name}_nes2net.py").write_text("raise SystemExit('remote code was run')")
    [result] = detect((melody(1), SAMPLING_RATE), model=tmp_path, device="cpu")
    assert result.error is None


def test_an_hour_is_judged_in_the_memory_of_a_minute(detector: Detector, monkeypatch: Any, tmp_path: Path) -> None:
    """Only a few batches of windows are held at once, however long the recording is."""
    held = 0
    highest = 0
    prepare = Batch.close

    def close(batch: Any, *given: Any) -> Any:
        nonlocal held, highest
        held += len(batch.samples)
        highest = max(highest, held)
        return prepare(batch, *given)

    def score(inputs: torch.Tensor) -> list[list[list[float]]]:
        nonlocal held
        held -= len(inputs)
        time.sleep(0.002)
        return [[[0.0], [0.0]]] * len(inputs)

    monkeypatch.setattr(Batch, "close", close)
    monkeypatch.setattr(detector, "_score", score)
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(voice(1), 600), SAMPLING_RATE)
    assert len(one(detector, path).windows) == 149
    assert highest <= 5 * detector.batch_size
