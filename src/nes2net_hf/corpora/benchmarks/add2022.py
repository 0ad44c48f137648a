"""
ADD 2022 (Yi et al. 2022, arXiv 2202.08433): the test of track 3, round 1.

The folders of train and dev, and the labels of track 1, are not known here, so they are not read.
"""

from __future__ import annotations

from ...audio import without_suffix
from ..corpus import Corpus, Row
from ..labels import map_label
from ..schema import make_row


def parse(fields: list[str], where: str, partition: str) -> Row:
    """Parses a line `ADD_E3_00000001.wav genuine`. ADD 2023 has the same form."""
    file, key = fields[:2]
    return make_row(without_suffix(file), map_label(key, where), partition=partition)


CORPUS = Corpus(
    name="add2022",
    title="ADD 2022, track 3, round 1",
    folders={"eval": ("track3test",)},
    needed="unpack track 3 of ADD 2022 (track3test, track3_R1_label.txt) there",
    protocols={"eval": ("track3_R1_label.txt",)},
    columns=("file", "label"),
    parse=parse,
)
