"""Finds the files of a corpus folder by name, at any depth, after listing the folder once."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
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

    def file(self, *names: str, needed: str) -> Path:
        """
        Finds a protocol or key file by any of its names, which may include folders (`LA/CM/trial_metadata.txt`).

        Raises:
            CorpusError: there is none. The message lists the names, and says how to get the file (`needed`).
        """
        path = self._first(names)
        if path is None:
            unread = f", and {self.unreadable[0].rstrip('.')}" if self.unreadable else ""
            raise CorpusError(f"{self.root} has no {' or '.join(names)} in any of its folders{unread}: {needed}.")
        return path

    def has(self, *names: str) -> bool:
        """Returns whether `file` would find one."""
        return self._first(names) is not None

    def _first(self, names: Sequence[str]) -> Path | None:
        for name in names:
            wanted = PurePath(name).parts
            for path in self._others.get(wanted[-1], []):
                if PurePath(path).parts[-len(wanted) :] == wanted:
                    return Path(path)
        return None

    def find(self, name: str) -> list[str]:
        """Returns all paths of a file that is not audio."""
        return self._others.get(name, [])

    def audio(self, utterance_id: str, folders: tuple[str, ...] = ()) -> list[str]:
        """
        Returns the paths of audio files with this stem, those below one of `folders` first.

        Args:
            utterance_id: the file's name without its suffix.
            folders: names of folders that contain the file in the published archive.
        """
        paths = self._audio.get(utterance_id, [])
        if len(paths) > 1 and folders:
            paths = sorted(paths, key=lambda path: not set(folders) & set(PurePath(path).parts))
        return paths
