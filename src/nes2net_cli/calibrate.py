"""`nes2net calibrate`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from .console import as_utf8, be_quiet, ending, say
from .options import Corpus, OnlySplit, Revision, Root, Where, wanted


def calibrate(
    model: Annotated[
        str, typer.Argument(help="Model folder; its config.json stores the calibration. With --out, any model.")
    ],
    corpus: Corpus,
    root: Root,
    split: OnlySplit = None,
    where: Where = None,
    prior: Annotated[float, typer.Option(help="Prior probability of spoofing that weights the fit.")] = 0.5,
    undecided: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Also store an accepted share of errors, such as 0.05; nes2net detect calls other scores undecided.",
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="FILE.parquet", help="File for the scores.", show_default="a file in this folder"),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write a calibrated copy to this folder; the model stays as it is.")
    ] = None,
    revision: Revision = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances per batch.")] = 16,
) -> int:
    """
    Turn a model's scores into log-likelihood ratios, so that nes2net detect can give probabilities. Use dev data, not
    eval data.

    Exit codes:
      0    the model was calibrated
      1    the scores cannot be calibrated, or the disk is full
      2    an option, the model, the corpus or an output is wrong
      130  interrupted
    """
    interrupted = "Interrupted: the scores so far are kept; run the same command to continue."
    with ExitStack() as stack, ending(interrupted, extra="eval") as end:
        from nes2net_hf.errors import UsageError
        from nes2net_hf.evaluation.calibrate import calibrate as fit
        from nes2net_hf.evaluation.calibrate import store_calibration
        from nes2net_hf.evaluation.survey import survey
        from nes2net_hf.files import claim

        be_quiet()
        as_utf8(sys.stdout)
        folder = out or Path(model)
        if out is not None and out.exists():
            raise UsageError(f"--out {out} exists: choose a new folder.")
        if out is None and not (folder / "config.json").is_file():
            raise UsageError(f"{model} is not a model folder: name a folder for the calibrated copy with --out.")
        stack.enter_context(claim(folder / "config.json") if out is None else claim(folder, "folder"))
        fitted = fit(
            model,
            scores or Path(f"{Path(model).name.replace(':', '-')}-{corpus}-calibration.parquet"),
            corpus=corpus,
            root=root,
            split=split,
            where=wanted(where),
            prior=prior,
            undecided=undecided,
            revision=revision,
            batch_size=batch_size,
        )
        known = survey(model, corpus=corpus, root=root, split=split, where=wanted(where), revision=revision)
        store_calibration(fitted, folder, None if out is None else model, revision, known)
        if known.familiarity is None:
            say("Too few recordings to tell others that are unlike them: nes2net detect will not warn about such.")
        measured = fitted.provenance
        print(
            f"llr = {fitted.scale:.6g} * score + {fitted.offset:.6g}, weighted for a prior probability of spoofing of "
            f"{fitted.prior:g}"
        )
        print(
            f"Cllr on held-out trials (two halves by {measured['halves_by']}, each calibrated on the other): "
            f"{measured['cllr_before']:.4f} bits before, {measured['cllr_after']:.4f} after; the lowest possible is "
            f"{measured['min_cllr']:.4f}"
        )
        if undecided is not None:
            print(
                f"accepted share of errors {undecided:g}: of held-out trials, {measured['undecided']:.1%} are "
                "undecided; "
                f"{measured['bonafide_as_spoof']:.1%} of bona fide are called spoof, "
                f"{measured['spoof_as_bonafide']:.1%} of spoofed bona fide; of the decided, "
                f"{measured['errors_if_decided']:.1%} are wrong"
            )
        print(f"stored in {folder / 'config.json'}; the threshold is {fitted.score(0.0):.6g}, where the llr is 0")
    return end.code
