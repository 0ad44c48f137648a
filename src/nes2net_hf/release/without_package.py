"""
Scores waveforms with a released folder alone, where this package cannot be imported. Prints a JSON object, name →
score.

    python without_package.py FOLDER SAMPLES.npz
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioFrameClassification, pipeline

sys.modules["nes2net_hf"] = None  # type: ignore[assignment]
folder, samples = sys.argv[1:]
waveforms = np.load(samples, allow_pickle=False)
architectures = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))["architectures"]
scores = {}
if architectures == ["Nes2NetForAudioFrameClassification"]:
    extractor = AutoFeatureExtractor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForAudioFrameClassification.from_pretrained(folder, trust_remote_code=True, dtype="auto")
    for name, waveform in waveforms.items():
        features = extractor(waveform, sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            scores[name] = float(model.score(model(**features).logits).min())
else:
    classify: Any = pipeline("audio-classification", model=folder, trust_remote_code=True, device="cpu")
    for name, waveform in waveforms.items():
        logits = {row["label"]: row["score"] for row in classify(waveform, function_to_apply="none", top_k=None)}
        ordered = torch.tensor([logits[label] for _, label in sorted(classify.model.config.id2label.items())])
        scores[name] = float(classify.model.score(ordered))
print(json.dumps(scores))
