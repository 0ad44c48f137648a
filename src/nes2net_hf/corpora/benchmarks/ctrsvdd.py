"""CtrSVDD (Zang et al. 2024): singing voices, attacks A01 to A14."""

from __future__ import annotations

from ...metrics import DetectionCosts
from ..corpus import Condition, Corpus, Row
from ..labels import map_label
from ..schema import make_row

_PARTITIONS = ("train", "dev", "test")


def _parse(fields: list[str], where: str, partition: str) -> Row:
    source, singer, utterance, _, attack, key = fields[:6]
    label = map_label(key, where)
    return make_row(
        utterance, label, speaker_id=singer, source=source, attack=attack if label == "spoof" else None,
        partition=partition,
    )  # fmt: skip


def _is_acesinger(row: Row) -> bool:
    return (row["source"] or "").lower().startswith("acesinger")


CORPUS = Corpus(
    name="ctrsvdd",
    title="CtrSVDD",
    protocols={partition: (f"{partition}.txt",) for partition in _PARTITIONS},
    needed="put the protocols of CtrSVDD (train.txt, dev.txt, test.txt) there",
    columns=("source", "singer", "utterance", "-", "attack", "key"),
    parse=_parse,
    folders={partition: (f"{partition}_set",) for partition in _PARTITIONS},
    conditions={
        "with-acesinger": Condition(lambda row: row["attack"] != "A14", {"test": 67_579}),
        "without-acesinger": Condition(
            lambda row: row["attack"] != "A14" and not _is_acesinger(row), {"test": 64_734}
        ),
    },
    usual_condition="without-acesinger",
    costs=DetectionCosts(1.0, 1.0, 0.5),  # the authors' script prints half of the normalised DCF
)
