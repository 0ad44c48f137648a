"""What a run keeps: states to resume from, and models. Each is written elsewhere and renamed, so none is half."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from ..files import atomic_folder, explained

STATE = "trainer.json"


def write_folder(folder: Path, write: Callable[[Path], Any]) -> None:
    """
    `write` fills a new folder beside `folder`; then the new one replaces it.

    Raises:
        OutputError, DiskError: the disk is full or not writable; what was there before stays.
    """
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as fresh:
        write(fresh)


def _replace(folder: Path, fresh: Path) -> None:
    """`fresh` becomes `folder`, whose former content is removed after that."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def save_state(accelerator: Accelerator, folder: Path, state: dict[str, Any]) -> None:
    """
    Saves everything that the run depends on at this step, on all processes: weights, optimiser, schedule, scaler and
    random states (by accelerate), and `state` as JSON.

    Raises:
        OutputError, DiskError: as `write_folder`.
    """
    fresh = folder.with_name(folder.name + ".part")  # a name that all processes know
    with explained(fresh):
        try:
            if accelerator.is_main_process:
                shutil.rmtree(fresh, ignore_errors=True)
                fresh.mkdir(parents=True)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(fresh))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                (fresh / STATE).write_text(json.dumps(state), encoding="utf-8")
                _replace(folder, fresh)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
    accelerator.wait_for_everyone()


def saved_states(output: Path) -> list[Path]:
    """Whole checkpoints of a run, the oldest first."""
    return sorted(path for path in (output / "checkpoints").glob("step-*[0-9]") if (path / STATE).is_file())


def load_state(accelerator: Accelerator, folder: Path) -> dict[str, Any]:
    """Restores a checkpoint and returns its `state`."""
    accelerator.load_state(str(folder))
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


def forget(folders: list[Path], keep: int) -> None:
    """Removes all but the last `keep`."""
    for folder in folders[: max(0, len(folders) - keep)]:
        shutil.rmtree(folder, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    """A copy that shares the files' content if the file system can, so that weights take their space once."""

    def link(path: str, copy: str) -> None:
        try:
            os.link(path, copy)
        except OSError:
            shutil.copy2(path, copy)

    write_folder(target, lambda folder: shutil.copytree(source, folder, copy_function=link, dirs_exist_ok=True))
