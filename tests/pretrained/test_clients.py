"""Models work with other libraries: hooks, offloading, quantisation, adapters, half precision, compilation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from nes2net_hf import Nes2NetForAudioClassification, Nes2NetForAudioFrameClassification
from nes2net_hf.pretrained.load import DEMO_MODEL
from nes2net_hf.trainer.model import add_adapters, without_adapters
from nes2net_hf.trainer.recipe import LoraRecipe
from tests.helpers import ENCODER_TYPES, lively, tiny_config, tiny_model

AGGREGATIONS = ("last", "weighted_sum", "squeeze_excitation", "attentive_merging")
KINDS = {"utterances": Nes2NetForAudioClassification, "frames": Nes2NetForAudioFrameClassification}
# transformers' WavLM passes the weights of these layers to a function instead of calling them.
NOT_CALLED_IN_WAVLM = {"q_proj", "k_proj", "v_proj", "out_proj"}
WAVES = 0.1 * torch.randn(4, 6000, generator=torch.Generator().manual_seed(0))


def build(kind: str, source: str) -> Any:
    """The bundled model, or a tiny one with an aggregation and five layers, because SEA squeezes fewer into one."""
    if source == "bundled":
        of_frames = {"pooling": "mean", "ignore_mismatched_sizes": True} if kind == "frames" else {}
        return KINDS[kind].from_pretrained(DEMO_MODEL, **of_frames).eval()
    pooling = "attentive_statistics" if kind == "utterances" else "mean"
    config = tiny_config(layer_aggregation=source, pooling=pooling)
    config.encoder_config.num_hidden_layers = 5
    torch.manual_seed(7)  # with other seeds, the ReLU of SEA is dead
    return lively(KINDS[kind](config)).eval()


CASES = [f"utterances-{source}" for source in (*AGGREGATIONS, "bundled")] + ["frames-weighted_sum", "frames-bundled"]


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest) -> Any:
    return build(*request.param.split("-"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(WAVES).logits


def near(one: torch.Tensor, other: torch.Tensor, tolerance: float = 1e-6, name: str = "logits") -> None:
    torch.testing.assert_close(one, other, atol=tolerance, rtol=0, msg=lambda text: f"{name}: {text}")


def leaves(model: nn.Module) -> dict[str, nn.Module]:
    """Returns the modules that have parameters but no children."""
    own = {name: list(module.parameters(recurse=False)) for name, module in model.named_modules()}
    return {name: part for name, part in model.named_modules() if own[name] and not list(part.children())}


def step(model: Any, times: int = 2) -> None:
    """Takes optimiser steps on all trainable parameters."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(times):
        optimiser.zero_grad()
        output = model(WAVES)
        target = torch.tensor([0, 1, 0, 1]).view(-1, *[1] * (output.logits.dim() - 2)).expand(output.logits.shape[:-1])
        nn.functional.cross_entropy(output.logits.flatten(0, -2), target.flatten()).backward()
        optimiser.step()
    model.eval()


def check_gradients(one: nn.Module, other: nn.Module) -> None:
    for (name, mine), (_, theirs) in zip(one.named_parameters(), other.named_parameters(), strict=True):
        if theirs.grad is not None:
            near(mine.grad, theirs.grad, 1e-5 * max(1.0, theirs.grad.abs().max().item()), name)


# Hooks ---------------------------------------------------------------------------------------------------------------


def check_that_all_are_called(model: Any, training: bool, bypassed: set[str]) -> None:
    called = set()
    for name, module in leaves(model).items():
        module.register_forward_hook(lambda *_, name=name: called.add(name))
    model.train(training)(WAVES)
    assert {name.split(".")[-1] for name in leaves(model).keys() - called} == bypassed


@pytest.mark.parametrize("training", [False, True])
def test_every_layer_is_called(model: Any, training: bool) -> None:
    check_that_all_are_called(model, training, set())


@pytest.mark.parametrize("encoder", ENCODER_TYPES)
def test_every_layer_is_called_with_every_encoder(encoder: str) -> None:
    model = tiny_model(encoder, layer_aggregation="attentive_merging", backend_variant="nes2net")
    check_that_all_are_called(model, False, NOT_CALLED_IN_WAVLM if encoder == "wavlm" else set())


@pytest.mark.parametrize("hidden_act", ["relu", "selu"])
def test_hooks_on_gradients_fire_and_change_none(hidden_act: str) -> None:
    plain = tiny_model(layer_aggregation="attentive_merging", hidden_act=hidden_act).train()
    hooked, called = copy.deepcopy(plain), set()
    for name, module in hooked.named_modules():
        if name:
            module.register_full_backward_hook(lambda *_, name=name: called.add(name))
    for one in (plain, hooked):
        one(WAVES, labels=torch.tensor([0, 1, 0, 1])).loss.backward()
    assert leaves(hooked).keys() <= called
    check_gradients(hooked, plain)


# accelerate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["cpu_offload", "cpu_offload_with_buffers", "disk_offload", "dispatch_model"])
def test_offloaded_weights_give_the_same_logits(model: Any, way: str, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    expected, device = logits(model), torch.device("cpu")
    if way == "disk_offload":
        accelerate.disk_offload(model, str(tmp_path), execution_device=device, offload_buffers=True)
    elif way == "dispatch_model":
        parts = dict.fromkeys([f"nes2net.{name}" for name, _ in model.nes2net.named_children()], "disk")
        places = parts | {"nes2net.backend": "cpu", "classifier": "disk"}
        model = accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))
    else:
        accelerate.cpu_offload(model, execution_device=device, offload_buffers=way.endswith("buffers"))
    assert model.classifier.weight.is_meta
    near(logits(model), expected)


def test_a_device_map_that_needs_the_disk_gives_the_same_logits(model: Any, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    model.save_pretrained(tmp_path / "model")
    mapped = type(model).from_pretrained(
        tmp_path / "model", device_map="auto", max_memory={"cpu": "0.3MB"}, offload_folder=tmp_path / "offloaded"
    )
    assert "disk" in mapped.hf_device_map.values()
    near(logits(mapped), logits(model))


# Quantisation --------------------------------------------------------------------------------------------------------


def check_scores(quantised: Any, model: Any) -> None:
    near(model.score(logits(quantised)), model.score(logits(model)), 0.1)
    assert not torch.equal(logits(quantised), logits(model))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dynamic_quantisation_keeps_scores_near(model: Any) -> None:
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    assert not any(type(module) is nn.Linear for module in quantised.modules())
    check_scores(quantised, model)


@pytest.mark.parametrize("config", ["Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_torchao_keeps_scores_near(model: Any, config: str, dtype: torch.dtype) -> None:
    torchao = pytest.importorskip(
        "torchao.quantization", reason="torchao is not installed: pip install '.[torchao]'", exc_type=ImportError
    )
    quantised = copy.deepcopy(model).to(dtype)
    torchao.quantize_(quantised, getattr(torchao, config)())
    check_scores(quantised, model)


# Adapters ------------------------------------------------------------------------------------------------------------


def adapted(model: Any, **fields: Any) -> Any:
    peft = pytest.importorskip("peft")
    torch.manual_seed(1)
    return peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=4, **fields))


def check_that_all_learn(model: Any, merge: Callable[[], Any]) -> None:
    """Two steps change all trainable parameters; without adapters, the model is unchanged."""
    before = {name: one.detach().clone() for name, one in model.named_parameters() if one.requires_grad}
    assert any("lora_" in name for name in before)
    step(model)
    after = dict(model.named_parameters())
    assert not [name for name, one in before.items() if torch.equal(one, after[name])]
    expected = logits(model.double())  # large features make a difference of rounding in float32
    near(logits(merge()), expected, 1e-5)


@pytest.mark.parametrize("saved", [None, ["classifier", "backend"], ["classifier", "backend", "aggregation"]])
def test_adapters_in_all_linear_layers_learn_and_merge(model: Any, saved: list[str] | None) -> None:
    lora = adapted(model, target_modules="all-linear", modules_to_save=saved)
    check_that_all_learn(lora, lora.merge_and_unload)


@pytest.mark.parametrize("source", ["bundled", "attentive_merging"])
def test_adapters_in_the_convolutions_of_the_back_end_learn_and_merge(source: str) -> None:
    convolutions = r".*(backend|pooling)\..*(conv|conv_in|conv_out|squeeze|excite)"
    lora = adapted(build("utterances", source), target_modules=convolutions)
    check_that_all_learn(lora, lora.merge_and_unload)


def test_adapters_of_a_recipe_learn_and_merge(model: Any) -> None:
    pytest.importorskip("peft")
    plain = copy.deepcopy(model)
    torch.manual_seed(1)
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense", "projection"]
    add_adapters(model, LoraRecipe(rank=4, targets=targets))

    def merge() -> Any:
        plain.double().load_state_dict(without_adapters(model, model.state_dict()))
        return plain

    check_that_all_learn(model, merge)


def test_an_adapter_alone_lacks_the_statistics_of_batch_norm(model: Any, tmp_path: Path) -> None:
    """This is why the docs recommend `modules_to_save`."""
    peft = pytest.importorskip("peft")
    for saved in (None, ["classifier", "backend"]):
        lora = adapted(model, target_modules="all-linear", modules_to_save=saved)
        step(lora)
        lora.save_pretrained(tmp_path)
        again = peft.PeftModel.from_pretrained(copy.deepcopy(model), tmp_path).eval()
        difference = (logits(again) - logits(lora)).abs().max()
        assert difference <= 1e-6 if saved else difference > 1e-3
    lora.merge_and_unload().save_pretrained(tmp_path / "merged")
    near(logits(type(model).from_pretrained(tmp_path / "merged")), logits(lora), 1e-5)


# Precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_classifier_stays_in_float32(model: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "float32")
    half = type(model).from_pretrained(tmp_path / "float32", dtype=dtype)
    others = {one.dtype for name, one in half.named_parameters() if not name.startswith("classifier.")}
    assert others == {dtype} and torch.equal(half.classifier.weight, model.classifier.weight)
    assert logits(half).dtype == torch.float32
    near(logits(half), logits(model), 0.1)
    half.save_pretrained(tmp_path / "half")
    for asked in ({}, {"dtype": "auto"}, {"dtype": dtype}):
        again = type(model).from_pretrained(tmp_path / "half", **asked)
        assert again.dtype == dtype and again.classifier.weight.dtype == torch.float32
        near(logits(again), logits(half))
    near(logits(type(model).from_pretrained(tmp_path / "half", dtype=torch.float32)), logits(model), 0.1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_are_of_float32_in_whatever_precision_the_model_is_put(model: Any, dtype: torch.dtype) -> None:
    """The scores equal those of a float32 classifier with the same weights."""
    half = copy.deepcopy(model).to(dtype)
    careful = copy.deepcopy(half)
    careful.classifier.float()
    assert logits(half).dtype == torch.float32 and torch.equal(logits(half), logits(careful))
    near(logits(half), logits(model), 0.1)
    with torch.autocast("cpu", dtype):
        assert logits(model).dtype == torch.float32
    near(logits(copy.deepcopy(model).double()), logits(model), 1e-5)


# Memory and speed ---------------------------------------------------------------------------------------------------


def test_gradient_checkpointing_gives_the_same_gradients(model: Any) -> None:
    saving = copy.deepcopy(model)
    saving.gradient_checkpointing_enable()
    for one in (model, saving):
        torch.manual_seed(0)  # for the encoder's dropout
        one.train()(WAVES).logits.square().mean().backward()
    check_gradients(saving, model)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "source"), [("utterances", "attentive_merging"), ("frames", "bundled")])
def test_a_compiled_model_gives_the_same_logits(kind: str, source: str) -> None:
    model = build(kind, source)
    near(logits(torch.compile(model)), logits(model), 1e-5)
