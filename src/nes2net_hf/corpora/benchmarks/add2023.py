"""
ADD 2023, track 1.2 (Yi et al. 2023, arXiv 2305.13774): Mandarin; `eval` is the test of round 2.

The folder of round 1's test is not known here, so it is not read.
"""

from __future__ import annotations

from ..corpus import Corpus
from .add2022 import parse

_FOLDERS = {"train": "train", "dev": "dev", "eval": "testR2"}

CORPUS = Corpus(
    name="add2023",
    title="ADD 2023, track 1.2",
    folders={partition: (folder,) for partition, folder in _FOLDERS.items()},
    needed="unpack track 1.2 of ADD 2023 there",
    protocols={partition: (f"{folder}/label.txt",) for partition, folder in _FOLDERS.items()},
    columns=("file", "label"),
    parse=parse,
)
