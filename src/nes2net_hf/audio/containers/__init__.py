"""
Find the audio in a file, and the length that its headers declare. Only `decoders.py` uses this package.

A declared length may be wrong: recorders crash, downloads stop, and people join files with `cat`. Decoders trust the
first header and stop there. This package therefore walks every chunk, page and frame. A recording that follows
another one is a separate part. Tags and metadata chunks are not audio. Audio after the declared end is audio.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import IO

from .boxes import walk_amr, walk_avi, walk_ebml, walk_flv, walk_mp4
from .chunks import walk_aiff, walk_au, walk_caf, walk_nist, walk_w64, walk_wav
from .flac import walk_flac
from .mpeg import walk_mpeg
from .ogg import walk_ogg
from .view import TOLERANCE as TOLERANCE
from .view import UNKNOWN_FORM, Found, Part, Piece, View, after_tags, end_of_tags, unread_note
from .view import Pieces as Pieces

_WALKS: list[tuple[bytes, Callable[[View, int], Found | None]]] = [
    (rb"(RIFF|RF64|BW64|RIFX)....WAVE", walk_wav),
    (rb"RIFF....AVI ", walk_avi),
    (rb"riff\x2e\x91\xcf\x11", walk_w64),
    (rb"FORM....AIF[FC]", walk_aiff),
    (rb"caff", walk_caf),
    (rb"\.snd|dns\.", walk_au),
    (rb"NIST_1A", walk_nist),
    (rb"OggS", walk_ogg),
    (rb"fLaC", walk_flac),
    (rb"....ftyp", walk_mp4),
    (rb"\x1a\x45\xdf\xa3", walk_ebml),
    (rb"FLV\x01", walk_flv),
    (rb"#!AMR", walk_amr),
    # Not with layer 0: that is AAC in ADTS frames, whose data may look like the frames of MP3 further on.
    (rb"\xff[\xe2-\xe7\xea-\xef\xf2-\xf7\xfa-\xff]", walk_mpeg),
]


def parts_of(file: IO[bytes]) -> list[Part]:
    """Returns the recordings in an open, seekable file, in order: at least one part, even if it is not audio."""
    view = View(file, file.seek(0, os.SEEK_END))
    parts: list[Part] = []
    at = 0
    while at < view.size:
        start = after_tags(view, at)
        found = _walk(view, start)
        if found is None:
            if not parts:
                end = end_of_tags(view, start)
                whole: list[Piece] = [(start, end) if start < end else (0, view.size)]
                return [Part(whole, form=UNKNOWN_FORM)]
            left = view.at(start, 1 << 16)
            parts[-1].notes += unread_note(view.size - start if left.strip(b"\0") else 0)
            break
        its_parts, end = found
        parts += its_parts
        at = max(end, start + 1)
    return parts


def _walk(view: View, start: int) -> Found | None:
    """Returns the recording that starts here, or several if one walk finds them all; None if the format is unknown."""
    head = view.at(start, 16)
    for pattern, walk in _WALKS:
        if re.match(pattern, head, re.DOTALL):
            found = walk(view, start)
            if found is not None:
                return found
    return None
