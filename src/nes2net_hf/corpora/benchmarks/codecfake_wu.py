"""
CodecFake (Wu et al. 2024, arXiv 2406.07237): speech of VCTK, and resynthesised by audio codecs.

It is not Codecfake by Xie et al. (`codecfake_xie.py`). Resynthesised speech is spoofed, as its authors say.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from ..corpus import Corpus, Row
from ..schema import make_row

_SPEAKERS = {"dev": ("p226", "p229"), "eval": ("p227", "p228")}  # train has all others


def _parse(fields: list[str], where: str, partition: str) -> Row | None:
    """Parses a row of the one list of all partitions: its speaker tells the partition."""
    file, label, speaker, codec = fields
    if partition != next((part for part, speakers in _SPEAKERS.items() if speaker in speakers), "train"):
        return None
    is_spoof = label != "genuine"
    return make_row(
        PurePosixPath(file).stem, "spoof" if is_spoof else "bonafide", speaker_id=speaker,
        attack=codec if is_spoof else None, partition=partition,
    )  # fmt: skip


CORPUS = Corpus(
    name="codecfake-wu",
    title="CodecFake (Wu et al.)",
    folders=dict.fromkeys(("train", "dev", "eval"), ()),
    needed="put its datalist.csv and the unpacked archives of all codecs there",
    protocols=dict.fromkeys(("train", "dev", "eval"), ("datalist.csv",)),
    columns=("wavpath", "label", "speaker", "codec"),
    delimiter=",",
    parse=_parse,
)
