"""Files below a folder, in any nesting."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Found(NamedTuple):
    """What `walk_files` comes upon."""

    path: str
    problem: str | None = None
    """Why it cannot be read, in a sentence that names it: a folder that cannot be listed, or no file but a pipe, …."""
    is_folder: bool = False


def walk_files(root: str | os.PathLike[str]) -> Iterator[Found]:
    """
    The files below a folder in any nesting, its own first, each folder sorted by name; and the folders among them that
    cannot be listed, the root included, with their `problem`.

    Folders behind symbolic links follow after all others, so that what has a path without links keeps it. Every folder
    is listed once, however many ways lead to it, and links that lead back to a folder above them are passed over: no
    loop continues. A link to a file is a file of its own name, and so is one that leads nowhere: opening it fails.
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
                entries.extend(listing)  # those before an error in the midst are kept
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
                    yield Found(entry.path, f"{entry.path} cannot be looked up ({caught.strerror}).", is_folder=True)
                continue
            if is_folder and not is_link:
                folders.append(entry.path)
            elif is_folder:
                if not _leads_back(entry.path):
                    linked.append(entry.path)
            elif is_file or not os.path.exists(entry.path):
                yield Found(entry.path)
            else:
                yield Found(entry.path, f"{entry.path} is a pipe, a socket or a device, and no file.")
        real.extend(reversed(folders))
        if error is not None:
            yield Found(folder, f"{folder} cannot be listed ({error.strerror or error}).", is_folder=True)


def _leads_back(link: str) -> bool:
    """Whether a link's target is a folder that the link lies in."""
    return Path(os.path.realpath(os.path.dirname(link))).is_relative_to(os.path.realpath(link))
