"""ASVspoof 2019 LA (Wang et al. 2020): VCTK speakers, attacks A01 to A06 in train and dev, A07 to A19 in eval."""

from __future__ import annotations

from collections.abc import Iterator

from .corpus import Corpus, Row
from .labels import map_label
from .protocol import read_lines
from .schema import make_row
from .tree import Tree

_COLUMNS = ("speaker", "utterance", "-", "attack", "key")
_PROTOCOLS = {"train": "train.trn", "dev": "dev.trl", "eval": "eval.trl"}


def read_cm_protocol(path, partition: str) -> Iterator[Row]:
    """Lines in the form of the 2019 LA countermeasure protocols, which PartialSpoof shares."""
    for where, (speaker, utterance, _, attack, key, *_rest) in read_lines(path, _COLUMNS):
        yield make_row(utterance, map_label(key, where), speaker_id=speaker, attack=attack, partition=partition)


def _read(tree: Tree, partition: str) -> Iterator[Row]:
    name = f"ASVspoof2019.LA.cm.{_PROTOCOLS[partition]}.txt"
    return read_cm_protocol(tree.file(name, needed="unpack LA.zip of ASVspoof 2019 there"), partition)


CORPUS = Corpus(
    name="asvspoof2019-la",
    title="ASVspoof 2019 LA",
    counts={"train": 25_380, "dev": 24_844, "eval": 71_237},
    read=_read,
    folders={partition: (f"ASVspoof2019_LA_{partition}",) for partition in _PROTOCOLS},
)
