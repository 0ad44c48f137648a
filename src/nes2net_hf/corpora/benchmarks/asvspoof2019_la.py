"""ASVspoof 2019 LA (Wang et al. 2020): VCTK speakers, attacks A01 to A06 in train and dev, A07 to A19 in eval."""

from __future__ import annotations

from ..corpus import Corpus, Row
from ..labels import map_label
from ..schema import make_row

COLUMNS = ("speaker", "utterance", "-", "attack", "key")
COUNTS = {"train": 25_380, "dev": 24_844, "eval": 71_237}


def parse(fields: list[str], where: str, partition: str) -> Row:
    """Parses a line of the 2019 LA countermeasure protocols. PartialSpoof has the same form."""
    speaker, utterance, _, attack, key = fields[:5]
    return make_row(utterance, map_label(key, where), speaker_id=speaker, attack=attack, partition=partition)


CORPUS = Corpus(
    name="asvspoof2019-la",
    title="ASVspoof 2019 LA",
    protocols={
        "train": ("ASVspoof2019.LA.cm.train.trn.txt",),
        "dev": ("ASVspoof2019.LA.cm.dev.trl.txt",),
        "eval": ("ASVspoof2019.LA.cm.eval.trl.txt",),
    },
    needed="unpack LA.zip of ASVspoof 2019 there",
    columns=COLUMNS,
    parse=parse,
    folders={partition: (f"ASVspoof2019_LA_{partition}",) for partition in COUNTS},
    counts=COUNTS,
)
