"""Checkpoints and models of a run. Each is written under a temporary name and then renamed, so none is incomplete."""

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
    Calls `write` on a new folder, which then replaces `folder`.

    Raises:
        OutputError, DiskError: the disk is full or not writable. The old folder is kept.
    """
    with explained(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as fresh:
        write(fresh)


def _replace(folder: Path, fresh: Path) -> None:
    """Moves `fresh` to `folder`, then removes the old content of `folder`."""
    old = folder.with_name(folder.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def save_state(accelerator: Accelerator, folder: Path, state: dict[str, Any]) -> None:
    """
    Saves all that the run needs to continue from this step: weights, optimiser, schedule, scaler and random states
    (through accelerate), and `state` as JSON. All processes call it.

    Raises:
        OutputError, DiskError: see `write_folder`.
    """
    fresh = folder.with_name(folder.name + ".part")  # not a random name: all processes must use the same
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
    """Returns a run's complete checkpoints, oldest first."""
    return sorted(path for path in (output / "checkpoints").glob("step-*[0-9]") if (path / STATE).is_file())


def load_state(accelerator: Accelerator, folder: Path) -> dict[str, Any]:
    """Restores a checkpoint and returns its `state`."""
    accelerator.load_state(str(folder))
    return json.loads((folder / STATE).read_text(encoding="utf-8"))


def forget(folders: list[Path], keep: int) -> None:
    """Removes all folders except the last `keep`."""
    for folder in folders[: max(0, len(folders) - keep)]:
        shutil.rmtree(folder, ignore_errors=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copies a folder with hard links where the file system allows, so that weights take up space only once."""

    def link(path: str, copy: str) -> None:
        try:
            os.link(path, copy)
        except OSError:
            shutil.copy2(path, copy)

    write_folder(target, lambda folder: shutil.copytree(source, folder, copy_function=link, dirs_exist_ok=True))
