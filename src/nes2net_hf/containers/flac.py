"""FLAC (RFC 9639): whether its last frame ends where its header says."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from .view import Found, Part, View, end_of_samples


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
    end = body
    while True:  # the next stream, if one was joined on
        end = view.find(b"fLaC", end)
        if end < 0:
            end = end_of_samples(view, body)
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
