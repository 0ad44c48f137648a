"""What a benchmark corpus is: its protocols, its published counts, and how a line becomes a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .tree import Tree

Row = dict[str, Any]


@dataclass(frozen=True)
class Condition:
    """A part of a corpus that its organisers score by itself, and its published number of trials where known."""

    belongs: Callable[[Row], bool]
    count: int | None = None


@dataclass(frozen=True)
class Corpus:
    """
    Args:
        name: what `load_corpus` calls it.
        title: what people call it.
        counts: utterances of each partition, as published.
        read: tree and partition → rows without audio, in the protocol's order.
        folders: partition → names of the folders its audio lies in, as published.
        conditions: named sub-conditions of the organisers.
    """

    name: str
    title: str
    counts: Mapping[str, int]
    read: Callable[[Tree, str], Iterator[Row]]
    folders: Mapping[str, tuple[str, ...]]
    conditions: Mapping[str, Condition] = field(default_factory=dict)
