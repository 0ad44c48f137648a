"""Where nes2net_hf is absent: a pipeline from the folder alone gives the scores that the package gave before."""

import importlib.util
import json
import sys
from pathlib import Path

import soundfile
from transformers import pipeline

folder, samples = sys.argv[1:]
assert importlib.util.find_spec("nes2net_hf") is None, "nes2net_hf is still installed"
with_package = {}
for line in Path("/tmp/nes2net-with-package.jsonl").read_text(encoding="utf-8").splitlines():
    result = json.loads(line)
    with_package[Path(result["file"]).name] = result["windows"][0]["score"]
classify = pipeline("audio-classification", model=folder, trust_remote_code=True)
for path in sorted(Path(samples).glob("*.flac")):
    waveform, rate = soundfile.read(path, dtype="float32")
    logits = {row["label"]: row["score"] for row in classify(waveform, function_to_apply="none")}
    difference = logits["bonafide"] - logits["spoof"] - with_package[path.name]
    print(f"{path.name}: first window {with_package[path.name]:.6f} with the package, difference {difference:.1e}")
    assert rate == 16_000 and abs(difference) < 1e-4
