"""
Codecfake (Xie et al. 2024, arXiv 2405.04880): real speech, and speech resynthesised by codecs F01 to F07.

It is not CodecFake by Wu et al. (`codecfake_wu.py`). Resynthesised speech is spoofed, as its authors say. The label
files are matched by the beginning of their names, because their full names are not known here.
"""

from __future__ import annotations

from ...audio import without_suffix
from ..corpus import Corpus, Row
from ..labels import map_label
from ..schema import make_row

COUNTS = {
    "train": 740_747, "dev": 92_596, **{f"C{number}": 26_456 for number in range(1, 7)}, "C7": 145_505,
    "A1": 8_902, "A2": 8_902, "A3": 99_112,
}  # fmt: skip
_CODECS = {str(number): f"F{number:02}" for number in range(1, 8)}


def _parse(fields: list[str], where: str, partition: str) -> Row:
    """Parses a line `F01_p226_001.wav fake 1`. The first line is no header."""
    file, key, codec = fields[:3]
    label = map_label(key, where)
    return make_row(
        without_suffix(file), label, attack=_CODECS.get(codec, codec) if label == "spoof" else None,
        partition=partition,
    )  # fmt: skip


CORPUS = Corpus(
    name="codecfake-xie",
    title="Codecfake (Xie et al.)",
    folders={partition: (partition, f"{partition}_fake") for partition in COUNTS},
    needed="join and unpack its archives, and unpack the folder label, there",
    protocols={partition: (f"label/{partition}*.txt",) for partition in COUNTS},
    columns=("file", "label", "codec"),
    parse=_parse,
    counts=COUNTS,
)
