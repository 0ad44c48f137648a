"""Maps labels by name. `bonafide` is always 1 here, although other corpora use other integers or words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..configuration_nes2net import BONAFIDE_WORDS, ID2LABEL
from ..errors import CorpusError, option
from ..files.tables import LABELS, plain

LABEL_NAMES = tuple(ID2LABEL[index] for index in sorted(ID2LABEL))
_WORDS = {
    "bonafide": BONAFIDE_WORDS,
    "spoof": ("spoof", "spoofed", "fake", "deepfake", "synthetic"),
}
_LABEL_OF = {word: label for label, words in _WORDS.items() for word in words}


def map_label(value: Any, where: str, label_map: Mapping[Any, str] | None = None, remedy: str | None = None) -> str:
    """
    Maps a corpus's label to `"spoof"` or `"bonafide"`.

    Args:
        value: the label in the corpus.
        where: file and line, or column, for the message.
        label_map: the corpus's labels → ours, for integers or unusual words. If given, no other label is accepted.
        remedy: how to fix the label, for the message if there is no `label_map`.

    Raises:
        CorpusError: the label is unknown. Labels are never guessed, least of all bare integers.
    """
    if label_map is not None:
        # Compared as text, because a manifest has text where the caller may pass an integer or a boolean.
        mapped = {str(key): ours for key, ours in label_map.items()}
        alike = {key.casefold(): ours for key, ours in mapped.items()}
        meant = mapped.get(str(value), alike.get(str(value).casefold()))
        if known_label(meant) is None:
            raise CorpusError(
                f"{where}: {option('label_map')} does not map {value!r} to spoof or bonafide (it has {mapped})."
            )
        value = meant
    label = known_label(value)
    if label is None:
        remedy = remedy or f"fix it, or, for your own data, map it with {option('label_map', str(value))}"
        raise CorpusError(f"{where}: {value!r} is not a known label ({', '.join(_LABEL_OF)}): {remedy}.")
    return label


def known_label(value: Any) -> str | None:
    """Returns the label that a word means, ignoring case, spaces, hyphens and underscores; None if unknown."""
    return _LABEL_OF.get(re.sub(r"[\s_-]", "", value.lower())) if isinstance(value, str) else None


def is_header(fields: Sequence[str]) -> bool:
    """Returns whether the first line of a key file or protocol is a header: it has a column named like `label`."""
    return any(plain(field) in LABELS for field in fields) and not any(map(known_label, fields))
