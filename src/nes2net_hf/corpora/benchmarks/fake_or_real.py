"""
Fake-or-Real (Reimao and Tzerpos 2019): four versions of the same recordings; for-norm is balanced, with equal
loudness.

A model that trains on one version must not be judged with another.
"""

from __future__ import annotations

from ..corpus import Condition, Corpus, Row
from ..schema import make_row

_FOLDERS = {"train": "training", "dev": "validation", "eval": "testing"}
# Both spellings of the folders are in use.
_VERSIONS = {
    "for-original": "for-original", "for-norm": "for-norm", "for-2sec": "for-2sec", "for-2seconds": "for-2sec",
    "for-rerec": "for-rerec", "for-rerecorded": "for-rerec",
}  # fmt: skip
_LABELS = {"real": "bonafide", "fake": "spoof"}


def _parse_file(folders: tuple[str, ...], stem: str, partition: str) -> Row | None:
    """Returns the row of a file `for-norm/training/real/file1.wav`."""
    version, split, key = folders[-3:] if len(folders) > 2 else ("", "", "")
    if version.lower() not in _VERSIONS or split.lower() != _FOLDERS[partition] or key.lower() not in _LABELS:
        return None
    label = _LABELS[key.lower()]
    return make_row(f"{version}/{split}/{key}/{stem}", label, source=_VERSIONS[version.lower()], partition=partition)


def _condition(version: str) -> Condition:
    count = {"eval": 4_528} if version == "for-norm" else {}  # 2,264 of each class
    return Condition(lambda row: row["source"] == version, count)


CORPUS = Corpus(
    name="fake-or-real",
    title="Fake-or-Real",
    folders={partition: (folder,) for partition, folder in _FOLDERS.items()},
    needed="unpack for-original, for-norm, for-2sec or for-rerec there",
    parse_file=_parse_file,
    conditions={version: _condition(version) for version in dict.fromkeys(_VERSIONS.values())},
)
