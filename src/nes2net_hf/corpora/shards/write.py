"""Writes a corpus as Parquet shards with a dataset card, for `nes2net corpus shard`. A stopped run can continue."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from datasets import Dataset, Features

from ...cards import render
from ...corpus_facts import read_corpus_facts
from ...errors import CorpusError, PushError, option
from ...files import atomic_file, check_same_work, explained, sha256_of
from ...hub import push_folder, why
from ..corpus import Row
from ..labels import LABEL_NAMES
from ..loading import dataset_splits, load_corpus
from ..registry import ANY_DATASET, CORPORA, OWN_DATA
from ..schema import FEATURES, TEXT_COLUMNS
from ..tree import Tree
from .arena import ARENA_FEATURES, SPLIT, check_utterance_ids, eval_yaml, to_arena
from .read import find_shards, shard_name

SHARD_BYTES = 500_000_000  # of audio; the size that the Hub recommends for streamed files
GROUP_ROWS = 32  # per row group, which readers hold whole: a few megabytes
_FLAC_SUBTYPES = {"PCM_S8": "PCM_S8", "PCM_U8": "PCM_S8", "PCM_16": "PCM_16", "PCM_24": "PCM_24"}


@dataclass(frozen=True)
class Form:
    """How rows are stored in a shard."""

    name: str
    features: Features
    pack: Callable[[Row], Row]
    """Converts a row of our columns that has the bytes of its audio."""
    repeating: tuple[str, ...]
    """Columns with few distinct values."""


NES2NET, ARENA = "nes2net", "arena"
FORMS = {
    NES2NET: Form(NES2NET, FEATURES, lambda row: row, TEXT_COLUMNS),
    ARENA: Form(ARENA, ARENA_FEATURES, to_arena, ()),
}


@dataclass
class Shard:
    """A finished shard, as recorded in `shards.json`."""

    rows: int
    bytes: int
    sha256: str


@dataclass
class SplitRecord:
    """The plan of a split, and its finished shards."""

    fingerprint: str
    """SHA-256 of the utterances, their sizes and the options, so that another corpus cannot continue in the folder."""
    shards: dict[str, Shard] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    form: str = NES2NET


def shard_corpus(
    name: str,
    out: Path,
    *,
    root: str,
    split: str | None = None,
    flac: bool = False,
    shard_bytes: int = SHARD_BYTES,
    form: str = NES2NET,
    progress: Callable[[int], None] = lambda rows: None,
    **options: Any,
) -> list[Path]:
    """
    Writes `out/data/SPLIT-00000-of-00012.parquet` …, `out/shards.json` with their checksums, and a dataset card; for
    the form `"arena"` also an `eval.yaml`.

    Each shard is written under another name, read back, compared row by row with its source, and renamed. Finished
    shards with the right checksum are kept, so a stopped run continues and ends with the same files.

    Args:
        name: name of a corpus.
        out: folder to write.
        root: see `load_corpus`.
        split: split to write; if None, all whose protocol exists. Your own data are split by `partition` if they have
            it, else they are one split, `train`. The form `"arena"` has only one split: this one.
        flac: recode PCM (WAV, AIFF) to FLAC with equal samples. Other audio keeps its bytes.
        shard_bytes: approximate bytes of audio per shard.
        form: `"nes2net"`, our columns, or `"arena"`, those of the Speech Anti-Spoofing Arena (see `arena`). An
            existing card and `eval.yaml` of the Arena are kept, because they have fields to fill in.
        progress: called with the number of rows, each time that some are finished.
        **options: `condition`, `where`, `allow_missing`, `columns` and `label_map` of `load_corpus`.

    Returns:
        The paths of the shards.

    Raises:
        CorpusError: see `load_corpus`; or a file has changed.
        OutputError, DiskError: the folder cannot be written or holds other shards, or the disk is full.
    """
    if form not in FORMS:
        raise CorpusError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
    (out / "data").mkdir(parents=True, exist_ok=True)
    records = _read_records(out)
    for record in records.values():
        check_same_work(out, {"form": record.form}, {"form": form}, "name another folder")
    written: list[Path] = []
    for part, load in _splits(name, split, root, options, form):
        written += _write_split(out, part, load(), records, FORMS[form], flac, shard_bytes, progress)
    fields = _card_fields(name, records, form, split)
    texts = {"README.md": render("corpus.md", **fields)}
    if form == ARENA:
        texts["eval.yaml"] = eval_yaml(out.resolve().name, fields["title"], records[SPLIT].labels)
        texts = {file: text for file, text in texts.items() if not (out / file).exists()}
    for file, text in texts.items():
        _replace(out / file, text.encode())
    return written


def _write_split(
    out: Path,
    part: str,
    dataset: Dataset,
    records: dict[str, SplitRecord],
    form: Form,
    flac: bool,
    shard_bytes: int,
    progress: Callable[[int], None],
) -> Iterator[Path]:
    """Writes the unfinished shards of a split and records each. Yields the paths of all."""
    if form.name == ARENA:
        check_utterance_ids(dataset["utterance_id"])
    plan, fingerprint = _plan(dataset, flac, shard_bytes)
    record = records.setdefault(part, SplitRecord(fingerprint, form=form.name))
    contents = f"files or options of {part}"
    check_same_work(out, {contents: record.fingerprint}, {contents: fingerprint}, "name another folder")
    record.labels = {LABEL_NAMES[key]: count for key, count in sorted(Counter(dataset["label"]).items())}
    for index, rows in enumerate(plan):
        path = out / "data" / shard_name(part, index, len(plan))
        if _is_whole(path, record.shards.get(path.name)):
            progress(len(rows))
        else:
            record.shards[path.name] = _write_shard(path, (dataset[row] for row in rows), form, flac, progress)
            _write_records(out, records)
        yield path


def check_shareable(name: str) -> None:
    """
    Raises:
        CorpusError: the corpus's licence allows no derivatives, such as shards.
    """
    facts = read_corpus_facts().get(name)
    if facts is not None and not facts.repackage:
        raise CorpusError(
            f"{option('push')}: the licence of {facts.title} is {facts.licence}, which allows no derivatives, such as "
            f"shards: omit {option('push')}, and keep the shards to yourself."
        )


def push_shards(out: Path, repo_id: str) -> str:
    """
    Uploads the folder to a dataset repository, which is private if it is new. Returns its address.

    Raises:
        PushError: the Hub cannot be reached, or refuses the upload.
    """
    try:
        return push_folder(out, repo_id, "Shards by nes2net corpus shard", "dataset")
    except Exception as error:
        raise PushError(f"{out} could not be pushed to {repo_id}: {why(error)}; the shards are kept.") from None


def _splits(
    name: str, split: str | None, root: str, options: dict[str, Any], form: str
) -> list[tuple[str, Callable[[], Dataset]]]:
    """Returns the name of each split and a function that loads it. The Arena's form has only one."""
    parts = list(_splits_of_corpus(name, split, root, options))
    if form != ARENA:
        return parts
    if len(parts) > 1:
        named = ", ".join(part for part, _ in parts)
        raise CorpusError(
            f"{option('split')}: the Arena's form has one split, but {name} has {named}: choose one of them."
        )
    return [(SPLIT, load) for _, load in parts]


def _splits_of_corpus(
    name: str, split: str | None, root: str, options: dict[str, Any]
) -> Iterator[tuple[str, Callable[[], Dataset]]]:
    """Yields the name of each split and a function that loads it."""

    def load(part: str | None, **more: Any) -> Dataset:
        dataset = load_corpus(name, part, root=root, **{**options, **more})
        assert isinstance(dataset, Dataset)
        return dataset

    def of_partition(part: str) -> Callable[[], Dataset]:
        return partial(load, None, where={**options.get("where", {}), "partition": part})

    if name in CORPORA:
        corpus, tree = CORPORA[name], Tree(root)
        parts = [split] if split else [part for part in corpus.partitions if corpus.is_in(tree, part)]
        for part in parts or corpus.partitions[:1]:  # if there is none, reading the first one raises the error
            yield part, partial(load, part)
    elif name == OWN_DATA and split is None:
        whole = load(None)
        parts = sorted(set(whole["partition"]) - {None})
        if not parts or None in whole["partition"]:
            yield "train", lambda: whole
        else:
            for part in parts:
                yield part, of_partition(part)
    elif name == OWN_DATA and split and not find_shards(root):
        yield split, of_partition(split)
    elif name == ANY_DATASET and split is None and not find_shards(root):
        for part in dataset_splits(root, **{key: options[key] for key in ("config", "revision") if key in options}):
            yield part, partial(load, part)
    else:
        yield split or "train", partial(load, split)


def _plan(dataset: Dataset, flac: bool, shard_bytes: int) -> tuple[list[range], str]:
    """Returns the rows of each shard, and the fingerprint of the split."""
    digest = hashlib.sha256(f"{flac} {shard_bytes} {GROUP_ROWS}".encode())
    starts, held = [0], 0
    for index, row in enumerate(dataset.select_columns(["utterance_id", "audio", "label"])):
        size = _size(row)
        digest.update(f"{row['utterance_id']} {row['label']} {size}\n".encode())
        if held and held + size > shard_bytes:
            starts.append(index)
            held = 0
        held += size
    return [range(*pair) for pair in zip(starts, [*starts[1:], len(dataset)])], digest.hexdigest()


def _size(row: Row) -> int:
    if row["audio"]["bytes"] is not None:
        return len(row["audio"]["bytes"])
    try:
        return os.stat(row["audio"]["path"]).st_size
    except OSError as error:
        raise CorpusError(f"{row['audio']['path']} cannot be read ({error.strerror}).") from None


def _write_shard(path: Path, rows: Iterator[Row], form: Form, flac: bool, progress: Callable[[int], None]) -> Shard:
    part = path.with_name(path.name + ".part")
    digests: list[bytes] = []
    held: list[Row] = []
    # Audio is already compressed. Statistics would be most of the metadata that a reader keeps of each file.
    options = {"compression": "none", "write_statistics": False, "use_dictionary": list(form.repeating)}
    schema = form.features.arrow_schema
    with _whole(part), pq.ParquetWriter(part, schema, **options) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(held, schema=schema), row_group_size=GROUP_ROWS)
            progress(len(held))
            held.clear()

        for row in rows:
            packed = _packed(row, flac)
            digests.append(hashlib.sha256(packed["audio"]["bytes"]).digest())
            held.append(form.pack(packed))
            if len(held) == GROUP_ROWS:
                flush()
        if held:
            flush()
    _compare(part, digests)
    with open(part, "rb+") as file:
        os.fsync(file.fileno())  # so that a power cut cannot leave a renamed file without its content
    shard = Shard(len(digests), part.stat().st_size, sha256_of(part))
    part.replace(path)
    return shard


@contextmanager
def _whole(part: Path) -> Iterator[None]:
    """Explains write errors in one sentence, and removes an incomplete file."""
    try:
        with explained(part):
            yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _compare(part: Path, digests: list[bytes]) -> None:
    index = 0
    for batch in pq.ParquetFile(part, memory_map=True).iter_batches(GROUP_ROWS, columns=["audio"]):
        for audio in batch.column("audio").to_pylist():
            if hashlib.sha256(audio["bytes"]).digest() != digests[index]:
                raise CorpusError(f"{part}: row {index} does not read back as it was written: check the disk.")
            index += 1
    if index != len(digests):
        raise CorpusError(f"{part}: only {index} of {len(digests)} rows can be read back: check the disk.")


def _packed(row: Row, flac: bool) -> Row:
    """Returns the row with the bytes of its audio, and the name of its file without folders."""
    audio, path = row["audio"], row["audio"]["path"]
    content = audio["bytes"]
    if content is None:
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise CorpusError(f"{path} cannot be read ({error.strerror}).") from None
    name = os.path.basename(path) if path else row["utterance_id"]
    if flac and (recoded := to_flac(content, name)) is not None:
        content, name = recoded, os.path.splitext(name)[0] + ".flac"
    return {**row, "audio": {"bytes": content, "path": name}}


def to_flac(content: bytes, name: str) -> bytes | None:
    """
    Returns a PCM file as FLAC with equal samples, rate and channels; None if it is not PCM, or FLAC cannot hold it.

    Raises:
        CorpusError: the samples in FLAC differ.
    """
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            subtype = _FLAC_SUBTYPES.get(file.subtype)
            if file.format == "FLAC" or subtype is None or file.channels > 8 or file.frames == 0:
                return None
            rate, samples = file.samplerate, file.read(dtype="int32", always_2d=True)
        out = io.BytesIO()
        soundfile.write(out, samples, rate, format="FLAC", subtype=subtype)
        again, _ = soundfile.read(io.BytesIO(out.getvalue()), dtype="int32", always_2d=True)
    except soundfile.SoundFileError:
        return None  # soundfile does not support it, or it is damaged: it keeps its bytes
    if not np.array_equal(again, samples):
        raise CorpusError(f"the samples of {name} change when it is encoded as FLAC: omit {option('flac')}.")
    return out.getvalue()


def _is_whole(path: Path, shard: Shard | None) -> bool:
    return shard is not None and path.is_file() and sha256_of(path) == shard.sha256


def _read_records(out: Path) -> dict[str, SplitRecord]:
    path = out / "shards.json"
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            split: SplitRecord(
                record["fingerprint"],
                {name: Shard(**shard) for name, shard in record["shards"].items()},
                record["labels"],
                record.get("form", NES2NET),
            )
            for split, record in content.items()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{path} is damaged ({error}): remove it to write all shards again.") from None


def _write_records(out: Path, records: dict[str, SplitRecord]) -> None:
    content = {split: dataclasses.asdict(record) for split, record in records.items()}
    _replace(out / "shards.json", (json.dumps(content, indent=1) + "\n").encode())


def _replace(path: Path, content: bytes) -> None:
    """Replaces a file, which is whole at all times."""
    with atomic_file(path, "wb") as file:
        file.write(content)


def _card_fields(name: str, records: dict[str, SplitRecord], form: str, split: str | None) -> dict[str, Any]:
    title = CORPORA[name].title if name in CORPORA else "Own data" if name == OWN_DATA else "A dataset"
    if form == ARENA and split:
        title = f"{title} {split}"  # the shards do not show it: their split is always `test`
    splits: dict[str, dict[str, Any]] = {
        split: {
            "rows": sum(shard.rows for shard in record.shards.values()),
            "shards": len(record.shards),
            "gigabytes": f"{sum(shard.bytes for shard in record.shards.values()) / 1e9:.2f}",
            "labels": record.labels,
        }
        for split, record in records.items()
    }
    rows = sum(split["rows"] for split in splits.values())
    sizes = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
    size = next((text for limit, text in sizes if rows < limit), "1M<n<10M")
    return {"name": name, "title": title, "splits": splits, "size": size, "columns": list(FEATURES), "form": form}
