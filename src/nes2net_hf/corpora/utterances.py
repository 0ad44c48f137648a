"""The audio of a row, wherever it lies."""

from __future__ import annotations

import os

import numpy as np

from ..audio import read_audio
from ..errors import AudioError
from .corpus import Row


def read_utterance(row: Row) -> np.ndarray:
    """
    (S,) float32 at 16 kHz.

    Raises:
        AudioError: it cannot be read; the message names the file, or the utterance where there are only bytes.
    """
    audio = row["audio"]
    if audio is None or audio["bytes"] is audio["path"] is None:  # of a dataset with gaps
        raise AudioError(f"utterance {row['utterance_id']} has no audio.")
    if audio["bytes"] is None:
        return read_audio(audio["path"])
    try:
        return read_audio(audio["bytes"])
    except AudioError as error:
        raise AudioError(str(error).replace("<bytes>", f"utterance {row['utterance_id']}", 1)) from None


def audio_bytes(row: Row) -> int:
    """The size of an utterance's file, near enough to its length to put like with like; 0 of one that is not there."""
    audio = row["audio"]
    try:
        return len(audio["bytes"]) if audio["bytes"] is not None else os.stat(audio["path"]).st_size
    except (OSError, TypeError):  # not there, or no path at all
        return 0
