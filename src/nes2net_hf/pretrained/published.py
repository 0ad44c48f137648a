"""The authors' published checkpoints: their short names, and what the files do not say about themselves."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path, PurePath


@dataclass(frozen=True)
class Published:
    """One published checkpoint, as `model_cards/benchmarks/checkpoints.yaml` describes it."""

    name: str
    title: str
    page: str
    dilation: int
    activation: str
    license: str
    figures: str
    scores: str
    source: str | None = None
    """The file on the Hub, as ORG/REPO:FILE; None if it can only be downloaded by hand."""
    file: str | None = None
    """The publishers' name of the file."""


@functools.cache
def published() -> dict[str, Published]:
    """Returns the published checkpoints by short name."""
    import yaml  # a model's folder needs none of this

    from ..cards import sources

    table = yaml.safe_load((sources() / "benchmarks" / "checkpoints.yaml").read_text(encoding="utf-8"))
    return {name: Published(name, **fields) for name, fields in table.items()}


def place_of(one: Published) -> str:
    """Returns in words what this machine has of a checkpoint, without contacting the Hub."""
    from huggingface_hub import try_to_load_from_cache

    from .cache import entries

    for entry in entries():
        if entry.source == one.source:
            return "converted, ready to use"
        if entry.commit is None and Path(entry.source).name == one.file:
            return f"converted, as {entry.source}"
    if one.source is not None and isinstance(try_to_load_from_cache(*one.source.split(":")), str):
        return "downloaded, not converted yet"
    return "no"


def recognised(source: str) -> Published | None:
    """Returns the published checkpoint that a file is: by its place on the Hub, or by the name of a local copy."""
    is_on_hub = any(source == one.source for one in published().values())
    name = PurePath(source).name
    for one in published().values():
        if source == one.source or (not is_on_hub and ":" not in source and one.file == name):
            return one
    return None
