"""
LlamaPartialSpoof (Luong et al. 2024, arXiv 2409.14743): LibriTTS, and speech that is spoofed as a whole or in part.

Only the evaluation set of its publication: the later split by speakers is not read.
"""

from __future__ import annotations

from ..corpus import Corpus, Row
from ..labels import map_label
from ..schema import make_row


def _parse(fields: list[str], where: str, partition: str) -> Row:
    """Parses a line `dev01-xttsv2-partial-cf_1272_… 5.2 spoof 0.0-1.5-bonafide …`; the attack is xttsv2-partial-cf."""
    utterance, _duration, key = fields[:3]
    label = map_label(key, where)
    attack = speaker = None
    if label == "spoof":
        system, _, others = utterance.partition("_")
        attack, speaker = system.partition("-")[2], others.partition("_")[0]
    return make_row(utterance, label, attack=attack, speaker_id=speaker, partition=partition)


CORPUS = Corpus(
    name="llamapartialspoof",
    title="LlamaPartialSpoof",
    folders={"eval": ("R01TTS.0.a", "R01TTS.0.b")},
    needed="put label_R01TTS.0.a.txt and label_R01TTS.0.b.txt, and unpack R01TTS.0.a.tgz and R01TTS.0.b.tgz, there",
    protocols={"eval": ("label_R01TTS.0.*.txt",)},
    columns=("utterance", "duration", "label"),
    parse=_parse,
)
