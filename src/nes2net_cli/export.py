"""`nes2net export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from .console import as_utf8, be_quiet, ending
from .options import ModelArgument, Revision


def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write.")],
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Store linear layers in 8 bits: the graph is smaller, and its scores differ."),
    ] = False,
    revision: Revision = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if an earlier export wrote it.")] = False,
) -> int:
    """
    Export a model to ONNX, for nes2net detect --backend onnx. The scores are checked against PyTorch's.

    Exit codes:
      0    the model was exported
      1    the model cannot be exported, or the disk is full
      2    an option, the model or OUT is wrong
      130  interrupted
    """
    with ending("Interrupted: nothing was written.", extra="onnx") as end:
        import onnx  # noqa: F401 - report a missing package before loading a model
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401

        from nes2net_hf.pretrained.export import export as export_model

        be_quiet()
        as_utf8(sys.stdout)
        export_model(model, out, int8=int8, revision=revision, force=force, report=print)
    return end.code
