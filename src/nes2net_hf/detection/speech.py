"""
Finds out whether a recording has speech at all. A detector of spoofed speech also scores a tone or music, but such
scores mean nothing. Silero VAD (the package silero-vad, MIT) also finds sung and whispered speech.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ..audio import MIN_DURATION, SAMPLING_RATE, holds_sound
from ..errors import ModelError

CHUNK = 512  # samples (32 ms): Silero VAD gives a probability for each chunk
PAST = 64  # samples before a chunk that it also reads
PROBABILITY = 0.5  # lowest probability of a chunk with speech
SHARE = 0.2
"""
The share of a window's sound that must be speech. In 16 rock tracks of Debian's packages fretsonfire-songs-* (54
minutes, 778 windows), 11 windows are taken for speech; 11 tracks have no such window, and 14 have none in their first
90 s. In sung and whispered speech, the share in the best window is 0.24 or more.
"""
FRAME = round(MIN_DURATION * SAMPLING_RATE)
_LOCK = threading.Lock()  # the model keeps state between calls

Probabilities = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Windows (B, S) of whole chunks → (B, chunks)."""


class SpeechFinder:
    """
    Loads Silero VAD once and tells which windows have speech.

    Args:
        backend: `"torch"`, or `"onnx"`, which does not import torch and needs onnxruntime.
    """

    def __init__(self, backend: str = "torch") -> None:
        self._probabilities = _graph() if backend == "onnx" else _network()

    def probabilities(self, waveform: np.ndarray) -> NDArray[np.float32]:
        """Returns the probability of speech in each chunk of a waveform (S,) at 16 kHz: (⌈S / 512⌉,)."""
        padded = np.pad(waveform, (0, -waveform.size % CHUNK))[None]
        loud = padded * max(1, 0.3 / max(float(np.abs(padded).max()), 1e-6))
        return self._probabilities(loud.astype(np.float32))[0]

    def holds_speech(self, windows: Sequence[np.ndarray]) -> list[bool]:
        """Returns for each window (S,), at 16 kHz and with sound, whether at least a fifth of its sound is speech."""
        length = -(-max(window.size for window in windows) // CHUNK) * CHUNK
        padded = np.stack([np.pad(window, (0, length - window.size)) for window in windows])
        peaks = np.abs(padded).max(axis=1, keepdims=True)
        loud = padded * np.maximum(1, 0.3 / np.maximum(peaks, 1e-6))  # quiet speech is speech
        speech = CHUNK * (self._probabilities(loud) > PROBABILITY).sum(axis=1)
        frames = np.pad(padded, ((0, 0), (0, -length % FRAME))).reshape(len(padded), -1, FRAME)
        sound = FRAME * holds_sound(frames, axis=2).sum(axis=1)
        return (speech >= SHARE * sound).tolist()


def _network() -> Probabilities:
    """Returns a function that computes the probability of speech in each chunk, with torch."""
    import torch

    threads = torch.get_num_threads()
    from silero_vad import load_silero_vad

    torch.set_num_threads(threads)  # the import sets torch to one thread
    model: Any = load_silero_vad()

    @torch.inference_mode()
    def probabilities(loud: NDArray[np.float32]) -> NDArray[np.float32]:
        with _LOCK:
            model.reset_states()
            chunks = [model(chunk, SAMPLING_RATE) for chunk in torch.from_numpy(loud).split(CHUNK, dim=1)]
        return torch.cat(chunks, dim=1).numpy()

    return probabilities


def _graph() -> Probabilities:
    """Returns the same function with onnxruntime. It reads the graph's file: the package would import torch."""
    import onnxruntime

    package = find_spec("silero_vad")
    path = Path((package and package.origin) or "").parent / "data" / "silero_vad_16k_sequence.onnx"
    if not path.is_file():
        raise ModelError("--backend onnx finds no speech detector: pip install silero-vad==6.2.3.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # as its authors run it; more are not faster
    session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    state = np.zeros((1, 1, 128), np.float32)

    def probabilities(loud: NDArray[np.float32]) -> NDArray[np.float32]:
        with_past = np.pad(loud, ((0, 0), (PAST, 0)))
        chunks = sliding_window_view(with_past, PAST + CHUNK, axis=1)[:, ::CHUNK]
        return np.stack(
            [session.run(["speech_probs"], {"input": rows, "h": state, "c": state})[0].ravel() for rows in chunks]
        )

    return probabilities
