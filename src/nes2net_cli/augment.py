"""`nes2net augment`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from .console import ending, need, say


def augment(
    source: Annotated[str, typer.Argument(metavar="IN", help="Recording, or - for standard input.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File to write, .wav or .flac (16 kHz mono).")],
    recipe: Annotated[Path, typer.Option(help="Training recipe whose data.augmentation is applied.")],
    seed: Annotated[int, typer.Option(help="Random seed: the same seed gives the same audio.")] = 0,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.png", help="Also draw the spectrograms before and after.")
    ] = None,
) -> int:
    """
    Apply a recipe's augmentation to a recording, to hear what training hears.

    Exit codes:
      0    the file was written
      1    IN cannot be read, or the disk is full
      2    an option, the recipe or an output is wrong
      130  interrupted
    """
    with ExitStack() as stack, ending(extra="train") as end:
        import io

        import numpy as np
        import soundfile

        from nes2net_hf.audio import SAMPLING_RATE, read_audio
        from nes2net_hf.augmentation import build_chain
        from nes2net_hf.errors import UsageError
        from nes2net_hf.files import atomic_file, check_suffix, claim
        from nes2net_hf.trainer.recipe import load_recipe

        if out.suffix.lower() not in {".wav", ".flac"}:
            raise UsageError(f"OUT {out} must end in .wav or .flac.")
        if plot is not None:
            check_suffix(plot, ".png")
            need("matplotlib", "plot", "--plot")
            stack.enter_context(claim(plot))
        stack.enter_context(claim(out))
        chain = build_chain(load_recipe(recipe).data.augmentation)
        before = read_audio(source)
        after = chain(before, np.random.default_rng(seed))
        sound = io.BytesIO()  # in memory: libsndfile does not say why it cannot write a file
        soundfile.write(sound, np.clip(after, -1.0, 1.0), SAMPLING_RATE, format=out.suffix[1:].upper())
        with atomic_file(out, "wb") as file:
            file.write(sound.getbuffer())
        if plot is not None:
            from nes2net_hf.augmentation.plot import plot_spectrograms

            plot_spectrograms(before, after, plot)
        peak = float(np.abs(after).max())
        say(f"{out}: {after.size / SAMPLING_RATE:.2f} s, from {before.size / SAMPLING_RATE:.2f} s")
        if peak > 1:
            say(f"note: the audio peaks at {peak:.2f} and was clipped in the file; training does not clip it")
    return end.code
