"""Prepares the packages' recordings: 16 kHz mono, trimmed, and cut into pieces at pauses if long."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from . import activity, audio
from .sources import Recording

LONGEST = 5.5  # seconds of a piece
SHORTEST = 0.2  # seconds; anything shorter is a click or empty
GAP_SECONDS = (0.1, 0.4)  # between joined pieces
LOWEST_PEAK = 0.25  # quieter recordings are raised to this peak


@dataclass(frozen=True)
class Piece:
    """A part of a recording: its id, length in seconds, and whether the recording has a rate below 16 kHz."""

    piece_id: str
    recording: Recording
    seconds: float
    narrowband: bool


def prepare(recording: Recording, folder: Path) -> list[Piece]:
    """
    Writes the pieces of a recording into `folder` and returns them.

    Recordings pass through the codec of their channel once, unless they are in it already, so that the number of
    passes does not identify a source: low-rate MP3 if they are for evaluation only, G.722 otherwise.
    """
    wave, rate = audio.decode(recording.path)
    wave = activity.trim(audio.resample(wave, rate))
    suffix, round_trip = (
        (".mp3", audio.mp3_round_trip) if recording.evaluation_only else (".g722", audio.g722_round_trip)
    )
    if recording.path.suffix != suffix and wave.size:
        # Some of Kajongg's are so quiet that coding them with 16 bits would add noise.
        wave = round_trip(wave * max(1.0, LOWEST_PEAK / max(np.abs(wave).max(), 1e-9)))
    pieces: list[Piece] = []
    while wave.size >= SHORTEST * audio.SAMPLE_RATE:
        piece = activity.cut(wave, LONGEST)
        piece_id = f"{recording.recording_id}#{len(pieces)}"
        audio.write(piece_path(folder, piece_id), piece)
        pieces.append(Piece(piece_id, recording, round(piece.size / audio.SAMPLE_RATE, 3), rate < 16000))
        wave = activity.trim(wave[piece.size :])
    return pieces


def piece_path(folder: Path, piece_id: str) -> Path:
    """Returns the path where `prepare` writes a piece."""
    return folder / f"{piece_id.replace('#', '.')}.flac"


def join(folder: Path, piece_ids: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Joins the pieces with silence between them: (S,) float32 at 16 kHz."""
    parts: list[np.ndarray] = []
    for piece_id in piece_ids:
        parts.append(audio.read(piece_path(folder, piece_id)))
        parts.append(np.zeros(round(rng.uniform(*GAP_SECONDS) * audio.SAMPLE_RATE), dtype=np.float32))
    return np.concatenate(parts[:-1])


def save_index(path: Path, pieces: Sequence[Piece]) -> None:
    """Saves the list of pieces, so that a later build need not decode the packages again."""
    rows = [{**asdict(piece), "recording": {**asdict(piece.recording), "path": ""}} for piece in pieces]
    path.write_text(json.dumps(rows), encoding="utf-8")


def load_index(path: Path) -> Iterator[Piece]:
    """Yields the pieces that `save_index` saved. The recordings' paths are no longer needed, and are empty."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        recording = replace(Recording(**row["recording"]), path=Path())
        yield Piece(**{**row, "recording": recording})
