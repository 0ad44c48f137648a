"""CtrSVDD (Zang et al. 2024): singing voices, attacks A01 to A14."""

from __future__ import annotations

from collections.abc import Iterator

from .corpus import Condition, Corpus, Row
from .labels import map_label
from .protocol import read_lines
from .schema import make_row
from .tree import Tree

_COLUMNS = ("source", "singer", "utterance", "-", "attack", "key")


def _read(tree: Tree, partition: str) -> Iterator[Row]:
    path = tree.file(f"{partition}.txt", needed="put the protocols of CtrSVDD (train.txt, dev.txt, test.txt) there")
    for where, (source, singer, utterance, _, attack, key, *_rest) in read_lines(path, _COLUMNS):
        label = map_label(key, where)
        yield make_row(
            utterance, label, speaker_id=singer, source=source, attack=attack if label == "spoof" else None,
            partition=partition,
        )  # fmt: skip


def _is_acesinger(row: Row) -> bool:
    return (row["source"] or "").lower().startswith("acesinger")


CORPUS = Corpus(
    name="ctrsvdd",
    title="CtrSVDD",
    counts={},  # of whole partitions none is at hand
    read=_read,
    folders={partition: (f"{partition}_set",) for partition in ("train", "dev", "test")},
    conditions={
        "with-acesinger": Condition(lambda row: row["attack"] != "A14", 67_579),
        "without-acesinger": Condition(lambda row: row["attack"] != "A14" and not _is_acesinger(row), 64_734),
    },
)
