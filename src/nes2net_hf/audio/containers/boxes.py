"""
Find where recordings end in MP4 (ISO 14496-12), Matroska and WebM (RFC 8794), AVI, FLV and AMR (RFC 4867). FFmpeg
decodes these formats and knows their length.
"""

from __future__ import annotations

import re
import struct

from .view import UNKNOWN_SIZE, Found, Part, View, is_start

_BOX = rb"[A-Za-z0-9 \xa9_-]{4}"


def walk_mp4(view: View, start: int) -> Found | None:
    at, has_index = start, False
    while at + 8 <= view.size:
        size, name = struct.unpack(">I4s", view.at(at, 8))
        if size == 1:
            size = int.from_bytes(view.at(at + 8, 8), "big")
        elif size == 0:
            size = view.size - at
        if size < 8 or (name == b"ftyp" and has_index) or (at > start and not re.fullmatch(_BOX, name)):
            break
        if at > start and name != b"ftyp" and is_start(view, at):
            break
        has_index |= name == b"moov"
        if at + size > view.size:
            return [Part([(start, view.size)], cut=True, form="mov")], view.size
        at += size
    return [Part([(start, at)], form="mov")], at


def walk_flv(view: View, start: int) -> Found | None:
    at = start + int.from_bytes(view.at(start + 5, 4), "big") + 4
    while at + 11 <= view.size:
        head = view.at(at, 11)
        if head[0] & 0x1F not in (8, 9, 18):  # audio, video, script data
            break
        at += 11 + int.from_bytes(head[1:4], "big") + 4
    return [Part([(start, min(at, view.size))], cut=at > view.size, form="flv")], min(at, view.size)


def walk_ebml(view: View, start: int) -> Found | None:
    at, size = _ebml_body(view, start)
    at += size or 0
    cut = False
    if view.at(at, 4) == b"\x18\x53\x80\x67":  # the segment; its size is unknown if it was written live
        at, size = _ebml_body(view, at)
        at += size or 0
        cut = at > view.size
        if size is not None and (is_start(view, at) or re.match(rb"\xff[\xe2-\xff]", view.at(at, 2))):
            return [Part([(start, at)], form="matroska")], at
    # The recording ends where the next one starts: clusters after its declared end belong to it.
    end = at - 1
    while True:
        end = view.find(b"\x1a\x45\xdf\xa3", end + 1)
        if end < 0:
            end = view.size
            break
        if re.search(rb"\x42[\x86\xf7]", view.at(end + 4, 16)):
            break
    return [Part([(start, end)], cut=cut, form="matroska")], end


def _ebml_body(view: View, at: int) -> tuple[int, int | None]:
    """Returns where the body of an element with a four-byte name starts, and its size (None if unknown)."""
    data = view.at(at + 4, 8)
    if not data or not data[0]:
        return at + 4, None
    width = 9 - data[0].bit_length()
    size = int.from_bytes(data[:width], "big") & ((1 << 7 * width) - 1)
    return at + 4 + width, None if size == (1 << 7 * width) - 1 else size


def walk_avi(view: View, start: int) -> Found | None:
    at, cut = start, False
    while at + 12 <= view.size:
        name, size, kind = struct.unpack("<4sI4s", view.at(at, 12))
        if name != b"RIFF" or (kind == b"AVI " and at > start) or kind not in (b"AVI ", b"AVIX"):
            break
        at += 8 + size + size % 2
        cut = at > view.size + 8 and size < UNKNOWN_SIZE  # some writers count one header too many
    at = min(at, view.size)
    if not is_start(view, at) and view.at(at, 4) != b"RIFF":
        at = view.size  # after a crash of the recorder, the rest still belongs to this recording
    return [Part([(start, at)], cut=cut, form="avi")], at


_AMR_BYTES = {
    b"#!AMR\n": (13, 14, 16, 18, 20, 21, 27, 32, 6, 0, 0, 0, 0, 0, 1, 1),
    b"#!AMR-WB\n": (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, 0, 0, 0, 0, 1, 1),
}


def walk_amr(view: View, start: int) -> Found | None:
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
