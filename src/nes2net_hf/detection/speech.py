"""
Whether a recording holds speech at all: a detector of spoofed speech gives a score to a tone or to music, too, and it
means nothing. Silero VAD (the package silero-vad, MIT) finds speech, sung and whispered speech included.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..audio import MIN_DURATION, SAMPLING_RATE, holds_sound

CHUNK = 512  # samples, 32 ms, that Silero VAD gives a probability of
PROBABILITY = 0.5  # from which a chunk is speech
SHARE = 0.2
"""
Of the sound in a window, how much must be speech. Of 16 rock tracks of Debian's packages fretsonfire-songs-*, 54
minutes in 778 windows, 11 have no such window, and 14 have none in their first 90 s; 11 windows are taken for speech.
Sung and whispered speech has 0.24 and more in its best window.
"""
FRAME = round(MIN_DURATION * SAMPLING_RATE)
_LOCK = threading.Lock()  # the model has a state


class SpeechFinder:
    """Says of windows whether they hold speech; it is loaded once."""

    def __init__(self) -> None:
        threads = torch.get_num_threads()
        from silero_vad import load_silero_vad

        torch.set_num_threads(threads)  # importing it leaves torch one thread
        self._model: Any = load_silero_vad()

    @torch.inference_mode()
    def holds_speech(self, windows: Sequence[np.ndarray]) -> list[bool]:
        """Of each window (S,) at 16 kHz, with sound in it, whether speech is at least a fifth of that sound."""
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
