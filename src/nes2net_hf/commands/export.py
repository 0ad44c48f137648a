"""`nes2net export`."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from ..loading import ModelError
from .common import UsageError, as_utf8, be_quiet, say


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
    from ..exporting import ExportError, export

    be_quiet()
    as_utf8(sys.stdout)
    try:
        _need_onnx()
        export(
            options.model,
            options.out,
            int8=options.int8,
            revision=options.revision,
            force=options.force,
            report=print,
        )
        return 0
    except UsageError as error:
        say(f"Error: {error}")
        return 2
    except (ExportError, ModelError) as error:
        say(f"Error: {error}")
        return 1
    except KeyboardInterrupt:
        say("Interrupted: nothing was written.")
        return 130


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"{error.name} is not installed: pip install 'nes2net_hf[onnx]'.") from None
