"""Declares a benchmark corpus: its protocols, its published counts, and how to parse a line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CorpusError
from ..metrics import ASVSPOOF5_COSTS, AsvErrorRates, DetectionCosts
from .labels import is_header
from .protocol import read_lines
from .tree import Tree

Row = dict[str, Any]


@dataclass(frozen=True)
class Condition:
    """A part of a corpus that its organisers score separately, and its published number of trials if known."""

    belongs: Callable[[Row], bool]
    count: int | None = None


@dataclass(frozen=True)
class Corpus:
    """
    A benchmark corpus.

    Args:
        name: its name in `load_corpus`.
        title: its name in print.
        protocols: partition → possible names of its protocol file, with folders if the name is ambiguous.
        needed: how to get the protocol, for the message when it is missing.
        columns: fields that every line has.
        parse: function of a line's fields, its place (for messages) and the partition; returns a row without audio.
        folders: partition → names of its audio folders, as published.
        counts: published number of utterances in each partition.
        delimiter: delimiter of a CSV protocol with a header; None for white space.
        conditions: the organisers' sub-conditions, by name.
        usual_condition: the condition that the organisers report. `nes2net evaluate` uses it by default.
        fixed_asv: error rates of the ASV system that the organisers use for the t-DCF when there are no ASV scores.
        costs: the organisers' costs for the DCF.
        has_segments: whether `enrich` adds segment labels.
        enrich: function of tree and partition; returns a function that completes rows from other files.
    """

    name: str
    title: str
    protocols: Mapping[str, Sequence[str]]
    needed: str
    columns: Sequence[str]
    parse: Callable[[list[str], str, str], Row]
    folders: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, int] = field(default_factory=dict)
    delimiter: str | None = None
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    usual_condition: str | None = None
    fixed_asv: AsvErrorRates | None = None
    costs: DetectionCosts = ASVSPOOF5_COSTS
    has_segments: bool = False
    enrich: Callable[[Tree, str], Callable[[Row], None]] | None = None

    def has_protocol(self, tree: Tree, partition: str) -> bool:
        """Returns whether the partition's protocol is in the tree."""
        return tree.has(*self.protocols[partition])

    def read(self, tree: Tree, partition: str, on_error: Callable[[CorpusError], None] | None = None) -> Iterator[Row]:
        """
        Yields the rows of a partition in protocol order, without looking up their audio.

        Args:
            on_error: called with the error of each unreadable line, which is skipped. If None, the error is raised.

        Raises:
            CorpusError: there is no protocol, or one of its lines cannot be read.
        """
        path = tree.file(*self.protocols[partition], needed=self.needed)
        complete = self.enrich(tree, partition) if self.enrich else None
        for row in self.read_file(path, partition, on_error):
            if complete is not None:
                complete(row)
            yield row

    def read_file(
        self, path: Path, partition: str, on_error: Callable[[CorpusError], None] | None = None
    ) -> Iterator[Row]:
        """Yields the rows of one protocol file, without `enrich`. Raises the same errors as `read`."""
        for number, (where, fields) in enumerate(read_lines(path, self.delimiter)):
            if number == 0 and is_header(fields):  # some copies have an added header
                continue
            try:
                if len(fields) < len(self.columns):
                    raise CorpusError(
                        f"{where}: {len(fields)} fields instead of {len(self.columns)} ({', '.join(self.columns)})."
                    )
                row = self.parse(fields, where, partition)
            except CorpusError as error:
                if on_error is None:
                    raise
                on_error(error)
                continue
            yield row
