"""Finds the file that tells what a calibrated model is used to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from ..calibration import Calibration
from ..errors import ModelError
from ..familiarity import FILE, Familiarity
from ..hub import bounded_requests, why
from .cache import locate


def load_familiarity(
    model: str | os.PathLike[str], revision: str | None, calibration: Calibration
) -> Familiarity | None:
    """
    Returns what a model was calibrated on, or None if its calibration kept nothing.

    Raises:
        ModelError: the file is missing or damaged, or cannot be downloaded.
    """
    if not (calibration.population or {}).get("familiarity"):
        return None
    name, revision = locate(model, revision)
    path = Path(name, FILE)
    if not os.path.isdir(name):
        try:
            with bounded_requests():
                path = Path(hf_hub_download(name, FILE, revision=revision))
        except Exception as error:
            raise ModelError(f"model {name}: {FILE} could not be loaded: {why(error)}.") from None
    if not path.is_file():
        raise ModelError(f"model folder {name} has no {FILE}: copy it there, or run nes2net calibrate again.")
    return Familiarity.load(path)


def copy_familiarity(model: str | os.PathLike[str], revision: str | None, config: Any, folder: Path) -> None:
    """Writes the file of a model to another folder with the same weights, if it has one."""
    found = load_familiarity(model, revision, Calibration(**config.calibration)) if config.calibration else None
    if found is not None:
        found.save(folder)
