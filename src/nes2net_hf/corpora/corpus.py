"""What a benchmark corpus is: its protocols, its published counts, and how a line becomes a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import CorpusError
from ..metrics import AsvErrorRates
from .labels import is_header
from .protocol import read_lines
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
        protocols: partition → the names that its protocol file may have, with folders where the name is not enough.
        needed: what to do where there is none.
        columns: fields that every line has.
        parse: the fields of a line, where it stands (for messages), its partition → a row without audio.
        folders: partition → names of the folders its audio lies in, as published.
        counts: utterances of each partition, as published.
        delimiter: of a protocol in CSV with a header; None for white space.
        conditions: named sub-conditions of the organisers.
        usual_condition: the one whose figures the organisers report, and `nes2net evaluate` unless asked for another.
        fixed_asv: error rates of the ASV system at which the organisers compute the t-DCF without its scores.
        has_segments: whether `enrich` gives segment labels.
        enrich: tree and partition → a function that completes rows from further files.
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
    has_segments: bool = False
    enrich: Callable[[Tree, str], Callable[[Row], None]] | None = None

    def has_protocol(self, tree: Tree, partition: str) -> bool:
        """Whether the partition's protocol is below the tree."""
        return tree.has(*self.protocols[partition])

    def read(self, tree: Tree, partition: str, on_error: Callable[[CorpusError], None] | None = None) -> Iterator[Row]:
        """
        The rows of a partition in the protocol's order, their audio not looked up yet.

        Args:
            on_error: told of each line that cannot be read, which is then left out; if None, the first is raised.

        Raises:
            CorpusError: there is no protocol, or a line of it cannot be read.
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
        """The rows of one protocol file, without what other files say of them; raises as `read`."""
        for number, (where, fields) in enumerate(read_lines(path, self.delimiter)):
            if number == 0 and is_header(fields):  # as people add one, and hand it on
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
