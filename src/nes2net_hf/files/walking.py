"""Finds files below a folder, at any depth."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """A path that `walk_files` found."""

    path: str
    problem: str | None = None
    """Why it cannot be read, in a sentence that names it: a folder that cannot be listed, a pipe, …."""
    is_folder: bool = False


def walk_files(root: str | os.PathLike[str]) -> Iterator[Found]:
    """
    Yields the files below a folder at any depth: its own files first, each folder sorted by name. Folders that cannot
    be listed, including the root, are yielded with their `problem`.

    Folders behind symbolic links come last, so that files keep a path without links if they have one. Every folder is
    listed once, even if several paths lead to it. Links to a folder above them are skipped, so that loops end. A link
    to a file is a file of that name. So is a broken link, and opening it fails.
    """
    seen: set[tuple[int, int]] = set()
    real, linked = [os.fspath(root)], deque[str]()
    while real or linked:
        folder = real.pop() if real else linked.popleft()
        entries: list[os.DirEntry[str]] = []
        error: OSError | None = None
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries.extend(listing)  # entries before an error are kept
        except OSError as caught:
            error = caught
        folders: list[str] = []
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                is_folder, is_file, is_link = entry.is_dir(), entry.is_file(), entry.is_symlink()
            except OSError as caught:
                if caught.errno == errno.ELOOP:  # a link to itself leads nowhere
                    yield Found(entry.path)
                else:
                    yield Found(entry.path, f"{entry.path} cannot be accessed ({caught.strerror}).", is_folder=True)
                continue
            if is_folder and not is_link:
                folders.append(entry.path)
            elif is_folder:
                if not _leads_back(entry.path):
                    linked.append(entry.path)
            elif is_file or not os.path.exists(entry.path):
                yield Found(entry.path)
            else:
                yield Found(entry.path, f"{entry.path} is a pipe, socket or device, not a file.")
        real.extend(reversed(folders))
        if error is not None:
            yield Found(folder, f"{folder} cannot be listed ({error.strerror or error}).", is_folder=True)


def _leads_back(link: str) -> bool:
    """Returns whether a link's target is a folder that contains the link."""
    return Path(os.path.realpath(os.path.dirname(link))).is_relative_to(os.path.realpath(link))
