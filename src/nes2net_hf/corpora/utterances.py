"""Reads the audio of a row, from a file or from bytes."""

from __future__ import annotations

import os

import numpy as np

from ..audio import read_audio
from ..errors import AudioError
from .corpus import Row


def read_utterance(row: Row) -> np.ndarray:
    """
    Returns the waveform (S,), float32 at 16 kHz.

    Raises:
        AudioError: the audio cannot be read. The message names the file, or the utterance if there are only bytes.
    """
    audio = row["audio"]
    if audio is None or audio["bytes"] is audio["path"] is None:  # a dataset may have gaps
        raise AudioError(f"utterance {row['utterance_id']} has no audio.")
    if audio["bytes"] is None:
        return read_audio(audio["path"])
    try:
        return read_audio(audio["bytes"])
    except AudioError as error:
        raise AudioError(str(error).replace("<bytes>", f"utterance {row['utterance_id']}", 1)) from None


def audio_bytes(row: Row) -> int:
    """Returns the size of an utterance's file, a rough measure of its length; 0 if the file is missing."""
    audio = row["audio"]
    try:
        return len(audio["bytes"]) if audio["bytes"] is not None else os.stat(audio["path"]).st_size
    except (OSError, TypeError):  # a missing file, or no path
        return 0
