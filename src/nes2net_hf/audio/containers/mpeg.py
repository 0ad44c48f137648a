"""Find MPEG audio (ISO 11172-3, 13818-3): its frames, and the Xing, Info and VBRI headers that count them."""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

from .view import Found, Part, Piece, View, is_start, tag_end

_MPEG_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_MPEG_KBITS = {
    (3, 3): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 3): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 1): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class _Frame(NamedTuple):
    length: int
    """Bytes."""
    samples: int
    kind: tuple[int, int, int]
    """Version, layer and rate: the same in a whole recording."""


def _mpeg_frames() -> dict[int, _Frame]:
    """Returns the frames of all possible headers, by the second and third byte."""
    frames = {}
    for version in (3, 2, 0):
        for layer in (3, 2, 1):
            for index, kbits in enumerate(_MPEG_KBITS[2 if version == 0 else version, layer], 1):
                for rate_index, rate in enumerate(_MPEG_RATES[version]):
                    for padding in (0, 1):
                        if layer == 3:  # Layer I
                            samples, length = 384, (12_000 * kbits // rate + padding) * 4
                        else:
                            samples = 576 if layer == 1 and version != 3 else 1152
                            length = samples // 8 * 1000 * kbits // rate + padding
                        for other in (0, 1):  # the private bit
                            for protection in (0, 1):
                                second = 0xE0 | version << 3 | layer << 1 | protection
                                third = index << 4 | rate_index << 2 | padding << 1 | other
                                frames[second << 8 | third] = _Frame(length, samples, (version, layer, rate))
    return frames


_FRAMES = _mpeg_frames()


def _mpeg_frame(header: bytes) -> _Frame | None:
    if len(header) < 4 or header[0] != 0xFF:
        return None
    return _FRAMES.get(header[1] << 8 | header[2])


def walk_mpeg(view: View, start: int) -> Found | None:
    """Returns the recordings. A new one starts at a header frame, or where the kind of frame changes."""
    at = _mpeg_sync(view, start, start + 4096)
    if at is None:
        return None
    parts: list[Part] = []
    run = _MpegRun()
    while at + 4 <= view.size:
        header = view.at(at, 64)
        frame = _mpeg_frame(header)
        if frame is None or (run.pieces and frame.kind != run.kind and not _followed(view, at, frame)):
            end = tag_end(view, at)
            if end is None and is_start(view, at):
                break
            begin = end if end is not None else at + 1
            place = _mpeg_sync(view, begin, view.size, strict=True)
            if place is None:
                break
            run.skipped += place - begin
            at = place
            continue
        kind, mono = frame.kind, header[3] >> 6 == 3
        lead = None
        if not run.started or re.search(rb"Xing|Info|VBRI", header):
            lead = _mpeg_header(view.at(at, frame.length), kind, mono)
        if run.started and (lead is not None or (kind, mono) != (run.kind, run.mono)):
            parts.append(run.part())
            run = _MpegRun()
        run.started, run.kind, run.mono = True, kind, mono
        if lead is not None:
            run.header = lead
        else:
            run.add(at, min(at + frame.length, view.size), frame)
        at += frame.length
    if run.started:
        parts.append(run.part())
    return (parts, min(at, view.size)) if any(part.held for part in parts) else None


class _MpegHeader(NamedTuple):
    """The first frame, which contains a Xing, Info or VBRI header instead of sound."""

    data: bytes
    at: int | None
    """Offset of the number of frames, if libsndfile uses it."""
    frames: int = 0
    """Declared number of frames, 0 if not declared."""

    def counting(self, frames: int, size: int) -> bytes:
        """Returns the frame with another number of frames, and of bytes if it declares them."""
        assert self.at is not None
        counts = struct.pack(">II", frames, size) if self.data[self.at - 1] & 2 else struct.pack(">I", frames)
        return self.data[: self.at] + counts + self.data[self.at + len(counts) :]


class _MpegRun:
    """Collects the frames of one recording."""

    def __init__(self) -> None:
        self.started = False
        self.kind, self.mono = (0, 0, 1), False
        self.header: _MpegHeader | None = None
        self.pieces: list[tuple[int, int]] = []
        self.count = self.samples = 0
        self.ragged = False
        self.skipped = 0  # damaged bytes between frames

    def add(self, start: int, end: int, frame: _Frame) -> None:
        self.ragged = end < start + frame.length
        if self.pieces and self.pieces[-1][1] == start:
            self.pieces[-1] = self.pieces[-1][0], end
        else:
            self.pieces.append((start, end))
        self.count, self.samples = self.count + 1, self.samples + frame.samples

    def part(self) -> Part:
        held = self.samples / self.kind[2]
        frame = held / max(self.count, 1)
        frames = self.header.frames if self.header is not None else 0
        declared = frames * frame if frames and abs(frames - self.count) > 1 else None
        notes = []
        if self.ragged and not frames:
            notes.append("the file ends in the middle of a frame: it may have been cut off")
        if self.skipped > 1000:
            notes.append(f"{self.skipped / 1000:.1f} kB in the middle are damaged and were not read")
        if self.header is None or self.header.at is None or not self.count:
            return Part(list(self.pieces), declared, held, notes=notes, form="mp3")
        # libsndfile stops at the declared number and trims the encoder's padding, up to three frames.
        size = len(self.header.data) + sum(end - start for start, end in self.pieces)
        pieces: list[Piece] = [self.header.counting(self.count, size), *self.pieces]
        return Part(pieces, declared, max(held - 3 * frame, 0.0), notes=notes)


def _mpeg_header(data: bytes, kind: tuple[int, int, int], mono: bool) -> _MpegHeader | None:
    version, layer, _ = kind
    if layer != 1:  # Layer III
        return None
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    for offset in (4 + side, 6 + side):  # without and with a checksum
        if data[offset : offset + 4] in (b"Xing", b"Info") and len(data) >= offset + 16:
            flags, frames = struct.unpack(">II", data[offset + 4 : offset + 12])
            frames = frames if frames < 1 << 30 else 0  # almost a year: not a real count
            return _MpegHeader(data, offset + 8, frames) if flags & 1 else _MpegHeader(data, None)
    if data[36:40] == b"VBRI" and len(data) >= 54:
        return _MpegHeader(data, None, struct.unpack(">I", data[50:54])[0])
    return None


def _mpeg_sync(view: View, start: int, end: int, strict: bool = False) -> int | None:
    """
    Returns where the next frame starts that two of the same kind follow. Unless `strict`, the end of the file may
    follow instead. None if there is no such frame.
    """
    end = min(end, view.size)
    while start < end:
        block = view.at(start, min(1 << 16, view.size - start))
        for match in re.finditer(rb"\xff[\xe0-\xff]", block):
            place = start + match.start()
            if place >= end:
                return None
            frame = _mpeg_frame(view.at(place, 4))
            if frame is not None and _followed(view, place, frame, strict):
                return place
        if start + len(block) >= view.size:
            return None
        start += max(len(block) - 1, 1)
    return None


def _followed(view: View, at: int, frame: _Frame, strict: bool = False) -> bool:
    """Returns whether two frames of the same kind follow: three in a row are no coincidence."""
    for _ in range(2):
        at += frame.length
        if at >= view.size:
            return not strict or at == view.size
        if re.match(rb"ID3|TAG|APETAGEX|LYRICSBEGIN", view.at(at, 11)):
            return True
        following = _mpeg_frame(view.at(at, 4))
        if following is None or following.kind != frame.kind:
            return False
        frame = following
    return True
