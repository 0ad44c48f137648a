"""Labels by name: `bonafide` is 1 here, whatever integer or word another corpus has for it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..configuration_nes2net import ID2LABEL
from ..errors import CorpusError

LABEL_NAMES = tuple(ID2LABEL[index] for index in sorted(ID2LABEL))
_WORDS = {
    "bonafide": ("bonafide", "genuine", "real", "human"),
    "spoof": ("spoof", "spoofed", "fake", "deepfake", "synthetic"),
}
_LABEL_OF = {word: label for label, words in _WORDS.items() for word in words}


def map_label(value: Any, where: str, label_map: Mapping[Any, str] | None = None) -> str:
    """
    A corpus's own label → `"spoof"` or `"bonafide"`.

    Args:
        value: as the corpus has it.
        where: names the file and line, or the column, for the message.
        label_map: the corpus's labels → ours, where they are integers or words of its own; then only it counts.

    Raises:
        CorpusError: the label is not known: nothing is guessed, least of all of a bare integer.
    """
    if label_map is not None:
        # As text, for a manifest holds text where its writer, and the caller, mean integers.
        mapped = {str(key): label for key, label in label_map.items()}.get(str(value))
        if mapped not in LABEL_NAMES:
            raise CorpusError(
                f"{where}: label_map does not map {value!r} to spoof or bonafide (it has {dict(label_map)})."
            )
        return mapped
    word = re.sub(r"[\s_-]", "", value.lower()) if isinstance(value, str) else None
    if word not in _LABEL_OF:
        raise CorpusError(
            f"{where}: {value!r} is no label that is known by name ({', '.join(_LABEL_OF)}): mend it, or, of your own "
            "data, say what it means with label_map."
        )
    return _LABEL_OF[word]
