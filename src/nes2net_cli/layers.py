"""`nes2net layers`."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from .console import as_utf8, be_quiet, ending
from .options import Corpus, Json, Revision, Root, Split, Where, wanted


def layers(
    model: Annotated[str, typer.Argument(help="Hub id or folder of a Nes2Net model or of an encoder.")],
    corpus: Corpus,
    root: Root,
    split: Split = None,
    where: Where = None,
    limit: Annotated[int, typer.Option(min=4, help="Utterances of each class.")] = 1000,
    revision: Revision = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Utterances per batch.")] = 16,
    as_json: Json = False,
) -> int:
    """
    Tell what each layer of an encoder separates: the EER of a linear probe on speakers that it was not trained on, and
    the weights that the model has learnt. To choose encoder_layers; use dev data.

    Exit codes:
      0    the layers were probed
      1    the corpus has too few utterances
      2    an option, the model or the corpus is wrong
      130  interrupted
    """
    with ending(extra="train") as end:
        from dataclasses import asdict

        from nes2net_hf.evaluation.layers import probe_layers

        be_quiet()
        as_utf8(sys.stdout)
        probed = probe_layers(
            model,
            corpus=corpus,
            root=root,
            split=split,
            where=wanted(where),
            limit=limit,
            revision=revision,
            batch_size=batch_size,
        )
        if as_json:
            print(json.dumps(asdict(probed)))
            return end.code
        print("layer   EER %   weight")
        for layer in probed.layers:
            weight = "" if layer.weight is None else f"{layer.weight:8.4f}"
            print(f"{layer.number:5}  {100 * layer.eer:6.2f} {weight}".rstrip())
        print(
            f"probes on {probed.bonafide:,} bona fide and {probed.spoof:,} spoofed utterances, in two halves by "
            f"{probed.halves_by}, each judged by the probe of the other"
            + (f"; {probed.unreadable:,} could not be read" if probed.unreadable else "")
        )
        best = sorted(probed.layers, key=lambda layer: layer.eer)[:4]
        print(f"lowest EER: layers {', '.join(str(number) for number in sorted(layer.number for layer in best))}")
    return end.code
