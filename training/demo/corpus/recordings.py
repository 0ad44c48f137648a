"""The packages' recordings made ready: 16 kHz mono, trimmed, long ones cut into pieces at their pauses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from . import activity, audio
from .sources import Recording

LONGEST = 5.5  # seconds of a piece
SHORTEST = 0.2  # what is shorter is a click or nothing
GAP_SECONDS = (0.1, 0.4)  # between joined pieces


@dataclass(frozen=True)
class Piece:
    """A stretch of a recording: its id, speech in seconds, and whether the recording was made at 8 kHz or so."""

    piece_id: str
    recording: Recording
    seconds: float
    narrowband: bool


def prepare(recording: Recording, folder: Path) -> list[Piece]:
    """
    Writes the pieces of a recording into `folder` and returns them.

    What was not coded in G.722 yet goes through it once, so that no source is told by the number of its trips.
    """
    wave, rate = audio.decode(recording.path)
    wave = activity.trim(audio.resample(wave, rate))
    if recording.path.suffix != ".g722" and wave.size:
        wave = audio.g722_round_trip(wave)
    pieces: list[Piece] = []
    while wave.size >= SHORTEST * audio.SAMPLE_RATE:
        piece = activity.cut(wave, LONGEST)
        piece_id = f"{recording.recording_id}#{len(pieces)}"
        audio.write(piece_path(folder, piece_id), piece)
        pieces.append(Piece(piece_id, recording, round(piece.size / audio.SAMPLE_RATE, 3), rate < 16000))
        wave = activity.trim(wave[piece.size :])
    return pieces


def piece_path(folder: Path, piece_id: str) -> Path:
    """Where `prepare` keeps a piece."""
    return folder / f"{piece_id.replace('#', '.')}.flac"


def join(folder: Path, piece_ids: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """The pieces one after the other with silence between them: (S,) float32 at 16 kHz."""
    parts: list[np.ndarray] = []
    for piece_id in piece_ids:
        parts.append(audio.read(piece_path(folder, piece_id)))
        parts.append(np.zeros(round(rng.uniform(*GAP_SECONDS) * audio.SAMPLE_RATE), dtype=np.float32))
    return np.concatenate(parts[:-1])


def save_index(path: Path, pieces: Sequence[Piece]) -> None:
    """Keeps the list of pieces beside them, so that a later build need not decode the packages again."""
    rows = [{**asdict(piece), "recording": {**asdict(piece.recording), "path": ""}} for piece in pieces]
    path.write_text(json.dumps(rows), encoding="utf-8")


def load_index(path: Path) -> Iterator[Piece]:
    """What `save_index` kept; the recordings' own paths are not needed any more and left empty."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        recording = replace(Recording(**row["recording"]), path=Path())
        yield Piece(**{**row, "recording": recording})
