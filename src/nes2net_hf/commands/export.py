"""`nes2net export`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from .common import UsageError, as_utf8, be_quiet, ending


@dataclass
class ExportOptions:
    """What `nes2net export` was asked for."""

    model: str
    out: Path
    int8: bool
    revision: str | None
    force: bool


def run_export(options: ExportOptions) -> int:
    """Exports and says what was measured; returns the exit code."""
    be_quiet()
    as_utf8(sys.stdout)
    with ending("Interrupted: nothing was written.") as end:
        from ..pretrained.export import export

        _need_onnx()
        export(
            options.model,
            options.out,
            int8=options.int8,
            revision=options.revision,
            force=options.force,
            report=print,
        )
    return end.code


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'nes2net_hf[onnx]'.") from None
