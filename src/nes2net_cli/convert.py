"""`nes2net convert`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import as_utf8, be_quiet, ending
from .options import Revision


def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="IN", help="The authors' .pth, .pt or .safetensors file, or ORG/REPO:FILE on the Hub."),
    ],
    out: Annotated[Path | None, typer.Argument(metavar="OUT", help="Folder to write.")] = None,
    revision: Revision = None,
    encoder_config: Annotated[
        Path | None,
        typer.Option(help="Encoder configuration, file or folder.", show_default="that of the published encoder"),
    ] = None,
    activation: Annotated[
        Literal["relu", "selu"] | None,
        typer.Option(help="Activation of the back-end.", show_default="read from the batch norms"),
    ] = None,
    dilation: Annotated[
        int | None, typer.Option(min=1, help="Dilation of the back-end, in frames.", show_default="as published")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be written, but write nothing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    verify: Annotated[
        Path | None,
        typer.Option(
            "--verify", metavar="AUDIO", help="Load OUT in a new process and check its logits on this recording."
        ),
    ] = None,
    back: Annotated[
        bool, typer.Option("--to-official", help="Convert back: IN is a model folder, OUT an official .pth to write.")
    ] = False,
    original: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="ORIGINAL.pth",
            help="With --to-official: original checkpoint, which has the pre-training keys.",
        ),
    ] = None,
) -> int:
    """
    Convert the authors' checkpoint to a Hugging Face model folder, or back.

    Exit codes:
      0    the checkpoint was converted
      1    the checkpoint cannot be converted, or the disk is full
      2    an option, a model folder or OUT is wrong
      130  interrupted
    """
    with ExitStack() as stack, ending("Interrupted: nothing was written.") as end:
        from nes2net_hf.conversion import convert as convert_checkpoint
        from nes2net_hf.conversion import to_official
        from nes2net_hf.errors import UsageError
        from nes2net_hf.files import check_suffix, claim

        be_quiet()
        as_utf8(sys.stdout)
        forward = (revision, encoder_config, activation, dilation, verify)
        if back and (dry_run or any(value is not None for value in forward)):
            raise UsageError("--to-official accepts only --from and --force: omit the other options.")
        if original is not None and not back:
            raise UsageError("--from needs --to-official: add it, or omit --from.")
        if dry_run and verify is not None:
            raise UsageError("--verify needs a folder that was written: omit --dry-run.")
        if out is None and not dry_run:
            raise UsageError("OUT is missing: name the folder or file to write, or pass --dry-run.")
        if out is not None and back:
            check_suffix(out, ".pth", ".pt", ".ckpt", ".bin")
        if out is not None and not dry_run:
            stack.enter_context(claim(out, "file" if back else "folder"))
        if back:
            assert out is not None
            to_official(source, out, original=original, force=force, report=print)
        else:
            convert_checkpoint(
                source,
                None if dry_run else out,
                revision=revision,
                encoder_config=encoder_config,
                activation=activation,
                dilation=dilation,
                force=force,
                verify=verify,
                report=print,
            )
    return end.code
