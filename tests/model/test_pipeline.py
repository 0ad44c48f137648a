"""The pipeline of transformers gives the model's scores, with the package installed and without it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import pipeline

from nes2net_hf import Nes2NetFeatureExtractor, Nes2NetForAudioClassification

RATE = 16_000

# Makes `import nes2net_hf` fail as on a machine that lacks it, then scores with what the folder itself carries.
WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["nes2net_hf"] = None
import numpy as np
from transformers import pipeline
classify = pipeline("audio-classification", model=sys.argv[1], trust_remote_code=True)
assert type(classify.model).__module__.startswith("transformers_modules."), type(classify.model)
print(json.dumps(classify(np.load(sys.argv[2]), function_to_apply="none")))
"""


@pytest.fixture(scope="module")
def recording(speech: list[np.ndarray]) -> np.ndarray:
    """Four seconds of real speech at 16 kHz."""
    return np.resize(np.concatenate(speech[:2]), 4 * RATE)


@pytest.fixture(scope="module")
def expected(tiny_model_dir: Path, recording: np.ndarray) -> dict[str, float]:
    """Logits of the model class itself."""
    model = Nes2NetForAudioClassification.from_pretrained(tiny_model_dir)
    features = Nes2NetFeatureExtractor.from_pretrained(tiny_model_dir)(
        recording, sampling_rate=RATE, return_tensors="pt"
    )
    with torch.inference_mode():
        return dict(zip(("spoof", "bonafide"), model(**features).logits[0].tolist()))


def as_dict(answer: list[dict]) -> dict[str, float]:
    return {row["label"]: row["score"] for row in answer}


def test_pipeline_on_an_array_gives_the_logits(tiny_model_dir: Path, recording: np.ndarray, expected: dict) -> None:
    classify = pipeline("audio-classification", model=str(tiny_model_dir))
    assert isinstance(classify.model, Nes2NetForAudioClassification)
    assert as_dict(classify(recording, function_to_apply="none")) == pytest.approx(expected, abs=1e-6)
    probabilities = as_dict(classify(recording))
    assert probabilities["bonafide"] == pytest.approx(
        1 / (1 + np.exp(expected["spoof"] - expected["bonafide"])), abs=1e-6
    )


def test_pipeline_on_a_batch_of_arrays(tiny_model_dir: Path, recording: np.ndarray, expected: dict) -> None:
    classify = pipeline("audio-classification", model=str(tiny_model_dir))
    answers = classify([recording, recording[:9000], recording], batch_size=2, function_to_apply="none")
    assert as_dict(answers[0]) == pytest.approx(expected, abs=1e-5)
    assert as_dict(answers[2]) == pytest.approx(expected, abs=1e-5)
    assert as_dict(answers[1]) != pytest.approx(expected, abs=1e-5)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="transformers decodes paths and bytes with ffmpeg")
def test_pipeline_on_a_path_and_on_bytes(
    tiny_model_dir: Path, recording: np.ndarray, expected: dict, tmp_path: Path
) -> None:
    path = tmp_path / "recording.wav"
    soundfile.write(path, recording, RATE, subtype="FLOAT")
    classify = pipeline("audio-classification", model=str(tiny_model_dir))
    for audio in (str(path), path.read_bytes()):
        assert as_dict(classify(audio, function_to_apply="none")) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_pipeline_without_the_package(
    tiny_model_dir: Path, recording: np.ndarray, expected: dict, tmp_path: Path
) -> None:
    carried = {path.name for path in tiny_model_dir.glob("*.py")}
    assert carried == {"configuration_nes2net.py", "modeling_nes2net.py", "feature_extraction_nes2net.py"}
    np.save(tmp_path / "recording.npy", recording)
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, str(tiny_model_dir), str(tmp_path / "recording.npy")],
        env=os.environ | {"HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert as_dict(json.loads(answer.stdout.splitlines()[-1])) == pytest.approx(expected, abs=1e-6)


def test_every_class_is_named_in_the_saved_auto_maps(tiny_model_dir: Path) -> None:
    config = json.loads((tiny_model_dir / "config.json").read_text(encoding="utf-8"))
    extractor = json.loads((tiny_model_dir / "preprocessor_config.json").read_text(encoding="utf-8"))
    assert config["auto_map"] == {
        "AutoConfig": "configuration_nes2net.Nes2NetConfig",
        "AutoModel": "modeling_nes2net.Nes2NetModel",
        "AutoModelForAudioClassification": "modeling_nes2net.Nes2NetForAudioClassification",
    }
    assert extractor["auto_map"] == {"AutoFeatureExtractor": "feature_extraction_nes2net.Nes2NetFeatureExtractor"}
