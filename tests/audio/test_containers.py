"""Files are read to their end, not to the declared end. Less audio than declared is an error, more is a warning."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import soundfile

from nes2net_hf.audio import SAMPLING_RATE, AudioError, open_audio, read_audio
from nes2net_hf.audio.containers.mpeg import walk_mpeg
from nes2net_hf.audio.containers.view import View
from nes2net_hf.augmentation.codec import FORMATS, _encode
from tests.recordings import encode, muxed, voice

FIRST, SECOND = voice(3.0), voice(2.0, pitch=200)  # seconds


def written(samples: np.ndarray, form: str, codec: str, rate: int = SAMPLING_RATE, **options: Any) -> bytes:
    """Returns the bytes of a file that libsndfile writes of (S,) or (S, C)."""
    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate, channels, codec, format=form, **options) as file:
        file.write(samples)
    return buffer.getvalue()


def flv(seconds: float) -> bytes:
    return muxed(voice(seconds, 22_050), "flv", "libmp3lame", 22_050)


def read(source: Any, **options: Any) -> tuple[float, str]:
    """Returns the seconds that were read, and the warnings."""
    with open_audio(source, **options) as audio:
        samples = sum(block.shape[1] for block in audio.blocks("each"))
        assert audio.summary is not None
        return samples / SAMPLING_RATE, "; ".join(audio.summary.warnings)


def id3(size: int) -> bytes:
    digits = bytes((size - 10) >> shift & 127 for shift in (21, 14, 7, 0))
    return b"ID3\4\0\0" + digits + b"TIT2" + bytes(size - 14)


def mp3(samples: np.ndarray, rate: int = SAMPLING_RATE) -> bytes:
    return written(samples, "MP3", "MPEG_LAYER_III", rate, bitrate_mode="VARIABLE")


def counting(mp3: bytes, frames: int) -> bytes:
    """Returns the MP3 with another number of frames in its header."""
    place = max(mp3.find(b"Xing"), mp3.find(b"Info")) + 8
    return mp3[:place] + struct.pack(">I", frames) + mp3[place + 4 :]


def vbri(mp3: bytes, frames: int) -> bytes:
    """Returns the MP3 with Fraunhofer's header instead."""
    end = mp3.index(mp3[:2], 4)
    lead = mp3[:4].ljust(36, b"\0") + b"VBRI" + struct.pack(">HHHII", 1, 0, 0, 0, frames)
    return lead.ljust(end, b"\0") + mp3[end:]


def without_page(ogg: bytes, number: int) -> bytes:
    starts = [match.start() for match in re.finditer(b"OggS", ogg)]
    return ogg[: starts[number]] + ogg[starts[number + 1] :]


def mp3_in_wav(mp3: bytes) -> bytes:
    form = struct.pack("<HHIIHHHHIHHH", 0x55, 1, 16_000, 4_000, 1, 0, 12, 1, 2, 1152, 1, 1393)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(mp3)) + mp3
    return b"RIFF" + struct.pack("<I", len(body)) + body


def of_flac(flac: bytes, samples: int) -> bytes:
    """Returns the FLAC with another declared number of samples."""
    bits = int.from_bytes(flac[18:26], "big") >> 36 << 36 | samples
    return flac[:18] + bits.to_bytes(8, "big") + flac[26:]


def at(data: bytes, place: int, new: bytes) -> bytes:
    return data[:place] + new + data[place + len(new) :]


WAV, WAV2 = (written(one, "WAV", "PCM_16") for one in (FIRST, SECOND))


LIST = b"LIST" + struct.pack("<I", 26) + b"INFOISFT" + struct.pack("<I", 14) + b"Lavf60.16.100\0"


MP3, MP3_2 = mp3(FIRST), mp3(SECOND)


VORBIS, OPUS, OPUS2 = (
    written(*form) for form in ((FIRST, "OGG", "VORBIS"), (FIRST, "OGG", "OPUS"), (SECOND, "OGG", "OPUS"))
)


APE = b"APETAGEX" + struct.pack("<IIII", 2000, 0, 0, 0) + bytes(8)  # empty, with a wrong size


FLAC, FLAC2 = (written(one, "FLAC", "PCM_16") for one in (FIRST, SECOND))


AIFF, AIFF2 = (written(one, "AIFF", "PCM_16") for one in (FIRST, SECOND))


AU, CAF, W64, RF64 = (written(FIRST, form, "PCM_16") for form in ("AU", "CAF", "W64", "RF64"))


STEREO = np.stack([SECOND, SECOND], axis=1)


COMM = AIFF.index(b"COMM") + 10


JOINED: dict[str, Callable[[], bytes]] = {
    "mp3": lambda: MP3 + MP3_2,
    "mp3, tag between": lambda: MP3 + id3(3000) + MP3_2,
    "mp3, old tags": lambda: MP3 + b"TAG" + b"x" * 125 + MP3_2 + b"TAG" + b"y" * 125,
    "mp3, other rate": lambda: MP3 + mp3(voice(2, 44_100), 44_100),
    "mp3, mono and stereo": lambda: MP3 + mp3(STEREO),
    "mp3 in wav": lambda: mp3_in_wav(MP3 + MP3_2),
    "opus": lambda: OPUS + OPUS2,
    "vorbis, other rate": lambda: VORBIS + written(voice(2, 44_100), "OGG", "VORBIS", 44_100),
    "opus and vorbis": lambda: OPUS2 + VORBIS,
    "wav": lambda: WAV + WAV2,
    "wav, two data chunks": lambda: WAV + WAV2[36:],
    "wav, a list between": lambda: WAV + LIST + WAV2[36:],
    "wav, after the declared end": lambda: WAV + WAV2[44:],
    "wav of other rate": lambda: WAV + written(voice(2, 44_100), "WAV", "FLOAT", 44_100),
    "wave64, after the declared end": lambda: W64 + WAV2[44:],
    "aiff": lambda: AIFF + AIFF2,
    "aiff, after the declared end": lambda: AIFF + AIFF2[54:],
    "au": lambda: AU + written(SECOND, "AU", "PCM_16"),
    "caf": lambda: CAF + written(SECOND, "CAF", "PCM_16"),
    "flac": lambda: FLAC + FLAC2,
    "flac, tag between": lambda: FLAC + id3(3_000) + FLAC2,
    "flac and wav": lambda: FLAC + WAV2,
    "flac and opus": lambda: FLAC + OPUS2,
    "wav and mp3": lambda: WAV + id3(500) + MP3_2,
    "mp3 and wav": lambda: MP3 + WAV2,
    "opus and flac": lambda: OPUS + FLAC2,
    "m4a and wav": lambda: muxed(FIRST, "ipod", "aac") + WAV2,
    "webm and wav": lambda: encode(FIRST, 16_000, "webm") + WAV2,
    "wav of unknown length": lambda: at(WAV, 40, b"\xff" * 4) + at(WAV2, 40, b"\xff" * 4),
    "au of unknown length": lambda: at(AU, 8, b"\xff" * 4) + written(SECOND, "AU", "PCM_16"),
    "wave64": lambda: W64 + written(voice(2, 44_100), "W64", "PCM_16", 44_100),
    "m4a": lambda: muxed(FIRST, "ipod", "aac") + muxed(SECOND, "ipod", "aac"),
    "webm": lambda: encode(FIRST, 16_000, "webm") + encode(SECOND, 16_000, "webm"),
    "flv": lambda: flv(3) + flv(2),
    "avi": lambda: muxed(FIRST, "avi", "libmp3lame") + muxed(SECOND, "avi", "libmp3lame"),
}  # fmt: skip


@pytest.mark.parametrize("name", JOINED)
def test_what_follows_a_recording_in_its_file_is_read_too(name: str) -> None:
    seconds, warnings = read(JOINED[name]())
    assert seconds == pytest.approx(5.0, abs=0.2)  # codecs pad
    assert warnings


MORE: dict[str, Callable[[], bytes]] = {
    "xing": lambda: counting(MP3, 10),
    "xing at 44.1 kHz": lambda: counting(mp3(voice(3, 44_100), 44_100), 10),
    "xing after two tags": lambda: id3(500) + id3(40_000) + counting(MP3, 10),
    "vbri": lambda: vbri(MP3, 10),
    "mp3 in wav": lambda: mp3_in_wav(counting(MP3, 10)),
    "wav": lambda: at(WAV, 40, struct.pack("<I", 16_000)),
    "aiff": lambda: at(AIFF, COMM, struct.pack(">I", 8_000)),
    "au": lambda: at(AU, 8, struct.pack(">I", 16_000)),
    "flac": lambda: of_flac(FLAC, 16_000),
}


@pytest.mark.parametrize("name", MORE)
def test_more_than_declared_is_read_and_said(name: str) -> None:
    seconds, warnings = read(MORE[name]())
    assert seconds == pytest.approx(3.0, abs=0.15)
    assert "declares" in warnings


LESS: dict[str, Callable[[], bytes]] = {
    "xing": lambda: counting(MP3, 1000),
    "mp3": lambda: MP3[: len(MP3) // 2],
    "second mp3": lambda: (MP3 + MP3_2)[:-2000],
    "second opus": lambda: (OPUS + OPUS2)[:-900],
    "first opus": lambda: OPUS[:-900] + OPUS2,
    "first vorbis": lambda: VORBIS[: VORBIS.rfind(b"OggS") - 300] + VORBIS,
    "first wav": lambda: WAV[:30_000] + WAV2,
    "a page of opus": lambda: without_page(written(voice(20), "OGG", "OPUS"), 6),
    "wav": lambda: WAV[:30_000],
    "second wav": lambda: (WAV + WAV2)[:-30_000],
    "second data chunk": lambda: (WAV + WAV2[36:])[:-30_000],
    "rf64": lambda: RF64[:30_000],
    "wave64": lambda: W64[:30_000],
    "aiff": lambda: AIFF[:30_000],
    "aiff, frames": lambda: at(AIFF, COMM, struct.pack(">I", 80_000)),
    "au": lambda: AU[:30_000],
    "caf": lambda: CAF[:6_000],
    "caf of alac": lambda: written(FIRST, "CAF", "ALAC_16")[:-9_000],
    "flac": lambda: FLAC[:-9_000],
    "flac, samples": lambda: of_flac(FLAC, 160_000),
    "m4a": lambda: muxed(FIRST, "ipod", "aac")[:12_000],
    "flv": lambda: flv(3)[:6_000],
    "avi": lambda: muxed(FIRST, "avi", "libmp3lame")[:9_000],
}


@pytest.mark.parametrize("name", LESS)
def test_less_than_declared_is_an_error(name: str) -> None:
    with pytest.raises(AudioError, match="truncated"):
        read(LESS[name]())


WHOLE: dict[str, Callable[[], bytes]] = {
    "xing of no frames": lambda: counting(MP3, 0),
    "mp3 after tags": lambda: id3(500) + id3(40_000) + MP3,
    "wav after a tag": lambda: id3(40_000) + WAV,
    "aiff after a tag": lambda: id3(3_000) + AIFF,
    "flac after a tag": lambda: id3(3_000) + FLAC,
    "opus after a tag": lambda: id3(3_000) + OPUS,
    "m4a after a tag": lambda: id3(3_000) + muxed(FIRST, "ipod", "aac"),
    "wav with a list": lambda: WAV + LIST,
    "wav with an old tag": lambda: WAV + b"TAG" + b"x" * 125,
    "wav with a tag": lambda: WAV + id3(5_000),
    "wav with zeros": lambda: WAV + bytes(6_000),
    "wav of unknown length": lambda: at(WAV, 40, b"\xff\xff\xff\xff"),
    "wav without padding": lambda: at(WAV, 40, struct.pack("<I", 95_999))[:-1] + LIST,
    "wav that lacks a moment": lambda: WAV[:-400],
    "flac with an old tag": lambda: FLAC + b"TAG" + b"x" * 125,
    "flac with a line end": lambda: FLAC + b"\r\n",
    "flac with zeros": lambda: FLAC + bytes(1_000),
    "flac with a tag": lambda: FLAC + id3(5_000),
    "flac with APE": lambda: FLAC + APE,
    "wav with APE": lambda: WAV + APE,
    "wav after APE": lambda: APE + WAV,
    "mp3 with APE": lambda: MP3 + APE,
    "mp3 with junk": lambda: MP3 + np.random.default_rng(1).bytes(9_000),
    "opus with junk": lambda: OPUS + np.random.default_rng(2).bytes(900),
    "wavpack with APE": lambda: muxed(FIRST, "wv", "wavpack") + APE,
    "au of unknown length": lambda: at(AU, 8, b"\xff\xff\xff\xff"),
    "wav of ADPCM": lambda: written(FIRST, "WAV", "MS_ADPCM"),
    "wav of GSM": lambda: written(FIRST, "WAV", "GSM610"),
    "mpeg-ts": lambda: muxed(FIRST, "mpegts", "aac"),
    "mpeg-ps": lambda: muxed(voice(3, 48_000), "mpeg", "mp2", 48_000),
    "wma": lambda: muxed(voice(3, 44_100), "asf", "wmav2", 44_100),
    "wavpack": lambda: muxed(FIRST, "wv", "wavpack"),
    "ac3": lambda: muxed(voice(3, 48_000), "ac3", "ac3", 48_000),
}


@pytest.mark.parametrize("name", WHOLE)
def test_padding_and_tags_are_neither_missing_nor_more(name: str) -> None:
    seconds, warnings = read(WHOLE[name]())
    assert seconds == pytest.approx(3.0, abs=0.15)
    assert not warnings


def test_bytes_that_are_no_audio_are_said() -> None:
    junk = np.random.default_rng(3).bytes(100_000)
    for data in (MP3 + junk, OPUS + junk, FLAC + junk, muxed(FIRST, "ipod", "aac") + junk):
        seconds, warnings = read(data)
        assert seconds == pytest.approx(3.0, abs=0.2) and "not read" in warnings
    frames = mp3(voice(20))
    frames = frames[frames.index(frames[:2], 4) :]
    half = len(frames) // 2
    assert "damaged" in read(frames[:half] + bytes(5_000) + frames[half + 5_000 :])[1]


def test_a_gap_in_the_middle_of_a_film_is_said() -> None:
    data = encode(voice(20), SAMPLING_RATE, "webm")
    half = len(data) // 2
    assert (
        "are missing in the middle" in read(data[:half] + bytes(len(data) // 10) + data[half + len(data) // 10 :])[1]
    )


class Failing(io.BytesIO):
    """A file whose disk fails after some reads."""

    left = 30

    def read(self, *count: Any) -> bytes:
        self.left -= 1
        if self.left < 0:
            raise OSError(5, "Input/output error")
        return super().read(*count)


def test_a_disk_that_fails_is_an_error_in_words() -> None:
    for data in (WAV, MP3, FLAC, OPUS, muxed(FIRST, "ipod", "aac")):
        for left in (0, 5, 30):
            file = Failing(data)
            file.left = left
            try:
                read(file)
            except AudioError as error:
                assert "cannot be read" in str(error) and "Input/output error" in str(error)
    with pytest.raises(AudioError, match="file object fails"):
        closed = io.BytesIO(WAV)
        closed.close()
        read(closed)


def test_tags_of_no_size_and_many_chunks_end() -> None:
    many = WAV[:12] + b"JUNK\0\0\0\0" * 200_000 + WAV[12:]
    assert read(many)[0] == 3.0
    lyrics = bytes.fromhex("fff31018") + bytes(22) + b"LYRICSBEGIN"
    read(MP3 + lyrics * 2_000)


def test_a_cut_end_of_a_live_mp3_is_said() -> None:
    frames = MP3[MP3.index(MP3[:2], 4) :]
    assert "may have been cut off" in read(frames[: len(frames) // 2 + 7])[1]


def test_samples_behind_the_declared_end_are_the_right_ones() -> None:
    with open_audio(WAV + WAV2[44:]) as audio:
        samples = np.concatenate(list(audio.blocks()), axis=1)[0]
    np.testing.assert_allclose(samples, np.concatenate([FIRST, SECOND]), atol=1e-4)


def test_tracks_are_chosen() -> None:
    film = muxed(FIRST, "mp4", "aac", tracks=2)
    with open_audio(film) as audio:
        assert (audio.info.tracks, audio.info.track) == (2, 0)
        first = np.concatenate(list(audio.blocks()), axis=1)[0]
        with audio.on_track(1) as other:
            second = np.concatenate(list(other.blocks()), axis=1)[0]
    assert np.corrcoef(second[4_000:40_000], first[4_000:40_000])[0, 1] < 0.9
    with pytest.raises(AudioError, match="2 audio tracks, 0 to 1: there is no track 2"):
        open_audio(film, track=2)
    with pytest.raises(AudioError, match="no track 1"):
        open_audio(WAV, track=1)


def test_an_offset_is_no_sound() -> None:
    for rate in (16_000, 44_100):
        with pytest.raises(AudioError, match="silent"):
            read((np.full(5 * rate, 0.05, np.float32), rate))
    silence = np.float32(0.001)
    edge = np.where(np.arange(16_000) % 2, silence, -silence)  # at the threshold, not above it
    with pytest.raises(AudioError, match="silent"):
        read((edge, 16_000))
    assert read((edge * np.float32(1.001), 16_000))[0] == 1.0


def test_floats_above_full_scale_were_not_cut_off_there() -> None:
    def clipped(source: Any) -> float:
        with open_audio(source) as audio:
            list(audio.blocks())
        assert audio.summary is not None
        return float(audio.summary.clipped[0])

    assert clipped(written(3 * FIRST, "WAV", "FLOAT")) == 0
    assert clipped((3 * FIRST, 16_000)) == 0
    assert clipped(written(3 * FIRST, "WAV", "PCM_16")) > 0.01
    assert clipped((np.clip(3 * FIRST, -1, 1), 16_000)) > 0.01


def test_a_limit_of_duration_holds_whatever_the_header_declares() -> None:
    for data in (WAV, of_flac(FLAC, 16_000), MP3):
        with pytest.raises(AudioError, match="longer than"):
            read(data, max_duration=2.0)
        assert read(data, max_duration=4.0)[0] == pytest.approx(3.0, abs=0.15)


def test_many_channels_take_little_memory() -> None:
    import tracemalloc

    form = struct.pack("<HHIIHH", 1, 1024, 192_000, 192_000 * 2048, 2048, 16)
    many = b"RIFF" + struct.pack("<I", 96_036) + b"WAVEfmt \x10\0\0\0" + form + b"data" + struct.pack("<I", 96_000)
    with pytest.raises(AudioError, match="1024 channels"):
        read(many + bytes(96_000))
    sound = np.tile(voice(4, 192_000)[:, None], (1, 64))
    data = written(sound, "WAV", "PCM_16", 192_000)
    tracemalloc.start()
    read(data)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert highest < 60 * 2**20


def test_aac_whose_data_look_like_frames_of_mp3_is_read_whole(speech: list[np.ndarray]) -> None:
    looked_like_mp3 = 0
    for wave in speech:
        for start in range(0, wave.size - 32_000, 8_000):
            part = wave[start : start + 32_000]
            for bit_rate in (16_000, 32_000):
                content = _encode(part, "aac", FORMATS["aac"], bit_rate)
                looked_like_mp3 += walk_mpeg(View(io.BytesIO(content), len(content)), 0) is not None
                assert abs(read_audio(content).size - part.size) < 3_000
    assert looked_like_mp3 > 0
