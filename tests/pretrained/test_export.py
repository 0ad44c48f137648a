"""An exported graph scores like PyTorch at any length and batch size. A graph that differs is never kept."""

from __future__ import annotations

import json
import shutil
import sys
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from nes2net_hf import (
    Nes2NetForAudioFrameClassification,
)
from nes2net_hf.configuration_nes2net import BACKEND_VARIANTS, LAYER_AGGREGATIONS, POOLINGS
from nes2net_hf.detection import DetectionError, Detector
from nes2net_hf.pretrained import export as exporting
from nes2net_hf.pretrained.export import ExportError, export
from nes2net_hf.pretrained.load import ModelError, load_model
from nes2net_hf.pretrained.onnx import GRAPH, load_onnx_model
from nes2net_hf.scores import of_logits
from tests.helpers import ENCODER_TYPES, WINDOW, lively, quick_model, saved, tiny_config, tiny_model

pytest.importorskip("onnxruntime")


pytest.importorskip("onnxscript")


CPU = torch.device("cpu")


LENGTHS = (560, 3_999, 9_200, WINDOW, 40_001)


SETTINGS = (BACKEND_VARIANTS, LAYER_AGGREGATIONS, POOLINGS, ENCODER_TYPES[:2])


# A pairwise subset of the 32 combinations; `python -m tests.benchmarks.export --grid` runs all of them.
COVERING = (
    ("nes2net", "last", "mean", "wav2vec2"),
    ("nes2net_x", "last", "attentive_statistics", "wavlm"),
    ("nes2net", "weighted_sum", "mean", "wavlm"),
    ("nes2net_x", "weighted_sum", "attentive_statistics", "wav2vec2"),
    ("nes2net", "squeeze_excitation", "attentive_statistics", "wav2vec2"),
    ("nes2net_x", "squeeze_excitation", "mean", "wavlm"),
    ("nes2net", "attentive_merging", "attentive_statistics", "wavlm"),
    ("nes2net_x", "attentive_merging", "mean", "wav2vec2"),
)


def differences(model: Path, exported: Path, speech: list[np.ndarray]) -> tuple[float, float]:
    """Returns the largest difference between both systems' scores, and the range of the scores."""
    network, _ = load_model(model, None, CPU, "float32")
    graph, _ = load_onnx_model(exported)
    expected, actual = [], []
    for length, batch in product(LENGTHS, (1, 3)):
        rows = torch.from_numpy(np.stack([wave[4_000:][:length] for wave in speech[:batch]]))
        with torch.inference_mode():
            assert rows.shape == (batch, length)
            logits, of_graph = network(rows).logits, graph.logits(rows.numpy())
        assert logits.shape == of_graph.shape and of_graph.dtype == np.float32
        expected.append(network.score(logits).numpy().ravel())
        actual.append(of_logits(of_graph, graph.config)[0].ravel())
    return float(np.abs(np.concatenate(actual) - np.concatenate(expected)).max()), float(
        np.concatenate(expected).std()
    )


@pytest.fixture
def traced(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reuses the graph of `exported` for any model, to save the seconds of tracing."""

    def write_graph(network: Any, samples: int, folder: Path) -> int:
        shutil.copy(exported / GRAPH, folder)
        return exporting.OPSET

    monkeypatch.setattr(exporting, "_write_graph", write_graph)


@pytest.fixture
def recording(speech: list[np.ndarray], tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "speech.flac", np.concatenate(speech[:2])[: 5 * WINDOW - 77], 16_000)
    return tmp_path / "speech.flac"


def test_scores_are_those_of_pytorch_at_any_length_and_batch(
    model: Path, exported: Path, speech: list[np.ndarray]
) -> None:
    difference, spread = differences(model, exported, speech)
    assert difference <= 1e-5 and spread >= 1e-2


@pytest.mark.slow
def test_so_are_those_of_wavlm_with_attention_everywhere(tmp_path: Path, speech: list[np.ndarray]) -> None:
    fields = {"layer_aggregation": "attentive_merging", "pooling": "attentive_statistics"}
    model = saved(quick_model("wavlm", backend_variant="nes2net", **fields), tmp_path / "model")
    export(model, tmp_path / "out")
    difference, spread = differences(model, tmp_path / "out", speech)
    assert difference <= 1e-5 and spread >= 1e-2


def test_the_folder_holds_graph_and_settings_and_no_path_of_this_machine(exported: Path) -> None:
    import onnx

    assert {file.name for file in exported.iterdir() if file.suffix != ".py"} == {
        GRAPH,
        "config.json",
        "preprocessor_config.json",
    }
    graph = onnx.load(exported / GRAPH)
    axes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim] for value in graph.graph.input
    ]
    assert axes == [["batch", "samples"]]
    content = (exported / GRAPH).read_bytes()
    assert str(Path(exporting.__file__).parent).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content


def test_detection_gives_the_same_results(nes2net: Any, model: Path, exported: Path, recording: Path) -> None:
    ours = nes2net("detect", recording, "--model", model, "--device", "cpu", "--batch-size", 3).rows
    theirs = nes2net("detect", recording, "--model", exported, "--backend", "onnx", "--batch-size", 3).rows
    for row, same in zip(ours, theirs, strict=True):
        assert row["threshold"] == same["threshold"] == -0.5 and row["label"] == same["label"]
        assert same["score"] == pytest.approx(row["score"], abs=1e-5) and len(row["windows"]) == 5
        for window, again in zip(row["windows"], same["windows"], strict=True):
            assert again == {**window, "score": pytest.approx(window["score"], abs=1e-5)}


@pytest.mark.usefixtures("traced")
def test_int8_is_smaller_and_says_how_far_its_scores_are(
    nes2net: Any, model: Path, exported: Path, recording: Path, tmp_path: Path
) -> None:
    out = tmp_path / "int8"
    run = nes2net("export", model, out, "--int8")
    assert run.code == 0 and run.err == ""
    size = (out / GRAPH).stat().st_size
    assert size < 0.7 * (exported / GRAPH).stat().st_size and f"{size / 1e6:.1f} MB" in run.out
    said = float(run.out.split("within ")[2].split()[0])
    assert 1e-5 < said < 0.3
    [[ours], [theirs]] = (
        Detector(place, device="cpu", backend=backend).stream(recording)
        for place, backend in ((model, "torch"), (out, "onnx"))
    )
    assert 0 < abs(ours.score - theirs.score) < 3 * said


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("options", [[], ["--int8"]])
def test_a_graph_with_other_scores_is_not_kept(nes2net: Any, tmp_path: Path, options: list[str]) -> None:
    other = saved(quick_model(seed=1, layer_aggregation="weighted_sum"), tmp_path / "other")
    run = nes2net("export", other, tmp_path / "out", *options)
    assert run.code == 1 and "written" not in run.out
    assert "more than 1e-04, so nothing was written: use --backend torch." in run.err
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.usefixtures("traced")
def test_a_score_that_is_no_number_is_not_kept(tmp_path: Path) -> None:
    broken = quick_model(layer_aggregation="weighted_sum")
    with torch.no_grad():
        broken.classifier.bias.fill_(float("nan"))
    with pytest.raises(ExportError, match="by up to nan, more than 1e-04"):
        export(saved(broken, tmp_path / "broken"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("traced")
def test_only_an_earlier_export_is_replaced_and_only_when_asked(nes2net: Any, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()  # an empty folder counts as a new one
    assert nes2net("export", model, out).code == 0
    (out / GRAPH).write_bytes(b"old")
    run = nes2net("export", model, out)
    assert run.code == 2 and run.err == f"Error: {out} exists: choose another folder, or replace it with --force.\n"
    assert nes2net("export", model, out, "--force").code == 0
    assert (out / GRAPH).stat().st_size > 1000
    run = nes2net("export", model, model, "--force")
    assert run.code == 2 and "so --force does not replace it" in run.err and (model / "model.safetensors").is_file()
    (tmp_path / "file").write_text("")
    assert "is a file" in nes2net("export", model, tmp_path / "file").err
    assert "create the folder first" in nes2net("export", model, tmp_path / "none" / "out").err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out"]


def test_a_model_that_is_not_there_and_packages_that_are_not_are_named(
    nes2net: Any, model: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = nes2net("export", tmp_path / "none", tmp_path / "out")
    assert run.code == 2 and "does not exist" in run.err
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    run = nes2net("export", model, tmp_path / "out")
    assert run.code == 2 and run.err == "Error: onnxruntime is not installed: pip install 'nes2net_hf[onnx]'.\n"
    run = nes2net("detect", "--demo", "--model", exported, "--backend", "onnx")
    assert run.code == 2 and run.err == "Error: --backend onnx needs onnxruntime: pip install 'nes2net_hf[onnx]'.\n"


def test_a_folder_of_the_other_kind_is_named(nes2net: Any, model: Path, exported: Path, tmp_path: Path) -> None:
    run = nes2net("detect", "--demo", "--model", exported)
    assert run.code == 2 and "has an ONNX graph but no PyTorch weights: use --backend onnx." in run.err
    run = nes2net("detect", "--demo", "--model", model, "--backend", "onnx")
    assert run.code == 2 and f"{model} has no {GRAPH} for --backend onnx" in run.err
    shutil.copytree(exported, tmp_path / "torn")
    (tmp_path / "torn" / GRAPH).write_bytes((exported / GRAPH).read_bytes()[:5000])
    run = nes2net("detect", "--demo", "--model", tmp_path / "torn", "--backend", "onnx")
    assert run.code == 2 and f"model {tmp_path / 'torn'} could not be loaded" in run.err and run.err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [({"dtype": "bfloat16"}, "omit --dtype bfloat16"), ({"backend": "tensorrt"}, "torch, onnx, got 'tensorrt'")],
)
def test_options_that_a_graph_has_not_are_named(exported: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Detector(exported, **{"backend": "onnx", **options})


def test_a_graph_runs_on_the_cpu_only(exported: Path) -> None:
    with pytest.raises(ModelError, match="runs on the CPU: omit --device meta"):
        Detector(exported, backend="onnx", device="meta")


def test_running_out_of_memory_is_a_detection_error(exported: Path, recording: Path, monkeypatch: Any) -> None:
    detector = Detector(exported, backend="onnx")

    class Session:
        def run(self, *arguments: Any) -> None:
            raise Exception("Failed to allocate memory for requested buffer of size 2147483648")

    monkeypatch.setattr(detector.model, "_session", Session())
    with pytest.raises(DetectionError, match="out of memory on cpu"):
        list(detector.stream(recording))


def test_an_interrupted_export_leaves_nothing(nes2net: Any, model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def interrupted(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "_write_graph", interrupted)
    run = nes2net("export", model, tmp_path / "out")
    assert run.code == 130 and list(tmp_path.iterdir()) == []


def test_what_the_exporter_cannot_do_is_a_sentence(model: Path, tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise torch.onnx.errors.OnnxExporterError("Failed\nat length") from ValueError("no such operator\nat line 3")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(
        ExportError, match=r"a wav2vec2 encoder \(ValueError: no such operator\): use --backend torch\.$"
    ):
        export(model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_every_two_settings_meet_in_what_is_exported() -> None:
    for one, other in combinations(range(len(SETTINGS)), 2):
        assert {(row[one], row[other]) for row in COVERING} == set(product(SETTINGS[one], SETTINGS[other]))


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "aggregation", "pooling", "encoder"), COVERING)
def test_every_two_settings_are_exported_exactly(
    variant: str, aggregation: str, pooling: str, encoder: str, tmp_path: Path, speech: list[np.ndarray]
) -> None:
    fields = {"backend_variant": variant, "layer_aggregation": aggregation, "pooling": pooling}
    model = saved(tiny_model(encoder, **fields), tmp_path / "model")
    export(model, tmp_path / "out")
    difference, spread = differences(model, tmp_path / "out", speech)
    assert difference <= 1e-5 and spread >= 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODER_TYPES[2:])
def test_so_is_every_other_encoder_but_one(encoder: str, tmp_path: Path, speech: list[np.ndarray]) -> None:
    model = saved(quick_model(encoder, layer_aggregation="weighted_sum"), tmp_path / "model")
    if encoder == "wav2vec2-conformer":  # torch cannot export the reshape in its attention
        with pytest.raises(ExportError, match="cannot export a model with a wav2vec2-conformer encoder"):
            export(model, tmp_path / "out")
        return
    export(model, tmp_path / "out")
    assert differences(model, tmp_path / "out", speech)[0] <= 1e-5


@pytest.mark.slow
def test_layers_that_nobody_reads_are_not_in_the_graph(tmp_path: Path, speech: list[np.ndarray]) -> None:
    sizes = []
    for number, layers in enumerate((None, [0, 1])):
        model = saved(
            quick_model(layer_aggregation="weighted_sum", encoder_layers=layers), tmp_path / f"model{number}"
        )
        export(model, tmp_path / f"out{number}")
        assert differences(model, tmp_path / f"out{number}", speech)[0] <= 1e-5
        sizes.append((tmp_path / f"out{number}" / GRAPH).stat().st_size)
    assert sizes[1] < sizes[0] - 4 * 64 * 64 * 4  # at least the attention of the second layer, in float32


@pytest.mark.slow
@pytest.mark.parametrize(
    "fields",
    [
        {"split_attention": True},
        {"waveform_stem": [8, 8, 12, 16, 16]},
        {"classifier_outputs": 1, "hidden_act": "selu"},
        {"score": "bonafide_logit", "dilation": 2, "se_reduction": 4},
    ],
)
def test_so_is_every_head(fields: dict[str, Any], tmp_path: Path, speech: list[np.ndarray]) -> None:
    model = saved(quick_model(**fields), tmp_path / "model")
    export(model, tmp_path / "out")
    assert differences(model, tmp_path / "out", speech)[0] <= 1e-5


@pytest.mark.slow
def test_so_is_a_model_of_frames_and_detection_marks_the_same_stretches(
    nes2net: Any, tmp_path: Path, recording: Path, speech: list[np.ndarray]
) -> None:
    torch.manual_seed(0)
    of_frames = lively(Nes2NetForAudioFrameClassification(tiny_config(layer_aggregation="weighted_sum")))
    model = saved(of_frames, tmp_path / "model")
    run = nes2net("export", model, tmp_path / "out")
    assert run.code == 0 and "(batch, frames, 2)" in run.out
    assert differences(model, tmp_path / "out", speech)[0] <= 1e-5
    threshold = (
        "--threshold",
        nes2net("detect", recording, "--model", model, "--device", "cpu").rows[0]["score"] + 0.1,
    )
    [ours] = nes2net("detect", recording, "--model", model, "--device", "cpu", *threshold).rows
    [theirs] = nes2net("detect", recording, "--model", tmp_path / "out", "--backend", "onnx", *threshold).rows
    assert ours["spoofed"] and theirs["score"] == pytest.approx(ours["score"], abs=1e-5)
    for stretch, same in zip(ours["spoofed"], theirs["spoofed"], strict=True):
        assert same == {**stretch, "score": pytest.approx(stretch["score"], abs=1e-5)}


@pytest.mark.slow
def test_large_weights_stand_beside_the_graph(
    model: Path, tmp_path: Path, speech: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "ONE_FILE", 10_000)
    for options in ({}, {"int8": True}):
        out = tmp_path / f"out{len(options)}"
        result = export(model, out, **options)  # type: ignore[arg-type]
        sizes = {file.name: file.stat().st_size for file in out.glob(f"{GRAPH}*")}
        assert sorted(sizes) == [GRAPH, f"{GRAPH}.data"] and result.size == sum(sizes.values())
        assert differences(model, out, speech)[0] <= (result.int8_difference or 1e-6) * 3
    assert json.loads((out / "config.json").read_text())["model_type"] == "nes2net"
