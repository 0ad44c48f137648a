"""The back-end and the aggregations give the official systems' numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.official import AGGREGATIONS, BACKENDS, close, golden_aggregation, golden_backend


@pytest.mark.parametrize("name", BACKENDS)
def test_backend_gives_the_official_logits(name: str) -> None:
    golden = golden_backend(name)
    with torch.no_grad():
        close(golden.module(golden.tensor("x")), golden.arrays["logits"])


@pytest.mark.parametrize("name", BACKENDS)
def test_backend_gives_the_official_logits_of_a_single_frame(name: str) -> None:
    golden = golden_backend(name)
    with torch.no_grad():
        close(golden.module(golden.tensor("x_T1")), golden.arrays["logits_T1"])


@pytest.mark.parametrize("name", BACKENDS)
def test_inner_blocks_and_pooling_give_the_official_values(name: str) -> None:
    golden = golden_backend(name)
    seen: dict[str, torch.Tensor] = {}
    parts = {"block0": golden.module.backend.blocks[0], "block_last": golden.module.backend.blocks[-1]}
    for part, module in (parts | {"pre_fc": golden.module.pooling}).items():
        # A copy, for the activation behind a block works in place.
        module.register_forward_hook(lambda *args, part=part: seen.update({part: args[-1].clone()}))
    with torch.no_grad():
        golden.module(golden.tensor("x"))
    assert sorted(seen) == ["block0", "block_last", "pre_fc"]
    for part, value in seen.items():
        close(value.squeeze(2) if value.dim() == 4 else value, golden.arrays[part])


@pytest.mark.parametrize("name", BACKENDS)
def test_a_training_step_gives_the_official_logits_gradients_and_statistics(name: str) -> None:
    golden = golden_backend(name)
    module = golden.module.train()
    x = golden.tensor("train_x").requires_grad_()
    logits = module(x)
    logits.square().mean().backward()
    close(logits, golden.arrays["train_logits"])
    close(module.classifier.weight.grad, golden.arrays["train_grad_fc"], 1e-4)
    norms = {
        "train_grad_x_norm": x.grad.norm().item(),
        "train_grad_conv1_norm": module.backend.blocks[0].conv_in.weight.grad.norm().item(),
    }
    for key, norm in norms.items():
        assert norm == pytest.approx(float(golden.arrays[key]), rel=1e-4)
    close(module.backend.norm_out.running_mean, golden.arrays["train_bn_running_mean"])


@pytest.mark.parametrize("name", BACKENDS)
def test_a_mask_of_ones_trains_like_no_mask(name: str) -> None:
    """Our masked batch norm against torch's, statistics and gradients."""
    plain, masked = golden_backend(name), golden_backend(name)
    x = plain.tensor("train_x")
    mask = torch.ones(x.shape[0], 1, x.shape[2])
    outputs = [plain.module.train().backend(x), masked.module.train().backend(x, mask)]
    for output in outputs:
        output.square().mean().backward()
    close(outputs[1], outputs[0].detach().numpy())
    for a, b in zip(plain.module.backend.buffers(), masked.module.backend.buffers()):
        close(b.float(), a.float().numpy())
    for a, b in zip(plain.module.backend.parameters(), masked.module.backend.parameters()):
        close(b.grad, a.grad.numpy(), 1e-4)


@pytest.mark.parametrize("name", AGGREGATIONS)
def test_aggregation_gives_the_official_features(name: str) -> None:
    golden = golden_aggregation(name)
    with torch.no_grad():
        out = golden.module(tuple(golden.tensor("hidden_states")), None)
    close(out, golden.arrays["out"])


def test_every_golden_file_is_here() -> None:
    assert (len(BACKENDS), len(AGGREGATIONS)) == (7, 3)
    assert np.unique([name.split("_8x8")[0].split("_4x4")[0] for name in BACKENDS]).size == 3
