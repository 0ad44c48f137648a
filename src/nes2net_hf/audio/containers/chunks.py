"""
Find the samples in formats made of chunks: WAV, RF64 and BW64 (EBU Tech 3306), Sony Wave64, AIFF and AIFF-C, CAF
(Apple); also AU and NIST SPHERE, which are a header and samples.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from .mpeg import walk_mpeg
from .view import (
    UNKNOWN_SIZE,
    Found,
    Part,
    Piece,
    Pieces,
    View,
    end_of_samples,
    is_start,
    length_of,
    next_start,
    seconds_of,
    tag_end,
)

MOST_CHUNKS = 10_000


class _Chunk(NamedTuple):
    name: bytes
    body: int
    size: int
    """As declared."""


@dataclass
class _Layout:
    """How a family of formats writes its chunks."""

    header: int
    """Length of a chunk's header (name and length), in bytes."""
    first: int
    """Offset of the first chunk from the start of the recording."""
    read: Callable[[bytes], tuple[bytes, int]]
    """Returns name and length from a chunk's header."""
    align: int
    data: bytes
    lead: int = 0
    """Number of bytes before the samples in a data chunk."""
    inside: bytes = b""
    """A list type whose inner chunks are walked, too (12 bytes in)."""


def _chunks(
    view: View, start: int, layout: _Layout, is_unknown: Callable[[int], bool]
) -> tuple[list[_Chunk], list[tuple[int, int]], bool, int]:
    """Returns the chunks, the ranges of samples, whether the last range is cut, and where the recording ends."""
    chunks: list[_Chunk] = []
    ranges: list[tuple[int, int]] = []
    at = start + layout.first
    while at + layout.header <= view.size and len(chunks) < MOST_CHUNKS:
        if ranges and is_start(view, at):  # the start of a recording also looks like a chunk
            break
        name, size = layout.read(view.at(at, layout.header))
        body = at + layout.header
        if not _is_chunk(view, name, body, size, layout, bool(ranges)):
            if ranges and _is_chunk_at(view, at - 1, layout):  # an odd chunk without its padding byte
                at -= 1
                continue
            if not ranges or tag_end(view, at) is not None:
                break
            # Samples continue after their declared end.
            ranges.append((at, end_of_samples(view, at)))
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
                ranges.append((body, end_of_samples(view, body)))
                at = ranges[-1][1]
                break
            if body + size > view.size:
                ranges.append((body, end_of_samples(view, body)))
                return chunks, ranges, True, ranges[-1][1]
            following = next_start(view, body, body + size, [b"WAVE"])
            if following is not None:  # this recording was cut, and another one appended
                ranges.append((body, following))
                return chunks, ranges, True, following
            ranges.append((body, body + size))
            at = body + size + (-(layout.lead + size) % layout.align)
        elif name == b"LIST" and layout.inside and view.at(body, 4) == layout.inside:
            at = body + 4
        else:
            at = body + size + (-size % layout.align)
    return chunks, ranges, False, min(at, view.size)


def _content(view: View, chunks: list[_Chunk], name: bytes) -> bytes:
    """Returns the first chunk with that name, up to 4096 bytes; empty if there is none."""
    return next((view.at(chunk.body, min(chunk.size, 4096)) for chunk in chunks if chunk.name == name), b"")


def _is_chunk(view: View, name: bytes, body: int, size: int, layout: _Layout, after_data: bool) -> bool:
    """Returns whether this is a chunk. Samples may look like a name, but rarely like a name and a possible length."""
    if name == layout.data:
        return True
    return (
        bool(re.fullmatch(rb"[\x20-\x7e]{4}", name)) and size >= 0 and (body + size <= view.size + 1 or not after_data)
    )


def _is_chunk_at(view: View, at: int, layout: _Layout) -> bool:
    header = view.at(at, layout.header)
    if len(header) < layout.header:
        return False
    name, size = layout.read(header)
    return _is_chunk(view, name, at + layout.header, size, layout, True) and not is_start(view, at)


def walk_wav(view: View, start: int) -> Found | None:
    head = view.at(start, 12)
    order = ">" if head[:4] == b"RIFX" else "<"
    wide: dict[int, int] = {}
    if head[:4] in (b"RF64", b"BW64"):  # the ds64 chunk has the true length of the data
        chunk = view.at(start + 12, 32)
        if chunk[:4] == b"ds64" and len(chunk) == 32:
            wide[0xFFFFFFFF] = struct.unpack("<Q", chunk[16:24])[0]

    def read(header: bytes) -> tuple[bytes, int]:
        name, size = struct.unpack(f"{order}4sI", header)
        return name, wide.get(size, size) if name == b"data" else size

    layout = _Layout(8, 12, read, 2, b"data", inside=b"wavl")
    unknown = (lambda size: size == 0) if wide else (lambda size: size == 0 or size >= UNKNOWN_SIZE)
    chunks, ranges, cut, end = _chunks(view, start, layout, unknown)
    return _of_wave(view, start, chunks, ranges, cut, end, order, unknown)


_W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # end of the GUID of every chunk but the first


def walk_w64(view: View, start: int) -> Found | None:
    def read(header: bytes) -> tuple[bytes, int]:
        size = struct.unpack("<q", header[16:])[0] - 24
        return (header[:4] if header[4:16] == _W64_TAIL else b"\0"), size

    def unknown(size: int) -> bool:
        return size <= 0 or size >= 1 << 62

    chunks, ranges, cut, end = _chunks(view, start, _Layout(24, 40, read, 8, b"data"), unknown)
    return _of_wave(view, start, chunks, ranges, cut, end, "<", unknown)


def _of_wave(
    view: View,
    start: int,
    chunks: list[_Chunk],
    ranges: list[tuple[int, int]],
    cut: bool,
    end: int,
    order: str,
    unknown: Callable[[int], bool],
) -> Found | None:
    """Returns the parts of a recording that is described by a WAVEFORMAT structure (the `fmt ` chunk)."""
    form = _content(view, chunks, b"fmt ")
    if len(form) < 16 or not ranges:
        return None
    tag, channels, rate, per_second, align, bits = struct.unpack(f"{order}HHIIHH", form[:16])
    if tag == 0xFFFE and len(form) >= 26:
        (tag,) = struct.unpack(f"{order}H", form[24:26])
    if tag in (1, 3, 6, 7):  # PCM, float, A-law, µ-law: samples of a fixed size
        per_second = rate * (channels * ((bits + 7) // 8) or align)
    elif tag in (0x02, 0x11, 0x31) and len(form) >= 20:  # ADPCM and GSM: blocks of samples
        per_second = rate * align / (struct.unpack(f"{order}H", form[18:20])[0] or 1)
    else:  # only an average rate is known, which is often wrong
        per_second = 0
    sizes = [chunk.size for chunk in chunks if chunk.name == b"data"]
    size = sum(map(length_of, ranges))
    declared = None if unknown(sizes[0]) else seconds_of(sizes[0] if not cut else sum(sizes), per_second)
    held = seconds_of(size, per_second)
    if tag in (0x50, 0x55):  # MPEG audio in a WAV
        inner = walk_mpeg(View(Pieces(view.file, list(ranges)), size), 0)  # type: ignore[arg-type]
        if inner is not None:
            return [replace(part, pieces=_mapped(part.pieces, ranges), cut=cut) for part in inner[0]], end
    pieces: list[Piece] = [(start, end)]
    if len([one for one in ranges if length_of(one)]) > 1 or cut or unknown(sizes[0]):
        pieces = [_wave_header(form, size, order), *ranges]
    return [Part(pieces, declared, held, cut)], end


def _wave_header(form: bytes, size: int, order: str) -> bytes:
    """Returns the start of a WAV file, to be followed by `size` bytes of samples."""
    form += b"\0" * (len(form) % 2)
    chunk = struct.pack(f"{order}4sI", b"fmt ", len(form)) + form
    if 36 + len(chunk) + size < UNKNOWN_SIZE:
        name = b"RIFF" if order == "<" else b"RIFX"
        start = struct.pack(f"{order}4sI4s", name, 4 + len(chunk) + 8 + size, b"WAVE")
        return start + chunk + struct.pack(f"{order}4sI", b"data", size)
    wide = struct.pack("<4sIQQQI", b"ds64", 28, 4 + 36 + len(chunk) + 8 + size, size, 0, 0)
    start = struct.pack("<4sI4s", b"RF64", 0xFFFFFFFF, b"WAVE")
    return start + wide + chunk + struct.pack("<4sI", b"data", 0xFFFFFFFF)


def _mapped(pieces: list[Piece], ranges: list[tuple[int, int]]) -> list[Piece]:
    """Maps ranges within the concatenated `ranges` to ranges of the file."""
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


# Bytes per sample of the AIFF-C and AU encodings with a fixed size; 0 means the header gives it.
_AIFF_BYTES = {
    b"NONE": 0, b"twos": 0, b"sowt": 0, b"in24": 3, b"in32": 4, b"fl32": 4, b"FL32": 4, b"fl64": 8, b"FL64": 8,
    b"alaw": 1, b"ALAW": 1, b"ulaw": 1, b"ULAW": 1, b"raw ": 1,
}  # fmt: skip
_AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}


def walk_aiff(view: View, start: int) -> Found | None:
    layout = _Layout(8, 12, lambda header: struct.unpack(">4sI", header), 2, b"SSND", lead=8)

    def unknown(size: int) -> bool:
        return size == 0 or size >= UNKNOWN_SIZE - 8

    chunks, ranges, cut, end = _chunks(view, start, layout, unknown)
    common = _content(view, chunks, b"COMM")
    if len(common) < 18 or not ranges:
        return None
    channels, frames, bits, exponent, mantissa = struct.unpack(">HIHHQ", common[:18])
    rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63)
    compression = common[18:22] if view.at(start + 8, 4) == b"AIFC" else b"NONE"
    sample = _AIFF_BYTES.get(compression)
    if sample is None or not channels or not 1 <= rate <= 1e6:
        return [Part([(start, end)], cut=cut)], end
    width = channels * (sample or (bits + 7) // 8)
    size = sum(map(length_of, ranges))
    sizes = [max(chunk.size - 8, 0) for chunk in chunks if chunk.name == b"SSND"]
    declared = frames / rate if frames else None if unknown(sizes[0]) else seconds_of(sizes[0], width * rate)
    pieces: list[Piece] = [(start, end)]
    if len(ranges) > 1 or cut or unknown(sizes[0]) or frames * width != size:
        common = struct.pack(">HI", channels, size // max(width, 1)) + common[6:]
        chunk = struct.pack(">4sI", b"COMM", len(common)) + common + b"\0" * (len(common) % 2)
        total = 4 + len(chunk) + 16 + size
        head = struct.pack(">4sI", b"FORM", min(total, 0xFFFFFFFF)) + view.at(start + 8, 4)
        pieces = [head + chunk + struct.pack(">4sIII", b"SSND", min(size + 8, 0xFFFFFFFF), 0, 0), *ranges]
    return [Part(pieces, declared, seconds_of(size, width * rate), cut)], end


def walk_caf(view: View, start: int) -> Found | None:
    layout = _Layout(12, 8, lambda header: struct.unpack(">4sq", header), 1, b"data", lead=4)
    chunks, ranges, cut, end = _chunks(view, start, layout, lambda size: size <= 0)
    form = _content(view, chunks, b"desc")[:32]
    if len(form) < 32 or not ranges:
        return None
    rate, coding, _, packet_bytes, packet_frames, _, _ = struct.unpack(">d4sIIIII", form)
    [size] = [chunk.size - 4 for chunk in chunks if chunk.name == b"data"][:1]
    if packet_bytes and packet_frames:
        per_second = packet_bytes * rate / packet_frames
        declared = seconds_of(size, per_second) if size > 0 else None
        held = seconds_of(sum(map(length_of, ranges)), per_second)
        if coding == b"lpcm" and (len(ranges) > 1 or cut):
            head = view.at(start, 8) + struct.pack(">4sq", b"desc", 32) + form
            data = struct.pack(">4sqI", b"data", 4 + sum(map(length_of, ranges)), 0)
            return [Part([head + data, *ranges], declared, held, cut)], end
        return [Part([(start, end)], declared, held, cut)], end
    packets = _content(view, chunks, b"pakt")[:16]
    valid = struct.unpack(">qq", packets)[1] if len(packets) == 16 else 0
    return [Part([(start, end)], seconds_of(valid, rate) if valid > 0 else None, cut=cut)], end


def walk_au(view: View, start: int) -> Found | None:
    head = view.at(start, 24)
    if len(head) < 24:
        return None
    order = ">" if head[:4] == b".snd" else "<"
    offset, size, coding, rate, channels = struct.unpack(f"{order}5I", head[4:])
    width = _AU_BYTES.get(coding, 0) * channels
    body = start + offset
    if not width or not rate or not 24 <= offset <= view.size - start:
        return None
    known = 0 < size < UNKNOWN_SIZE
    end = min(body + size, view.size) if known else end_of_samples(view, body)
    cut = known and body + size > view.size
    if end < view.size and not is_start(view, end) and tag_end(view, end) is None:
        end = max(end_of_samples(view, end), end)  # AU files have no chunks, so samples follow
    held = end - body
    new = head[:4] + struct.pack(f"{order}5I", 24, min(held, 0xFFFFFFFF), coding, rate, channels)
    declared = seconds_of(size, width * rate) if known else None
    return [Part([new, (body, end)], declared, seconds_of(held, width * rate), cut)], end


def walk_nist(view: View, start: int) -> Found | None:
    head = view.at(start, 1024).decode("latin-1")
    fields = dict(re.findall(r"^(\w+) -\w+ (\S+)\s*$", head, re.MULTILINE))
    try:
        length = int(head.split("\n")[1])
        count, rate = int(fields["sample_count"]), int(fields["sample_rate"])
        width = int(fields.get("channel_count", 1)) * int(fields.get("sample_n_bytes", 2))
    except (KeyError, ValueError, IndexError):
        return None
    if "embedded" in fields.get("sample_coding", ""):  # compressed samples
        return None
    held = view.size - start - length
    form = "nistsphere" if held > count * width else None  # FFmpeg reads to the end
    declared = seconds_of(count, rate)
    return [
        Part([(start, view.size)], declared, seconds_of(held, width * rate), held < count * width, form=form)
    ], view.size
