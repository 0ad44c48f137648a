"""One common suite over every encoder type, variant, aggregation and pooling."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForAudioClassification

from nes2net_hf import Nes2NetConfig, Nes2NetForAudioClassification, Nes2NetModel
from nes2net_hf.modeling_nes2net import MaskedBatchNorm
from tests.helpers import ENCODER_TYPES, lively, tiny_config, tiny_encoder_config, tiny_model

AGGREGATIONS = ("last", "weighted_sum", "squeeze_excitation", "attentive_merging")
GRID = list(product(("nes2net", "nes2net_x"), AGGREGATIONS, ("mean", "attentive_statistics")))


def grid(encoders: Iterable[str]) -> Iterator[Any]:
    """Every encoder with every setting. The default suite has a quarter of them for encoders of other kinds."""
    for place, encoder in enumerate(encoders):
        for number, setting in enumerate(GRID):
            soon = encoder in ("wav2vec2", "wavlm") or (number + place) % 4 == 0
            yield pytest.param(encoder, *setting, marks=() if soon else pytest.mark.slow)


KEEP_TO_THEIR_MASK = ("wav2vec2", "wavlm", "hubert", "unispeech-sat", "wav2vec2-bert", "whisper")


def waveforms(batch: int = 2, samples: int = 8000, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(seed))


def ragged(lengths: list[int], padding: float = 0.0) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Utterances, the batch of them padded on the right, its mask."""
    utterances = [waveforms(1, length, seed=length)[0] for length in lengths]
    batch = torch.full((len(lengths), max(lengths)), padding)
    mask = torch.zeros(batch.shape, dtype=torch.long)
    for row, utterance in enumerate(utterances):
        batch[row, : len(utterance)] = utterance
        mask[row, : len(utterance)] = 1
    return utterances, batch, mask


# Padding -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoder", "variant", "aggregation", "pooling"), grid(ENCODER_TYPES))
def test_padding_does_not_change_the_score(encoder: str, variant: str, aggregation: str, pooling: str) -> None:
    model = tiny_model(encoder, backend_variant=variant, layer_aggregation=aggregation, pooling=pooling)
    utterances, batch, mask = ragged([9000, 4321, 12345, 4321])
    with torch.inference_mode():
        together = model.score(model(batch, attention_mask=mask).logits)
        alone = torch.stack([model.score(model(utterance[None]).logits)[0] for utterance in utterances])
    assert ((together - alone).abs() <= 1e-5 * alone.abs().clamp(min=1)).all(), (together, alone)


@pytest.mark.parametrize("encoder", ENCODER_TYPES[:3])
def test_padding_does_not_change_the_score_of_encoders_with_group_norm(encoder: str) -> None:
    config = tiny_config(encoder)
    config.encoder_config.feat_extract_norm = "group"
    config.encoder_config.do_stable_layer_norm = False
    torch.manual_seed(0)
    model = lively(Nes2NetForAudioClassification(config)).eval()
    utterances, batch, mask = ragged([9000, 4321, 12345])
    with torch.inference_mode():
        together = model(batch, attention_mask=mask).logits
        alone = torch.cat([model(utterance[None]).logits for utterance in utterances])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_what_stands_in_the_padding_does_not_matter() -> None:
    model = tiny_model()
    (_, silent, mask), (_, loud, _) = ragged([9000, 4321]), ragged([9000, 4321], padding=0.7)
    with torch.inference_mode():
        torch.testing.assert_close(model(silent, mask).logits, model(loud, mask).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("encoder", "variant", "aggregation", "pooling"), grid(KEEP_TO_THEIR_MASK))
def test_padding_does_not_enter_a_training_step(encoder: str, variant: str, aggregation: str, pooling: str) -> None:
    """The same utterances with 8,000 more samples of padding: same logits, gradients and batch-norm statistics."""
    tight = tiny_model(encoder, backend_variant=variant, layer_aggregation=aggregation, pooling=pooling).train()
    loose = copy.deepcopy(tight)
    _, batch, mask = ragged([9000, 4321, 12345])
    runs = [
        tight(batch, attention_mask=mask).logits,
        loose(torch.nn.functional.pad(batch, (0, 8000)), torch.nn.functional.pad(mask, (0, 8000))).logits,
    ]
    for logits in runs:
        logits.square().mean().backward()
    torch.testing.assert_close(runs[1], runs[0], atol=1e-4, rtol=1e-4)
    for (name, one), (_, other) in zip(tight.named_buffers(), loose.named_buffers(), strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    for (name, one), (_, other) in zip(tight.named_parameters(), loose.named_parameters(), strict=True):
        if one.grad is not None:
            scale = max(1.0, one.grad.abs().max().item())
            assert (one.grad - other.grad).abs().max() <= 2e-4 * scale, name


def test_masked_batch_norm_takes_its_statistics_from_valid_frames() -> None:
    x, mask = torch.randn(3, 5, 11, generator=torch.Generator().manual_seed(0)), torch.ones(3, 1, 11)
    mask[1, :, 4:] = 0
    masked, reference = MaskedBatchNorm(5), torch.nn.BatchNorm1d(5)
    valid = x.transpose(1, 2)[mask[:, 0].bool()]  # (frames, C)
    expected = reference(valid)
    out = masked(x.unsqueeze(2), mask.unsqueeze(2)).squeeze(2)
    torch.testing.assert_close(out.transpose(1, 2)[mask[:, 0].bool()], expected)
    torch.testing.assert_close(masked.running_mean, reference.running_mean)
    torch.testing.assert_close(masked.running_var, reference.running_var)


# What a transformers user expects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODER_TYPES)
def test_save_and_load_keep_the_logits(encoder: str, tmp_path: Path) -> None:
    model = tiny_model(encoder, layer_aggregation="squeeze_excitation", pooling="attentive_statistics")
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="100KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 1
    assert not list(tmp_path.rglob("*.bin"))
    x = waveforms()
    with torch.inference_mode():
        expected = model(x).logits
        for folder in ("whole", "sharded"):
            loaded, info = Nes2NetForAudioClassification.from_pretrained(tmp_path / folder, output_loading_info=True)
            assert not info["missing_keys"] and not info["unexpected_keys"]
            weights = loaded.state_dict()
            assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
            # Where memory lies decides in which order some kernels of a CPU sum.
            assert torch.allclose(loaded(x).logits, expected, atol=1e-6)


def test_auto_classes_build_our_classes(tiny_model_dir: Path) -> None:
    assert isinstance(AutoConfig.from_pretrained(tiny_model_dir), Nes2NetConfig)
    assert isinstance(AutoModel.from_pretrained(tiny_model_dir), Nes2NetModel)
    model = AutoModelForAudioClassification.from_pretrained(tiny_model_dir)
    assert isinstance(model, Nes2NetForAudioClassification)
    rebuilt = AutoModelForAudioClassification.from_config(model.config)
    assert rebuilt.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("encoder", ENCODER_TYPES)
def test_hidden_states_are_the_layers_and_the_normed_output(encoder: str) -> None:
    model = tiny_model(encoder)
    with torch.inference_mode():
        output = model(waveforms(), output_hidden_states=True)
        inputs = waveforms()
        if model.nes2net.features is not None:
            inputs = model.nes2net.features(inputs, None, model.config)
        last = model.nes2net.encoder(inputs).last_hidden_state
    assert len(output.hidden_states) == model.config.encoder_config.num_hidden_layers + 1
    assert torch.equal(output.hidden_states[-1], last)


def test_outputs_as_tuples_and_attentions() -> None:
    model = tiny_model()
    x, labels = waveforms(), torch.tensor([0, 1])
    loss, logits = model(x, labels=labels, return_dict=False)
    assert loss.shape == () and logits.shape == (2, 2)
    embedding = model.nes2net(x)
    assert embedding.pooler_output.shape == (2, 64) and embedding.last_hidden_state.shape[-1] == 64
    eager = Nes2NetForAudioClassification._from_config(model.config, attn_implementation="eager")
    assert len(eager(x, output_attentions=True).attentions) == 2


def test_loss_is_the_weighted_cross_entropy_of_the_config() -> None:
    x, labels = waveforms(3), torch.tensor([0, 1, 0])
    plain, weighted = tiny_model(), tiny_model(class_weights=(0.1, 0.9))
    logits = plain(x).logits
    nll = -logits.log_softmax(-1)[torch.arange(3), labels]
    torch.testing.assert_close(plain(x, labels=labels).loss, nll.mean())
    weights = torch.tensor([0.1, 0.9, 0.1])
    torch.testing.assert_close(weighted(x, labels=labels).loss, (nll * weights).sum() / weights.sum())


def test_a_head_of_one_logit_gives_two() -> None:
    model = tiny_model(classifier_outputs=1)
    output = model.nes2net(waveforms())
    x = model.classifier(output.pooler_output)[:, 0]
    logits = model(waveforms()).logits
    torch.testing.assert_close(logits, torch.stack([-x / 2, x / 2], dim=-1))
    torch.testing.assert_close(model.score(logits), x)
    torch.testing.assert_close(logits.softmax(-1)[:, 1], x.sigmoid())


def test_score_is_what_the_config_says() -> None:
    logits = torch.tensor([[1.0, 3.0], [0.5, -2.0]])
    assert tiny_model().score(logits).tolist() == [2.0, -2.5]
    assert tiny_model(score="bonafide_logit").score(logits).tolist() == [3.0, -2.0]


@pytest.mark.parametrize("encoder", ENCODER_TYPES)
def test_gradient_checkpointing_gives_the_same_gradients(encoder: str) -> None:
    plain = tiny_model(encoder, layer_aggregation="weighted_sum").train()
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing_enable()
    for model in (plain, saving):
        model(waveforms(), labels=torch.tensor([0, 1])).loss.backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("encoder", ["wav2vec2", "wavlm", "hubert"])
def test_attention_implementations_agree(encoder: str, tmp_path: Path) -> None:
    tiny_model(encoder).save_pretrained(tmp_path)
    with torch.inference_mode():
        eager, sdpa = (
            Nes2NetForAudioClassification.from_pretrained(tmp_path, attn_implementation=kind)(waveforms()).logits
            for kind in ("eager", "sdpa")
        )
    torch.testing.assert_close(eager, sdpa, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("encoder", ENCODER_TYPES)
def test_half_precision_weights_give_nearby_float32_logits(encoder: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tiny_model(encoder, pooling="attentive_statistics")
    model.save_pretrained(tmp_path)
    half = Nes2NetForAudioClassification.from_pretrained(tmp_path, dtype=dtype)
    assert half.nes2net.encoder.dtype == dtype
    _, batch, mask = ragged([9000, 4321])
    with torch.inference_mode():
        logits = half(batch, attention_mask=mask).logits
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, model(batch, attention_mask=mask).logits, atol=0.1, rtol=0.1)


def test_autocast_keeps_pooling_and_classifier_in_float32() -> None:
    model = tiny_model(pooling="attentive_statistics")
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        output = model(waveforms(), labels=torch.tensor([0, 1]))
    assert output.logits.dtype == output.loss.dtype == torch.float32


def test_freezing() -> None:
    model = tiny_model()
    model.freeze_feature_encoder()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen and all(name.startswith("nes2net.encoder.feature_extractor.") for name in frozen)
    model.freeze_encoder()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith("nes2net.encoder.")}
    model.train()(waveforms(), labels=torch.tensor([0, 1])).loss.backward()
    assert model.classifier.weight.grad is not None


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["nes2net", "nes2net_x"])
def test_backend_traces_without_graph_breaks(variant: str) -> None:
    backend = tiny_model(backend_variant=variant).nes2net.backend
    x, mask = torch.randn(2, 64, 30), torch.ones(2, 1, 30)
    mask[1, :, 20:] = 0
    compiled = torch.compile(backend, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        torch.testing.assert_close(compiled(x, mask), backend(x, mask))


@pytest.mark.slow
def test_compiled_backend_gives_the_same_numbers() -> None:
    backend = tiny_model().nes2net.backend
    x = torch.randn(2, 64, 30)
    with torch.inference_mode():
        expected = backend(x)
        torch.testing.assert_close(torch.compile(backend, fullgraph=True)(x), expected, atol=1e-5, rtol=1e-5)


def test_device_map_auto_loads_and_scores(tiny_model_dir: Path) -> None:
    pytest.importorskip("accelerate")
    plain = Nes2NetForAudioClassification.from_pretrained(tiny_model_dir)
    mapped = Nes2NetForAudioClassification.from_pretrained(tiny_model_dir, device_map="auto")
    with torch.inference_mode():
        torch.testing.assert_close(mapped(waveforms()).logits.cpu(), plain(waveforms()).logits)


# A pretrained encoder ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", ENCODER_TYPES)
def test_from_encoder_pretrained_keeps_the_encoder_and_initialises_the_rest(encoder: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    pretrained: Any = AutoModel.from_config(tiny_encoder_config(encoder, layerdrop=0.1, apply_spec_augment=True))
    pretrained.save_pretrained(tmp_path)
    for aggregation in AGGREGATIONS:
        model = Nes2NetForAudioClassification.from_encoder_pretrained(
            str(tmp_path), layer_aggregation=aggregation, outer_scale=4, inner_scale=4
        )
        theirs = (pretrained.encoder if encoder == "whisper" else pretrained).state_dict()
        assert all(torch.equal(tensor, theirs[key]) for key, tensor in model.nes2net.encoder.state_dict().items())
        dropping = "encoder_layerdrop" if encoder == "whisper" else "layerdrop"
        for config in (model.config.encoder_config, model.nes2net.encoder.config):
            assert getattr(config, dropping) == 0 and not config.apply_spec_augment
        assert all(p.isfinite().all() and p.abs().max() < 10 for p in model.parameters())
        assert model.nes2net.backend.blocks[0].steps[1].column_weights.tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_checkpoint_that_lacks_our_parameters_gets_them_initialised(aggregation: str, tmp_path: Path) -> None:
    """A raw parameter missing from a checkpoint would otherwise be left as uninitialised memory."""
    from safetensors.torch import load_file, save_file

    tiny_model(layer_aggregation=aggregation).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {key: value for key, value in weights.items() if ".encoder." in key}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    model = Nes2NetForAudioClassification.from_pretrained(tmp_path)
    if aggregation == "weighted_sum":
        assert model.nes2net.aggregation.layer_weights.tolist() == [1, 1, 1]
    if aggregation == "attentive_merging":
        merging = model.nes2net.aggregation  # standard normal: 64, 3 and 3 values
        drawn = torch.cat([merging.feature_weights.flatten(), merging.squeeze.flatten(), merging.excite.flatten()])
        assert abs(drawn.mean()) < 0.5 and 0.7 < drawn.std() < 1.3
    assert model.nes2net.backend.blocks[2].steps[0].column_weights.tolist() == [0.5, 0.5]
    assert model.nes2net.backend.norm_out.running_var.tolist() == [1.0] * 64


def test_default_configuration_is_the_published_size() -> None:
    config = Nes2NetConfig()
    assert (config.hidden_size, config.encoder_config.num_hidden_layers) == (1024, 24)
    with torch.device("meta"):
        model = Nes2NetForAudioClassification(config)
    counted = sum(p.numel() for part in (model.nes2net.backend, model.classifier) for p in part.parameters())
    assert counted == 512_039  # counted on the official code
    assert 315e6 < sum(p.numel() for p in model.parameters()) < 317e6


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_aggregation": "first"}, "layer_aggregation must be one of"),
        ({"backend_variant": "aasist"}, "backend_variant must be one of"),
        ({"hidden_act": "gelu"}, "hidden_act must be one of"),
        ({"pooling": "max"}, "pooling must be one of"),
        ({"score": "probability"}, "score must be one of"),
        ({"classifier_outputs": 3}, "classifier_outputs must be 1 or 2 with 2 labels"),
        ({"outer_scale": 7}, "outer_scale must divide"),
        ({"outer_scale": 1}, "outer_scale must be an integer of at least 2"),
        ({"inner_scale": 5}, "inner_scale must divide"),
        ({"kernel_size": 4}, "kernel_size must be odd"),
        ({"dilation": 0}, "dilation must be an integer of at least 1"),
        ({"se_reduction": 1.5}, "se_reduction must be an integer"),
        ({"threshold": float("nan")}, "threshold must be a finite number"),
        ({"class_weights": (1.0,)}, "class_weights must be two positive numbers"),
        ({"id2label": {0: "cat", 1: "dog"}}, "id2label must have exactly one class for bona fide speech"),
        ({"waveform_stem": [8, 8, 8]}, "waveform_stem must be a list of 5 widths"),
        ({"waveform_stem": [8, 8, 8, 8, 0]}, "waveform_stem must be an integer of at least 1"),
        (
            {
                "waveform_stem": [8] * 5,
                "encoder_config": {"model_type": "wav2vec2", "conv_stride": [5, 2, 2, 2, 2, 2, 1]},
            },
            "waveform_stem needs an encoder with 320 samples from frame to frame, this one has 160",
        ),
        ({"encoder_config": {"hidden_size": 64}}, "encoder_config must name its model_type"),
        ({"encoder_config": {"model_type": "bert"}}, "encoder_config of type 'bert' has no conv_kernel"),
    ],
)
def test_impossible_fields_are_errors_that_name_them(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Nes2NetConfig(**{"encoder_config": tiny_encoder_config()} | fields)


def test_a_malformed_population_is_an_error() -> None:
    whole = {"recordings": 400, "scores": [None, *range(197), None]}
    calibration = {"scale": 1.0, "offset": 0.0, "prior": 0.5}
    kept = {"name": "my speech", "bonafide": whole, "spoof": whole}
    Nes2NetConfig(calibration=calibration | {"population": kept})
    for wrong in (
        {}, {"name": None}, {"spoof": None}, {"spoof": {}}, {"spoof": whole | {"scores": whole["scores"][1:]}},
        {"bonafide": whole | {"recordings": 0}}, {"bonafide": whole | {"scores": whole["scores"][::-1]}},
        {"bonafide": whole | {"scores": ["1"] * 199}},
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"calibration\.population must have a name"):
            Nes2NetConfig(calibration=calibration | {"population": kept | wrong if wrong else {"familiarity": True}})


def test_layerdrop_is_refused_where_it_would_misalign_layers() -> None:
    dropping = tiny_encoder_config(layerdrop=0.1)
    Nes2NetConfig(encoder_config=dropping, outer_scale=4, inner_scale=4)
    with pytest.raises(ValueError, match=r"encoder_config\.layerdrop must be 0"):
        Nes2NetConfig(encoder_config=dropping, layer_aggregation="weighted_sum")
    config = tiny_config(layer_aggregation="weighted_sum")
    config.encoder_config.layerdrop = 0.1
    with pytest.raises(ValueError, match=r"encoder_config\.layerdrop must be 0"):
        Nes2NetForAudioClassification(config)


def test_bad_inputs_are_errors_in_a_sentence() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=r"must have shape \(batch, samples\)"):
        model(waveforms()[0])
    with pytest.raises(ValueError, match="too short: 399 samples, the encoder needs at least 400"):
        model(waveforms(samples=399))
    _, batch, mask = ragged([9000, 300])
    with pytest.raises(ValueError, match=r"input_values\[1\] is too short: 300 valid samples"):
        model(batch, attention_mask=mask)
    with pytest.raises(ValueError, match="pad on the right"):
        model(batch, attention_mask=mask.flip(1))
    with pytest.raises(ValueError, match="attention_mask must have the shape"):
        model(batch, attention_mask=mask[:, :100])
