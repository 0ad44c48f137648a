"""`nes2net convert`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ..files import check_suffix, claim
from .common import UsageError, as_utf8, be_quiet, ending


@dataclass
class ConvertOptions:
    """What `nes2net convert` was asked for."""

    source: str
    out: Path | None
    revision: str | None
    encoder_config: Path | None
    activation: str | None
    dilation: int | None
    dry_run: bool
    force: bool
    verify: Path | None
    back: bool
    original: Path | None


def run_convert(options: ConvertOptions) -> int:
    """Converts and says what was found; returns the exit code."""
    be_quiet()
    as_utf8(sys.stdout)
    with ExitStack() as stack, ending("Interrupted: nothing was written.") as end:
        from ..conversion import convert, to_official

        _check_conversion(options)
        if options.out is not None and options.back:
            check_suffix(options.out, ".pth", ".pt", ".ckpt", ".bin")
        if options.out is not None and not options.dry_run:
            stack.enter_context(claim(options.out, "file" if options.back else "folder"))
        if options.back:
            assert options.out is not None
            to_official(options.source, options.out, original=options.original, force=options.force, report=print)
        else:
            convert(
                options.source,
                None if options.dry_run else options.out,
                revision=options.revision,
                encoder_config=options.encoder_config,
                activation=options.activation,
                dilation=options.dilation,
                force=options.force,
                verify=options.verify,
                report=print,
            )
    return end.code


def _check_conversion(options: ConvertOptions) -> None:
    forward = (options.revision, options.encoder_config, options.activation, options.dilation, options.verify)
    if options.back and (options.dry_run or any(value is not None for value in forward)):
        raise UsageError("--to-official goes with --from and --force only.")
    if options.original is not None and not options.back:
        raise UsageError("--from is for --to-official.")
    if options.out is None and not options.dry_run:
        raise UsageError("name OUT, what to write, or ask for a --dry-run.")
    if options.dry_run and options.verify is not None:
        raise UsageError("--verify needs a written folder: leave --dry-run away.")
