"""DFADD (Du et al. 2024, arXiv 2409.08731): speech of VCTK, and of five synthesisers."""

from __future__ import annotations

from ..corpus import Corpus, Row
from ..schema import make_row

_FOLDERS = {"train": "train", "dev": "valid", "eval": "test"}
_PREFIX, _BONAFIDE = "DATASET_", "VCTK_BONAFIDE"


def _parse_file(folders: tuple[str, ...], stem: str, partition: str) -> Row | None:
    """Returns the row of a file like `DATASET_GradTTS/train/p226_001_grad.wav`."""
    *_, dataset, split = folders
    if not dataset.startswith(_PREFIX) or split != _FOLDERS[partition]:
        return None
    system = dataset.removeprefix(_PREFIX)
    is_spoof = system != _BONAFIDE
    return make_row(
        f"{dataset}/{split}/{stem}", "spoof" if is_spoof else "bonafide", speaker_id=stem.partition("_")[0],
        attack=system if is_spoof else None, partition=partition,
    )  # fmt: skip


CORPUS = Corpus(
    name="dfadd",
    title="DFADD",
    folders={partition: (folder,) for partition, folder in _FOLDERS.items()},
    needed="unpack the archives DATASET_VCTK_BONAFIDE, DATASET_GradTTS and so on there",
    parse_file=_parse_file,
)
