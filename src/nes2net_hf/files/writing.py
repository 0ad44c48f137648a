"""Writes files and folders whole or not at all."""

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
    Opens a file that is written whole or not at all: under a hidden name in the same folder, and moved into place at
    the end. An existing file stays until then. Devices and pipes are written directly.

    Args:
        path: file to write. Links are followed.
        mode: `"w"` or `"wb"`.
        **options: options of `open`. The default encoding is UTF-8.

    Raises:
        OutputError: the file cannot be written, or another process is writing it (see `claim`).
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
    Writes a folder whole or not at all: yields a hidden folder next to it, which takes its place at the end. An
    existing folder stays until then. Remains of a killed process are removed first.

    Raises:
        OutputError: the folder cannot be written, or another process is writing it (see `claim`).
        DiskError: the disk is full or failed.
    """
    with claim(path, "folder"), explained(path):
        target = Path(os.path.realpath(path))
        part, old = hidden(target, "part"), hidden(target, "old")
        if old.exists() and not target.exists():
            old.rename(target)  # a process was killed between the two moves below
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
    Writes several files into a folder, all or none: yields a hidden folder inside it, whose files move up at the end.
    Other files in the folder stay.

    Raises:
        OutputError: the files cannot be written, or another process is writing there (see `claim`).
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
    Raises OutputError if a file's suffix promises a format that we do not write. A file needs no suffix, and a suffix
    without letters (`scores-1.0`) does not count.

    Args:
        forms: allowed suffixes, in lower case.
        instead: end of the sentence, if there is another way to choose the format.
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
    """Gives files the user's default permissions, because safetensors makes them private."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            file.chmod(0o666 & ~mask)
