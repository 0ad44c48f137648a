"""ASVspoof 2021 LA (Yamagishi et al. 2021): 2019's attacks through telephone networks and codecs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .corpus import Condition, Corpus, Row
from .labels import map_label
from .protocol import read_lines
from .schema import make_row
from .tree import Tree

_COLUMNS = ("speaker", "utterance", "codec", "transmission", "attack", "key", "trim", "phase")
PHASES = ("progress", "eval", "hidden_track")
NO_KEYS = "unpack the keys (LA-keys-full.tar.gz, DF-keys-full.tar.gz) there, for without them nothing has a label"


def phases(counts: Mapping[str, int]) -> dict[str, Condition]:
    """The phases of the challenge as conditions, with the published counts of those that are known."""

    def condition(phase: str) -> Condition:
        return Condition(lambda row: row["phase"] == phase, counts.get(phase))

    return {phase: condition(phase) for phase in PHASES}


def _read(tree: Tree, partition: str) -> Iterator[Row]:
    path = tree.file("LA/CM/trial_metadata.txt", "CM/trial_metadata.txt", needed=NO_KEYS)
    for where, (speaker, utterance, codec, transmission, attack, key, trim, phase, *_rest) in read_lines(
        path, _COLUMNS
    ):
        label = map_label(key, where)
        yield make_row(
            utterance, label, speaker_id=speaker, codec=codec, transmission=transmission, trim=trim, phase=phase,
            attack=attack if label == "spoof" else None, partition=partition,
        )  # fmt: skip


CORPUS = Corpus(
    name="asvspoof2021-la",
    title="ASVspoof 2021 LA",
    counts={"eval": 181_566},
    read=_read,
    folders={"eval": ("ASVspoof2021_LA_eval",)},
    conditions=phases({"eval": 148_176}),
)
