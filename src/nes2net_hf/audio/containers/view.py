"""What the walks share: the bytes of a file, the parts that they find in it, and the tags that are no audio."""

from __future__ import annotations

import io
import os
import re
import struct
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import IO, NamedTuple

Piece = tuple[int, int] | bytes
"""A range of bytes of the file, [start, end), or bytes of our own."""

UNKNOWN_FORM = "unknown"
TOLERANCE = 0.1  # s, codec padding: less than this is neither missing nor found
UNKNOWN_SIZE = 0x7FFF0000  # from here on a 32-bit length is what a recorder wrote that could not know it
FILL = 1 << 16  # bytes looked at to tell padding from audio


@dataclass
class Part:
    """One recording in a file; most files are one."""

    pieces: list[Piece]
    """What a decoder is given to read."""
    declared: float | None = None
    """Seconds, by its headers; None where they say nothing or the decoder knows better."""
    held: float | None = None
    """Seconds, as counted here; None where only decoding tells."""
    cut: bool = False
    """Whether it ends in the middle of a chunk, page or box, whose size says how much is missing."""
    notes: list[str] = field(default_factory=list)
    """What is to be known of it: an end in the middle of a frame, bytes that are no audio."""
    form: str | None = None
    """FFmpeg's name of its format, where libsndfile must not read it: it would guess the length; or UNKNOWN_FORM."""


Found = tuple[list[Part], int]
"""Parts, and where the last of them ends."""


class Pieces(io.RawIOBase):
    """The pieces of a file as one file to be read. Nothing is raised, because the decoders' C code cannot take it."""

    def __init__(self, file: IO[bytes], pieces: list[Piece]) -> None:
        self._file, self._pieces = file, [piece for piece in pieces if length_of(piece)]
        self._starts = [0]
        for piece in self._pieces:
            self._starts.append(self._starts[-1] + length_of(piece))
        self.size = self._starts[-1]
        self._at = self.reached = 0
        self.failure: Exception | None = None
        """Why reading failed, if it did; the decoders see an end of the file instead."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = (0, self._at, self.size)[whence]
        self._at = min(max(base + offset, 0), self.size)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        done = 0
        while done < len(view) and self._at < self.size:
            index = bisect_right(self._starts, self._at) - 1
            piece, offset = self._pieces[index], self._at - self._starts[index]
            count = min(len(view) - done, self._starts[index + 1] - self._at)
            if isinstance(piece, bytes):
                data = piece[offset : offset + count]
            else:
                try:
                    self._file.seek(piece[0] + offset)
                    data = self._file.read(count)
                except Exception as error:
                    self.failure = error
                    break
            if not data:
                break
            view[done : done + len(data)] = data
            done, self._at = done + len(data), self._at + len(data)
            self.reached = max(self.reached, self._at)
        return done


class View(NamedTuple):
    file: IO[bytes]
    size: int

    def at(self, position: int, count: int) -> bytes:
        self.file.seek(max(position, 0))
        return self.file.read(max(count, 0))

    def find(self, what: bytes, start: int, end: int | None = None) -> int:
        """The first place of `what` in [start, end), or -1."""
        end = self.size if end is None else end
        kept = b""
        while start < end:
            block = self.at(start, min(1 << 20, end - start))
            if not block:
                return -1
            place = (kept + block).find(what)
            if place >= 0:
                return start - len(kept) + place
            kept, start = (kept + block)[-len(what) + 1 :], start + len(block)
        return -1


def unread_note(size: int) -> list[str]:
    """What is said of bytes behind a recording that are no audio of a known format; nothing of a few."""
    return [f"{size / 1000:.0f} kB at the end of the file were not read: no known format"] if size > 1 << 14 else []


def length_of(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else max(piece[1] - piece[0], 0)


def seconds_of(size: float, per_second: float) -> float | None:
    return size / per_second if per_second > 0 else None


def behind_tags(view: View, at: int) -> int:
    """Behind the tags, and the zeros that fill up to them, that start here."""
    while True:
        end = tag_end(view, at)
        if end is None or end <= at:
            return at
        at = min(end, view.size)
        filled = view.at(at, 4096)
        if filled[4:8] != b"ftyp":  # an MP4 starts with zeros of its own
            at += len(filled) - len(filled.lstrip(b"\0"))


def tag_end(view: View, at: int) -> int | None:
    """Where the ID3, APE or Lyrics3 tag ends that starts here; None if none does."""
    head = view.at(at, 32)
    if head[:3] == b"ID3" and len(head) >= 10 and max(head[6:10]) < 0x80:
        size = sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        return at + 10 + size + (10 if head[5] & 0x10 else 0)
    if head[:3] == b"TAG" and at + 128 == view.size:
        return view.size
    if head[:4] == b"TAG+" and at + 227 + 128 == view.size:
        return at + 227
    if head[:8] == b"APETAGEX":
        (size,) = struct.unpack("<I", head[12:16])
        return at + 32 + (size if head[23] & 0x20 else 0)  # a header, or a footer by itself
    if head[:11] == b"LYRICSBEGIN":
        end = view.find(b"LYRICS200", at, at + (1 << 20))
        return end + 9 if end >= 0 else None
    return None


# How recordings start that are known by their first bytes, and a part of it that can be searched for quickly.
_STARTS = re.compile(
    rb"(RIFF|RF64|BW64|RIFX)....WAVE|FORM....AIF[FC]|riff\x2e\x91\xcf\x11|caff\x00\x01|\.snd\x00\x00|"
    rb"fLaC[\x00\x80]\x00\x00\x22|OggS\x00\x02|\x00\x00..ftyp|\x1a\x45\xdf\xa3.{1,8}\x42[\x82-\x87\xf2\xf3\xf7]|"
    rb"FLV\x01[\x01\x04\x05]\x00\x00\x00|ID3[\x02-\x04]\x00[\x00-\xf0][\x00-\x7f]{4}",
    re.DOTALL,
)
_NEEDLES = {
    b"WAVE": 8, b"AIFF": 8, b"AIFC": 8, b"riff\x2e\x91\xcf\x11": 0, b"caff\0\1": 0, b".snd\0\0": 0, b"fLaC": 0,
    b"OggS\0\2": 0, b"ftyp": 4, b"\x1a\x45\xdf\xa3": 0, b"FLV\1": 0, b"ID3\2\0": 0, b"ID3\3\0": 0, b"ID3\4\0": 0,
}  # fmt: skip


def is_start(view: View, at: int) -> bool:
    """Whether a recording of a format that is known by its first bytes starts here."""
    return _STARTS.match(view.at(at, 24)) is not None


def next_start(view: View, start: int, end: int, needles: Iterable[bytes] = tuple(_NEEDLES)) -> int | None:
    """Where in [start, end) the next recording starts that is known by its first bytes."""
    found = None
    for needle in needles:
        at = start
        while (at := view.find(needle, at, end)) >= 0:
            place = at - _NEEDLES[needle]
            if place >= start and is_start(view, place):
                found = end = place
                break
            at += 1
    return found


def end_of_samples(view: View, at: int) -> int:
    """
    Where samples end whose number nobody knows: with the next recording, or with the file, but for a tag at its end
    and zeros that merely fill up a sector.
    """
    following = next_start(view, at, view.size)
    if following is not None:
        return following
    end = end_of_tags(view, at)
    if end - at <= FILL and not view.at(at, end - at).strip(b"\0"):
        return at
    return end


def end_of_tags(view: View, at: int) -> int:
    """Where the tags start that end the file, of a recording that starts at `at`."""
    end = view.size
    if view.at(end - 128, 3) == b"TAG" and end - 128 >= at:
        end -= 128
    footer = view.at(end - 32, 32)
    if footer[:8] == b"APETAGEX":
        size = max(struct.unpack("<I", footer[12:16])[0], 32) + (32 if footer[23] & 0x80 else 0)
        if end - size >= at:
            end -= size
    return end
