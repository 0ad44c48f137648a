"""ASVspoof 5 (Wang et al. 2024): crowdsourced speakers, adversarial attacks, codecs; track 1."""

from __future__ import annotations

from ...metrics import ASVSPOOF5_ASV
from ..corpus import Corpus, Row
from ..labels import map_label
from ..schema import make_row


def _parse(fields: list[str], where: str, partition: str) -> Row:
    speaker, utterance, gender, codec, setting, _seed, _tag, attack, key = fields[:9]
    label = map_label(key, where)
    return make_row(
        utterance, label, speaker_id=speaker, gender=gender.lower(), codec=codec, codec_setting=setting,
        attack=attack if label == "spoof" else None, partition=partition,
    )  # fmt: skip


CORPUS = Corpus(
    name="asvspoof5",
    title="ASVspoof 5, track 1",
    protocols={  # separated by spaces, despite the suffix .tsv
        "train": ("ASVspoof5.train.tsv",),
        "dev": ("ASVspoof5.dev.track_1.tsv",),
        "eval": ("ASVspoof5.eval.track_1.tsv",),
    },
    needed="unpack ASVspoof5_protocols.tar.gz there",
    columns=("speaker", "file", "gender", "codec", "codec q", "codec seed", "attack tag", "attack", "key"),
    parse=_parse,
    folders={"train": ("flac_T",), "dev": ("flac_D",), "eval": ("flac_E_eval", "flac_E")},
    counts={"train": 182_357, "dev": 140_950, "eval": 680_774},
    fixed_asv=ASVSPOOF5_ASV,
)
