"""`nes2net models`."""

from __future__ import annotations

import sys
import textwrap

from .console import as_utf8, ending

_WIDTH = 80  # columns


def models() -> int:
    """
    List the authors' published checkpoints by short name: where each lies, its licence, published figures, what its
    scores are, and whether it is on this machine. Nothing is downloaded.

    Exit codes:
      0    they were listed
      1    standard output cannot be written
      130  interrupted
    """
    with ending() as end:
        from nes2net_hf.pretrained.published import place_of, published

        as_utf8(sys.stdout)
        for one in published().values():
            print(one.name)
            for label, text in (
                ("", one.title),
                ("file", one.source or f"{one.page} (download it by hand)"),
                ("here", place_of(one)),
                ("licence", one.license),
                ("EER in %", f"{one.figures}; not reproduced here"),
                ("scores", one.scores),
            ):
                print(textwrap.fill(text, _WIDTH, initial_indent=f"  {label:<9}", subsequent_indent=" " * 11,
                                    break_long_words=False, break_on_hyphens=False))  # fmt: skip
        print("To judge with one on the Hub: nes2net detect --model asv21-df call.mp3")
    return end.code
