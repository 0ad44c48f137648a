"""Your own data: a manifest (CSV, TSV, JSON Lines) with a path and a label in each line, or a folder per class."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..audio import list_audio
from ..errors import CorpusError
from .corpus import Row
from .labels import map_label
from .schema import TEXT_COLUMNS, make_row

_PATHS = ("path", "file", "file_name", "filename", "audio")
_LABELS = ("label", "key", "class", "target")


def read_own_data(
    root: Path,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[Any, str] | None = None,
    on_error: Callable[[CorpusError], None] | None = None,
) -> Iterator[Row]:
    """
    Rows with their `audio` path.

    Args:
        root: a manifest, whose paths are relative to its folder; or a folder that has one folder for each class.
        columns: ours → the manifest's, e.g. `{"audio": "wav", "label": "is_fake"}`; known by usual names if absent.
        label_map: the data's labels → `"spoof"` and `"bonafide"`, where they are not known by name.
        on_error: told of each line that cannot be read, which is then left out; if None, the first is raised.

    Raises:
        CorpusError: there is nothing to read, a column is absent, a label unknown, or an utterance named twice.
    """
    if root.is_dir():
        yield from _read_folders(root, label_map)
    elif root.is_file():
        yield from _read_manifest(root, dict(columns or {}), label_map, on_error)
    else:
        raise CorpusError(f"{root} does not exist: name a manifest, or a folder with a folder for each class.")


def _read_folders(root: Path, label_map: Mapping[Any, str] | None) -> Iterator[Row]:
    folders = sorted(folder for folder in root.iterdir() if folder.is_dir() and not folder.name.startswith("."))
    if not folders:
        raise CorpusError(f"{root} holds no folders: put each class into one of its own, e.g. bonafide and spoof.")
    for folder in folders:
        label = map_label(folder.name, f"folder {folder}", label_map)
        for path in map(Path, list_audio(folder)):
            yield _with_audio(make_row(str(path.relative_to(root).with_suffix("")), label), path)


def _read_manifest(
    path: Path,
    columns: dict[str, str],
    label_map: Mapping[Any, str] | None,
    on_error: Callable[[CorpusError], None] | None,
) -> Iterator[Row]:
    for where, line in _lines(path):
        try:
            row = _read_line(path, where, line, columns, label_map)
        except CorpusError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        yield row


def _read_line(
    path: Path, where: str, line: dict[str, Any], columns: dict[str, str], label_map: Mapping[Any, str] | None
) -> Row:
    audio, label = _column(line, columns, "audio", _PATHS, where), _column(line, columns, "label", _LABELS, where)
    if not line[audio]:
        raise CorpusError(f"{where}: column {audio!r} is empty.")
    name = columns.get("utterance_id", "utterance_id")
    known = {ours: line.get(columns.get(ours, ours)) for ours in TEXT_COLUMNS}
    utterance = str(line.get(name) or Path(str(line[audio])).with_suffix(""))
    row = make_row(utterance, map_label(line[label], where, label_map), **known)
    return _with_audio(row, path.parent / str(line[audio]))


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise CorpusError(f"{path} is not a text file in UTF-8.") from None
    if path.suffix.lower() in {".jsonl", ".ndjson"}:
        for number, line in enumerate(text.splitlines(), start=1):
            if line.strip():
                try:
                    fields = json.loads(line)
                except ValueError:
                    fields = None
                if not isinstance(fields, dict):
                    raise CorpusError(f"{path}, line {number}: no JSON object.")
                yield f"{path}, line {number}", fields
        return
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    for number, row in enumerate(csv.DictReader(text.splitlines(), delimiter=delimiter), start=2):
        yield f"{path}, line {number}", {key.strip(): (value or "").strip() for key, value in row.items() if key}


def _column(line: Mapping[str, Any], columns: Mapping[str, str], ours: str, usual: tuple[str, ...], where: str) -> str:
    if ours in columns:
        if columns[ours] not in line:
            raise CorpusError(f"{where}: there is no column {columns[ours]!r} (it has {', '.join(line)}).")
        return columns[ours]
    for name in usual:
        if name in line:
            return name
    raise CorpusError(
        f"{where}: none of its columns ({', '.join(line)}) is the {ours}: name it, as columns={{'{ours}': …}}."
    )


def _with_audio(row: Row, path: Path) -> Row:
    row["audio"] = {"bytes": None, "path": str(path)}
    return row
