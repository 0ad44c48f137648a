"""Deepfake-Eval-2024 (Chandra et al. 2025, arXiv 2503.02857): its audio part, real and fake recordings."""

from __future__ import annotations

from pathlib import PurePosixPath

from ...audio import without_suffix
from ..corpus import Corpus, Row
from ..labels import map_label
from ..schema import make_row

_SETS = {"Train": "train", "Test": "eval"}


def _parse(fields: list[str], where: str, partition: str) -> Row | None:
    """Parses a row of the one table. Rows in neither set (too long, …) and rows labelled Unknown are left out."""
    file, key, part = fields
    if _SETS.get(part) != partition or key.lower() == "unknown":
        return None
    return make_row(without_suffix(PurePosixPath(file).name), map_label(key, where), partition=partition)


CORPUS = Corpus(
    name="deepfake-eval-2024",
    title="Deepfake-Eval-2024",
    folders=dict.fromkeys(_SETS.values(), ("audio-data",)),
    needed="put its audio-metadata-publish.csv and its folder audio-data there",
    protocols=dict.fromkeys(_SETS.values(), ("audio-metadata-publish.csv",)),
    columns=("Filename", "Ground Truth", "Finetuning Set"),
    delimiter=",",
    parse=_parse,
)
