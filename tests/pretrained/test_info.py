"""`nes2net info` agrees with the model, its files and a real pass."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from torch.utils.flop_counter import FlopCounterMode

from nes2net_hf import (
    Nes2NetConfig,
    Nes2NetFeatureExtractor,
    Nes2NetForAudioClassification,
    Nes2NetForAudioFrameClassification,
)
from nes2net_hf.configuration_nes2net import LAYER_AGGREGATIONS
from nes2net_hf.modeling_nes2net import Activation, Conv, MaskedBatchNorm
from nes2net_hf.pretrained.info import WINDOW, count_macs, count_parameters, without_memory
from nes2net_hf.pretrained.load import DEMO_MODEL
from tests.helpers import ENCODER_TYPES, tiny_config, tiny_model
from tests.loopback_hub import LoopbackHub, Repo

PARTS = ("encoder", "aggregation", "backend", "pooling", "classifier")


@pytest.fixture
def model_dir(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that tests may change."""
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "run" / "best"))


def evaluation(**fields: Any) -> dict[str, Any]:
    """Results as `nes2net evaluate --report` writes them and a release keeps them."""
    return {
        "name": "scores", "n_bonafide": 1200, "n_spoof": 900, "eer": 0.0717, "min_dcf": 0.2, "act_dcf": 0.3,
        "cllr": 0.25, "min_cllr": 0.22, "auc": 0.97, "intervals": {"eer": [0.05, 0.09], "cllr": [0.2, 0.3]},
        "interval_unit": "speaker", "breakdown": [], "warnings": [], **fields,
    }  # fmt: skip


def card(**fields: Any) -> ModelCard:
    return ModelCard(f"---\n{ModelCardData(**fields).to_yaml()}\n---\n# A model\n")


def test_the_bundled_model_is_told_where_none_is_named(nes2net: Any) -> None:
    run = nes2net("info", "--json")
    assert run.code == 0, run.err
    [said] = run.rows
    config = json.loads((DEMO_MODEL / "config.json").read_text())
    robustness = json.loads((DEMO_MODEL / "robustness.json").read_text())
    assert said["model"] == "nes2net-demo" and said["judges"] == "utterances" and said["card"]["license"] == "gpl-3.0"
    assert (said["threshold"], said["calibration"]) == (config["threshold"], config["calibration"])
    assert said["robustness"]["clean"]["eer"] == robustness["conditions"][0]["eer"]
    assert said["robustness"]["worst"]["eer"] == max(row["eer"] for row in robustness["conditions"])
    found = {file["name"]: (file["bytes"], file["sha256"]) for file in said["files"]}
    assert found == {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in DEMO_MODEL.iterdir()
        if path.is_file()
    }
    lines = nes2net("info").out.splitlines()
    weights = (DEMO_MODEL / "model.safetensors").stat().st_size
    assert f"{found['model.safetensors'][1]} {weights:>14,}  model.safetensors" in lines
    scale, offset = (config["calibration"][key] for key in ("scale", "offset"))
    assert f"calibrated  llr = {scale:.6g} * score + {offset:.6g}, at a prior probability of spoofing of 0.5" in lines
    assert "licence     gpl-3.0" in lines and max(map(len, lines)) <= 120


def test_it_agrees_with_the_configuration_and_the_weights(nes2net: Any, tiny_model_dir: Path) -> None:
    [said] = nes2net("info", tiny_model_dir, "--json").rows
    model = Nes2NetForAudioClassification.from_pretrained(tiny_model_dir)
    assert said["architecture"] == {key: getattr(model.config, key) for key in said["architecture"]}
    assert said["encoder"] == {"model_type": "wav2vec2", "num_hidden_layers": 2, "hidden_size": 64}
    assert said["feature_extractor"] == {
        key: getattr(Nes2NetFeatureExtractor(), key) for key in said["feature_extractor"]
    }
    assert said["parameters"]["total"] == sum(one.numel() for one in model.parameters())
    for part, module in model.nes2net.named_children():
        assert said["parameters"][part] == sum(one.numel() for one in module.parameters())
    for counts in (said["parameters"], said["macs"]):
        assert sum(counts[part] for part in PARTS) == counts["total"]
    assert said["macs"]["samples"] == WINDOW and said["macs"]["classifier"] == 64 * 2
    assert (said["threshold"], said["calibration"], said["averaged_from"]) == (None, None, None)
    assert (said["recipe"], said["evaluations"], said["robustness"], said["card"]) == (None, [], None, None)
    text = nes2net("info", tiny_model_dir).out
    for line in (
        "what        Nes2Net-X, judges utterances, with PyTorch weights",
        "input       16,000 Hz, the first 64,600 samples (4.04 s), shorter recordings repeated, not normalised",
        "measured    nothing that its folder records",
        "licence     not known: there is no card (README.md) in its folder",
        f"{said['parameters']['encoder']:,}",
        f"{said['macs']['encoder'] / 1e6:,.2f}",
    ):
        assert line in text


def test_a_model_of_frames(nes2net: Any, tmp_path: Path) -> None:
    Nes2NetForAudioFrameClassification(tiny_config(score="bonafide_logit")).save_pretrained(tmp_path)
    Nes2NetFeatureExtractor(length_policy="whole", do_normalize=True).save_pretrained(tmp_path)
    [said] = nes2net("info", tmp_path, "--json").rows
    assert said["judges"] == "frames" and said["macs"]["classifier"] == 201 * 64 * 2
    text = nes2net("info", tmp_path).out
    assert "head        no pooling, frames of 20 ms, 2 logit(s), score bonafide_logit" in text
    assert "whole utterances; nes2net detect uses windows of 64,600 samples (4.04 s), zero mean" in text


@pytest.mark.parametrize(
    "encoder", [*ENCODER_TYPES[:2], *(pytest.param(one, marks=pytest.mark.slow) for one in ENCODER_TYPES[2:])]
)
def test_the_cost_without_weights_is_that_of_a_real_pass(encoder: str) -> None:
    for aggregation in LAYER_AGGREGATIONS:
        pooling = "mean" if aggregation == "last" else "attentive_statistics"
        model = tiny_model(encoder, layer_aggregation=aggregation, pooling=pooling)
        model.set_attn_implementation("eager")  # torch does not count fused attention on a CPU
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, WINDOW))
        structure = without_memory(model.config)
        assert 2 * count_macs(structure)["total"] == counter.get_total_flops()
        assert count_parameters(structure) == count_parameters(model)


@pytest.mark.parametrize(
    ("fields", "parameters", "published"),
    [
        ({"backend_variant": "nes2net", "classifier_outputs": 1}, 510_769, 58.1),
        ({"backend_variant": "nes2net_x", "classifier_outputs": 1}, 511_014, 91.4),
        ({"backend_variant": "nes2net_x", "classifier_outputs": 1, "hidden_act": "selu"}, 511_014, 88.3),
        ({"backend_variant": "nes2net_x", "pooling": "attentive_statistics"}, 777_383, 144.0),
    ],
)
def test_the_published_back_ends_cost_what_the_paper_says(
    fields: dict[str, Any], parameters: int, published: float
) -> None:
    """
    The paper's MMACs are those of ptflops at 200 frames of 1024. For each output element, ptflops adds one to the
    products for a bias, two for a batch norm, and two for nn.ReLU, which it counts both as a module and as a function,
    but none for SELU.
    """
    frames, parts = 200, ("backend", "pooling", "classifier")
    model = without_memory(Nes2NetConfig(**fields))
    assert sum(count_parameters(model)[part] for part in parts) == parameters
    elements: Counter[type] = Counter()
    for module in model.nes2net.backend.modules():
        if isinstance(module, (Conv, MaskedBatchNorm, Activation)):
            module.register_forward_hook(lambda module, _, output: elements.update({type(module): output.numel()}))
    macs = count_macs(model, 400 + 320 * (frames - 1))

    has_columns = fields["backend_variant"] == "nes2net_x"
    steps = sum(range(2, 9)) if has_columns else 7  # steps of the inner scale; variant X counts each column
    block = 2 * 128 * 128 * frames + steps * 3 * 16 * 16 * frames + 2 * 128 * 128
    assert macs["backend"] == 7 * (block + has_columns * steps * 16 * frames)

    ours = sum(macs[part] for part in parts)
    relu = elements[Activation] if model.config.hidden_act == "relu" else 0
    theirs = ours + elements[Conv] + 2 * elements[MaskedBatchNorm] + 2 * relu
    assert theirs / 1e6 == pytest.approx(published, rel=0.01)
    assert 1.04 < published * 1e6 / ours < 1.09


def test_a_released_folder_tells_recipe_figures_and_licence(nes2net: Any, model_dir: Path) -> None:
    (model_dir / "evaluation").mkdir()
    for name, fields in (("asvspoof2021-la", {}), ("calls", {"eer": 0.25, "intervals": {"eer": [float("nan")] * 2}})):
        (model_dir / "evaluation" / f"{name}.json").write_text(json.dumps(evaluation(**fields)), encoding="utf-8")
    config = json.loads((model_dir / "config.json").read_text())
    config |= {"threshold": 2.5, "averaged_from": ["epoch-0003", "epoch-0005"]}
    config["calibration"] = {"scale": 0.5, "offset": -1.25, "prior": 0.4, "provenance": {"corpus": "own-data"}}
    (model_dir / "config.json").write_text(json.dumps(config))
    card(license="other", license_name="eupl-1.2", license_link="LICENSE").save(model_dir / "README.md")
    recipe = {
        "output": "runs/x", "epochs": 7, "model": {"pretrained": "facebook/wav2vec2-xls-r-300m"},
        "data": {"corpus": "asvspoof2019-la", "augmentation": [{"name": "speed"}, {"name": "rawboost", "number": 4}]},
    }  # fmt: skip
    (model_dir.parent / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")  # in the parent folder

    run = nes2net("info", model_dir, "--json")
    assert "NaN" not in run.out
    [said] = run.rows
    assert said["recipe"] == recipe and said["averaged_from"] == config["averaged_from"]
    assert (said["threshold"], said["calibration"]) == (2.5, config["calibration"])
    first, second = said["evaluations"]
    assert [first[key] for key in ("name", "eer", "low", "high")] == ["asvspoof2021-la", 0.0717, 0.05, 0.09]
    assert [second[key] for key in ("name", "eer", "low", "high")] == ["calls", 0.25, None, None]
    assert "evaluation/calls.json" in [file["name"] for file in said["files"]]
    text = " ".join(nes2net("info", model_dir).out.split())
    for line in (
        "threshold bona fide at a score of 2.5 or higher",
        "calibrated llr = 0.5 * score - 1.25, at a prior probability of spoofing of 0.4 fit: corpus own-data",
        "averaged from epoch-0003, epoch-0005",
        "recipe output runs/x, corpus asvspoof2019-la, encoder facebook/wav2vec2-xls-r-300m, epochs 7, augmentation "
        "speed, then rawboost",
        "measured asvspoof2021-la: EER 7.17 % (5.00 to 9.00 by speaker), min DCF 0.2000, Cllr 0.2500 bits, on 1,200 "
        "bona fide and 900 spoofed calls: EER 25.00 %, min DCF",
        "licence eupl-1.2",
    ):
        assert line in text


def test_figures_of_the_card_are_told_where_the_folder_has_no_others(nes2net: Any, model_dir: Path) -> None:
    result = EvalResult(
        task_type="audio-classification", dataset_type="asvspoof5", dataset_name="ASVspoof 5", metric_type="eer",
        metric_name="EER, per cent", metric_value=6.5,
    )  # fmt: skip
    card(license="mit", model_name="x", eval_results=[result]).save(model_dir / "README.md")
    [said] = nes2net("info", model_dir, "--json").rows
    results = [{"dataset": "ASVspoof 5", "metric": "EER, per cent", "value": 6.5}]
    assert said["card"] == {"license": "mit", "results": results}
    assert "measured    ASVspoof 5: EER, per cent 6.5, from its card" in nes2net("info", model_dir).out


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", None, "is not a Nes2Net model: it has no config.json"),
        ("config.json", '{"model_type": "wav2vec2"}', "is not a Nes2Net model: its model_type is 'wav2vec2'"),
        ("model.safetensors", None, "could not be loaded"),
        ("model.safetensors", "no weights", "is damaged"),
        ("evaluation/x.json", "{", "evaluation/x.json cannot be read"),
        ("evaluation/x.json", "[]", "it is not a mapping of keys to values): run nes2net evaluate --report again"),
        ("evaluation/x.json", '{"eer": 0.1, "intervals": {}}', "evaluation/x.json has no eer: run nes2net evaluate"),
        ("robustness.json", '{"corpus": "own-data"}', "robustness.json has no conditions: run nes2net robustness"),
        ("recipe.yaml", "a: [", "recipe.yaml cannot be read"),
        ("README.md", "---\nlicense: [\n---\n", "README.md cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(
    file: str, content: str | None, message: str, nes2net: Any, model_dir: Path
) -> None:
    (model_dir / file).parent.mkdir(exist_ok=True)
    (model_dir / file).unlink(missing_ok=True)
    if content is not None:
        (model_dir / file).write_text(content, encoding="utf-8")
    run = nes2net("info", model_dir)
    assert run.code == 2 and not run.out
    assert message in run.err and run.err.startswith("Error: ") and run.err.count("\n") == 1


def test_a_place_that_does_not_exist(nes2net: Any, tmp_path: Path) -> None:
    run = nes2net("info", tmp_path / "none")
    assert run.code == 2 and run.err == f"Error: model folder {tmp_path / 'none'} does not exist.\n"


def test_a_graph_that_cannot_be_run_is_one_sentence(
    nes2net: Any, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    (model_dir / "model.safetensors").rename(model_dir / "model.onnx")
    run = nes2net("info", model_dir)
    assert run.code == 2 and "could not be loaded" in run.err and run.err.count("\n") == 1
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    run = nes2net("info", model_dir)
    assert run.code == 2 and "needs onnxruntime: pip install 'nes2net_hf[onnx]'" in run.err


@pytest.mark.slow
def test_an_exported_graph_is_told_as_the_model_it_came_from(nes2net: Any, tmp_path: Path) -> None:
    from tests.helpers import quick_model, saved  # skips if onnxruntime is not installed

    source, graph = saved(quick_model(), tmp_path / "torch"), tmp_path / "onnx"
    assert nes2net("export", source, graph).code == 0
    [before], [after] = (nes2net("info", place, "--json").rows for place in (source, graph))
    assert (before["weights"], after["weights"]) == ("torch", "onnx")
    for key in ("architecture", "encoder", "feature_extractor", "parameters", "macs", "judges"):
        assert after[key] == before[key]
    assert "model.onnx" in [file["name"] for file in after["files"]]
    assert "of the PyTorch model that the graph was exported from" in nes2net("info", graph).out


@pytest.mark.slow
def test_of_a_model_on_the_hub_only_what_loading_takes_is_fetched(tiny_model_dir: Path, tmp_path: Path) -> None:
    from tests.helpers import at

    with LoopbackHub() as hub:
        files = {path.name: path.read_bytes() for path in tiny_model_dir.iterdir() if path.is_file()}
        hub.repos["org/tiny"] = Repo(private=False)
        commit = hub.repos["org/tiny"].commit("main", files | {"README.md": b"---\nlicense: mit\n---\n"})
        answers = [at(hub, tmp_path, "-m", "nes2net_cli", "info", "org/tiny", *more) for more in ([], ["--json"])]
        absent = at(hub, tmp_path, "-m", "nes2net_cli", "info", "org/tiny", "--revision", "none")
        fetched = {path.rpartition("/")[2] for method, path in hub.calls if method == "GET" and "/resolve/" in path}
    assert answers[0].returncode == 0, answers[0].stderr
    assert f"model       org/tiny at commit {commit}" in answers[0].stdout
    assert "there is no card (README.md) among the downloaded files" in answers[0].stdout
    said = {file["name"]: file["sha256"] for file in json.loads(answers[1].stdout)["files"]}
    assert said == {name: hashlib.sha256(files[name]).hexdigest() for name in said} and "model.safetensors" in said
    assert "README.md" not in fetched and "model.safetensors" in fetched
    assert absent.returncode == 2 and "it has no such revision" in absent.stderr
