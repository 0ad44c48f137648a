"""Declares a benchmark corpus: its protocols or folders, its published counts, and how to parse a line or a path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

from ..audio import without_suffix
from ..errors import CorpusError
from ..metrics import ASVSPOOF5_COSTS, AsvErrorRates, DetectionCosts
from .labels import is_header
from .protocol import read_columns, read_lines
from .tree import Tree, folders_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Condition:
    """A part of a corpus that its organisers score separately, and its published number of trials in partitions."""

    belongs: Callable[[Row], bool]
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Corpus:
    """
    A benchmark corpus. It has protocols, or recordings whose folders say what they are, or both.

    Args:
        name: its name in `load_corpus`.
        title: its name in print.
        folders: partition → names of its audio folders, as published. Its keys are all partitions.
        needed: how to get the protocol or the folders, for the message when they are missing.
        protocols: partition → possible names of its protocol file, with folders if the name is ambiguous. A name with
            `*` stands for several files, all of which are read.
        columns: fields that every line has; names in the header if there is a `delimiter`.
        delimiter: delimiter of a protocol with a header; None for white space.
        parse: function of a line's fields, its place (for messages) and the partition; returns a row without audio, or
            None if the line does not belong to the partition.
        parse_file: function of an audio file's folders and stem, and the partition; returns a row without audio, whose
            id is the stem after one or more of the folders, or None if the file does not belong to the partition.
        counts: published number of utterances in each partition.
        conditions: the organisers' sub-conditions, by name.
        usual_condition: the condition that the organisers report. `nes2net evaluate` uses it by default.
        fixed_asv: error rates of the ASV system that the organisers use for the t-DCF when there are no ASV scores.
        costs: the organisers' costs for the DCF.
        has_segments: whether `enrich` adds segment labels.
        enrich: function of tree and partition; returns a function that completes rows from other files.
    """

    name: str
    title: str
    folders: Mapping[str, tuple[str, ...]]
    needed: str
    protocols: Mapping[str, Sequence[str]] = field(default_factory=dict)
    columns: Sequence[str] = ()
    delimiter: str | None = None
    parse: Callable[[list[str], str, str], Row | None] = lambda fields, where, partition: None
    parse_file: Callable[[tuple[str, ...], str, str], Row | None] | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    conditions: Mapping[str, Condition] = field(default_factory=dict)
    usual_condition: str | None = None
    fixed_asv: AsvErrorRates | None = None
    costs: DetectionCosts = ASVSPOOF5_COSTS
    has_segments: bool = False
    enrich: Callable[[Tree, str], Callable[[Row], None]] | None = None

    @property
    def partitions(self) -> tuple[str, ...]:
        """All partitions, as published or in our words: train, dev, eval; or `all` if the publishers define none."""
        return tuple(self.folders)

    def partitions_of(self, file: str) -> list[str]:
        """Returns the partitions whose protocol may have this file name."""
        return [
            partition
            for partition, names in self.protocols.items()
            if any(fnmatchcase(file, PurePath(name).name) for name in names)
        ]

    def is_in(self, tree: Tree, partition: str) -> bool:
        """Returns whether the partition's protocol, or one of its recordings without a protocol, is in the tree."""
        return bool(tree.files(self.protocols.get(partition, ()))) or any(self._walk(tree, partition))

    def read(self, tree: Tree, partition: str, on_error: Callable[[CorpusError], None] | None = None) -> Iterator[Row]:
        """
        Yields the rows of a partition in protocol order, without looking up their audio. Recordings without a protocol
        come last, in the order of their paths.

        Args:
            on_error: called with the error of each unreadable line, which is skipped. If None, the error is raised.

        Raises:
            CorpusError: there is no protocol and no such recording, or a line cannot be read.
        """
        if not self.is_in(tree, partition):
            names = self.protocols.get(partition, ())
            raise tree.missing(" or ".join(names) if names else f"recordings of {self.title}", self.needed)
        complete = self.enrich(tree, partition) if self.enrich else None
        for path in tree.files(self.protocols.get(partition, ())):
            for row in self.read_file(path, partition, on_error):
                if complete is not None:
                    complete(row)
                yield row
        yield from self._walk(tree, partition)

    def files(self, tree: Tree, utterance_id: str, partition: str) -> list[str]:
        """
        Returns the paths of an utterance's audio, the one to use first. Files of the same name in the folders of other
        partitions are other recordings.
        """
        paths = tree.audio(utterance_id, self.folders[partition])
        if len(paths) > 1:
            names = {name for part, names in self.folders.items() if part != partition for name in names}
            others = names - set(self.folders[partition])
            paths = [path for path in paths if not others & set(PurePath(path).parts)] or paths
        return paths

    def _walk(self, tree: Tree, partition: str) -> Iterator[Row]:
        """Yields a row for each recording whose folders say what it is. Copies of a recording have one row."""
        if self.parse_file is None:
            return
        seen: set[str] = set()
        for path in tree.all_audio():
            stem = without_suffix(os.path.basename(path))
            row = self.parse_file(folders_of(path), stem, partition)
            if row is not None and row["utterance_id"] not in seen:
                seen.add(row["utterance_id"])
                yield row

    def read_file(
        self, path: Path, partition: str, on_error: Callable[[CorpusError], None] | None = None
    ) -> Iterator[Row]:
        """Yields the rows of one protocol file, without `enrich`. Raises the same errors as `read`."""
        lines = read_columns(path, self.delimiter, self.columns) if self.delimiter else read_lines(path)
        for number, (where, fields) in enumerate(lines):
            if number == 0 and self.delimiter is None and is_header(fields):  # some copies have an added header
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
            if row is not None:
                yield row
