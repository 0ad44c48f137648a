"""Reads your own data: a manifest (CSV, TSV, JSON, JSON Lines) with paths and labels, or a folder per class."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from ..audio import find_audio
from ..errors import CorpusError, option
from ..files.tables import FILES, LABELS, find_column, read_table, read_text, row_of, split_lines
from .corpus import Row
from .labels import map_label
from .schema import TEXT_COLUMNS, make_row

OURS = ("audio", "label", "utterance_id", *TEXT_COLUMNS)
_USUAL: dict[str, tuple[str, ...]] = {"audio": FILES, "label": LABELS}
_OTHER_NAMES = {"speaker_id": ("speaker_id", "speaker"), "partition": ("partition", "split")}
_NO_MANIFEST = 'is not a manifest: make it an array of objects, [{"path": …, "label": …}, …].'

Report = Callable[[CorpusError], None]


class UnreadableError(CorpusError):
    """A folder, or a file named like audio, cannot be read."""


def read_own_data(
    root: Path,
    columns: Mapping[str, str] | None = None,
    label_map: Mapping[Any, str] | None = None,
    on_error: Report | None = None,
) -> Iterator[Row]:
    """
    Yields rows with their `audio` path.

    Args:
        root: a manifest, with paths relative to its folder; or a folder with one folder per class. A manifest is a
            table with a header, or JSON: an array of objects, one object per line, or an object of columns.
        columns: our columns → the manifest's, e.g. `{"audio": "wav", "label": "is_fake"}`, not case-sensitive. Other
            columns are found by their usual names.
        label_map: the data's labels → `"spoof"` and `"bonafide"`, for labels that are not known by name.
        on_error: called with the error of each unreadable row or folder, which is skipped. If None, it is raised.

    Raises:
        CorpusError: there is nothing to read, a column is missing, a label is unknown, or an utterance is duplicated.
    """
    if on_error is None:

        def on_error(error: CorpusError) -> None:
            raise error

    if root.is_dir():
        yield from _read_folders(root, label_map, on_error)
    elif root.is_file():
        yield from _read_manifest(root, our_columns(columns), label_map, on_error)
    else:
        raise CorpusError(f"{root} does not exist: name a manifest, or a folder with one folder per class.")


def our_columns(columns: Mapping[str, str] | None) -> dict[str, str]:
    """Returns our column names → the data's; raises CorpusError if we have no such column."""
    found: dict[str, str] = {}
    for ours, theirs in (columns or {}).items():
        name = find_column(OURS, [ours], option("columns"), CorpusError)
        if name is None:
            raise CorpusError(f"{option('columns')}: there is no column {ours!r}: choose from {', '.join(OURS)}.")
        found[name] = theirs
    return found


def match_columns(
    names: Iterable[str], columns: Mapping[str, str], source: str, needed: Mapping[str, tuple[str, ...]] = _USUAL
) -> dict[str, str]:
    """
    Returns our column names → the matching ones in `names`, by `columns` or else by their usual names. `needed` has
    the usual names of required columns.

    Raises:
        CorpusError: a column that is required, or named in `columns`, is missing, or two names match.
    """
    names = list(names)
    found: dict[str, str] = {}
    for ours in OURS:
        usual = {**_OTHER_NAMES, **needed}.get(ours, (ours,))
        theirs = find_column(names, [columns[ours]] if ours in columns else usual, source, CorpusError)
        if theirs is not None:
            found[ours] = theirs
        elif ours in columns:
            raise CorpusError(f"{source} has no column {columns[ours]!r} for {ours} (it has {', '.join(names)}).")
        elif ours in needed:
            raise CorpusError(
                f"{source}: cannot tell which column is the {ours} (it has {', '.join(names)}): name it with "
                f"{option('columns', ours)}."
            )
    return found


def _read_folders(root: Path, label_map: Mapping[Any, str] | None, on_error: Report) -> Iterator[Row]:
    files: dict[str, list[Path]] = {}
    for path, problem, _ in find_audio(root):
        if problem is not None:
            on_error(UnreadableError(problem))
        else:
            files.setdefault(PurePath(path).relative_to(root).parts[0], []).append(Path(path))
    classes = (path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    # A link without audio, e.g. to a parent folder, is not a class.
    folders = sorted(path.name for path in classes if path.name in files or not path.is_symlink())
    if not folders:
        on_error(CorpusError(f"{root} has no folders: put each class in its own folder, e.g. bonafide and spoof."))
    for folder in folders:
        try:
            label = map_label(folder, f"folder {root / folder}", label_map)
        except CorpusError as error:
            on_error(error)
            continue
        for file in files.get(folder, []):
            yield _with_audio(make_row(str(file.relative_to(root).with_suffix("")), label), file)


def _read_manifest(
    path: Path, columns: dict[str, str], label_map: Mapping[Any, str] | None, on_error: Report
) -> Iterator[Row]:
    manifest = _open_manifest(path)
    if not manifest.names:
        return
    known = match_columns(manifest.names, columns, str(path))
    for where, content in manifest.rows:
        try:
            row = _row(path, where, manifest.fields(where, content), known, label_map)
        except CorpusError as error:
            on_error(error)
            continue
        yield row


def _row(
    path: Path, where: str, fields: dict[str, Any], known: Mapping[str, str], label_map: Mapping[Any, str] | None
) -> Row:
    said = {ours: fields.get(theirs) for ours, theirs in known.items()}
    audio, label, utterance = said.pop("audio"), said.pop("label"), said.pop("utterance_id", None)
    if audio is None or audio == "":
        raise CorpusError(f"{where}: column {known['audio']!r} is empty: write the path of a file.")
    if not isinstance(audio, str) or not PurePath(audio).name:
        raise CorpusError(f"{where}: column {known['audio']!r} has {audio!r}, which is not the path of a file.")
    if "\\" in audio and not os.path.isfile(path.parent / audio):  # written on Windows
        audio = audio.replace("\\", "/")
    name = str(PurePath(audio).with_suffix("")) if utterance in (None, "") else str(utterance)
    return _with_audio(make_row(name, map_label(label, where, label_map), **said), path.parent / audio)


class _Manifest(NamedTuple):
    names: list[str]
    """Column names; empty if the manifest is empty."""
    rows: Iterable[tuple[str, Any]]
    """Place (for messages) and content of each row."""
    fields: Callable[[str, Any], dict[str, Any]]
    """Function of place and content; returns the row by column names, or raises CorpusError."""


def manifest_columns(path: Path, columns: Mapping[str, str] | None = None) -> dict[str, str]:
    """
    Returns our column names → those of a manifest, in its own spelling.

    Raises:
        CorpusError: see `read_own_data`.
    """
    return match_columns(_open_manifest(path).names, our_columns(columns), str(path))


def _open_manifest(path: Path) -> _Manifest:
    text = read_text(path, CorpusError)
    return _from_json(path, text) if text.lstrip()[:1] in ("[", "{") else _from_table(path, text)


def _from_table(path: Path, text: str) -> _Manifest:
    table = read_table(path, text, CorpusError)
    names = [name for name in table.names if name]
    return _Manifest(names, table.rows, lambda where, fields: row_of(table, where, fields, CorpusError))


def _from_json(path: Path, text: str) -> _Manifest:
    try:
        rows = [(f"{path}, row {number}", row) for number, row in enumerate(_objects(path, json.loads(text)), start=1)]
    except (ValueError, RecursionError) as error:
        if isinstance(error, CorpusError):
            raise
        if text.lstrip().startswith("["):
            raise CorpusError(f"{path} is not valid JSON ({error}): save it again.") from None
        lines = [(number, line) for number, line in enumerate(split_lines(text), start=1) if line.strip()]
        rows = [(f"{path}, line {number}", _object(line)) for number, line in lines]
    names = list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row))
    if rows and not names:
        raise CorpusError(f"{path} {_NO_MANIFEST}")
    return _Manifest(names, rows, _fields)


def _objects(path: Path, content: Any) -> list[Any]:
    """Returns the rows of an array of objects, an object of columns, or a single object."""
    if isinstance(content, list):
        return content
    columns = list(content.values())
    if not any(isinstance(column, (list, dict)) for column in columns):
        return [content]
    if all(isinstance(column, list) and len(column) == len(columns[0]) for column in columns):
        return [dict(zip(content, row, strict=True)) for row in zip(*columns, strict=True)]
    raise CorpusError(f"{path} {_NO_MANIFEST}")


def _object(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _fields(where: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise CorpusError(f"{where}: not a JSON object: write one object per row.")
    return content


def _with_audio(row: Row, path: Path) -> Row:
    row["audio"] = {"bytes": None, "path": str(path)}
    return row
