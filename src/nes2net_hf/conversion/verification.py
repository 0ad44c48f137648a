"""Verify that a written folder, loaded in a fresh process, gives the same logits as the model in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from ..audio import SAMPLING_RATE, AudioError, read_audio
from ..errors import ConversionError

TOLERANCE = 1e-5  # relative to the largest logit, or to 1 if that is smaller


def verify_folder(model: Any, extractor: Any, folder: Path, audio: Path) -> str:
    """
    Compares the model in memory with the folder in a fresh process; returns a line with the logits and the difference.

    Raises:
        ConversionError: the recording or the folder cannot be read, or the folder gives other logits.
    """
    expected = _logits(model, extractor, audio)
    command = [sys.executable, "-m", __name__, str(folder), str(audio)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConversionError(
            f"the written folder could not be loaded in a fresh process ({reason}); nothing was kept."
        )
    actual = json.loads(answer.stdout.splitlines()[-1])
    difference = max(abs(a - b) for a, b in zip(actual, expected, strict=True))
    if not difference <= TOLERANCE * max(1.0, *map(abs, expected)):
        raise ConversionError(
            f"the written folder gives the logits {actual} for {audio}, but the model in memory gives {expected}; "
            "nothing was kept."
        )
    logits = ", ".join(f"{logit:.6f}" for logit in expected)
    return f"verified  {audio}: logits {logits}; a fresh process differs by {difference:.1e}"


def _logits(model: Any, extractor: Any, audio: Path) -> list[float]:
    """Returns the logits (spoof, bona fide) of a recording."""
    try:
        waveform = read_audio(audio)
    except AudioError as error:
        raise ConversionError(f"--verify: {error}") from None
    inputs = extractor(waveform, sampling_rate=SAMPLING_RATE, return_tensors="pt")
    with torch.inference_mode():
        return model(inputs["input_values"]).logits[0].tolist()


if __name__ == "__main__":
    from ..feature_extraction_nes2net import Nes2NetFeatureExtractor
    from ..modeling_nes2net import Nes2NetForAudioClassification

    folder, recording = sys.argv[1:]
    loaded = Nes2NetForAudioClassification.from_pretrained(folder, dtype=torch.float32).eval()
    print(json.dumps(_logits(loaded, Nes2NetFeatureExtractor.from_pretrained(folder), Path(recording))))
