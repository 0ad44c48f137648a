"""Describes the corpus: `manifest.csv` with checksums, and `LICENCES.md` with attribution."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .packages import PACKAGES
from .sources import NOISES, SOURCES, copyright_file
from .synthesizers import VOICES

COLUMNS = (
    "utterance_id", "path", "label", "speaker_id", "gender", "language", "attack", "codec", "source", "partition",
    "duration", "sha256", "licence", "style",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A line of the manifest; `path` is relative to the corpus folder, `duration` in seconds."""

    utterance_id: str
    path: str
    label: str
    speaker_id: str
    gender: str
    language: str
    attack: str
    codec: str
    source: str
    partition: str
    duration: str
    sha256: str
    licence: str
    style: str = ""  # of the text: sentences or words


def primary(language: str) -> str:
    """Returns the language without its region: `pt` for `pt-br` or `pt_BR`."""
    return language.lower().replace("_", "-").split("-")[0]


def checksum(path: Path) -> str:
    """Returns the SHA-256 of a file in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_manifest(path: Path, entries: Sequence[Entry]) -> None:
    """Writes the entries under the header `COLUMNS`."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(vars(entry) for entry in entries)


def read_manifest(path: Path) -> list[Entry]:
    """Reads the entries of a manifest written by `write_manifest`."""
    with open(path, newline="", encoding="utf-8") as file:
        return [Entry(**row) for row in csv.DictReader(file)]


def write_licences(path: Path, packages: Path) -> None:
    """Writes the author and licence of each source, and the packages' full copyright files."""
    lines = [
        "# Licences of the demonstration corpus",
        "",
        "Every file was trimmed, joined, filtered, re-levelled, mixed with noise and coded by `build_corpus.py`;",
        "spoofed files were synthesised as the manifest's `attack` says. Each keeps its source's licence.",
        "",
        "## Recordings",
        "",
        "| package | speaker | licence | attribution |",
        "|---|---|---|---|",
    ]
    for source in SOURCES:
        speaker = source.speaker or "one or more per folder"
        lines.append(f"| {source.package} | {speaker} | {source.licence} | {source.attribution} |")
    lines += ["", "## Synthetic voices", "", "| attack | package | licence of the voice |", "|---|---|---|"]
    lines += [f"| {attack} | {voice.source} | {voice.licence} |" for attack, voice in VOICES.items()]
    lines += ["", "## Noises", "", "`noise/noises.csv` has the licence and attribution of each file.", ""]
    lines += ["0 A.D.'s recordings and ambience: Wildfire Games, https://www.wildfiregames.com, under"]
    lines += ["https://creativecommons.org/licenses/by-sa/3.0/."]
    lines += ["", "## Neural generators", "", "| package | version | licence | attribution |", "|---|---|---|---|"]
    lines += [f"| {p.name} ({p.index}) | {p.version} | {p.licence} | {p.attribution} |" for p in PACKAGES]
    lines += ["", "Copy-synthesis (all other attacks) is derived from the recordings and keeps their licence.", ""]
    for package in dict.fromkeys(source.package for source in (*SOURCES, *NOISES)):
        text = copyright_file(packages, package).read_text(encoding="utf-8", errors="replace").rstrip()
        lines += [f"## Copyright file of {package}", "", "```text", text, "```", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
