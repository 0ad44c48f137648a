"""Verdicts while a recording goes on: `LiveDetector`, `nes2net listen`, and the sequential test."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from nes2net_hf import Detector
from nes2net_hf.audio import read_audio
from nes2net_hf.audio.live import ContainerSource, LiveSource, PcmSource
from nes2net_hf.calibration import Calibration
from nes2net_hf.detection import LiveDetector
from nes2net_hf.detection.sequential import SequentialTest, measure_correlation
from nes2net_hf.errors import AudioError, ModelError
from nes2net_hf.samples import BONAFIDE, SPOOF


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(device="cpu", channels="mix")


def heard(live: LiveDetector, samples: np.ndarray, length: int) -> list[Any]:
    starts = range(0, samples.shape[-1], length)
    return [verdict for start in starts for verdict in live.push(samples[..., start : start + length])]


def facts(verdicts: list[Any]) -> list[Any]:
    return [(one.time, one.start, one.score, one.state, one.skipped) for one in verdicts]


@pytest.mark.parametrize("rate", [16_000, 8_000, 44_100])
def test_chunks_of_any_length_give_the_same_verdicts_and_the_whole_is_as_detect_says(
    detector: Detector, rate: int
) -> None:
    samples = np.tile(soxr.resample(read_audio(SPOOF), 16_000, rate), 2)
    found = []
    for length in (rate // 7, 3 * rate, len(samples)):
        with LiveDetector(detector, rate, name="call") as live:
            found.append(facts(heard(live, samples, length)))
            result = live.finish()
        [whole] = detector.stream([(samples, rate)])
        assert result.file == "call" and result.score == pytest.approx(whole.score, abs=1e-5)
        assert [one.start for one in result.windows] == [one.start for one in whole.windows]
        assert (result.label, result.duration, result.warnings) == (whole.label, whole.duration, whole.warnings)
    for other in found[1:]:
        assert len(other) == len(found[0]) > 10
        for one, two in zip(found[0], other, strict=True):
            assert one == pytest.approx(two, abs=1e-3)
    first_end, first_start = found[0][0][:2]
    assert 1.0 <= first_end - first_start <= 1.5 and first_start < 0.5  # from the first second of sound on
    assert np.allclose(np.diff([one[0] for one in found[0]]), 0.5)


def test_silence_is_not_judged_and_does_not_count_as_sound(detector: Detector) -> None:
    speech, silence = read_audio(SPOOF), np.zeros(32_000, np.float32)
    live = LiveDetector(detector, 16_000)
    assert live.push(silence) == []  # no sound so far
    verdicts = live.push(np.concatenate([speech, silence]))
    assert verdicts[0].time >= 3.0 and verdicts[0].start >= 1.9 and verdicts[0].label == "spoof"
    assert [one.score for one in verdicts[-2:]] == [None, None] and verdicts[-1].state == verdicts[-4].state
    tone = 0.1 * np.sin(np.arange(64_000)).astype(np.float32)
    assert all(one.score is None for one in LiveDetector(detector, 16_000).push(tone))
    empty = LiveDetector(detector, 16_000).finish()
    assert empty.error is not None and "is empty" in empty.error


def test_a_slow_model_skips_windows_and_says_how_many(detector: Detector) -> None:
    speech = read_audio(BONAFIDE)
    every, newest = LiveDetector(detector, 16_000), LiveDetector(detector, 16_000, skip=True)
    verdicts, [last] = every.push(speech), newest.push(speech)
    assert last.skipped == len(verdicts) - 1 and last.time == verdicts[-1].time
    assert last.score == pytest.approx(verdicts[-1].score) and last.delay > 0


def test_a_loop_over_small_chunks_catches_up_with_a_live_source(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model takes a second for each window, by a clock of ours; the sound goes on meanwhile."""
    now, judge = [0.0], Detector.judge_windows

    def slow(self: Detector, batch: Any) -> None:
        now[0] += len(batch.windows)
        judge(self, batch)

    monkeypatch.setattr("nes2net_hf.detection.live.time.monotonic", lambda: now[0])
    monkeypatch.setattr(Detector, "judge_windows", slow)
    speech, live, behind = np.tile(read_audio(SPOOF), 4), LiveDetector(detector, 16_000, skip=True), []
    skipped = judged = 0
    for start in range(0, len(speech), 1_600):
        arrives = (start + 1_600) / 16_000
        now[0] = max(now[0], arrives)
        for verdict in live.push(speech[start : start + 1_600]):
            behind.append(now[0] - verdict.time)
            skipped, judged = skipped + verdict.skipped, judged + 1
    assert max(behind) < 4.0 and skipped > judged > 5


def test_the_running_verdict_stands_until_it_is_reset(detector: Detector) -> None:
    bonafide, spoof = read_audio(BONAFIDE), read_audio(SPOOF)
    live = LiveDetector(detector, 16_000)
    assert {one.state for one in live.push(spoof)[-3:]} == {"spoof"}
    verdicts = live.push(bonafide)
    assert {one.state for one in verdicts} == {"spoof"}
    verdict_time = verdicts[-1].time
    live.reset()
    after = live.push(bonafide)
    assert after[0].start >= verdict_time and after[0].time > 9  # time goes on, and the old speaker's sound is gone
    fresh = LiveDetector(detector, 16_000).push(bonafide)
    assert [one.state for one in after] == [one.state for one in fresh][: len(after)]
    assert {one.evidence for one in after} == {None}  # a demonstration model gives no probabilities


@pytest.mark.parametrize(
    ("options", "samples", "words"),
    [
        ({"sampling_rate": 4_000}, [0.0], "4000 Hz"), ({"sampling_rate": 16_000, "hop": 0}, [0.0], "hop must be"),
        ({"sampling_rate": 16_000, "hop": 9}, [0.0], "hop must be between"),
        ({"sampling_rate": 16_000, "errors": (0.05, 0.5)}, [0.0], "shares of errors must be above 0 and below 0.5"),
        ({"sampling_rate": 16_000}, np.zeros((2, 100), np.float32), "has 1 channels, but 2 were pushed"),
        ({"sampling_rate": 16_000}, np.full(10, np.nan, np.float32), "not finite"),
        ({"sampling_rate": 16_000}, np.full(10, 11.0), "far above the full scale"),
        ({"sampling_rate": 16_000}, np.zeros(10, np.int64), "<array> is int64: convert it"),
    ],
)  # fmt: skip
def test_what_cannot_be_heard_is_a_sentence(detector: Detector, options: Any, samples: Any, words: str) -> None:
    with pytest.raises((AudioError, ModelError), match=words):
        LiveDetector(detector, **options).push(samples)


def test_the_whole_is_that_of_the_mix_whatever_the_detector_does_with_channels() -> None:
    detector = Detector(device="cpu")  # channels are judged separately if they differ
    with LiveDetector(detector, 16_000, channels=2) as live:
        both = np.zeros((2, 80_000), np.float32)
        both[0, :72_000], both[1, 8_000:] = read_audio(BONAFIDE)[:72_000], read_audio(SPOOF)[:72_000]
        for start in range(0, 80_000, 3):  # pieces shorter than their channels, too
            live.push(both[:, start : start + (1 if start < 300 else 3)])
        assert live.finish().channel is None


@pytest.mark.parametrize("dtype", [np.float64, np.int16, np.int32])
def test_samples_of_every_kind_are_heard(detector: Detector, dtype: Any) -> None:
    samples = soxr.resample(read_audio(SPOOF), 16_000, 8_000)
    full = 1.0 if dtype is np.float64 else -float(np.iinfo(dtype).min)
    live = LiveDetector(detector, 8_000)
    assert live.push((full * samples).astype(dtype))[-1].label == "spoof" and live.finish().label == "spoof"


def test_nothing_follows_the_end(detector: Detector) -> None:
    live = LiveDetector(detector, 16_000, channels=2)
    live.push(np.stack([read_audio(SPOOF)] * 2))
    assert live.finish().label == "spoof"
    with pytest.raises(AudioError, match="has ended"):
        live.push(np.zeros((2, 10), np.float32))


# The sequential test ------------------------------------------------------------------------------------------------


def decided(draws: np.ndarray, correlation: list[tuple[float, float]], errors: tuple[float, float]) -> list[str]:
    """States after (N, T) log-likelihood ratios at intervals of a second."""
    found = []
    for ratios in draws:
        test = SequentialTest(Calibration(1.0, 0.0, 0.5), correlation, errors)
        for time, ratio in enumerate(ratios):
            if test.add(float(time), float(ratio)) != "undecided":
                break
        found.append(test.state)
    return found


def test_both_rates_of_error_are_kept_if_windows_are_independent() -> None:
    """Log-likelihood ratios of two normal distributions with means ±1 and a variance of 2."""
    rng, errors = np.random.default_rng(0), (0.1, 0.02)
    independent = [(0.0, 1.0), (1.0, 0.0)]
    bonafide = decided(rng.normal(1, np.sqrt(2), (2_000, 60)), independent, errors)
    spoof = decided(rng.normal(-1, np.sqrt(2), (2_000, 60)), independent, errors)
    assert 0.02 < bonafide.count("spoof") / 2_000 <= 0.1
    assert 0.002 < spoof.count("bonafide") / 2_000 <= 0.02
    assert bonafide.count("undecided") == spoof.count("undecided") == 0


def test_windows_that_are_alike_do_not_add_up() -> None:
    """Half of the variance belongs to the recording. Taken as independent, the windows promise too much."""
    rng, errors = np.random.default_rng(0), (0.05, 0.05)
    own = rng.normal(1, 1, (2_000, 1)) + rng.normal(0, 1, (2_000, 60))
    independent = decided(own, [(0.0, 1.0), (1.0, 0.0)], errors).count("spoof") / 2_000
    corrected = decided(own, [(0.0, 1.0), (1.0, 0.5)], errors)
    assert independent > 0.1 and corrected.count("spoof") / 2_000 < 0.06
    alone = SequentialTest(Calibration(1.0, 0.0, 0.5))
    for time in range(9):
        alone.add(time, 2.0)
    assert alone.evidence == pytest.approx(2.0)  # without a measurement, all windows count as one


def test_the_correlation_is_measured_within_classes() -> None:
    rng = np.random.default_rng(0)

    def recordings() -> Iterator[tuple[int, list[float], list[float]]]:
        for number in range(600):
            noise = rng.normal(0, 1, 12)
            moving = (noise[2:] + noise[1:-1] + noise[:-2]) / np.sqrt(3)  # correlated over two steps
            scores = 10 * (number % 2) + rng.normal(0, 1) + moving
            yield number % 2, [0.5 * step for step in range(10)], scores.tolist()

    found = dict(measure_correlation(recordings(), 0.5))
    assert [found[distance] for distance in (0.0, 0.5, 1.0, 1.5, 4.5)] == pytest.approx(
        [1.0, 5 / 6, 4 / 6, 1 / 2, 1 / 2], abs=0.06
    )
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert measure_correlation([(1, [0.0], [1.0])], 0.5) == []
    few = [(1, [0.5 * step for step in range(4_000)], rng.normal(0, 1, 4_000).tolist())] * 2
    assert measure_correlation(few, 0.5) == []  # two long recordings are two


# Sources and the command --------------------------------------------------------------------------------------------


def content(form: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, read_audio(SPOOF), 16_000, format=form)
    return file.getvalue()


@pytest.mark.parametrize("form", ["WAV", "FLAC", "OGG"])
def test_containers_are_read_from_front_to_back(form: str) -> None:
    source = ContainerSource(SimpleNamespace(read=io.BytesIO(content(form)).read))  # type: ignore[arg-type]
    samples = np.concatenate(list(source), axis=1)
    expected = read_audio(content(form))
    assert source.sampling_rate == 16_000 and samples.shape == (1, len(expected))
    assert np.abs(samples[0] - expected).max() < 1e-4


def test_what_has_arrived_is_fetched_at_once() -> None:
    chunks = [np.full((1, 3), value, np.int16) for value in range(5)]

    class Source(LiveSource):
        def _chunks(self) -> Iterator[np.ndarray]:
            yield from chunks
            raise AudioError("cut off.")

    fetched = []
    with pytest.raises(AudioError, match="cut off"):
        for block in Source():
            fetched.append(block)
    assert (np.concatenate(fetched, axis=1) == np.concatenate(chunks, axis=1)).all() and len(fetched) <= 5
    odd = PcmSource(io.BytesIO(b"\x01\x00\x02\x00\x03"), 16_000)
    assert np.concatenate(list(odd), axis=1).tolist() == [[1, 2]]


def test_a_stream_cannot_name_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    soundfile.write("secret.wav", read_audio(SPOOF), 16_000)
    with pytest.raises(AudioError, match="no sound that can be decoded"):
        ContainerSource(io.BytesIO(b"ffconcat version 1.0\nfile secret.wav\n" * 200))


def test_what_was_heard_before_damage_is_still_judged(nes2net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytearray(content("MP3"))
    data[6_000:6_400] = bytes(400)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(bytes(data))))
    run = nes2net("listen", "--format", "jsonl")
    final = json.loads(run.out.splitlines()[-1])
    assert final["type"] == "final" and final["label"] == "spoof" and run.code == 0

    def broken(self: Any) -> Iterator[np.ndarray]:
        yield (32_767 * read_audio(SPOOF)).astype(np.int16)[None]
        raise AudioError("the line was cut.")

    monkeypatch.setattr(PcmSource, "_chunks", broken)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    run = nes2net("listen", "--format", "jsonl", "--rate", 16_000)
    final = json.loads(run.out.splitlines()[-1])
    assert run.code == 1 and "the line was cut" in run.err and final["label"] == "spoof"


@pytest.mark.parametrize("raw", [False, True])
def test_listen_ends_with_what_detect_says(nes2net: Any, monkeypatch: pytest.MonkeyPatch, raw: bool) -> None:
    data = content("WAV")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data[44:] if raw else data)))
    run = nes2net("listen", "--format", "jsonl", *(["--rate", 16_000] if raw else []))
    assert run.code == 0, run.err
    *windows, final = [json.loads(line) for line in run.out.splitlines()]
    assert windows and all(row["type"] == "window" for row in windows) and windows[-1]["state"] == "spoof"
    [whole] = nes2net("detect", SPOOF, "--format", "jsonl").rows
    ignored = {"type", "state", "file"}
    assert final["type"] == "final" and final["score"] == pytest.approx(whole["score"], abs=1e-3)
    assert final.keys() - ignored == whole.keys() - ignored and final["label"] == whole["label"] == "spoof"


def test_listen_shows_one_line_and_then_the_verdict(nes2net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content("WAV"))))
    run = nes2net("listen", "--format", "line")
    line, table = run.out.split("\n", 1)
    assert line.startswith("\r") and "so far: spoof" in line and "spoof" in table.splitlines()[1]
    assert max(map(len, line.split("\r"))) < 80


def test_what_listen_cannot_hear_is_a_sentence(nes2net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for data in (b"", b"no sound at all\n" * 400):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        run = nes2net("listen")
        assert run.code == 1 and "no sound that can be decoded from front to back" in run.err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    run = nes2net("listen", "--rate", 16_000)
    assert run.code == 1 and json.loads(run.out)["error"] == "- is empty: it has no audio samples."
    run = nes2net("listen", "--rate", 16_000, "--device", "default")
    assert run.code == 2 and "omit one of them" in run.err
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    run = nes2net("listen", "--device", "default")
    assert run.code == 2 and "pip install 'nes2net_hf[live]'" in run.err


@pytest.mark.slow
def test_a_live_source_is_judged_while_it_goes_on(tmp_path: Path) -> None:
    """The first verdict appears before the sound ends, and the last window's verdict soon after its last sample."""
    command = [sys.executable, "-m", "nes2net_cli", "listen", "--rate", "16000", "--format", "jsonl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stdout is not None
        samples = (32_767 * np.tile(read_audio(SPOOF), 2)).astype("<i2")
        process.stdin.write(samples[:32_000].tobytes())
        process.stdin.flush()
        first = json.loads(process.stdout.readline())  # before the rest was sent
        assert first["type"] == "window" and first["time"] <= 2.0
        rest = process.communicate(samples[32_000:].tobytes())[0].splitlines()
    assert json.loads(rest[-1])["type"] == "final" and process.returncode == 0


@pytest.mark.slow
def test_an_interruption_ends_the_sound() -> None:
    command = [sys.executable, "-m", "nes2net_cli", "listen", "--rate", "16000", "--format", "jsonl"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # background jobs of a shell inherit an ignored signal
    try:
        process = subprocess.Popen(command, **pipes)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write((32_767 * read_audio(SPOOF)).astype("<i2").tobytes())
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        rest = process.stdout.readlines()
        assert json.loads(rest[-1])["label"] == "spoof"
        assert b"Fatal" not in process.stderr.read()  # type: ignore[union-attr]


class _PortAudioError(Exception):
    pass


def microphones(*names: str, starts: bool = True) -> Any:
    """A stand-in for the package sounddevice, whose microphones hear the spoofed sample."""

    class Stream:
        def __init__(self, callback: Any, finished_callback: Any, samplerate: int, **options: Any) -> None:
            assert options == {"device": None, "channels": 1, "dtype": "float32"}
            self.hear, self.end, self.rate = callback, finished_callback, samplerate

        def start(self) -> None:
            if not starts:
                raise _PortAudioError("Device unavailable")
            samples = soxr.resample(read_audio(SPOOF), 16_000, self.rate).astype(np.float32)
            for number, start in enumerate(range(0, len(samples), 480)):
                status = SimpleNamespace(input_overflow=number == 3)
                self.hear(samples[start : start + 480, None], 480, None, status)
            self.end()

        def close(self) -> None:
            self.closed = True

    def query_devices(device: Any = None, kind: str | None = None) -> Any:
        known = [{"name": name, "default_samplerate": 48_000.0, "max_input_channels": 1} for name in names]
        if kind is None:
            return known
        if not known:
            raise _PortAudioError("Error querying device -1")
        return known[0]

    return SimpleNamespace(query_devices=query_devices, InputStream=Stream, PortAudioError=_PortAudioError)


def test_a_microphone_is_heard(nes2net: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", microphones("Headset"))
    run = nes2net("listen", "--device", "default", "--format", "jsonl")
    assert run.code == 0, run.err
    *windows, final = [json.loads(line) for line in run.out.splitlines()]
    assert windows and final["file"] == "Headset" and final["label"] == "spoof"
    assert "0.01 s of the sound were lost" in final["warnings"]  # one overflow, of 10 ms


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (microphones(), r"no microphone can be opened \(Error querying device -1\); this machine has none"),
        (microphones("Headset", starts=False), "the microphone Headset cannot be started: Device unavailable"),
    ],
)
def test_a_microphone_that_cannot_be_heard_is_a_sentence(
    nes2net: Any, monkeypatch: pytest.MonkeyPatch, module: Any, words: str
) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    run = nes2net("listen", "--device", "default")
    assert run.code == 1 and re.search(words, run.err) and "Traceback" not in run.err, run.err
