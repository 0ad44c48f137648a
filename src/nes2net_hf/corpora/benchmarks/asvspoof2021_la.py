"""ASVspoof 2021 LA (Yamagishi et al. 2021): the attacks of 2019, sent through telephone networks and codecs."""

from __future__ import annotations

from collections.abc import Mapping

from ..corpus import Condition, Corpus, Row
from ..labels import map_label
from ..schema import make_row

PHASES = ("progress", "eval", "hidden_track")
NO_KEYS = "unpack the keys (LA-keys-full.tar.gz, DF-keys-full.tar.gz) there, because they have the labels"


def phases(counts: Mapping[str, int]) -> dict[str, Condition]:
    """Returns the phases of the challenge as conditions, with published counts where known."""

    def condition(phase: str) -> Condition:
        count = {"eval": counts[phase]} if phase in counts else {}  # all phases are in the partition eval
        return Condition(lambda row: row["phase"] == phase, count)

    return {phase: condition(phase) for phase in PHASES}


def _parse(fields: list[str], where: str, partition: str) -> Row:
    speaker, utterance, codec, transmission, attack, key, trim, phase = fields[:8]
    label = map_label(key, where)
    return make_row(
        utterance, label, speaker_id=speaker, codec=codec, transmission=transmission, trim=trim, phase=phase,
        attack=attack if label == "spoof" else None, partition=partition,
    )  # fmt: skip


CORPUS = Corpus(
    name="asvspoof2021-la",
    title="ASVspoof 2021 LA",
    protocols={"eval": ("LA/CM/trial_metadata.txt", "CM/trial_metadata.txt")},
    needed=NO_KEYS,
    columns=("speaker", "utterance", "codec", "transmission", "attack", "key", "trim", "phase"),
    parse=_parse,
    folders={"eval": ("ASVspoof2021_LA_eval",)},
    counts={"eval": 181_566},
    conditions=phases({"eval": 148_176}),
    usual_condition="eval",
)
