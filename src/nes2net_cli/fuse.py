"""`nes2net fuse`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .console import as_utf8, ending


def fuse(
    scores: Annotated[list[Path], typer.Argument(metavar="SCORES...", help="One score file per system.")],
    keys: Annotated[
        Path | None, typer.Option(help="Fit on these trials: a protocol, or lines `utterance_id label`.")
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="Benchmark that --keys belongs to: asvspoof2019-la, …")] = None,
    split: Annotated[str | None, typer.Option(help="Partition of --keys, if its file name does not tell.")] = None,
    prior: Annotated[float, typer.Option(help="Prior probability of spoofing that the fit is weighted to.")] = 0.5,
    apply: Annotated[
        Path | None, typer.Option(metavar="WEIGHTS.json", help="Fuse by these fitted weights, in their order.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write: the weights, or with --apply the fused scores.")
    ] = None,
) -> int:
    """
    Fuse the scores of several systems by linear logistic regression.

    Exit codes: 0 fused; 1 the scores cannot be fused, or the disk is full; 2 an option or the output is wrong; 130
    interrupted.
    """
    with ending(extra="eval") as end:
        from nes2net_hf.errors import UsageError
        from nes2net_hf.evaluation import fusion, read_keys
        from nes2net_hf.files import check_suffix, claim

        as_utf8(sys.stdout)
        if len(scores) < 2:
            raise UsageError("a fusion needs the scores of two systems or more.")
        if (keys is None) == (apply is None):
            raise UsageError("give --keys to fit the weights on, or --apply with fitted weights.")
        if out is None:
            raise UsageError("name the file to write by --out: the weights (JSON), or with --apply the scores (text).")
        check_suffix(out, ".json" if apply is None else ".txt")
        with claim(out):
            if keys is not None:
                fitted = fusion.fit(scores, read_keys(keys, benchmark, split), out, prior)
                for path, weight, rate in zip(scores, fitted.fusion.weights, fitted.rates, strict=True):
                    print(f"{path}: weight {weight:.6g}, EER {100 * rate:.2f} %")
                print(
                    f"fused, on the trials of the fit: EER {100 * fitted.rate:.2f} %, Cllr {fitted.cllr:.4f} bits; "
                    f"weights in {out}"
                )
            if apply is not None:
                print(f"{out}: {fusion.apply(scores, apply, out)} fused scores, as log-likelihood ratios")
    return end.code
