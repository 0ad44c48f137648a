"""`nes2net corpus check`: checks that a corpus is complete, readable and as published."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile

from ..audio import open_audio
from ..corpus_facts import read_corpus_facts
from ..errors import AudioError, CorpusError
from .any_dataset import iter_rows
from .corpus import Condition, Corpus, Row
from .labels import LABEL_NAMES
from .loading import check_own_split, dataset_splits, refuse_maps, refuse_options
from .own_data import UnreadableError, read_own_data
from .registry import ANY_DATASET, CORPORA, OWN_DATA, check_split, find_corpus
from .tree import Tree

_NAMED = 5  # how many problems of a kind a report names


@dataclass
class PartitionCheck:
    """What a partition's protocol lists, and what was found."""

    partition: str
    published: int | None
    lines: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    attacks: Counter[str] = field(default_factory=Counter)
    conditions: dict[str, tuple[int, int | None]] = field(default_factory=dict)  # found and published counts
    found: int = 0
    seconds: float = 0.0
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    wrong_lines: list[str] = field(default_factory=list)
    doubled_lines: list[str] = field(default_factory=list)
    doubled_files: list[str] = field(default_factory=list)

    @property
    def is_whole(self) -> bool:
        """
        Whether there are rows, none missing, unreadable, wrong or duplicated, and the counts are as published. A
        condition without rows was not unpacked: versions of Fake-or-Real are separate archives.
        """
        problems = (self.missing, self.unreadable, self.wrong_lines, self.doubled_lines)
        counts = [(self.lines, self.published), *(pair for pair in self.conditions.values() if pair[0])]
        as_published = all(published in (None, count) for count, published in counts)
        return bool(self.labels) and not any(problems) and as_published

    def add_error(self, error: CorpusError) -> None:
        """Records a row or folder that cannot be read."""
        (self.unreadable if isinstance(error, UnreadableError) else self.wrong_lines).append(str(error))


def check_corpus(
    name: str,
    root: str | os.PathLike[str],
    split: str | None = None,
    full: bool = False,
    progress: Callable[[int], None] = lambda files: None,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[Any, str] | None = None,
    **options: Any,
) -> Iterator[PartitionCheck]:
    """
    Checks a benchmark partition by partition, a dataset split by split, or your own data.

    Args:
        name: see `load_corpus`.
        root: see `load_corpus`. For a benchmark, the folder where its archives were unpacked.
        split: a partition of a benchmark or split of a dataset; if None, all that are found.
        full: decode every file instead of only reading its header.
        progress: called after each file with 1.
        columns: our columns → the data's columns, see `load_corpus`.
        label_map: the data's labels → `"spoof"` and `"bonafide"`.
        **options: options of a dataset, see `load_corpus`.

    Raises:
        CorpusError: the corpus is unknown, has no protocol below `root`, or cannot be loaded.
    """
    if name == OWN_DATA:
        refuse_options(options)
        check_own_split(split)
        check = PartitionCheck("all", published=None)
        rows = read_own_data(Path(root), columns, label_map, check.add_error)
        yield _checked(check, rows, _source, {}, full, progress)
        return
    if name == ANY_DATASET:
        for part, dataset in dataset_splits(root, split, **options).items():
            check = PartitionCheck(part, published=None)
            rows = iter_rows(dataset, root, columns, label_map, check.add_error)
            yield _checked(check, rows, _source, {}, full, progress)
        return
    corpus = find_corpus(name)
    refuse_options(options)
    refuse_maps(name, columns, label_map)
    tree = Tree(root)
    partitions = [*corpus.partitions] if split is None else [check_split(corpus, split)]
    there = [partition for partition in partitions if corpus.is_in(tree, partition)]
    for partition in there or partitions[:1]:  # if none, reading the first raises the error
        yield _check_partition(corpus, tree, partition, full, progress)


def _source(row: Row) -> list[Any]:
    """Returns a list with the row's audio, as bytes or an existing path; empty if there is none."""
    audio = row["audio"] or {}
    if audio.get("bytes") is not None:
        return [audio["bytes"]]
    return [audio["path"]] if audio.get("path") and os.path.isfile(audio["path"]) else []


def _check_partition(
    corpus: Corpus, tree: Tree, partition: str, full: bool, progress: Callable[[int], None]
) -> PartitionCheck:
    check = PartitionCheck(partition, corpus.counts.get(partition), unreadable=list(tree.unreadable))
    rows = corpus.read(tree, partition, check.add_error)

    def files(row: Row) -> list[str]:
        return corpus.files(tree, row["utterance_id"], partition)

    return _checked(check, rows, files, corpus.conditions, full, progress)


def _checked(
    check: PartitionCheck,
    rows: Iterator[Row],
    sources: Callable[[Row], list[Any]],
    conditions: Mapping[str, Condition],
    full: bool,
    progress: Callable[[int], None],
) -> PartitionCheck:
    seen: set[str] = set()
    belonging: Counter[str] = Counter()
    for row in rows:
        utterance = row["utterance_id"]
        if utterance in seen:
            check.doubled_lines.append(utterance)
            continue
        seen.add(utterance)
        check.labels[LABEL_NAMES[row["label"]]] += 1
        if row["label"] == LABEL_NAMES.index("spoof"):
            check.attacks[row["attack"] or "not said"] += 1
        belonging.update(condition for condition, part in conditions.items() if part.belongs(row))
        found = sources(row)
        if not found:
            check.missing.append(utterance)
            continue
        check.found += 1
        if len(found) > 1:
            check.doubled_files.append(f"{utterance} ({len(found)} files: {', '.join(found[:2])})")
        try:
            check.seconds += _duration(found[0], full)
        except AudioError as error:
            check.unreadable.append(str(error).replace("<bytes>", f"utterance {utterance}", 1))
        progress(1)
    check.lines = len(seen) + len(check.doubled_lines) + len(check.wrong_lines)
    check.conditions = {name: (belonging[name], part.counts.get(check.partition)) for name, part in conditions.items()}
    return check


def _duration(source: Any, full: bool) -> float:
    """Returns seconds of audio, from the header or by decoding the file."""
    if not full:
        try:
            return soundfile.info(io.BytesIO(source) if isinstance(source, bytes) else source).duration
        except soundfile.SoundFileError:
            pass  # unknown to soundfile, or damaged: decoding it shows which
    with open_audio(source) as audio:
        for _ in audio.blocks("mix"):
            pass
        assert audio.summary is not None
        return audio.summary.duration


def report_facts(corpus: str) -> Iterator[str]:
    """Yields the lines of a report on a corpus's licence; none for your own data."""
    facts = read_corpus_facts().get(corpus)
    if facts is not None:
        yield f"{corpus}: {facts.title} <{facts.address}>"
        yield f"  licence      {facts.licence_said}"
        yield f"  weights      {facts.weights_said}"
        if not facts.repackage:
            yield "  copies       The licence allows no derivatives: do not pass on shards or recoded copies."
        if facts.caution:
            yield f"  caution      {facts.caution}"


def report_check(corpus: str, check: PartitionCheck) -> Iterator[str]:
    """Yields the lines of a readable report."""
    verdict = "complete" if check.is_whole else "not as published"
    if check.is_whole and corpus in CORPORA and check.published is None:
        verdict = "no problem found; how many utterances it should have is not known here"
    if not check.labels:
        verdict = "no usable rows"
    published = "" if check.published is None else f" ({check.published:,} published)"
    yield f"{corpus} {check.partition}: {verdict}"
    yield f"  protocol     {check.lines:,} lines{published}: " + ", ".join(
        f"{count:,} {label}" for label, count in sorted(check.labels.items())
    )
    for condition, (count, known) in check.conditions.items():
        yield f"  condition    {condition}: {count:,}" + ("" if known is None else f" ({known:,} published)")
    yield f"  audio        {check.found:,} files found, {check.seconds / 3600:.2f} h"
    if check.attacks:
        yield "  attacks      " + ", ".join(f"{attack} {count:,}" for attack, count in sorted(check.attacks.items()))
    for what, items in (
        ("missing", check.missing),
        ("unreadable", check.unreadable),
        ("wrong line", check.wrong_lines),
        ("listed twice", check.doubled_lines),
        ("found twice", check.doubled_files),
    ):
        if items:
            yield f"  {what:<12} {len(items):,}"
            yield from (f"    {item}" for item in items[:_NAMED])
            if len(items) > _NAMED:
                yield f"    and {len(items) - _NAMED:,} more"
