"""Files and folders: how they are found, written whole or not at all, locked, and known by a checksum."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from ..errors import OutputError
from .claiming import claim
from .places import hidden, is_device
from .reasons import explained


@contextmanager
def atomic_file(path: str | os.PathLike[str], mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """
    A file that is whole or not there: written beside its place under a hidden name and moved there at the end; what
    stood there before stays until then. A device or a pipe is written directly.

    Args:
        path: the file to write. A link is followed.
        mode: `"w"` or `"wb"`.
        **options: as of `open`; the encoding is UTF-8 unless it is named.

    Raises:
        OutputError: the file cannot be written there, or another process writes it (see `claim`).
        DiskError: the disk is full or failed.
    """
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    with claim(path), explained(path):
        if is_device(path):
            with open(path, mode, **options) as file:
                yield file
            return
        target = Path(os.path.realpath(path))
        part = hidden(target, "part")
        try:
            with open(part, mode, **options) as file:
                yield file
            if target.exists():
                shutil.copymode(target, part)
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """
    A folder that is whole or not there: yields a hidden one beside it, which takes its place at the end. A folder that
    stood there before stays until then. What a killed process left of the same folder is cleared first.

    Raises:
        OutputError: the folder cannot be written there, or another process writes it (see `claim`).
        DiskError: the disk is full or failed.
    """
    with claim(path, "folder"), explained(path):
        target = Path(os.path.realpath(path))
        part, old = hidden(target, "part"), hidden(target, "old")
        if old.exists() and not target.exists():
            old.rename(target)  # a kill came between the two moves below
        _remove(part)
        _remove(old)
        try:
            part.mkdir()
            yield part
            _open_to_all(part)
            if target.exists():
                target.rename(old)
                try:
                    part.rename(target)
                except BaseException:
                    old.rename(target)
                    raise
                _remove(old)
            else:
                part.rename(target)
        finally:
            _remove(part)


@contextmanager
def atomic_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """
    Several files of a folder, all of them or none: yields a hidden folder inside, whose files move up at the end. What
    else is in the folder stays.

    Raises:
        OutputError: the files cannot be written there, or another process works there (see `claim`).
        DiskError: the disk is full or failed.
    """
    with claim(folder, "workplace"), explained(folder):
        place = Path(os.path.realpath(folder))
        part = place / ".part"
        _remove(part)
        try:
            part.mkdir()
            yield part
            for file in part.iterdir():
                os.replace(file, place / file.name)
        finally:
            _remove(part)


def check_suffix(path: str | os.PathLike[str], *forms: str, instead: str = "") -> None:
    """
    Raises OutputError where a file's suffix asks for another form than those that we write, in which nobody would look
    for it. A file needs none, and what has no letter (`scores-1.0`) is none.

    Args:
        forms: suffixes, in lower case.
        instead: the end of the sentence, where a form can be chosen otherwise.
    """
    suffix = Path(path).suffix
    if re.search("[a-zA-Z]", suffix) and suffix.lower() not in forms:
        known = ", ".join(forms[:-1]) + " or " * (len(forms) > 1) + forms[-1]
        raise OutputError(f"{os.fspath(path)} cannot be written as {suffix}: end its name in {known}{instead}.")


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)


def _open_to_all(folder: Path) -> None:
    """The permissions that the user gives new files: safetensors' are the user's alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~mask)
