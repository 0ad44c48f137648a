"""ASVspoof 5 (Wang et al. 2024): crowdsourced speakers, adversarial attacks, codecs; track 1."""

from __future__ import annotations

from collections.abc import Iterator

from .corpus import Corpus, Row
from .labels import map_label
from .protocol import read_lines
from .schema import make_row
from .tree import Tree

_COLUMNS = ("speaker", "file", "gender", "codec", "codec q", "codec seed", "attack tag", "attack", "key")
_PROTOCOLS = {
    "train": ("ASVspoof5.train.tsv",),
    "dev": ("ASVspoof5.dev.track_1.tsv",),
    "eval": ("ASVspoof5.eval.track_1.tsv",),
}


def _read(tree: Tree, partition: str) -> Iterator[Row]:
    path = tree.file(*_PROTOCOLS[partition], needed="unpack ASVspoof5_protocols.tar.gz there")
    # Separated by spaces, in spite of its name.
    for where, (speaker, utterance, gender, codec, setting, _seed, _tag, attack, key, *_rest) in read_lines(
        path, _COLUMNS
    ):
        label = map_label(key, where)
        yield make_row(
            utterance, label, speaker_id=speaker, gender=gender.lower(), codec=codec, codec_setting=setting,
            attack=attack if label == "spoof" else None, partition=partition,
        )  # fmt: skip


CORPUS = Corpus(
    name="asvspoof5",
    title="ASVspoof 5, track 1",
    counts={"train": 182_357, "dev": 140_950, "eval": 680_774},
    read=_read,
    folders={"train": ("flac_T",), "dev": ("flac_D",), "eval": ("flac_E_eval", "flac_E")},
)
