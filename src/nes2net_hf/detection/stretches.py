"""Suspicious stretches for other programs: RTTM, or labels that Audacity imports."""

from __future__ import annotations

import re
from pathlib import Path

from ..audio import without_suffix
from ..files import explained
from .results import Result, Stretch


class StretchWriter:
    """
    Writes the suspicious stretches of results. A suffix `.txt` means Audacity labels, any other one RTTM, in which the
    speaker's name is `spoof`, after that of the speaker whose turns were judged.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with explained(path):
            self._file = open(path, "w", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - see `__exit__`

    def write(self, result: Result) -> None:
        """Writes the stretches of one result, at once."""
        with explained(self._path):
            for stretch in joined(result.suspicious()):
                self._file.write(self._line(result, stretch))
            self._file.flush()

    def _line(self, result: Result, stretch: Stretch) -> str:
        speaker = "spoof" if result.speaker is None else f"{result.speaker}-spoof"
        if self._path.suffix.lower() == ".txt":
            where = "" if result.channel is None else f", channel {result.channel}"
            return f"{stretch.start:.3f}\t{stretch.end:.3f}\t{speaker} {stretch.score:.2f}{where}\n"
        name = re.sub(r"\s", "_", without_suffix(Path(result.file).name))  # fields end at spaces
        channel = 1 if result.channel is None else result.channel + 1  # RTTM counts from 1
        length = stretch.end - stretch.start
        return f"SPEAKER {name} {channel} {stretch.start:.3f} {length:.3f} <NA> <NA> {speaker} <NA> <NA>\n"

    def __enter__(self) -> StretchWriter:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()


def joined(stretches: list[Stretch]) -> list[Stretch]:
    """Returns stretches in order of time; those that touch or overlap are one, with the lowest of their scores."""
    found: list[Stretch] = []
    for one in sorted(stretches, key=lambda stretch: stretch.start):
        if found and one.start <= found[-1].end + 1e-6:
            last = found[-1]
            found[-1] = Stretch(last.start, max(last.end, one.end), min(last.score, one.score))
        else:
            found.append(one)
    return found
