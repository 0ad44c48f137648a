"""Find where FLAC (RFC 9639) recordings end, and whether the last frame ends where the header says."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from .view import Found, Part, View, end_of_samples, next_start, unread_note


def walk_flac(view: View, start: int) -> Found | None:
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
    block_size = struct.unpack(">H", info[2:4])[0]
    declared = total / rate if total and rate else None
    following = next_start(view, body, view.size, [b"fLaC"])
    end = end_of_samples(view, body) if following is None else following
    largest = int.from_bytes(info[7:10], "big") or 1 << 16
    tail = max(body, end - largest - 4096)
    if total and any(last == total for _, last in _frames(view.at(tail, end - tail), block_size)):
        return [Part([(start, end)], declared)], end
    # The last frame is earlier (other data was appended), or missing.
    last = _frame_ending(view, body, end, total, block_size) if total else None
    if last is None:
        return [Part([(start, end)], declared, form="flac")], end
    end = min(next_start(view, last, end) or end, end)
    unread = end - last - largest
    return [Part([(start, end)], declared, notes=unread_note(unread))], end


def _frame_ending(view: View, start: int, end: int, total: int, block_size: int) -> int | None:
    """Returns where the frame starts that ends with sample `total`; None if there is none."""
    while start < end:
        data = view.at(start, min(1 << 20, end - start))
        for place, last in _frames(data, block_size):
            if last == total:
                return start + place
        start += max(len(data) - 16, 16)
    return None


_FLAC_BLOCKS = {1: 192, **{code: 144 << code for code in range(2, 6)}, **{code: 1 << code for code in range(8, 16)}}


def _frames(data: bytes, block_size: int) -> Iterator[tuple[int, int]]:
    """Yields the position of each frame header in `data`, and the frame's end in samples since the stream's start."""
    for match in re.finditer(rb"\xff[\xf8\xf9]", data):
        header = data[match.start() : match.start() + 16]
        if len(header) < 6:
            continue
        first = header[4]  # a number coded like UTF-8
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
            yield match.start(), (number if header[1] & 1 else number * block_size) + samples


def _crc8(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc
