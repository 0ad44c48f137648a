"""Takes spoken lines out of the archive of the adventure game Flight of the Amazon Queen."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

Item = TypeVar("Item")

LINES = 18  # most lines of a character
SHORTEST = 2400  # bytes of a line, 1.2 s at 16 kbit/s
_INDEX, _ENTRY = 13, 21  # offset of the number of entries, size of an entry in bytes
_TALK_KEY = 24  # offset in a dialogue file: after a bank header of 20 bytes and two numbers


def extract(archive: Path, folder: Path) -> None:
    """
    Writes lines of the archive as `folder/CHARACTER/NAME.mp3` (11,025 Hz, 16 kbit/s), spread evenly over its index.

    The hero's remarks are `JOE` and a number. A line of a dialogue is the dialogue's number, four more characters,
    `J` (the hero) or `P` (the other person), and one more. The file of each dialogue, such as `WITCH2.DOG`, contains
    its number, and its name without digits is taken as the other person. Lines of scenes without a dialogue do not
    say who speaks, so they are omitted.
    """
    content = archive.read_bytes()
    count = int.from_bytes(content[_INDEX : _INDEX + 2], "big")
    files: dict[str, bytes] = {}
    for position in range(_INDEX + 2, _INDEX + 2 + _ENTRY * count, _ENTRY):
        entry = content[position : position + _ENTRY]
        start, size = int.from_bytes(entry[13:17], "big"), int.from_bytes(entry[17:], "big")
        files[entry[:12].rstrip(b"\0").decode("ascii")] = content[start : start + size]
    people = {
        int.from_bytes(file[_TALK_KEY : _TALK_KEY + 2], "big"): name.removesuffix(".DOG").rstrip("0123456789").lower()
        for name, file in files.items()
        if name.endswith(".DOG")
    }
    lines: dict[str, list[str]] = {}
    for name in sorted(files):
        line = re.fullmatch(r"JOE\d+.*\.SB|(\d\d)....([JP])\w\.SB", name)
        if line is None or len(files[name]) < SHORTEST:
            continue
        person = people.get(int(line[1])) if line[2] == "P" else "joe"
        if person is not None:
            lines.setdefault(person, []).append(name)
    for person, names in lines.items():
        (folder / person).mkdir(parents=True, exist_ok=True)
        for name in spread(names, LINES):
            (folder / person / f"{name.removesuffix('.SB')}.mp3").write_bytes(files[name])


def spread(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Returns at most `most` of the items, at equal distances."""
    return [items[i * len(items) // most] for i in range(most)] if len(items) > most else items
