"""In-the-Wild (Müller et al. 2022): celebrities and politicians, real and deepfake, from the internet."""

from __future__ import annotations

from pathlib import Path

from ..corpus import Corpus, Row
from ..labels import map_label
from ..schema import make_row


def _parse(fields: list[str], where: str, partition: str) -> Row:
    file, speaker, key = fields[:3]
    return make_row(Path(file).stem, map_label(key, where), speaker_id=speaker, partition=partition)


CORPUS = Corpus(
    name="in-the-wild",
    title="In-the-Wild",
    protocols={"eval": ("meta.csv",)},
    needed="unpack release_in_the_wild.zip there",
    columns=("file", "speaker", "label"),
    parse=_parse,
    folders={"eval": ("release_in_the_wild",)},
    counts={"eval": 31_779},
    delimiter=",",
)
