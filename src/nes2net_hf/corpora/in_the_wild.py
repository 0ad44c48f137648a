"""In-the-Wild (Müller et al. 2022): celebrities and politicians, real and deepfake, from the internet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .corpus import Corpus, Row
from .labels import map_label
from .protocol import read_lines
from .schema import make_row
from .tree import Tree


def _read(tree: Tree, partition: str) -> Iterator[Row]:
    path = tree.file("meta.csv", needed="unpack release_in_the_wild.zip there")
    for where, (file, speaker, key, *_rest) in read_lines(path, ("file", "speaker", "label"), delimiter=","):
        yield make_row(Path(file).stem, map_label(key, where), speaker_id=speaker, partition=partition)


CORPUS = Corpus(
    name="in-the-wild",
    title="In-the-Wild",
    counts={"eval": 31_779},
    read=_read,
    folders={"eval": ("release_in_the_wild",)},
)
