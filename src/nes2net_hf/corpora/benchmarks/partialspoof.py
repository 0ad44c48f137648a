"""PartialSpoof (Zhang et al. 2022): bona fide utterances with spoofed segments, labelled every 10 to 640 ms."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CorpusError
from ..corpus import Corpus, Row
from ..schema import RESOLUTIONS_MS
from ..tree import Tree
from .asvspoof2019_la import COLUMNS, COUNTS, parse

# What numpy needs to restore arrays, with its names before and after 2.0. Everything else is refused.
_NUMPY = {
    (module, name)
    for module in ("numpy.core.multiarray", "numpy._core.multiarray", "numpy")
    for name in ("_reconstruct", "scalar", "ndarray", "dtype")
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NUMPY:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def read_segment_labels(path: Path) -> Mapping[str, list[int]]:
    """
    Returns the segment labels of each utterance: 1 for bona fide and 0 for spoof.

    The file is a pickle inside a `.npy`. It is read with an unpickler that can only make arrays.

    Raises:
        CorpusError: the file is damaged, or contains anything except labels.
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            one = version == (1, 0)
            (np.lib.format.read_array_header_1_0 if one else np.lib.format.read_array_header_2_0)(file)
            content = _ArraysOnly(file).load()
        return {key: np.asarray(value).astype(np.int8).tolist() for key, value in content.item().items()}
    except (pickle.UnpicklingError, ValueError, EOFError, AttributeError, TypeError, OSError) as error:
        raise CorpusError(
            f"{path} does not contain PartialSpoof's segment labels ({error}): unpack them again."
        ) from None


def _segment_labels(tree: Tree, partition: str) -> Callable[[Row], None]:
    """Returns a function that adds the segment labels found in the tree to rows."""
    labels: dict[str, Mapping[str, list[int]]] = {}
    for resolution in RESOLUTIONS_MS:
        for found in tree.find(f"{partition}_seglab_{resolution / 1000:g}.npy")[:1]:
            labels[f"{resolution}ms"] = read_segment_labels(Path(found))

    def complete(row: Row) -> None:
        if labels:
            row["segment_labels"] = {name: found.get(row["utterance_id"]) for name, found in labels.items()}

    return complete


CORPUS = Corpus(
    name="partialspoof",
    title="PartialSpoof",
    protocols={partition: (f"PartialSpoof.LA.cm.{partition}.trl.txt",) for partition in COUNTS},
    needed="unpack the protocols of PartialSpoof there",
    columns=COLUMNS,
    parse=parse,
    folders={partition: (partition,) for partition in COUNTS},
    counts=COUNTS,  # one utterance for each of ASVspoof 2019 LA
    has_segments=True,
    enrich=_segment_labels,
)
