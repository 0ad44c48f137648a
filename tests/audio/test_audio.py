"""Recordings of all formats are read the same way. If one cannot be read, one sentence says why."""

from __future__ import annotations

import io
import os
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
import soxr

from nes2net_hf.audio import SAMPLING_RATE, AudioError, iter_windows, open_audio, read_audio
from tests.recordings import PYAV_FORMATS, SOUNDFILE_FORMATS, encode, voice


def similarity(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the largest normalised correlation of two recordings; the second may start 0.1 s later (codec delay)."""
    length = min(len(a), len(b)) - 3200
    middle = a[1600 : 1600 + length]
    spectrum = np.fft.rfft(b, 2 * len(b)) * np.conj(np.fft.rfft(middle, 2 * len(b)))
    best = int(np.argmax(np.fft.irfft(spectrum)[:3200]))
    other = b[best : best + length]
    return float(middle @ other / np.linalg.norm(middle) / np.linalg.norm(other))


def error_of(source: Any, **options: Any) -> str:
    with pytest.raises(AudioError) as caught:
        read_audio(source, **options)
    message = str(caught.value)
    assert message.endswith(".") and "\n" not in message
    return message


@pytest.mark.parametrize("suffix", [*SOUNDFILE_FORMATS, *PYAV_FORMATS])
def test_every_format_gives_the_recording_at_16_khz(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"note.{suffix}"
    path.write_bytes(encode(voice(3, 48_000), 48_000, suffix))
    samples = read_audio(path)
    assert samples.dtype == np.float32
    assert abs(len(samples) - 3 * SAMPLING_RATE) < 0.1 * SAMPLING_RATE
    assert similarity(voice(3), samples) > 0.99


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 96_000, 192_000])
def test_every_rate_is_resampled_to_16_khz(rate: int) -> None:
    samples = read_audio((voice(2, rate), rate))
    assert len(samples) == pytest.approx(2 * SAMPLING_RATE, abs=1)
    # The edges ring; the middle must be the same signal, in time and level.
    np.testing.assert_allclose(samples[800:-800], voice(2)[800 : len(samples) - 800], atol=2e-3)


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
def test_reading_in_blocks_gives_what_reading_at_once_gives(rate: int) -> None:
    stereo = np.stack([voice(9.77, rate), voice(9.77, rate, 180)])
    whole = soxr.resample(stereo.T, rate, SAMPLING_RATE, quality="HQ").T
    with open_audio((stereo, rate)) as audio:
        blocks = list(audio.blocks("each"))
    assert len(blocks) > 2
    np.testing.assert_allclose(np.concatenate(blocks, axis=1), whole, atol=1e-6)


@pytest.mark.parametrize("suffix", ["mp3", "opus", "ogg", "m4a"])
def test_decoding_in_blocks_leaves_no_seams(suffix: str) -> None:
    data = encode(voice(12), SAMPLING_RATE, suffix)
    with open_audio(data) as audio:
        rate = audio.info.sampling_rate
    assert similarity(read_audio(data), voice(12)) > 0.99
    if suffix != "m4a":
        whole = soundfile.read(io.BytesIO(data), dtype="float32")[0]
        np.testing.assert_allclose(read_audio(data), soxr.resample(whole, rate, SAMPLING_RATE), atol=1e-5)


def test_paths_bytes_file_objects_and_arrays_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(voice(1), SAMPLING_RATE, "float.wav"))
    expected = voice(1)
    with open(path, "rb") as file:
        sources = [path, str(path), path.read_bytes(), memoryview(path.read_bytes()), file, (expected, 16_000)]
        sources += [{"array": expected, "sampling_rate": 16_000}, {"raw": expected, "sampling_rate": 16_000}]
        for source in sources:
            np.testing.assert_array_equal(read_audio(source), expected)
        assert not file.closed
    np.testing.assert_array_equal(read_audio(expected, 16_000), expected)


def test_standard_input_and_pipes_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    os.write(writer, encode(voice(0.5), SAMPLING_RATE, "flac"))
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(pipe))
        assert len(read_audio("-")) == 8_000


def test_integer_arrays_are_scaled_to_full_scale() -> None:
    quarter = np.where(np.arange(1600) % 2, 0.25, -0.25).astype(np.float32)
    for dtype, full_scale in ((np.int16, 2**15), (np.int32, 2**31)):
        np.testing.assert_array_equal(read_audio(((quarter * full_scale).astype(dtype), 16_000)), quarter)
    np.testing.assert_array_equal(read_audio((quarter.astype(np.float64), 16_000)), quarter)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros(1600, np.float32), "no sampling rate"),
        ((np.zeros(1600, np.uint8), 16_000), "uint8"),
        ((np.zeros((1600, 2), np.float32), 16_000), "channels first"),
        ((np.zeros((1, 2, 1600), np.float32), 16_000), "shape"),
        ((np.zeros(0, np.float32), 16_000), "no audio samples"),
        ((voice(1) * 32_768, 16_000), "32768"),
        (({"a": 1}, 16_000), "<array>"),
        ((voice(1), 7_999), "7999 Hz"),
        ((voice(1), 192_001), "8000 to 192000 Hz"),
        ((voice(1), 0), "0 Hz"),
    ],
)
def test_implausible_arrays_are_refused(source: Any, reason: str) -> None:
    assert reason in error_of(source)


def test_stereo_is_mixed_or_each_channel_kept() -> None:
    left, right = voice(1), voice(1, pitch=200)
    stereo = (np.stack([left, right]), 16_000)
    np.testing.assert_allclose(read_audio(stereo), (left + right) / 2, atol=1e-7)
    np.testing.assert_array_equal(read_audio(stereo, channels="each"), np.stack([left, right]))
    with pytest.raises(ValueError, match="mix, each"):
        read_audio(stereo, channels="left")


def test_channels_of_opposite_phase_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "phase.wav"
    path.write_bytes(encode(np.stack([voice(1), -voice(1)]), SAMPLING_RATE, "wav"))
    assert "judge each channel separately" in error_of(path)
    assert read_audio(path, channels="each").shape == (2, 16_000)


def test_an_mp3_called_wav_is_read_as_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "memo.wav"
    path.write_bytes(encode(voice(1), SAMPLING_RATE, "mp3"))
    assert len(read_audio(path)) == 16_000


def _without_length_header(mp3: bytes) -> bytes:
    """Drops the first frame of an MP3, which declares the length."""
    return mp3[mp3.index(mp3[:2], 4) :]


def test_an_mp3_without_its_length_is_read_to_its_end() -> None:
    # First loud, then almost silent, so that the bit rate of the start does not predict the length.
    signal = np.concatenate([voice(2), 0.01 * voice(20)])
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 16_000, 1, format="MP3", bitrate_mode="VARIABLE") as file:
        file.write(signal)
    assert len(read_audio(_without_length_header(buffer.getvalue()))) == pytest.approx(22 * 16_000, abs=3_000)


def test_a_wav_written_into_a_pipe_is_whole() -> None:
    data = bytearray(encode(voice(1), SAMPLING_RATE, "wav"))
    at = data.index(b"data") + 4
    for unknown in (b"\xff\xff\xff\xff", b"\0\0\0\0"):
        data[at : at + 4] = unknown
        assert len(read_audio(bytes(data))) == 16_000


def test_a_flac_of_unknown_length_is_read() -> None:
    data = bytearray(encode(voice(2), SAMPLING_RATE, "flac"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)  # the 36 bits of STREAMINFO that hold the number of samples
    assert len(read_audio(bytes(data))) == 32_000


@pytest.mark.parametrize("suffix", ["wav", "float.wav", "flac", "ogg", "opus", "mp3", "m4a", "webm", "mp4"])
@pytest.mark.parametrize("kept", [0.03, 0.6])
def test_a_truncated_file_is_reported_by_name(tmp_path: Path, suffix: str, kept: float) -> None:
    data = encode(voice(20), SAMPLING_RATE, suffix)
    path = tmp_path / f"half.{suffix}"
    path.write_bytes(data[: int(kept * len(data))])
    message = error_of(path)
    assert str(path) in message
    assert "truncated" in message


def _files_nobody_can_judge(folder: Path) -> Iterator[tuple[str, str]]:
    """Writes files, and yields their names, each with a part of the expected message."""
    second = voice(1)
    holed = second.copy()
    holed[8_000] = np.nan
    contents: dict[str, tuple[bytes, str]] = {
        "zero.wav": (b"", "zero bytes"),
        "text.wav": (b"these are only words\n" * 99, "not an audio"),
        "playlist.m4a": (b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n", "not an audio"),
        "bare.wav": (encode(second[:0], SAMPLING_RATE, "wav"), "no"),
        "nan.wav": (encode(holed, SAMPLING_RATE, "float.wav"), "NaN or infinite samples, the first at 0.50 s"),
        "silent.flac": (encode(0 * second, SAMPLING_RATE, "flac"), "no window peaks above -60 dBFS"),
        "quiet.wav": (encode(0.0019 * second, SAMPLING_RATE, "wav"), "no window peaks above -60 dBFS"),
        "short.wav": (encode(second[:399], SAMPLING_RATE, "wav"), "24.9 ms"),
        "slow.wav": (encode(second, 4_000, "wav"), "4000 Hz"),
    }
    for name, (data, reason) in contents.items():
        (folder / name).write_bytes(data)
        yield name, reason
    (folder / "folder.wav").mkdir()
    yield "folder.wav", "is a folder"
    yield "missing.wav", "does not exist"
    yield "null\0.wav", "cannot be opened"


def test_errors_name_the_file_and_the_reason(tmp_path: Path) -> None:
    for name, reason in _files_nobody_can_judge(tmp_path):
        message = error_of(tmp_path / name)
        assert str(tmp_path / name) in message
        assert reason in message


def test_a_film_without_an_audio_track_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mute.mp4"
    with av.open(str(path), "w") as file:
        pictures: Any = file.add_stream("mpeg4", rate=5)
        pictures.width = pictures.height = 64
        pictures.pix_fmt = "yuv420p"
        file.mux(pictures.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        file.mux(pictures.encode())
    assert error_of(path) == f"{path} has no audio track."


def test_a_file_open_in_text_mode_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encode(voice(1), SAMPLING_RATE, "wav"))
    with open(path, encoding="latin-1") as file:
        assert "binary mode" in error_of(file)


def test_the_summary_reports_sound_clipping_and_peak() -> None:
    signal = np.concatenate([voice(1), np.zeros(48_000, np.float32), np.clip(8 * voice(1), -1, 1)])
    with open_audio((np.stack([signal, 0 * signal]), 16_000)) as audio:
        assert audio.info.duration == 5.0
        for _ in audio.blocks("each"):
            pass
    assert audio.summary is not None
    assert audio.summary.duration == 5.0
    assert audio.summary.sound == pytest.approx([2.0, 0.0], abs=0.05)
    assert audio.summary.peak == pytest.approx([1.0, 0.0])
    assert audio.summary.clipped[0] > 0.05 and audio.summary.clipped[1] == 0
    assert not audio.summary.cancelling


@pytest.mark.parametrize(
    ("length", "hop", "starts"),
    [
        (10, None, [0]),
        (7, None, [0]),
        (30, None, [0, 10, 20]),
        (31, None, [0, 10, 20, 21]),
        (25, 5, [0, 5, 10, 15]),
        (26, 5, [0, 5, 10, 15, 16]),
        (0, None, []),
    ],
)
@pytest.mark.parametrize("block", [1, 3, 10, 100])
def test_windows_cover_all_and_the_last_is_flush_with_the_end(
    length: int, hop: int | None, starts: list[int], block: int
) -> None:
    samples = np.arange(length)[None]
    blocks = (samples[:, start : start + block] for start in range(0, length, block))
    windows = list(iter_windows(blocks, 10, hop))
    assert [start for start, _ in windows] == starts
    for start, window in windows:
        np.testing.assert_array_equal(window, samples[:, start : start + 10])


@pytest.mark.parametrize("hop", [0, 11])
def test_a_hop_that_would_skip_audio_is_refused(hop: int) -> None:
    with pytest.raises(ValueError, match="hop"):
        list(iter_windows([np.zeros((1, 30))], 10, hop))


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    def peak(seconds: int) -> int:
        path = tmp_path / f"{seconds}.wav"
        soundfile.write(path, np.tile(voice(1, 44_100), seconds), 44_100)
        tracemalloc.start()
        with open_audio(path) as audio:
            for _ in iter_windows(audio.blocks(), 64_600):
                pass
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(240) < 1.2 * peak(30)
