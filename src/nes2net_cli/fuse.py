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
        Path | None, typer.Option(help="Labels of the trials to fit on: a protocol, or lines `utterance_id label`.")
    ] = None,
    benchmark: Annotated[str | None, typer.Option(help="Benchmark that --keys belongs to: asvspoof2019-la, …")] = None,
    split: Annotated[str | None, typer.Option(help="Partition of --keys, if its file name does not show it.")] = None,
    prior: Annotated[float, typer.Option(help="Prior probability of spoofing that weights the fit.")] = 0.5,
    apply: Annotated[
        Path | None,
        typer.Option(metavar="WEIGHTS.json", help="Use these weights, fitted before. Name SCORES in the same order."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write: the weights (.json), or with --apply the fused scores (.txt).")
    ] = None,
) -> int:
    """
    Fuse the scores of several systems by linear logistic regression.

    Exit codes:
      0    the weights or fused scores were written
      1    the scores cannot be fused, or the disk is full
      2    an option or the output is wrong
      130  interrupted
    """
    with ending(extra="eval") as end:
        from nes2net_hf.errors import UsageError
        from nes2net_hf.evaluation import fusion, read_keys
        from nes2net_hf.files import check_suffix, claim

        as_utf8(sys.stdout)
        if len(scores) < 2:
            raise UsageError("fusion needs two score files or more, one per system.")
        if (keys is None) == (apply is None):
            raise UsageError("pass --keys to fit weights, or --apply to use fitted ones.")
        if out is None:
            raise UsageError(
                "--out is missing: name a file for the weights (.json), or with --apply for the scores (.txt)."
            )
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
