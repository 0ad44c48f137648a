"""Cut audio into the windows that a model judges, and compute the envelope that figures draw."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from .reading import SAMPLING_RATE


def iter_windows(
    blocks: Iterable[np.ndarray], window_length: int, hop: int | None = None
) -> Iterator[tuple[int, np.ndarray]]:
    """
    Cuts blocks (C, S) into windows (C, window_length), lazily; yields each window with its start in samples.

    Windows start every `hop` samples (by default without overlap) and cover the whole recording: the last one ends
    exactly at its end. A recording shorter than a window gives one short window.
    """
    hop = window_length if hop is None else hop
    if not 1 <= hop <= window_length:
        raise ValueError(f"hop must be between 1 and the window of {window_length} samples, got {hop}.")
    held: np.ndarray | None = None  # samples from `offset` on
    offset = start = 0
    for block in blocks:
        held = block if held is None else np.concatenate([held, block], axis=1)
        while start + window_length <= offset + held.shape[1]:
            yield start, held[:, start - offset : start - offset + window_length].copy()
            start += hop
        # The last window may start up to one window before the end.
        dispensable = min(start - offset, held.shape[1] - window_length)
        if dispensable > 0:
            held, offset = held[:, dispensable:].copy(), offset + dispensable
    if held is None or held.shape[1] == 0:
        return
    end = offset + held.shape[1]
    if end < window_length:
        yield 0, held
    elif start - hop + window_length < end:
        yield end - window_length, held[:, -window_length:].copy()


def envelope(blocks: Iterable[np.ndarray], bins: int = 3000) -> tuple[np.ndarray, np.ndarray, float]:
    """
    Returns the lowest and highest sample of up to `bins` equal stretches. Keeps 100 values per second in memory.

    Args:
        blocks: float32 (C, S) at 16 kHz.

    Returns:
        Lowest (C, N), highest (C, N), and the length of a stretch in seconds.
    """
    stretch = SAMPLING_RATE // 100
    parts = [(part.min(axis=2), part.max(axis=2)) for part in _stretches(blocks, stretch)]
    low, high = (np.concatenate(values, axis=1) for values in zip(*parts, strict=True))
    group = -(-low.shape[1] // bins)
    padding = ((0, 0), (0, -low.shape[1] % group))
    low, high = (np.pad(values, padding, mode="edge").reshape(len(values), -1, group) for values in (low, high))
    return low.min(axis=2), high.max(axis=2), group * stretch / SAMPLING_RATE


def _stretches(blocks: Iterable[np.ndarray], length: int) -> Iterator[np.ndarray]:
    """Regroups blocks (C, S) into (C, N, length); pads the last stretch with its last sample."""
    rest: np.ndarray | None = None
    for block in blocks:
        rest = block if rest is None else np.concatenate([rest, block], axis=1)
        whole = rest.shape[1] - rest.shape[1] % length
        if whole:
            yield rest[:, :whole].reshape(len(rest), -1, length)
            rest = rest[:, whole:].copy()
    if rest is not None and rest.shape[1]:
        yield np.pad(rest, ((0, 0), (0, length - rest.shape[1])), mode="edge")[:, None]
