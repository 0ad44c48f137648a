"""Reads the audio of a row, from a file or from bytes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..audio import AudioInfo, open_audio, read_audio
from ..errors import AudioError
from .corpus import Row


def read_utterance(row: Row) -> np.ndarray:
    """
    Returns the waveform (S,), float32 at 16 kHz.

    Raises:
        AudioError: the audio cannot be read. The message names the file, or the utterance if there are only bytes.
    """
    with _source(row) as source:
        return read_audio(source)


def describe_utterance(row: Row) -> AudioInfo:
    """
    Returns what the header of the audio says.

    Raises:
        AudioError: as in `read_utterance`.
    """
    with _source(row) as source, open_audio(source) as audio:
        return audio.info


@contextmanager
def _source(row: Row) -> Iterator[Any]:
    """Gives the path or the bytes of an utterance, and errors its name."""
    audio = row["audio"]
    if audio is None or audio["bytes"] is audio["path"] is None:  # a dataset may have gaps
        raise AudioError(f"utterance {row['utterance_id']} has no audio.")
    try:
        yield audio["path"] if audio["bytes"] is None else audio["bytes"]
    except AudioError as error:
        if audio["bytes"] is None:
            raise
        raise AudioError(str(error).replace("<bytes>", f"utterance {row['utterance_id']}", 1)) from None


def audio_bytes(row: Row) -> int:
    """Returns the size of an utterance's file, a rough measure of its length; 0 if the file is missing."""
    audio = row["audio"]
    try:
        return len(audio["bytes"]) if audio["bytes"] is not None else os.stat(audio["path"]).st_size
    except (OSError, TypeError):  # a missing file, or no path
        return 0
