"""
Finds out whether a recording has speech at all. A detector of spoofed speech also scores a tone or music, but such
scores mean nothing. Silero VAD (the package silero-vad, MIT) also finds sung and whispered speech.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..audio import MIN_DURATION, SAMPLING_RATE, holds_sound

CHUNK = 512  # samples (32 ms): Silero VAD gives a probability for each chunk
PROBABILITY = 0.5  # lowest probability of a chunk with speech
SHARE = 0.2
"""
The share of a window's sound that must be speech. In 16 rock tracks of Debian's packages fretsonfire-songs-* (54
minutes, 778 windows), 11 windows are taken for speech; 11 tracks have no such window, and 14 have none in their first
90 s. In sung and whispered speech, the share in the best window is 0.24 or more.
"""
FRAME = round(MIN_DURATION * SAMPLING_RATE)
_LOCK = threading.Lock()  # the model keeps state between calls


class SpeechFinder:
    """Loads Silero VAD once and tells which windows have speech."""

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        from silero_vad import load_silero_vad

        torch.set_num_threads(threads)  # the import sets torch to one thread
        self._model: Any = load_silero_vad()

    @torch.inference_mode()
    def holds_speech(self, windows: Sequence[np.ndarray]) -> list[bool]:
        """Returns for each window (S,), at 16 kHz and with sound, whether at least a fifth of its sound is speech."""
        length = -(-max(window.size for window in windows) // CHUNK) * CHUNK
        padded = np.stack([np.pad(window, (0, length - window.size)) for window in windows])
        peaks = np.abs(padded).max(axis=1, keepdims=True)
        loud = torch.from_numpy(padded * np.maximum(1, 0.3 / np.maximum(peaks, 1e-6)))  # quiet speech is speech
        with _LOCK:
            self._model.reset_states()
            chunks = [self._model(chunk, SAMPLING_RATE) > PROBABILITY for chunk in loud.split(CHUNK, dim=1)]
        speech = CHUNK * torch.cat(chunks, dim=1).sum(dim=1).numpy()
        frames = np.pad(padded, ((0, 0), (0, -length % FRAME))).reshape(len(padded), -1, FRAME)
        sound = FRAME * holds_sound(frames, axis=2).sum(axis=1)
        return (speech >= SHARE * sound).tolist()
