"""What we know about corpora besides their files, for cards, checks and releases: above all, their licences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import yaml

from .cards import sources

_READINGS = {
    "credit": "weights trained on it may be published with credit to the corpus",
    "non-commercial": "weights trained on it may be published for non-commercial use only",
    "unclear": "it is unclear whether weights trained on it may be published, so ask its publishers",
}


@dataclass(frozen=True)
class CorpusFacts:
    """
    An entry of `model_cards/training_corpora.yaml`, which explains the fields.

    Raises:
        ValueError: `weights` is unknown.
    """

    title: str
    what: str
    address: str
    licence: str | None = None
    certainty: str | None = None
    weights: str = "unclear"
    repackage: bool = True
    sources: tuple[str, ...] = ()
    caution: str | None = None

    def __post_init__(self) -> None:
        if self.weights not in _READINGS:
            raise ValueError(f"{self.title}: weights must be one of {', '.join(_READINGS)}, got {self.weights!r}.")

    @property
    def licence_said(self) -> str:
        """The licence, and how certain it is."""
        if self.licence is None:
            return "not established"
        return f"{self.licence} ({self.certainty})" if self.certainty else self.licence

    @property
    def weights_said(self) -> str:
        """A sentence: may weights that are trained on it be published?"""
        said = f"{_READINGS[self.weights]}."
        if self.licence is None:
            return said[0].upper() + said[1:]
        return f"The licence does not mention trained weights. Read cautiously, {said}"


@cache
def read_corpus_facts() -> Mapping[str, CorpusFacts]:
    """Returns the name of each known corpus → what we know about it."""
    content = yaml.safe_load((sources() / "training_corpora.yaml").read_text(encoding="utf-8"))
    return {
        name: CorpusFacts(**{**entry, "sources": tuple(entry.get("sources", ()))}) for name, entry in content.items()
    }


def training_corpora(recipe: Mapping[str, Any]) -> list[str]:
    """Returns the names of the corpora that a recipe trains on: one, or those of its mixture."""
    return list(dict.fromkeys(part["corpus"] for part in training_parts(recipe)))


def training_parts(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the corpus, split, root, condition and `where` of all that a recipe trains on, as in `load_corpus`."""
    data = recipe.get("data") or {}
    train = data.get("train") or {}
    parts = [
        {**(part or {}), "corpus": (part or {}).get("corpus") or name}
        for name, part in (train.get("corpora") or {}).items()
    ] or [{"corpus": data.get("corpus") or "own-data", "root": data.get("root")} | _given(train)]
    return [{key: part.get(key) for key in ("corpus", "split", "root", "condition", "where")} for part in parts]


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
