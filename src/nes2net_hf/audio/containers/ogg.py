"""Find recordings in Ogg files (RFC 3533): the links of a chain of streams."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .view import FILL, Found, Part, View, next_start

_OGG_AUDIO = re.compile(rb"\x01vorbis|OpusHead|\x7fFLAC|Speex   ")

_OTHERS = (b"WAVE", b"fLaC", b"ftyp", b"\x1a\x45\xdf\xa3", b"ID3\3\0", b"ID3\4\0")


@dataclass
class _Link:
    start: int
    end: int
    audio: int = 0  # number of audio streams
    other: int = 0  # number of other streams
    cut: bool = False
    ended: bool = False  # by an end-of-stream page


def walk_ogg(view: View, start: int) -> Found | None:
    """Returns the links of a chain. A page that starts a stream after other pages starts the next link."""
    links: list[_Link] = []
    numbers: dict[bytes, int] = {}  # stream → number of its last page with sound
    beginning = False
    at = start
    while at + 4 <= view.size:
        page = view.at(at, 27 + 255)
        if page[:4] != b"OggS":
            following = view.find(b"OggS\0", at, next_start(view, at, view.size, _OTHERS))
            if following < 0:
                if links and not links[-1].ended and view.at(at, FILL).strip(b"\0"):
                    links[-1].cut = True
                break
            if links:
                links[-1].cut = True  # data is missing, or other data is in between
            at = following
            continue
        lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
        end = at + 27 + len(lengths) + sum(lengths)
        if len(page) < 27 or len(lengths) < page[26] or end > view.size:
            if links:
                links[-1].cut, links[-1].end = True, view.size
            at = view.size
            break
        if page[5] & 2:
            if not beginning:
                links.append(_Link(at, at))
                numbers = {}
            is_audio = _OGG_AUDIO.match(view.at(end - sum(lengths), 8)) is not None
            links[-1].audio, links[-1].other = links[-1].audio + is_audio, links[-1].other + (not is_audio)
        if not links:  # the start is missing
            return None
        link, beginning = links[-1], bool(page[5] & 2)
        link.ended = bool(page[5] & 4)
        serial, number = page[14:18], int.from_bytes(page[18:22], "little")
        link.cut |= serial in numbers and number > numbers[serial] + 1
        if any(page[6:14]):
            numbers[serial] = number
        if end < view.size and view.at(end, 4) != b"OggS":  # the page may be cut, and another one appended
            inside = view.find(b"OggS\0", at + 27, end)
            link.cut |= inside >= 0
            end = inside if inside >= 0 else end
        at = link.end = end
    return [
        Part([(one.start, one.end)], cut=one.cut, form=None if (one.audio, one.other) == (1, 0) else "ogg")
        for one in links
    ], at
