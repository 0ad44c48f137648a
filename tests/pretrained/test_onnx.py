"""`--backend onnx` needs neither torch nor transformers, and judges as PyTorch does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import weakref
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nes2net_hf import Detector, Nes2NetFeatureExtractor, samples
from nes2net_hf.pretrained.onnx import GRAPH, NOTE, GraphExtractor, load_onnx_model
from nes2net_hf.scores import frame_samples, judges_frames, of_logits
from tests.helpers import quick_model, tiny_config, tiny_graph

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")

KINDS = {0: "vocoder", 1: "bonafide", 2: "neural codec"}

# What a machine without them would do.
WITHOUT_TORCH = """
import sys
sys.modules |= dict.fromkeys(("torch", "transformers"))
from nes2net_cli import main
sys.argv[0] = "nes2net"
main()
"""


def changed(exported: Path, folder: Path, file: str, **fields: Any) -> Path:
    shutil.copytree(exported, folder)
    content = json.loads((exported / file).read_text()) | fields
    (folder / file).write_text(json.dumps(content))
    return folder


def test_a_machine_without_torch_and_transformers_judges_as_pytorch_does(
    nes2net: Any, model: Path, exported: Path
) -> None:
    arguments = ("detect", "--demo", "--format", "jsonl", "--model", exported, "--backend", "onnx")
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0 and run.stderr == ""
    rows = [json.loads(line) for line in run.stdout.splitlines()]
    of_torch = nes2net("detect", "--demo", "--model", model, "--device", "cpu").rows
    for row, expected in zip(rows, of_torch, strict=True):
        close = {key: pytest.approx(expected[key], abs=2e-5) for key in ("score", "llr", "spoof_probability")}
        same = ("file", "label", "attack", "undecided", "threshold", "prior", "warnings", "error", "duration")
        assert {key: row[key] for key in (*same, *close)} == {**{key: expected[key] for key in same}, **close}
        assert row["dtype"] == "onnx" and row["llr"] == pytest.approx(2 * row["score"] + 0.5, abs=1e-4)


@pytest.mark.parametrize(("policy", "normalise"), product(("first", "whole"), (True, False)))
@pytest.mark.parametrize("length", [400, 5_000, 16_000, 20_000])
def test_windows_are_those_of_the_feature_extractor_to_the_bit(policy: str, normalise: bool, length: int) -> None:
    settings = {"length_policy": policy, "do_normalize": normalise, "window_length": 16_000}
    windows = list(0.1 * np.random.default_rng(0).standard_normal((3, length), np.float32) + np.float32(0.02))
    expected = Nes2NetFeatureExtractor(**settings)(windows, sampling_rate=16_000, return_tensors="np")["input_values"]
    found = GraphExtractor(**settings)(windows)["input_values"]
    assert found.dtype == expected.dtype == np.float32 and np.array_equal(found, expected)


def test_a_window_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="399 samples is too short: 400 are needed"):
        GraphExtractor()([np.zeros(399, np.float32)])


@pytest.mark.parametrize("labels", [{0: "spoof", 1: "bonafide"}, {0: "bonafide", 1: "spoof"}, KINDS])
@pytest.mark.parametrize("score", ["log_odds", "bonafide_logit"])
def test_scores_are_those_of_the_torch_models(labels: dict[int, str], score: str) -> None:
    import torch

    model = quick_model(id2label=labels, score=score)
    logits = np.random.default_rng(0).standard_normal((4, 5, len(labels)), np.float32)
    scores, log_odds = of_logits(logits, model.config)
    spoof, bonafide = model.two_classes(torch.from_numpy(logits)).unbind(-1)
    assert np.allclose(scores, model.score(torch.from_numpy(logits)).numpy(), rtol=0, atol=1e-6)
    assert np.allclose(log_odds, (bonafide - spoof).numpy(), rtol=0, atol=1e-6)


def test_threshold_and_calibration_are_those_of_the_folder(exported: Path, tmp_path: Path) -> None:
    calibration = {"scale": 3.0, "offset": 0.0, "prior": 0.5, "provenance": {"corpus": "own"}}
    folder = changed(exported, tmp_path / "new", "config.json", threshold=4.5, calibration=calibration)
    [[result]] = (Detector(folder, backend="onnx").stream(samples.SPOOF),)
    assert result.threshold == 4.5 and result.llr == pytest.approx(3 * result.score)


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        ("config.json", "threshold", "high"),
        ("config.json", "threshold", float("nan")),
        ("config.json", "calibration", {"scale": 1.0}),
        ("config.json", "calibration", {"scale": -1.0, "offset": 0.0, "prior": 0.5}),
        ("config.json", "calibration", [1, 2]),
        ("config.json", "calibration", {"scale": 1.0, "offset": 0.0, "prior": 7}),
        ("config.json", "threshold", 10**400),
        ("preprocessor_config.json", "window_length", 0),
        ("preprocessor_config.json", "window_length", 10**12),
        ("preprocessor_config.json", "window_length", True),
        ("preprocessor_config.json", "length_policy", ["first"]),
        ("preprocessor_config.json", "do_normalize", "yes"),
        ("preprocessor_config.json", "normalize_eps", 0),
        ("preprocessor_config.json", "normalize_eps", 1),
        ("preprocessor_config.json", "min_samples", 1.5),
        ("preprocessor_config.json", "sampling_rate", 8000),
    ],
)
def test_a_damaged_setting_is_named(
    nes2net: Any, exported: Path, tmp_path: Path, file: str, field: str, value: object
) -> None:
    folder = changed(exported, tmp_path / "out", file, **{field: value})
    run = nes2net("detect", "--demo", "--model", folder, "--backend", "onnx")
    assert run.code == 2 and run.err.count("\n") == 1
    assert f"model {folder} could not be loaded: {file}: {field} has an invalid value" in run.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"window_length": 100}, "window_length must be at least 400 samples"),
        ({"length_policy": "whole", "min_samples": 1}, "min_samples must be at least 400 samples"),
    ],
)
def test_windows_that_the_model_cannot_read_are_named(
    nes2net: Any, exported: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    folder = changed(exported, tmp_path / "out", "preprocessor_config.json", **change)
    run = nes2net("detect", "--demo", "--model", folder, "--backend", "onnx")
    assert run.code == 2 and f"model {folder}: preprocessor_config.json: {words}" in run.err


def test_another_model_is_refused(nes2net: Any, exported: Path, tmp_path: Path) -> None:
    folder = changed(exported, tmp_path / "out", "config.json", model_type="bert")
    run = nes2net("detect", "--demo", "--model", folder, "--backend", "onnx")
    assert run.code == 2 and f"model {folder} is not a Nes2Net model: its model_type is 'bert'" in run.err


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, None])
@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
def test_a_file_that_is_damaged_or_missing_is_named(
    nes2net: Any, exported: Path, tmp_path: Path, file: str, content: bytes | None
) -> None:
    shutil.copytree(exported, tmp_path / "out")
    (tmp_path / "out" / file).unlink() if content is None else (tmp_path / "out" / file).write_bytes(content)
    run = nes2net("detect", "--demo", "--model", tmp_path / "out", "--backend", "onnx")
    assert run.code == 2 and run.err.count("\n") == 1 and file in run.err


def test_a_graph_of_version_0_1_0_says_nothing_of_itself_and_still_judges(exported: Path, tmp_path: Path) -> None:
    shutil.copytree(exported, tmp_path / "old")
    graph = onnx.load(exported / GRAPH)
    del graph.metadata_props[:]
    onnx.save(graph, tmp_path / "old" / GRAPH)
    [[new], [old]] = (
        Detector(folder, backend="onnx").stream(samples.SPOOF) for folder in (exported, tmp_path / "old")
    )
    old.model = new.model
    assert old == new


def test_a_graph_tells_what_a_model_of_frames_needs(tmp_path: Path) -> None:
    config = tiny_config()
    config.architectures = ["Nes2NetForAudioFrameClassification"]
    config.encoder_config.conv_stride = [5, 2, 2, 2, 2, 2, 1]
    network, _ = load_onnx_model(tiny_graph(tmp_path, config))
    assert judges_frames(network.config) and frame_samples(network.config) == 160


@pytest.mark.parametrize(
    "change",
    [
        {"spoof_indices": [7]},
        {"frame_samples": 0},
        {"frame_samples": "long"},
        {"id2label": ["spoof", "bonafide"]},
        {"id2label": None},
        {"score": Ellipsis},  # missing
    ],
)
def test_a_graph_whose_note_is_wrong_is_named(nes2net: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    tiny_graph(tmp_path, tiny_config())
    graph = onnx.load(tmp_path / GRAPH)
    note = json.loads(graph.metadata_props[0].value) | change
    onnx.helper.set_model_props(graph, {NOTE: json.dumps({k: v for k, v in note.items() if v is not Ellipsis})})
    onnx.save(graph, tmp_path / GRAPH)
    run = nes2net("detect", "--demo", "--model", tmp_path, "--backend", "onnx")
    assert run.code == 2 and "its graph does not say what its numbers mean: export it again." in run.err


def test_a_graph_of_a_later_version_may_say_more(tmp_path: Path) -> None:
    tiny_graph(tmp_path, tiny_config())
    graph = onnx.load(tmp_path / GRAPH)
    note = json.loads(graph.metadata_props[0].value) | {"of a later version": 1}
    onnx.helper.set_model_props(graph, {NOTE: json.dumps(note)})
    onnx.save(graph, tmp_path / GRAPH)
    assert load_onnx_model(tmp_path)[0].config.frame_samples == 320


def test_a_detector_is_freed_at_once(exported: Path) -> None:
    """A program that loads one model after another must not wait for the garbage collector."""
    for options in ({"model": exported, "backend": "onnx"}, {"device": "cpu"}):
        detector = weakref.ref(Detector(**options))
        assert detector() is None


def test_infinite_logits_are_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    of_logits(np.full((2, 3), np.inf, np.float32), quick_model(id2label=KINDS).config)
    assert not recwarn
