"""
Where a file's audio lies, and how much of it its headers declare. Used by `decoders.py` alone.

A length that a header declares is a claim: recorders crash, downloads stop, and people join files with `cat`. Decoders
believe the first header and end there, so every chunk, page and frame is walked here. What follows a recording in the
same file is a part of its own; tags and metadata chunks are no audio; audio behind the declared end is audio.

Sources: RIFF and RF64 (EBU Tech 3306), Sony Wave64, AIFF-C, CAF (Apple), AU, ISO 11172-3 and 13818-3 with the Xing,
Info and VBRI headers, Ogg (RFC 3533), FLAC (RFC 9639), ISO 14496-12, EBML (RFC 8794), AMR (RFC 4867), ID3v2, APEv2.
"""

from __future__ import annotations

import io
import os
import re
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, NamedTuple

Piece = tuple[int, int] | bytes
"""A range of bytes of the file, [start, end), or bytes of our own."""

UNKNOWN_FORM = "unknown"

TOLERANCE = 0.1  # s, codec padding: less than this is neither missing nor found
_UNKNOWN = 0x7FFFF000  # from here on a 32-bit length is what a recorder wrote that could not know it
_SILENT_FILL = 1 << 16  # bytes looked at to tell padding from audio


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
    ragged: bool = False
    """Whether it ends in the middle of a frame, as a recording of a live stream may."""
    form: str | None = None
    """FFmpeg's name of its format, where libsndfile must not read it: it would guess the length; or UNKNOWN_FORM."""


class Pieces(io.RawIOBase):
    """The pieces of a file as one file to be read. Nothing is raised, because the decoders' C code cannot take it."""

    def __init__(self, file: IO[bytes], pieces: list[Piece]) -> None:
        self._file, self._pieces = file, [piece for piece in pieces if _length(piece)]
        self._starts = [0]
        for piece in self._pieces:
            self._starts.append(self._starts[-1] + _length(piece))
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


def parts_of(file: IO[bytes]) -> list[Part]:
    """The recordings in an open, seekable file, in their order; at least one, which may be no audio at all."""
    view = _View(file, file.seek(0, os.SEEK_END))
    parts: list[Part] = []
    at = 0
    while at < view.size:
        start = _behind_tags(view, at)
        found = _walk(view, start)
        if found is None:
            if not parts:
                whole: list[Piece] = [(start if start < view.size else 0, view.size)]
                return [Part(whole, form=UNKNOWN_FORM)]
            break  # what follows the last recording is no audio that we know
        its_parts, end = found
        parts += its_parts
        at = max(end, start + 1)
    return parts


class _View(NamedTuple):
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


_Found = tuple[list[Part], int]
"""Parts, and where the last of them ends."""


def _walk(view: _View, start: int) -> _Found | None:
    """The recording that starts here, or several where they cannot be told apart at once; None of no known format."""
    head = view.at(start, 16)
    for pattern, walk in _WALKS:
        if re.match(pattern, head, re.DOTALL):
            found = walk(view, start)
            if found is not None:
                return found
    return None


def _is_known(head: bytes) -> bool:
    return any(re.match(pattern, head, re.DOTALL) for pattern, _ in _WALKS)


def _length(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else max(piece[1] - piece[0], 0)


def _seconds(size: float, per_second: float) -> float | None:
    return size / per_second if per_second > 0 else None


# Tags


def _behind_tags(view: _View, at: int) -> int:
    """Behind the tags, and the zeros that fill up to them, that start here."""
    while True:
        end = _tag_end(view, at)
        if end is None:
            return at
        at = min(end, view.size)
        filled = view.at(at, 4096)
        if not _is_known(filled[:16]):
            at += len(filled) - len(filled.lstrip(b"\0"))


def _tag_end(view: _View, at: int) -> int | None:
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
        return at + size + (32 if head[23] & 0x20 else 0)  # the size counts the footer, not the header
    if head[:11] == b"LYRICSBEGIN":
        end = view.find(b"LYRICS200", at)
        return end + 9 if end >= 0 else None
    return None


# WAV, RF64, Wave64, AIFF, CAF, AU, NIST: chunks of samples


class _Chunk(NamedTuple):
    name: bytes
    body: int
    size: int
    """As declared."""


@dataclass
class _Layout:
    """How a family of formats writes its chunks."""

    header: int
    """Bytes of name and length."""
    first: int
    """Where the first chunk starts, from the start of the recording."""
    read: Callable[[bytes], tuple[bytes, int]]
    """Name and length, from the header."""
    align: int
    data: bytes
    lead: int = 0
    """Bytes at the start of a data chunk that are no samples."""
    inside: bytes = b""
    """A chunk whose own chunks are walked like its neighbours (12 bytes in)."""


def _chunks(
    view: _View, start: int, layout: _Layout, is_unknown: Callable[[int], bool]
) -> tuple[list[_Chunk], list[tuple[int, int]], bool, int]:
    """The chunks, the ranges of samples, whether the last is cut, and where the recording ends."""
    chunks: list[_Chunk] = []
    ranges: list[tuple[int, int]] = []
    at = start + layout.first
    while at + layout.header <= view.size:
        if ranges and _walk_starts(view, at):  # its first bytes look like a chunk, too
            break
        name, size = layout.read(view.at(at, layout.header))
        body = at + layout.header
        if not _is_chunk(view, name, body, size, layout, bool(ranges)):
            if ranges and _is_chunk_at(view, at - 1, layout):  # an odd chunk without its byte of padding
                at -= 1
                continue
            if not ranges or _tag_end(view, at) is not None:
                break
            # Samples go on behind their declared end.
            ranges.append((at, _end_of_samples(view, at)))
            at = ranges[-1][1]
            break
        chunks.append(_Chunk(name, body, size))
        if name == layout.data:
            body += layout.lead
            size = max(size - layout.lead, 0)
            if is_unknown(size):
                if size == 0 and _is_chunk_at(view, body, layout):
                    ranges.append((body, body))
                    at = body
                    continue
                ranges.append((body, _end_of_samples(view, body)))
                at = ranges[-1][1]
                break
            if body + size > view.size:
                ranges.append((body, view.size))
                return chunks, ranges, True, view.size
            ranges.append((body, body + size))
            at = body + size + (-(layout.lead + size) % layout.align)
        elif name == b"LIST" and layout.inside and view.at(body, 4) == layout.inside:
            at = body + 4
        else:
            at = body + size + (-size % layout.align)
    return chunks, ranges, False, min(at, view.size)


def _is_chunk(view: _View, name: bytes, body: int, size: int, layout: _Layout, behind_data: bool) -> bool:
    """Samples may look like a name; hardly ever like a name and a length that fits."""
    if name == layout.data:
        return True
    return (
        bool(re.fullmatch(rb"[\x20-\x7e]{4}", name))
        and size >= 0
        and (body + size <= view.size + 1 or not behind_data)
    )


def _is_chunk_at(view: _View, at: int, layout: _Layout) -> bool:
    header = view.at(at, layout.header)
    if len(header) < layout.header:
        return False
    name, size = layout.read(header)
    return _is_chunk(view, name, at + layout.header, size, layout, True) and not _walk_starts(view, at)


def _walk_starts(view: _View, at: int) -> bool:
    """Whether a recording of a format that is known by its first bytes starts here."""
    return bool(
        re.match(rb"RIFF....WAVE|RF64....WAVE|RIFX....WAVE|FORM....AIF|\.snd\0|caff\0", view.at(at, 12), re.DOTALL)
    )


def _end_of_samples(view: _View, at: int) -> int:
    """The end of the file, but for a tag at its end, and zeros that merely fill up a sector."""
    end = view.size
    if view.at(end - 128, 3) == b"TAG" and end - 128 >= at:
        end -= 128
    footer = view.at(end - 32, 32)
    if footer[:8] == b"APETAGEX":
        size = struct.unpack("<I", footer[12:16])[0] + (32 if footer[23] & 0x80 else 0)
        if end - size >= at:
            end -= size
    if end - at <= _SILENT_FILL and not view.at(at, end - at).strip(b"\0"):
        return at
    return end


def _wav(view: _View, start: int) -> _Found | None:
    head = view.at(start, 12)
    order = ">" if head[:4] == b"RIFX" else "<"
    layout = _Layout(8, 12, lambda header: struct.unpack(f"{order}4sI", header), 2, b"data", inside=b"wavl")
    wide: dict[int, int] = {}

    if head[:4] in (b"RF64", b"BW64"):  # a chunk ds64 holds the true length of the data
        chunk = view.at(start + 12, 32)
        if chunk[:4] == b"ds64" and len(chunk) == 32:
            wide[0xFFFFFFFF] = struct.unpack("<Q", chunk[16:24])[0]

    def read(header: bytes) -> tuple[bytes, int]:
        name, size = struct.unpack(f"{order}4sI", header)
        return name, wide.get(size, size) if name == b"data" else size

    layout.read = read
    unknown = (lambda size: size == 0) if wide else (lambda size: size == 0 or size >= _UNKNOWN)
    chunks, ranges, cut, end = _chunks(view, start, layout, unknown)
    return _of_wave(view, start, chunks, ranges, cut, end, order, unknown, b"data")


_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # of every chunk's GUID but the first


def _w64(view: _View, start: int) -> _Found | None:
    def read(header: bytes) -> tuple[bytes, int]:
        size = struct.unpack("<q", header[16:])[0] - 24
        return (header[:4] if header[4:16] == _W64_TAIL else b"\0"), size

    layout = _Layout(24, 40, read, 8, b"data")
    chunks, ranges, cut, end = _chunks(view, start, layout, lambda size: size <= 0 or size >= 1 << 62)
    return _of_wave(view, start, chunks, ranges, cut, end, "<", lambda size: size <= 0 or size >= 1 << 62, b"data")


def _of_wave(
    view: _View,
    start: int,
    chunks: list[_Chunk],
    ranges: list[tuple[int, int]],
    cut: bool,
    end: int,
    order: str,
    unknown: Callable[[int], bool],
    data: bytes,
) -> _Found | None:
    """Parts of what is described by a WAVEFORMAT structure (the chunk `fmt `)."""
    form = next((view.at(chunk.body, min(chunk.size, 4096)) for chunk in chunks if chunk.name == b"fmt "), b"")
    if len(form) < 16 or not ranges:
        return None
    tag, channels, rate, per_second, align, bits = struct.unpack(f"{order}HHIIHH", form[:16])
    if tag == 0xFFFE and len(form) >= 26:
        (tag,) = struct.unpack(f"{order}H", form[24:26])
    if tag in (1, 3, 6, 7):  # PCM, floats, A-law, µ-law: every sample takes its place
        per_second = rate * (align or channels * bits // 8)
    elif tag in (0x02, 0x11, 0x31) and len(form) >= 20:  # ADPCM and GSM: blocks of samples
        per_second = rate * align / (struct.unpack(f"{order}H", form[18:20])[0] or 1)
    else:  # of the others only an average is known, and that often wrong
        per_second = 0
    sizes = [chunk.size for chunk in chunks if chunk.name == data]
    declared = None if unknown(sizes[0]) else _seconds(sizes[0] if not cut else sum(sizes), per_second)
    held = _seconds(sum(map(_length, ranges)), per_second)
    if tag in (0x50, 0x55):  # MPEG audio in a WAV
        inner = _mpeg(_View(Pieces(view.file, list(ranges)), sum(map(_length, ranges))), 0)  # type: ignore[arg-type]
        if inner is not None:
            parts = [
                Part(_mapped(part.pieces, ranges), part.declared, part.held, cut, form=part.form) for part in inner[0]
            ]
            return parts, end
    pieces: list[Piece] = [(start, end)]
    if len([one for one in ranges if _length(one)]) > 1 or cut or unknown(sizes[0]):
        size = sum(map(_length, ranges))
        pieces = [_wave_header(form, size, order), *ranges]
    return [Part(pieces, declared, held, cut)], end


def _wave_header(form: bytes, size: int, order: str) -> bytes:
    """The start of a WAV whose `size` bytes of samples follow."""
    form += b"\0" * (len(form) % 2)
    chunk = struct.pack(f"{order}4sI", b"fmt ", len(form)) + form
    if 36 + len(chunk) + size < _UNKNOWN:
        name = b"RIFF" if order == "<" else b"RIFX"
        start = struct.pack(f"{order}4sI4s", name, 4 + len(chunk) + 8 + size, b"WAVE")
        return start + chunk + struct.pack(f"{order}4sI", b"data", size)
    wide = struct.pack("<4sIQQQI", b"ds64", 28, 4 + 36 + len(chunk) + 8 + size, size, 0, 0)
    start = struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE")
    return start + wide + chunk + struct.pack("<4sI", b"data", 0xFFFFFFFF)


def _mapped(pieces: list[Piece], ranges: list[tuple[int, int]]) -> list[Piece]:
    """Ranges of what `ranges` make up, as ranges of the file."""
    mapped: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, bytes):
            mapped.append(piece)
            continue
        passed = 0
        for first, last in ranges:
            low, high = max(piece[0] - passed, 0), min(piece[1] - passed, last - first)
            if low < high:
                mapped.append((first + low, first + high))
            passed += last - first
    return mapped


# Bytes of a sample, of the encodings of AIFF-C and AU that have a fixed size.
_AIFF_BYTES = {
    b"NONE": 0, b"twos": 0, b"sowt": 0, b"in24": 3, b"in32": 4, b"fl32": 4, b"FL32": 4, b"fl64": 8, b"FL64": 8,
    b"alaw": 1, b"ALAW": 1, b"ulaw": 1, b"ULAW": 1, b"raw ": 1,
}  # fmt: skip
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


def _aiff(view: _View, start: int) -> _Found | None:
    layout = _Layout(8, 12, lambda header: struct.unpack(">4sI", header), 2, b"SSND", lead=8)

    def unknown(size: int) -> bool:
        return size == 0 or size >= _UNKNOWN - 8

    chunks, ranges, cut, end = _chunks(view, start, layout, unknown)
    common = next((view.at(chunk.body, min(chunk.size, 4096)) for chunk in chunks if chunk.name == b"COMM"), b"")
    if len(common) < 18 or not ranges:
        return None
    channels, frames, bits, exponent, mantissa = struct.unpack(">HIHHQ", common[:18])
    rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63)
    compression = common[18:22] if view.at(start + 8, 4) == b"AIFC" else b"NONE"
    sample = _AIFF_BYTES.get(compression)
    if sample is None or not channels or not 1 <= rate <= 1e6:
        return [Part([(start, end)], cut=cut)], end
    width = channels * (sample or (bits + 7) // 8)
    size = sum(map(_length, ranges))
    sizes = [max(chunk.size - 8, 0) for chunk in chunks if chunk.name == b"SSND"]
    declared = frames / rate if frames else None if unknown(sizes[0]) else _seconds(sizes[0], width * rate)
    pieces: list[Piece] = [(start, end)]
    if len(ranges) > 1 or cut or unknown(sizes[0]) or frames * width != size:
        common = struct.pack(">HI", channels, size // max(width, 1)) + common[6:]
        chunk = struct.pack(">4sI", b"COMM", len(common)) + common + b"\0" * (len(common) % 2)
        total = 4 + len(chunk) + 16 + size
        head = struct.pack(">4sI", b"FORM", min(total, 0xFFFFFFFF)) + view.at(start + 8, 4)
        pieces = [head + chunk + struct.pack(">4sIII", b"SSND", min(size + 8, 0xFFFFFFFF), 0, 0), *ranges]
    return [Part(pieces, declared, _seconds(size, width * rate), cut)], end


def _caf(view: _View, start: int) -> _Found | None:
    layout = _Layout(12, 8, lambda header: struct.unpack(">4sq", header), 1, b"data", lead=4)
    chunks, ranges, cut, end = _chunks(view, start, layout, lambda size: size <= 0)
    form = next((view.at(chunk.body, 32) for chunk in chunks if chunk.name == b"desc"), b"")
    if len(form) < 32 or not ranges:
        return None
    rate, coding, _, packet_bytes, packet_frames, _, _ = struct.unpack(">d4sIIIII", form)
    [size] = [chunk.size - 4 for chunk in chunks if chunk.name == b"data"][:1]
    if packet_bytes and packet_frames:
        per_second = packet_bytes * rate / packet_frames
        declared = _seconds(size, per_second) if size > 0 else None
        held = _seconds(sum(map(_length, ranges)), per_second)
        if coding == b"lpcm" and (len(ranges) > 1 or cut):
            head = view.at(start, 8) + struct.pack(">4sq", b"desc", 32) + form
            data = struct.pack(">4sqI", b"data", 4 + sum(map(_length, ranges)), 0)
            return [Part([head + data, *ranges], declared, held, cut)], end
        return [Part([(start, end)], declared, held, cut)], end
    packets = next((view.at(chunk.body, 16) for chunk in chunks if chunk.name == b"pakt"), b"")
    valid = struct.unpack(">qq", packets)[1] if len(packets) == 16 else 0
    return [Part([(start, end)], _seconds(valid, rate) if valid > 0 else None, cut=cut)], end


def _au(view: _View, start: int) -> _Found | None:
    head = view.at(start, 24)
    if len(head) < 24:
        return None
    order = ">" if head[:4] == b".snd" else "<"
    offset, size, coding, rate, channels = struct.unpack(f"{order}5I", head[4:])
    width = _AU_BYTES.get(coding, 0) * channels
    body = start + offset
    if not width or not rate or not 24 <= offset <= view.size - start:
        return None
    known = 0 < size < _UNKNOWN
    end = body + size if known and body + size < view.size else view.size
    cut = known and body + size > view.size
    if end < view.size and not _walk_starts(view, end) and _tag_end(view, end) is None:
        end = max(_end_of_samples(view, end), end)  # an AU file has no chunks: what follows are samples
    held = end - body
    new = head[:4] + struct.pack(f"{order}5I", 24, min(held, 0xFFFFFFFF), coding, rate, channels)
    declared = _seconds(size, width * rate) if known else None
    return [Part([new, (body, end)], declared, _seconds(held, width * rate), cut)], end


def _nist(view: _View, start: int) -> _Found | None:
    head = view.at(start, 1024).decode("latin-1")
    fields = dict(re.findall(r"^(\w+) -\w+ (\S+)\s*$", head, re.MULTILINE))
    try:
        length = int(head.split("\n")[1])
        count, rate = int(fields["sample_count"]), int(fields["sample_rate"])
        width = int(fields.get("channel_count", 1)) * int(fields.get("sample_n_bytes", 2))
    except (KeyError, ValueError, IndexError):
        return None
    if "embedded" in fields.get("sample_coding", ""):  # compressed inside
        return None
    held = view.size - start - length
    form = "nistsphere" if held > count * width else None  # FFmpeg reads on to the end
    declared = _seconds(count, rate)
    return [
        Part([(start, view.size)], declared, _seconds(held, width * rate), held < count * width, form=form)
    ], view.size


# MPEG audio: frames

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
    """Version, layer, rate: the same all through a recording."""


def _mpeg_frames() -> dict[int, _Frame]:
    """The frames of all headers that there are, by the second and third byte."""
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
                        for other in (0, 1):  # the bits of CRC and private use
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


def _mpeg(view: _View, start: int) -> _Found | None:
    """Recordings of MPEG audio: each begins with a header frame of its own, or with another kind of frame."""
    at = _mpeg_sync(view, start, start + 4096)
    if at is None:
        return None
    parts: list[Part] = []
    run = _MpegRun()
    while at + 4 <= view.size:
        header = view.at(at, 4)
        frame = _mpeg_frame(header)
        if frame is None or (run.pieces and frame.kind != run.kind and not _followed(view, at, frame)):
            end = _tag_end(view, at)
            if end is None and _walk_starts(view, at):
                break
            begin = end if end is not None else at + 1
            place = _mpeg_sync(view, begin, view.size)
            if place is None:
                break
            at = place
            continue
        kind, mono = frame.kind, header[3] >> 6 == 3
        lead = _mpeg_header(view.at(at, frame.length), kind, mono) if _may_be_header(view, at, run) else None
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
    """The frame before the sound in which Xing, Info and VBRI headers stand."""

    data: bytes
    at: int | None
    """Where its count of frames stands, if libsndfile goes by it."""
    frames: int = 0
    """As counted there, 0 if it does not count."""

    def counting(self, frames: int) -> bytes:
        """The same with another count."""
        assert self.at is not None
        return self.data[: self.at] + struct.pack(">I", frames) + self.data[self.at + 4 :]


class _MpegRun:
    """Frames of one recording, as they are found."""

    def __init__(self) -> None:
        self.started = False
        self.kind, self.mono = (0, 0, 1), False
        self.header: _MpegHeader | None = None
        self.pieces: list[tuple[int, int]] = []
        self.count = self.samples = 0
        self.ragged = False

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
        if self.header is None or self.header.at is None or not self.count:
            ragged = self.ragged and not frames
            return Part(list(self.pieces), declared, held, ragged=ragged, form="mp3")
        # libsndfile stops at the count, and cuts off what the encoder put before and after: up to three frames.
        pieces: list[Piece] = [self.header.counting(self.count), *self.pieces]
        return Part(pieces, declared, max(held - 3 * frame, 0.0))


def _may_be_header(view: _View, at: int, run: _MpegRun) -> bool:
    return not run.started or bool(re.search(rb"Xing|Info|VBRI", view.at(at + 4, 60)))


def _mpeg_header(data: bytes, kind: tuple[int, int, int], mono: bool) -> _MpegHeader | None:
    version, layer, _ = kind
    if layer != 1:  # Layer III
        return None
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    for offset in (4 + side, 6 + side):  # behind a checksum, too
        if data[offset : offset + 4] in (b"Xing", b"Info") and len(data) >= offset + 12:
            flags, frames = struct.unpack(">II", data[offset + 4 : offset + 12])
            return _MpegHeader(data, offset + 8, frames) if flags & 1 else _MpegHeader(data, None)
    if data[36:40] == b"VBRI" and len(data) >= 54:
        return _MpegHeader(data, None, struct.unpack(">I", data[50:54])[0])
    return None


def _mpeg_sync(view: _View, start: int, end: int) -> int | None:
    """Where the next frame starts that another of its kind follows, or that ends the file."""
    end = min(end, view.size)
    while start < end:
        block = view.at(start, min(1 << 16, view.size - start))
        for match in re.finditer(rb"\xff[\xe0-\xff]", block):
            place = start + match.start()
            if place >= end:
                return None
            frame = _mpeg_frame(view.at(place, 4))
            if frame is not None and _followed(view, place, frame):
                return place
        if start + len(block) >= view.size:
            return None
        start += max(len(block) - 1, 1)
    return None


def _followed(view: _View, at: int, frame: _Frame) -> bool:
    """Whether frames of the same kind follow: three in a row are no chance."""
    for _ in range(2):
        at += frame.length
        if at >= view.size or _tag_end(view, at) is not None:
            return True
        following = _mpeg_frame(view.at(at, 4))
        if following is None or following.kind != frame.kind:
            return False
        frame = following
    return True


# Ogg: pages

_OGG_AUDIO = re.compile(rb"\x01vorbis|OpusHead|\x7fFLAC|Speex   ")


def _ogg(view: _View, start: int) -> _Found | None:
    """The links of a chain: a page that begins a stream, behind pages that do not, begins the next."""
    links: list[list[int]] = []  # start, end, streams of audio, other streams
    beginning = cut = False
    at = start
    while at + 27 <= view.size:
        page = view.at(at, 27 + 255 + 64)
        if page[:4] != b"OggS":
            following = view.find(b"OggS\0", at)
            if following < 0:
                cut = cut or (_tag_end(view, at) is None and bool(view.at(at, _SILENT_FILL).strip(b"\0")))
                break
            at = following
            continue
        lengths = page[27 : 27 + page[26]]
        end = at + 27 + page[26] + sum(lengths)
        if page[5] & 2:
            if not beginning:
                links.append([at, at, 0, 0])
            is_audio = _OGG_AUDIO.match(view.at(at + 27 + page[26], 8)) is not None
            links[-1][2 if is_audio else 3] += 1
        beginning = bool(page[5] & 2)
        cut = end > view.size or len(lengths) < page[26]
        if not links:  # the start is missing
            return None
        at = min(end, view.size)
        links[-1][1] = at
    else:
        cut = cut or view.at(at, 4) == b"OggS"
    return [
        Part([(first, last)], cut=cut and last == links[-1][1], form=None if (audio, other) == (1, 0) else "ogg")
        for first, last, audio, other in links
    ], at


# FLAC: frames


def _flac(view: _View, start: int) -> _Found | None:
    info = view.at(start + 8, 34)
    if len(info) < 34:
        return None
    bits = int.from_bytes(info[10:18], "big")
    rate, total = bits >> 44, bits & ((1 << 36) - 1)
    body = start + 4
    while True:
        block = view.at(body, 4)
        if len(block) < 4 or body > view.size:
            return [Part([(start, view.size)], cut=True)], view.size
        body += 4 + int.from_bytes(block[1:], "big")
        if block[0] & 0x80:
            break
    end = body
    while True:  # the next stream, if one was joined on
        end = view.find(b"fLaC", end)
        if end < 0:
            end = _end_of_samples(view, body)
            break
        if view.at(end + 4, 4) in (b"\0\0\0\x22", b"\x80\0\0\x22"):
            break
        end += 1
    declared = total / rate if total and rate else None
    largest = int.from_bytes(info[7:10], "big") or 1 << 16
    tail = max(body, end - largest - 4096)
    ends = _flac_frame_ends(view.at(tail, end - tail), struct.unpack(">H", info[2:4])[0])
    whole = bool(total) and total in ends
    return [Part([(start, end)], declared, form=None if whole else "flac")], end


_FLAC_BLOCKS = {1: 192, **{code: 144 << code for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}


def _flac_frame_ends(data: bytes, block_size: int) -> Iterator[int]:
    """Where frames end whose headers lie in `data`, in samples from the start of the stream."""
    for match in re.finditer(rb"\xff[\xf8\xf9]", data):
        header = data[match.start() : match.start() + 16]
        if len(header) < 6:
            continue
        first = header[4]  # a number in the manner of UTF-8
        extra = 0 if first < 0x80 else 8 - (first ^ 0xFF).bit_length() - 1
        number = first & (0x7F if not extra else 0x3F >> extra)
        for byte in header[5 : 5 + extra]:
            number = number << 6 | byte & 0x3F
        at, code = 5 + extra, header[2] >> 4
        if code in (6, 7):
            samples = int.from_bytes(header[at : at + code - 5], "big") + 1
            at += code - 5
        else:
            samples = _FLAC_BLOCKS.get(code, 0)
        at += {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
        if samples and at < len(header) and _crc8(header[:at]) == header[at]:
            yield (number if header[1] & 1 else number * block_size) + samples


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


# MP4, Matroska, AVI, AMR: only where one recording ends and the next begins


def _mp4(view: _View, start: int) -> _Found | None:
    at, has_index = start, False
    while at + 8 <= view.size:
        size, name = struct.unpack(">I4s", view.at(at, 8))
        if size == 1:
            size = int.from_bytes(view.at(at + 8, 8), "big")
        elif size == 0:
            size = view.size - at
        if size < 8 or (name == b"ftyp" and has_index and at > start):
            break
        has_index |= name == b"moov"
        if at + size > view.size:
            return [Part([(start, view.size)], cut=True, form="mov")], view.size
        at += size
    return [Part([(start, at)], form="mov")], at


def _flv(view: _View, start: int) -> _Found | None:
    at = start + int.from_bytes(view.at(start + 5, 4), "big") + 4
    while at + 11 <= view.size:
        head = view.at(at, 11)
        if re.match(rb"FLV\x01", head):
            break
        at += 11 + int.from_bytes(head[1:4], "big") + 4
    return [Part([(start, min(at, view.size))], cut=at > view.size, form="flv")], min(at, view.size)


def _ebml(view: _View, start: int) -> _Found | None:
    at, size = _ebml_body(view, start)
    at += size or 0
    cut = False
    if view.at(at, 4) == b"\x18\x53\x80\x67":  # the segment; written live, it is of unknown size
        at, size = _ebml_body(view, at)
        at += size or 0
        cut = at > view.size
    # It ends where the next begins: clusters behind its declared end are its own.
    end = at - 1
    while True:
        end = view.find(b"\x1a\x45\xdf\xa3", end + 1)
        if end < 0:
            end = view.size
            break
        if re.search(rb"\x42[\x86\xf7]", view.at(end + 4, 16)):
            break
    return [Part([(start, end)], cut=cut, form="matroska")], end


def _ebml_body(view: _View, at: int) -> tuple[int, int | None]:
    """Where the body of an element with a name of four bytes starts, and its size; None if that is unknown."""
    data = view.at(at + 4, 8)
    if not data or not data[0]:
        return at + 4, None
    width = 9 - data[0].bit_length()
    size = int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1)
    return at + 4 + width, None if size == (1 << 7 * width) - 1 else size


def _avi(view: _View, start: int) -> _Found | None:
    at, cut = start, False
    while at + 12 <= view.size:
        name, size, kind = struct.unpack("<4sI4s", view.at(at, 12))
        if name != b"RIFF" or (kind == b"AVI " and at > start) or kind not in (b"AVI ", b"AVIX"):
            break
        at += 8 + size + size % 2
        cut = at > view.size + 8 and size < _UNKNOWN
    at = min(at, view.size)
    if not _walk_starts(view, at) and view.at(at, 4) != b"RIFF":
        at = view.size  # what a recorder that crashed left behind is still its own
    return [Part([(start, at)], cut=cut, form="avi")], at


_AMR_BYTES = {
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 1, 1),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1),
}


def _amr(view: _View, start: int) -> _Found | None:
    magic = next((magic for magic in _AMR_BYTES if view.at(start, len(magic)) == magic), None)
    if magic is None:
        return None
    at, frames = start + len(magic), 0
    while at < view.size:
        head = view.at(at, 9)
        if head.startswith(b"#!AMR"):
            break
        length = _AMR_BYTES[magic][head[0] >> 3 & 15]
        if not length:
            return None
        at, frames = at + length, frames + 1
    return [Part([(start, min(at, view.size))], held=frames * 0.02, form="amr")], min(at, view.size)


_WALKS: list[tuple[bytes, Callable[[_View, int], _Found | None]]] = [
    (rb"(RIFF|RF64|BW64|RIFX)....WAVE", _wav),
    (rb"RIFF....AVI ", _avi),
    (rb"riff\x2e\x91\xcf\x11", _w64),
    (rb"FORM....AIF[FC]", _aiff),
    (rb"caff", _caf),
    (rb"\.snd|dns\.", _au),
    (rb"NIST_1A", _nist),
    (rb"OggS", _ogg),
    (rb"fLaC", _flac),
    (rb"....ftyp", _mp4),
    (rb"\x1a\x45\xdf\xa3", _ebml),
    (rb"FLV\x01", _flv),
    (rb"#!AMR", _amr),
    (rb"\xff[\xe2-\xff]", _mpeg),
]
