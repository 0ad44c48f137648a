"""`nes2net augment`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from ..audio import SAMPLING_RATE, AudioError, read_audio
from .common import UsageError, need_matplotlib, need_train, say


def run_augment(source: str, out: Path, recipe: Path, seed: int, plot: Path | None) -> int:
    """Augments one recording and writes it; returns the exit code."""
    try:
        from ..augmentation import build_chain
        from ..training.recipe import RecipeError, load_recipe
    except ImportError as error:
        return need_train(error)
    try:
        if out.suffix.lower() not in {".wav", ".flac"}:
            raise UsageError(f"OUT {out} must end in .wav or .flac.")
        if plot is not None:
            need_matplotlib()
        chain = build_chain(load_recipe(recipe).data.augmentation)
        before = read_audio(source)
        after = chain(before, np.random.default_rng(seed))
        soundfile.write(out, np.clip(after, -1.0, 1.0), SAMPLING_RATE)
        if plot is not None:
            from ..plotting import plot_spectrograms

            plot_spectrograms(before, after, plot)
        peak = float(np.abs(after).max())
        say(f"{out}: {after.size / SAMPLING_RATE:.2f} s, from {before.size / SAMPLING_RATE:.2f} s")
        if peak > 1:
            say(f"note: it peaks at {peak:.2f} and was clipped in the file; training does not clip it")
        return 0
    except (UsageError, RecipeError) as error:
        say(f"Error: {error}")
        return 2
    except AudioError as error:
        say(f"Error: {error}")
        return 1
    except (OSError, soundfile.SoundFileError) as error:
        say(f"Error: {out} cannot be written ({error}).")
        return 1
