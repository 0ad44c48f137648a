"""
Full-size conversions: seconds, peak memory against the file, and whether the folder scores.

    python tests/benchmarks/convert.py [NAME …] [--legacy]

Builds a random checkpoint from each of the official key lists (`tests/fixtures/official_keys`, about 1.26 GB each),
converts it in a process of its own, loads the folder and scores the two bundled recordings, with the encoder as
transformers runs it and then with ours. Needs 3 GB of disk.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

KEYS = Path(__file__).parents[1] / "fixtures" / "official_keys"
SCORE = """
import json, sys, time, torch
from nes2net_hf import Nes2NetFeatureExtractor, Nes2NetForAudioClassification, samples
from nes2net_hf.audio import read_audio
from nes2net_hf.pretrained.fast import speed_up
start = time.perf_counter()
model = Nes2NetForAudioClassification.from_pretrained(sys.argv[1]).eval()
loaded = time.perf_counter() - start
extractor = Nes2NetFeatureExtractor.from_pretrained(sys.argv[1])
waves = [read_audio(path)[:64_600] for path in (samples.BONAFIDE, samples.SPOOF)]
inputs = extractor(waves, sampling_rate=16_000, return_tensors="pt")["input_values"]
with torch.inference_mode():
    before, features = model.score(model(inputs).logits), model.nes2net.encode(inputs)[0]
    speed_up(model)
    after, faster = model.score(model(inputs).logits), model.nes2net.encode(inputs)[0]
    moved = ((after - before).abs() / before.abs().clamp(min=1)).max().item()
    moved_features = ((faster - features).abs().max() / features.abs().max()).item()
print(json.dumps([loaded, before.tolist(), moved, moved_features]))
"""


def random_checkpoint(name: str, path: Path, legacy: bool) -> None:
    """Random weights under the official keys; batch norms' variances are positive, their means those behind ReLU."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for line in (KEYS / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        key, shape, dtype = line.split("\t")
        size = [int(part) for part in shape.strip("()").split(",") if part.strip()]
        if dtype == "int64":
            tensors[key] = torch.ones(size, dtype=torch.int64)
            continue
        scale = 0.5 if key.endswith("weight_g") else 0.02
        tensors[key] = torch.randn(size, generator=generator) * scale
        if "running" in key or ("norm" in key and key.endswith("weight")):
            tensors[key] = tensors[key].abs() + (0.0 if key.endswith("mean") else 1.0)
    torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="key lists; all eight if none")
    parser.add_argument("--legacy", action="store_true", help="in the form that torch wrote before 1.6")
    options = parser.parse_args()
    for name in options.names or sorted(path.stem for path in KEYS.glob("*.txt")):
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder, f"{name}.pth"), Path(folder, "out")
            random_checkpoint(name, source, options.legacy)
            size = source.stat().st_size
            command = [sys.executable, "-m", "nes2net_cli", "convert", str(source), str(out)]
            code = (
                "import resource, subprocess, sys\n"
                "code = subprocess.call(sys.argv[1:], stdout=sys.stderr)\n"
                "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
                "sys.exit(code)\n"
            )
            start = time.perf_counter()
            answer = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - start
            peak = int(answer.stdout.split()[-1]) * (1 if sys.platform == "darwin" else 1024)
            source.unlink()
            written = sum(file.stat().st_size for file in out.iterdir())
            scored = subprocess.run(
                [sys.executable, "-c", SCORE, str(out)], capture_output=True, text=True, check=True
            )
            load, scores, moved, moved_features = json.loads(scored.stdout.splitlines()[-1])
            print(
                f"{name}: file {size / 1e9:.2f} GB, folder {written / 1e9:.2f} GB, converted in {seconds:.1f} s, peak "
                f"{peak / 1e9:.2f} GB ({peak / size:.2f} of the file); loaded in {load:.1f} s; scores "
                f"{', '.join(f'{score:.5f}' for score in scores)}; the faster encoder moves scores by {moved:.1e} of "
                f"max(1, |score|), and features by {moved_features:.1e} of the largest",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
