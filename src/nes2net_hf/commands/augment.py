"""`nes2net augment`."""

from __future__ import annotations

import io
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import soundfile

from ..audio import SAMPLING_RATE, read_audio
from ..files import atomic_file, check_suffix, claim
from .common import UsageError, ending, need_matplotlib, say


def run_augment(source: str, out: Path, recipe: Path, seed: int, plot: Path | None) -> int:
    """Augments one recording and writes it; returns the exit code."""
    with ExitStack() as stack, ending(extra="train") as end:
        from ..augmentation import build_chain
        from ..trainer.recipe import load_recipe

        if out.suffix.lower() not in {".wav", ".flac"}:
            raise UsageError(f"OUT {out} must end in .wav or .flac.")
        if plot is not None:
            check_suffix(plot, ".png")
            need_matplotlib()
            stack.enter_context(claim(plot))
        stack.enter_context(claim(out))
        chain = build_chain(load_recipe(recipe).data.augmentation)
        before = read_audio(source)
        after = chain(before, np.random.default_rng(seed))
        sound = io.BytesIO()  # libsndfile does not say why it cannot write a file
        soundfile.write(sound, np.clip(after, -1.0, 1.0), SAMPLING_RATE, format=out.suffix[1:].upper())
        with atomic_file(out, "wb") as file:
            file.write(sound.getbuffer())
        if plot is not None:
            from ..augmentation.plot import plot_spectrograms

            plot_spectrograms(before, after, plot)
        peak = float(np.abs(after).max())
        say(f"{out}: {after.size / SAMPLING_RATE:.2f} s, from {before.size / SAMPLING_RATE:.2f} s")
        if peak > 1:
            say(f"note: it peaks at {peak:.2f} and was clipped in the file; training does not clip it")
    return end.code
