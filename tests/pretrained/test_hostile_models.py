"""Loading refuses model folders that are damaged, impossible or hostile, and names file and field."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification
from transformers.utils import hub

from nes2net_hf import Nes2NetConfig, Nes2NetFeatureExtractor, Nes2NetForAudioClassification
from nes2net_hf.errors import ModelError
from nes2net_hf.pretrained.load import load_model

WEIGHTS = "model.safetensors"
SHARD = "model-00001-of-00001.safetensors"


@pytest.fixture
def folder(tiny_model_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))


def change(path: Path, field: str, value: Any) -> None:
    """Sets a field of a JSON file; dots separate nested keys."""
    content = json.loads(path.read_text(encoding="utf-8"))
    *way, last = field.split(".")
    place = content
    for name in way:
        place = place[name]
    place[last] = value
    path.write_text(json.dumps(content), encoding="utf-8")


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as error:
        load_model(folder, None, torch.device("cpu"), "float32")
    assert "\n" not in str(error.value) and str(error.value).endswith(".") and len(str(error.value)) < 700
    return str(error.value)


# Values -------------------------------------------------------------------------------------------------------------

CONFIG = [
    ("outer_scale", "4"), ("outer_scale", 10**18), ("inner_scale", None), ("kernel_size", 2), ("dilation", 10**5),
    ("se_reduction", 0), ("pooling_bottleneck", -1), ("layer_aggregation", []), ("score", 5),
    ("classifier_outputs", True), ("classifier_outputs", 3), ("threshold", float("nan")), ("threshold", 10**400),
    ("calibration", {"scale": 10**400, "offset": 0, "prior": 0.5}), ("calibration", "0"), ("class_weights", [1, "2"]),
    ("calibration", {"scale": 1, "offset": 0, "prior": 0.5, "provenance": 5}), ("id2label", {"0": "spoof"}),
    ("id2label", []), ("id2label", {"0": 1, "1": 2}), ("label2id", {"spoof": 1, "bonafide": 0}),
    ("label2id", {"spoof": [0]}), ("dtype", "nn"), ("dtype", 5), ("architectures", "x"), ("check", 1),
    ("hidden_size", 64), ("encoder_config.hidden_size", 63), ("encoder_config.hidden_size", -64),
    ("encoder_config.num_hidden_layers", 0), ("encoder_config.num_hidden_layers", -1),
    ("encoder_config.num_hidden_layers", "2"), ("encoder_config.num_hidden_layers", 10**9),
    ("encoder_config.num_attention_heads", 5), ("encoder_config.num_attention_heads", 0),
    ("encoder_config.intermediate_size", -1), ("encoder_config.conv_dim", [0] * 7),
    ("encoder_config.conv_stride", [5, 2, 2, 2, 2, 2, 0]), ("encoder_config.conv_kernel", None),
    ("encoder_config.num_conv_pos_embedding_groups", 3), ("encoder_config.num_conv_pos_embeddings", 0),
    ("encoder_config.hidden_act", "foo"), ("encoder_config.feat_extract_norm", "x"),
    ("encoder_config.layerdrop", 2), ("encoder_config.hidden_dropout", -1),
    ("encoder_config.layer_norm_eps", float("nan")), ("encoder_config.dtype", "foo"),
    ("encoder_config.model_type", "nes2net"), ("encoder_config.model_type", None),
    ("attn_implementation", "kernels-community/flash-attn"), ("_attn_implementation", "org/repo:function"),
    ("attn_implementation", {"encoder_config": "org/repo"}), ("attn_implementation", "flash_attention_2"),
    ("encoder_config.attn_implementation", "kernels-community/flash-attn"),
    ("encoder_config._attn_implementation", "org/repo"), ("transformers_weights", "../other.safetensors"),
    ("quantization_config", {"quant_method": "mxfp4"}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), CONFIG)
def test_an_impossible_configuration(field: str, value: Any, folder: Path) -> None:
    change(folder / "config.json", field, value)
    said = refusal(folder)
    assert "config.json: " in said and field.split(".")[-1] in said.split("config.json: ")[1]
    for load in (Nes2NetConfig, AutoConfig, Nes2NetForAudioClassification, AutoModelForAudioClassification):
        with pytest.raises(ValueError, match=r"^config\.json: "):
            load.from_pretrained(folder)


PREPROCESSOR = [
    ("sampling_rate", 0), ("sampling_rate", 8000), ("sampling_rate", "16000"), ("sampling_rate", 16000.0),
    ("window_length", 0), ("window_length", 399), ("window_length", "64600"), ("window_length", 10**12),
    ("window_length", None), ("length_policy", None), ("do_normalize", "yes"), ("normalize_eps", float("nan")),
    ("normalize_eps", 10**400), ("min_samples", -1), ("padding_value", 1), ("padding_value", float("nan")),
    ("padding_side", "left"), ("feature_size", 2), ("return_attention_mask", "x"), ("model_input_names", ["a"]),
    ("pad", 5),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), PREPROCESSOR)
def test_an_impossible_feature_extractor(field: str, value: Any, folder: Path) -> None:
    change(folder / "preprocessor_config.json", field, value)
    assert f"preprocessor_config.json: {field} " in refusal(folder)
    for load in (Nes2NetFeatureExtractor, AutoFeatureExtractor):
        with pytest.raises(ValueError, match=rf"^preprocessor_config\.json: {field} "):
            load.from_pretrained(folder)


def test_windows_of_which_the_encoder_makes_no_frame(folder: Path) -> None:
    change(folder / "preprocessor_config.json", "window_length", 500)
    change(folder / "config.json", "encoder_config.conv_stride", [5, 2, 2, 2, 2, 2, 40])
    change(folder / "config.json", "encoder_config.conv_kernel", [10, 3, 3, 3, 3, 2, 40])
    assert "preprocessor_config.json: window_length must be at least" in refusal(folder)


def test_unknown_fields_and_possible_values_are_taken(folder: Path) -> None:
    for field, value in (("mine", {"a": [1]}), ("attn_implementation", "eager"), ("return_dict", False)):
        change(folder / "config.json", field, value)
    change(folder / "preprocessor_config.json", "mine", "x")
    network, extractor = load_model(folder, None, torch.device("cpu"), "float32")
    features = extractor(torch.randn(16_000).numpy(), sampling_rate=16_000, return_tensors="pt")
    assert network(**features).logits.shape == (1, 2)


def test_the_command_exits_with_2_and_a_sentence(folder: Path, nes2net: Any, fixture_audio_dir: Path) -> None:
    change(folder / "config.json", "encoder_config.num_attention_heads", 5)
    run = nes2net("detect", "--model", folder, fixture_audio_dir / "test-ivrvoice-ru-0007.flac")
    assert run.code == 2 and "config.json: encoder_config.num_attention_heads must divide" in run.err and not run.out


def test_kernels_are_never_asked_of_the_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "transformers.modeling_utils.lazy_import_flash_attention", lambda name, **_: asked.append(str(name))
    )
    for field in ("attn_implementation", "_attn_implementation", "encoder_config._attn_implementation"):
        change(folder / "config.json", field, "kernels-community/flash-attn")
        with pytest.raises(ValueError, match="attn_implementation must be one of eager, sdpa, flex_attention"):
            AutoModelForAudioClassification.from_pretrained(folder)
    assert not asked


# Files --------------------------------------------------------------------------------------------------------------

NOT_JSON = {
    "no JSON": b"{x",
    "empty": b"",
    "a list": b"[]",
    "text": b'"feature_extractor"',
    "nothing": b"null",
    "deep": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "deep for Python": b'{"a":' * 900 + b"1" + b"}" * 900,
    "a huge integer": b'{"outer_scale":' + b"9" * 5000 + b"}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "bytes": bytes(range(256)),
}


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_file_that_holds_no_fields(name: str, content: bytes, folder: Path) -> None:
    (folder / name).write_bytes(content)
    said = refusal(folder)
    assert f" {name} " in said or "its model_type is None" in said
    if "model_type" not in said:
        load: Any = Nes2NetConfig if name == "config.json" else Nes2NetFeatureExtractor
        with pytest.raises(ValueError, match=name):
            load.from_pretrained(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_file_that_is_absent_or_no_file(name: str, folder: Path) -> None:
    (folder / name).unlink()
    assert f"has no {name}" in refusal(folder)
    (folder / name).mkdir()
    assert f"has no {name}" in refusal(folder)
    (folder / name).rmdir()
    (folder / name).symlink_to(name)
    assert f"has no {name}" in refusal(folder)


def test_damaged_weights_are_named(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    for content in (b"", whole[:4], whole[:300], whole[:-100], whole + b"x", struct.pack("<Q", 2**62), b"PK\3\4" * 99):
        (folder / WEIGHTS).write_bytes(content)
        assert f"{folder / WEIGHTS} is damaged" in refusal(folder)
    (folder / WEIGHTS).unlink()
    assert WEIGHTS in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("encoder_config.num_hidden_layers", 3, r"lacks 16 of its weights (nes2net.encoder.encoder.layers.2."),
        ("encoder_config.num_hidden_layers", 1, "has 16 weights that its config.json does not use"),
        ("encoder_config.hidden_size", 10**6, "has 154 weights whose shapes do not match its config.json"),
        ("encoder_config.intermediate_size", 97, "weights whose shapes do not match"),
        ("kernel_size", 5, "weights whose shapes do not match"),
    ],
)
def test_weights_of_another_model_are_refused_before_memory_is_taken(
    field: str, value: Any, said: str, folder: Path
) -> None:
    change(folder / "config.json", field, value)
    assert said in refusal(folder)


def test_an_index_names_files_beside_it_alone(folder: Path, tmp_path: Path) -> None:
    with safe_open(folder / WEIGHTS, "pt") as file:
        keys = list(file.keys())
    shutil.copy(folder / WEIGHTS, tmp_path / "elsewhere.safetensors")
    (folder / WEIGHTS).rename(folder / SHARD)
    index = folder / f"{WEIGHTS}.index.json"
    outside = str(tmp_path / "elsewhere.safetensors")
    for name in (
        "../elsewhere.safetensors",
        outside,
        "..\\elsewhere.safetensors",
        "C:\\x.safetensors",
        "..",
        "a/b.bin",
    ):
        index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(keys, name)}), encoding="utf-8")
        assert f"{index}: weight_map must name files in the same folder" in refusal(folder)
        for load in (Nes2NetForAudioClassification, AutoModelForAudioClassification):
            with pytest.raises(ValueError, match="weight_map must name files in the same folder"):
                load.from_pretrained(folder)
    for content in ("{", "[]", "{}", '{"weight_map": {}}', '{"metadata": 1, "weight_map": {"a": 5}}'):
        index.write_text(content, encoding="utf-8")
        assert f"{index} must be JSON with metadata, and with a weight_map" in refusal(folder)
    index.write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(keys, SHARD)}), encoding="utf-8")
    load_model(folder, None, torch.device("cpu"), "float32")


@pytest.mark.parametrize("content", ['{"base_model_name_or_path": "org/other", "peft_type": "LORA"}', "{"])
def test_an_adapter_beside_the_weights_is_refused(content: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "adapter_config.json").write_text(content, encoding="utf-8")
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: pytest.fail("the Hub was asked"))
    assert "has an adapter_config.json" in refusal(folder)
    with pytest.raises(ValueError, match=r"has an adapter_config\.json"):
        Nes2NetForAudioClassification.from_pretrained(folder)
    (folder / "config.json").unlink()  # without it, transformers would load the model that the adapter names
    with pytest.raises(ValueError, match=r"has an adapter_config\.json"):
        Nes2NetForAudioClassification.from_pretrained(folder)


@pytest.mark.parametrize(
    "name", ["a" * 5000, "a" * 200 + "/" + "b" * 4800, "org/" + "b" * 97, "a\0b", "", "org/a\nb", "a b"]
)
def test_a_name_that_no_folder_and_no_repository_can_have(name: str, nes2net: Any) -> None:
    with pytest.raises(ModelError, match=r"^model folder .*does not exist\.$") as error:
        load_model(name, None, torch.device("cpu"), "float32")
    assert len(str(error.value)) < 250
