"""Tests a released folder: in a process without this package, it must score the samples as its source does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ..samples import BONAFIDE, SPOOF
from ..scores import judges_frames, of_file
from .card import ReleaseError

SCRIPT = Path(__file__).with_name("without_package.py")
TOLERANCE = 1e-4  # between the scores of the source and those of the released folder


@dataclass(frozen=True)
class Tried:
    """The result of a trial: the score of each sample, and its difference from the score of the source."""

    scores: dict[str, float]
    differences: dict[str, float]


def score(network: Any, extractor: Any, waveform: np.ndarray, rate: int) -> float:
    features = extractor(waveform, sampling_rate=rate, return_tensors="pt")
    scores = network.score(network(**features).logits).flatten().tolist()
    return of_file(scores, judges_frames(network.config))


def samples() -> list[tuple[Path, np.ndarray, int]]:
    return [(path, *soundfile.read(path, dtype="float32")) for path in (BONAFIDE, SPOOF)]


def try_folder(folder: Path, expected: dict[str, float]) -> Tried:
    script = SCRIPT.read_text(encoding="utf-8")  # run as text, because our modules are next to its file
    with tempfile.TemporaryDirectory() as scratch:
        np.savez(Path(scratch, "samples.npz"), **{path.stem: waveform for path, waveform, _ in samples()})  # type: ignore[arg-type]
        command = [sys.executable, "-c", script, str(folder.resolve()), "samples.npz"]
        modules = {"HF_MODULES_CACHE": str(Path(scratch, "modules")), "HF_HUB_OFFLINE": "1"}
        answer = subprocess.run(
            command, cwd=scratch, env=os.environ | modules, capture_output=True, text=True, check=False
        )
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ReleaseError(f"the folder cannot be loaded without this package: {reason.rstrip('.')}.")
    scores = json.loads(answer.stdout.splitlines()[-1])
    differences = {name: abs(scores[name] - expected[name]) for name in expected}
    worst = max(differences, key=differences.__getitem__)
    if not differences[worst] <= TOLERANCE:
        raise ReleaseError(
            f"the folder scores the sample {worst} as {scores[worst]:.6f}, its source as {expected[worst]:.6f}: "
            "nothing was released; check the versions of torch and transformers."
        )
    return Tried(scores, differences)
