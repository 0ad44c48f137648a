"""
Texts for the synthetic voices: sentences composed from templates, or lists of single words.

These voices speak in every partition, so a checksum of each finished sentence decides which partition may say it: no
sentence occurs in two partitions. Single words, letters and numbers do, as they do in the recordings.
"""

from __future__ import annotations

import re
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import yaml

from .errors import CorpusError
from .partitions import PARTITIONS


def draw(partition: str, language: str, style: str, characters: int, rng: np.random.Generator) -> str:
    """
    Draws a text of at least `characters`, and at most one sentence or word more.

    Args:
        partition: one of `PARTITIONS`.
        language: a key of composed.yaml.
        style: "sentences" or "words".
    """
    templates, fillers, words = _texts(language)
    text = ""
    while len(text) < characters:
        if style == "sentences":
            text += " " * bool(text) + _sentence(partition, templates, fillers, rng)
        else:
            text += ". " * bool(text) + _choose(words, rng)
    return text


def partition_of(sentence: str) -> str:
    """Returns the only partition in which the sentence may be spoken."""
    return PARTITIONS[zlib.crc32(sentence.encode()) % len(PARTITIONS)]


def languages() -> tuple[str, ...]:
    """Returns the languages of composed.yaml."""
    return tuple(_file())


def _sentence(partition: str, templates: list[str], fillers: dict[str, list[str]], rng: np.random.Generator) -> str:
    while True:
        filled = re.sub(r"{(.+?)}", lambda slot: _choose(fillers[slot[1]], rng), _choose(templates, rng))
        sentence = filled[0].upper() + filled[1:]
        if partition_of(sentence) == partition:
            return sentence


def _choose(pool: list[str], rng: np.random.Generator) -> str:
    return pool[rng.integers(len(pool))]


@cache
def _texts(language: str) -> tuple[list[str], dict[str, list[str]], list[str]]:
    """Returns a language's templates, fillers of each slot, and words."""
    if language not in _file():
        raise CorpusError(f"composed.yaml has no texts in the language {language!r}.")
    texts = _file()[language]
    fillers = {slot: phrases.split(" | ") for slot, phrases in texts["fillers"].items()}
    return texts["sentences"].splitlines(), fillers, texts["words"].split(" | ")


@cache
def _file() -> dict[str, dict]:
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
