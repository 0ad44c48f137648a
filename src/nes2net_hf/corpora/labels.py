"""Labels by name: `bonafide` is 1 here, whatever integer or word another corpus has for it."""

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
    A corpus's own label → `"spoof"` or `"bonafide"`.

    Args:
        value: as the corpus has it.
        where: names the file and line, or the column, for the message.
        label_map: the corpus's labels → ours, where they are integers or words of its own; then only it counts.
        remedy: how to fix it, for the message, where there is no `label_map`.

    Raises:
        CorpusError: the label is not known: nothing is guessed, least of all of a bare integer.
    """
    if label_map is not None:
        # As text, because a manifest holds text where its writer, and the caller, mean integers, or JSON's true.
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
        remedy = remedy or f"fix it, or, of your own data, say what it means by {option('label_map', str(value))}"
        raise CorpusError(f"{where}: {value!r} is no label that is known by name ({', '.join(_LABEL_OF)}): {remedy}.")
    return label


def known_label(value: Any) -> str | None:
    """What a word means, in any letter case, with or without hyphens; None of what is no such word."""
    return _LABEL_OF.get(re.sub(r"[\s_-]", "", value.lower())) if isinstance(value, str) else None


def is_header(fields: Sequence[str]) -> bool:
    """Whether the first line of a key file or protocol names its columns: no trial has `label` for its label."""
    return any(plain(field) in LABELS for field in fields) and not any(map(known_label, fields))
