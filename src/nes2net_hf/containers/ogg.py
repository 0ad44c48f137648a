"""Ogg (RFC 3533): pages, and the links of a chain."""

from __future__ import annotations

import re

from .view import FILL, Found, Part, View, tag_end

_OGG_AUDIO = re.compile(rb"\x01vorbis|OpusHead|\x7fFLAC|Speex   ")


def walk_ogg(view: View, start: int) -> Found | None:
    """The links of a chain: a page that begins a stream, behind pages that do not, begins the next."""
    links: list[list[int]] = []  # start, end, streams of audio, other streams
    beginning = cut = False
    at = start
    while at + 27 <= view.size:
        page = view.at(at, 27 + 255 + 64)
        if page[:4] != b"OggS":
            following = view.find(b"OggS\0", at)
            if following < 0:
                cut = cut or (tag_end(view, at) is None and bool(view.at(at, FILL).strip(b"\0")))
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
