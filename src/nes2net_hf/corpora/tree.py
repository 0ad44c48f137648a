"""Finds the files of a corpus folder by name, at any depth, after listing the folder once."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from fnmatch import filter as matching
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path, PurePath

from ..audio import AUDIO_SUFFIXES
from ..errors import CorpusError
from ..files import walk_files


class Tree:
    """All files below `root`, by name. If a name occurs several times, the first one found is used."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise CorpusError(f"{root} is not a folder: name the folder that the corpus was unpacked into.")
        self.unreadable: list[str] = []
        """A sentence for each folder that cannot be listed, and for each pipe or device named like audio."""
        self._audio: dict[str, list[str]] = defaultdict(list)
        self._others: dict[str, list[str]] = defaultdict(list)
        for path, problem, is_folder in walk_files(self.root):
            name = os.path.basename(path)
            stem, suffix = os.path.splitext(name)
            is_audio = suffix.lower() in AUDIO_SUFFIXES and not name.startswith(".")
            if problem is None:
                (self._audio[stem] if is_audio else self._others[name]).append(path)
            elif is_folder or is_audio:
                self.unreadable.append(problem)

    def files(self, names: Sequence[str]) -> list[Path]:
        """
        Finds a protocol or key file by any of its names, which may include folders (`LA/CM/trial_metadata.txt`). A
        name with `*` stands for all files that match it. The list is empty if there are none.
        """
        for name in names:
            found = list(self._named(PurePath(name).parts))
            if found:
                return found if "*" in name else found[:1]
        return []

    def missing(self, what: str, needed: str) -> CorpusError:
        """Returns the error that `what` is not in the tree. `needed` says how to get it."""
        unread = f", and {self.unreadable[0].rstrip('.')}" if self.unreadable else ""
        return CorpusError(f"{self.root} has no {what} in any of its folders{unread}: {needed}.")

    def _named(self, wanted: tuple[str, ...]) -> Iterator[Path]:
        names = matching(self._others, wanted[-1]) if "*" in wanted[-1] else [wanted[-1]]
        for path in (path for name in names for path in self._others.get(name, [])):
            there = PurePath(path).parts[-len(wanted) :]
            if len(there) == len(wanted) and all(map(fnmatchcase, there, wanted)):
                yield Path(path)

    def find(self, name: str) -> list[str]:
        """Returns all paths of a file that is not audio."""
        return self._others.get(name, [])

    def audio(self, utterance_id: str, folders: tuple[str, ...] = ()) -> list[str]:
        """
        Returns the paths of audio files with this stem, those below one of `folders` first.

        Args:
            utterance_id: the file's name without its suffix. It may begin with the folders that contain the file.
            folders: names of folders that contain the file in the published archive.
        """
        *above, stem = utterance_id.split("/")
        if not above:
            paths = self._audio.get(stem, [])
        else:
            paths = self._audio_by_folder.get((above[-1], stem), [])
            paths = [path for path in paths if folders_of(path)[-len(above) :] == tuple(above)]
        if len(paths) > 1 and folders:
            paths = sorted(paths, key=lambda path: not set(folders) & set(PurePath(path).parts))
        return paths

    def all_audio(self) -> list[str]:
        """Returns the paths of all audio files, sorted."""
        return sorted(path for paths in self._audio.values() for path in paths)

    @cached_property
    def _audio_by_folder(self) -> dict[tuple[str, str], list[str]]:
        """The folder and the stem of audio files → their paths: one stem may recur in a hundred folders."""
        found: dict[tuple[str, str], list[str]] = defaultdict(list)
        for stem, paths in self._audio.items():
            for path in paths:
                found[folders_of(path)[-1], stem].append(path)
        return found


def folders_of(path: str) -> tuple[str, ...]:
    """Returns the names of all folders that contain a file, also of those above the tree."""
    return tuple(os.path.dirname(os.path.abspath(path)).split(os.sep))
