"""SpoofCeleb (Jung et al. 2024, arXiv 2409.17285): speech of VoxCeleb1, and attacks a01 to a23."""

from __future__ import annotations

import re

from ...audio import without_suffix
from ...errors import CorpusError
from ..corpus import Corpus, Row
from ..schema import make_row

_FOLDERS = {"train": "train", "dev": "development", "eval": "evaluation"}


def _parse(fields: list[str], where: str, partition: str) -> Row:
    """Parses a row. There is no column of labels: attack a00 is bona fide."""
    file, speaker, attack = fields
    if not re.fullmatch(r"a[0-9]{2}", attack):
        raise CorpusError(f"{where}: attack {attack!r} is not a00 (bona fide) or a01 to a23: unpack it again.")
    is_spoof = attack != "a00"
    return make_row(
        without_suffix(file), "spoof" if is_spoof else "bonafide", speaker_id=speaker,
        attack=attack if is_spoof else None, partition=partition,
    )  # fmt: skip


CORPUS = Corpus(
    name="spoofceleb",
    title="SpoofCeleb",
    folders={partition: (folder,) for partition, folder in _FOLDERS.items()},
    needed="join the parts of spoofceleb.tar.gz, and unpack it there",
    protocols={partition: (f"metadata/{folder}.csv",) for partition, folder in _FOLDERS.items()},
    columns=("file", "speaker", "attack"),
    delimiter=",",
    parse=_parse,
    counts={"train": 2_540_421, "dev": 55_741, "eval": 91_130},
)
