"""Where nes2net_hf is absent: a pipeline from the folder alone gives the scores that the package gave before."""

import importlib.util
import json
import sys
from pathlib import Path

import soundfile
import torch
from transformers import pipeline

samples = Path(sys.argv[1])
assert importlib.util.find_spec("nes2net_hf") is None, "nes2net_hf is still installed"
for folder, results in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
    with_package = {}
    for line in Path(results).read_text(encoding="utf-8").splitlines():
        result = json.loads(line)
        with_package[Path(result["file"]).name] = result["windows"][0]["score"]
    classify = pipeline("audio-classification", model=folder, trust_remote_code=True)
    for path in sorted(samples.glob("*.flac")):
        waveform, rate = soundfile.read(path, dtype="float32")
        logits = {row["label"]: row["score"] for row in classify(waveform, function_to_apply="none", top_k=None)}
        labels = classify.model.config.id2label
        score = float(classify.model.score(torch.tensor([logits[labels[index]] for index in sorted(labels)])))
        difference = score - with_package[path.name]
        print(f"{folder}, {path.name}: {score:.6f}, difference to the package {difference:.1e}")
        assert rate == 16_000 and abs(difference) < 1e-4
