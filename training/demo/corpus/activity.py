"""One silence policy for both classes: finds speech, shortens pauses and cuts utterances."""

from __future__ import annotations

import numpy as np

from nes2net_hf.audio.cues import FRAME, frame_levels

from .audio import SAMPLE_RATE

SHORTEST_PAUSE = 6  # frames; a shorter dip in level counts as speech
PAUSE_SECONDS = (0.06, 0.22)  # range of the length that a longer pause is cut to
PAUSE_GAIN_DB = -30.0  # turns pauses down, so that noise added later is the floor of both classes


def active_frames(wave: np.ndarray) -> np.ndarray:
    """
    Returns which 10 ms frames of (S,) have speech: (S // 160,) bool.

    Speech is less than 35 dB below the loud frames (95th percentile), or more than 6 dB above the recording's noise
    floor if that is higher. Dips shorter than 60 ms count as speech.
    """
    levels = frame_levels(wave)
    if levels.size == 0:
        return np.zeros(0, dtype=bool)
    loud, floor = np.percentile(levels, 95), np.percentile(levels, 5)
    active = levels > min(max(loud - 35.0, floor + 6.0), loud - 15.0)
    for start, stop in runs(~active):
        if start > 0 and stop < active.size and stop - start < SHORTEST_PAUSE:
            active[start:stop] = True
    return active


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Returns the runs [start, stop) of consecutive True in `mask` (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def speech_only(wave: np.ndarray) -> np.ndarray:
    """Joins the active frames of (S,), for measuring spectra and levels, not for listening."""
    active = active_frames(wave)
    return wave[: active.size * FRAME].reshape(-1, FRAME)[active].ravel()


def trim(wave: np.ndarray) -> np.ndarray:
    """Removes the silence before the first and after the last active frame of (S,)."""
    stretches = runs(active_frames(wave))
    return wave[stretches[0][0] * FRAME : stretches[-1][1] * FRAME] if stretches else wave[:0]


def shorten_pauses(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Trims (S,), turns its pauses down with 5 ms ramps, and cuts each pause to a length drawn for it."""
    wave = trim(wave)
    active = active_frames(wave)
    gain = np.repeat(np.where(active, 1.0, 10 ** (PAUSE_GAIN_DB / 20)), FRAME)
    ramp = np.ones(FRAME // 2) / (FRAME // 2)
    wave = (
        wave[: gain.size]
        * np.convolve(np.pad(gain, FRAME // 4, mode="edge"), ramp, mode="same")[FRAME // 4 : FRAME // 4 + gain.size]
    )
    pieces, position = [], 0
    for start, stop in runs(~active):
        keep = round(rng.uniform(*PAUSE_SECONDS) * SAMPLE_RATE)
        if (stop - start) * FRAME > keep:
            pieces.append(wave[position : start * FRAME + keep // 2])
            position = stop * FRAME - (keep - keep // 2)
    pieces.append(wave[position:])
    return np.concatenate(pieces).astype(np.float32)


def cut(wave: np.ndarray, seconds: float) -> np.ndarray:
    """Cuts (S,) to at most `seconds`: at the last pause in the last third, or else with a 10 ms fade-out."""
    limit = round(seconds * SAMPLE_RATE)
    if wave.size <= limit:
        return wave
    pauses = [start for start, _ in runs(~active_frames(wave[:limit])) if start * FRAME > 2 * limit // 3]
    if pauses:
        return wave[: pauses[-1] * FRAME]
    piece = wave[:limit].copy()
    piece[-FRAME:] *= np.linspace(1.0, 0.0, FRAME, dtype=np.float32)
    return piece
