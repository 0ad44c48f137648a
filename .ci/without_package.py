"""Where nes2net_hf is not installed, folders alone give the scores that the package gave before."""

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

package = Path(sys.argv[1])
assert importlib.util.find_spec("nes2net_hf") is None, "nes2net_hf is still installed"
script = (package / "release" / "without_package.py").read_text(encoding="utf-8")  # what a release is tried with
waveforms = {path.name: soundfile.read(path, dtype="float32")[0] for path in (package / "samples").glob("*.flac")}
with tempfile.NamedTemporaryFile(suffix=".npz") as samples:
    np.savez(samples.name, **waveforms)
    for folder, results in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
        before = {}
        for line in Path(results).read_text(encoding="utf-8").splitlines():
            result = json.loads(line)
            before[Path(result["file"]).name] = result["windows"][0]["score"]
        command = [sys.executable, "-c", script, folder, samples.name]
        said = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
        scores = json.loads(said.splitlines()[-1])
        assert scores.keys() == before.keys() and len(scores) == 2
        for name, score in scores.items():
            difference = score - before[name]
            print(f"{folder}, {name}: {score:.6f}, difference to the package {difference:.1e}")
            assert abs(difference) < 1e-4
