"""The folder judges the bundled samples in a process without this package, and must score what its source does."""

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

from ..configuration_nes2net import Nes2NetConfig
from ..pretrained.load import judges_frames
from ..samples import BONAFIDE, SPOOF
from .card import ReleaseError

TOLERANCE = 1e-4  # between the scores of the source and those of the released folder


# In a process that cannot import this package: what the folder itself carries gives the scores.
_FROM_THE_FOLDER = """
import json, sys
sys.modules["nes2net_hf"] = None
import numpy as np, torch
from transformers import pipeline
folder, samples = sys.argv[1:]
classify = pipeline("audio-classification", model=folder, trust_remote_code=True, device="cpu")
scores = {}
for name, waveform in np.load(samples, allow_pickle=False).items():
    logits = {row["label"]: row["score"] for row in classify(waveform, function_to_apply="none", top_k=None)}
    ordered = torch.tensor([logits[label] for _, label in sorted(classify.model.config.id2label.items())])
    scores[name] = float(classify.model.score(ordered))
print(json.dumps(scores))
"""


_FRAMES_FROM_THE_FOLDER = """
import json, sys
sys.modules["nes2net_hf"] = None
import numpy as np, torch
from transformers import AutoFeatureExtractor, AutoModelForAudioFrameClassification
folder, samples = sys.argv[1:]
extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForAudioFrameClassification.from_pretrained(folder, trust_remote_code=True, dtype="auto")
scores = {}
for name, waveform in np.load(samples, allow_pickle=False).items():
    features = extractor(waveform, sampling_rate=16000, return_tensors="pt")
    with torch.inference_mode():
        scores[name] = float(model.score(model(**features).logits).min())
print(json.dumps(scores))
"""


@dataclass(frozen=True)
class Tried:
    """What the trial of a released folder found: of each sample the score, and its difference from the source's."""

    scores: dict[str, float]
    differences: dict[str, float]


def _score(network: Any, extractor: Any, waveform: np.ndarray, rate: int) -> float:
    features = extractor(waveform, sampling_rate=rate, return_tensors="pt")
    return float(network.score(network(**features).logits).min())


def _samples() -> list[tuple[Path, np.ndarray, int]]:
    return [(path, *soundfile.read(path, dtype="float32")) for path in (BONAFIDE, SPOOF)]


def _try(folder: Path, expected: dict[str, float]) -> Tried:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        np.savez(Path(scratch, "samples.npz"), **{path.stem: waveform for path, waveform, _ in _samples()})  # type: ignore[arg-type]
        script = _FRAMES_FROM_THE_FOLDER if judges_frames(Nes2NetConfig(**config)) else _FROM_THE_FOLDER
        command = [sys.executable, "-c", script, str(folder.resolve()), "samples.npz"]
        modules = {"HF_MODULES_CACHE": str(Path(scratch, "modules")), "HF_HUB_OFFLINE": "1"}
        answer = subprocess.run(
            command, cwd=scratch, env=os.environ | modules, capture_output=True, text=True, check=False
        )
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ReleaseError(f"the folder cannot be loaded where this package is not installed: {reason.rstrip('.')}.")
    scores = json.loads(answer.stdout.splitlines()[-1])
    differences = {name: abs(scores[name] - expected[name]) for name in expected}
    worst = max(differences, key=differences.__getitem__)
    if not differences[worst] <= TOLERANCE:
        raise ReleaseError(
            f"the folder scores the sample {worst} {scores[worst]:.6f}, its source {expected[worst]:.6f}: nothing was "
            "released; check the versions of torch and transformers."
        )
    return Tried(scores, differences)
