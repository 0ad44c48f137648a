"""
Linear layers in 8 bits for inference on a CPU: weights with a scale per output, inputs with a scale per row.

A row's result does not depend on the other rows, because sums of integers are exact. So a window has the same score
alone and in a batch, within the rounding of the layers that stay in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

_ROWS = 256  # at a time, so that the sums stay in the processor's cache
_SMALLEST = 64  # features; smaller layers cost little


class Int8Linear(nn.Module):
    """
    A linear layer (…, D) → (…, D') with an int8 weight, for float32 inputs.

    Inputs are centred, and scaled feature by feature, because some features of an encoder are a hundred times as large
    as others and would leave few of the 255 steps to these. The inverse of the scales goes into the weight (Xiao et
    al. 2023, SmoothQuant, equation 4 with alpha = 0.5).

    Args:
        linear: the layer to quantise. Its first input sets centres and scales. Until `settle`, each input also
            corrects the bias by the mean error over its rows: the rounding of weights shifts outputs, and through many
            layers such shifts add up.
    """

    gain: Tensor
    shift: Tensor
    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._exact: nn.Linear | None = linear
        self._is_measured = False

    def settle(self) -> Int8Linear:
        """Ends the correction of the bias. Returns the layer."""
        self._exact = None
        return self

    def forward(self, input: Tensor) -> Tensor:
        rows = input.reshape(-1, input.shape[-1])
        if not self._is_measured:
            self._measure(rows)
        out = rows.new_empty(len(rows), len(self.scale))
        for part, place in zip(rows.split(_ROWS), out.split(_ROWS)):
            part = torch.addcmul(self.shift, part, self.gain)
            scale = part.abs().amax(1, keepdim=True).clamp_(min=1e-12) / 127
            sums = torch._int_mm((part / scale).round_().to(torch.int8), self.weight)
            torch.addcmul(self.bias, sums * self.scale, scale, out=place)
        if self._exact is not None:
            error = (self._exact(rows) - out).mean(0)
            self.bias += error
            out += error
        return out.view(*input.shape[:-1], -1)

    def _measure(self, rows: Tensor) -> None:
        """Sets centres and scales from inputs (N, D), and quantises the weight."""
        assert self._exact is not None
        weight = self._exact.weight.detach()  # (D', D)
        # A loud row counts as any other, because each row has a scale of its own.
        centre = rows.median(0).values
        moved = (rows - centre).abs()
        spread = (moved / moved.mean(1, keepdim=True).clamp(min=1e-12)).amax(0)
        # A feature that hardly moved in these inputs may move in others.
        smooth = (spread.clamp(min=1e-3 * spread.max().item()) / weight.abs().amax(0).clamp(min=1e-6)).sqrt()
        smooth = smooth.clamp(min=1e-12)
        bias = self._exact(centre).detach()
        weight = weight * smooth
        scale = weight.abs().amax(1).clamp(min=1e-12) / 127
        self.register_buffer("gain", 1 / smooth)  # (D)
        self.register_buffer("shift", -centre / smooth)  # (D)
        self.register_buffer(
            "weight", (weight / scale.unsqueeze(1)).round().to(torch.int8).t().contiguous()
        )  # (D, D')
        self.register_buffer("scale", scale)  # (D')
        self.register_buffer("bias", bias)  # (D')
        self._is_measured = True


def quantise(network: Any, speech: Mapping[str, Tensor]) -> None:
    """
    Quantises the linear layers of the encoder, in place, but the one that reads the waveform's features.

    Args:
        speech: what the feature extractor makes of some speech. Biases are corrected with it.
    """
    layers = []
    for path, module in list(network.base_model.encoder.named_modules()):
        for name, child in module.named_children():
            if type(child) is nn.Linear and min(child.weight.shape) >= _SMALLEST and "feature_projection" not in path:
                layers.append(Int8Linear(child))
                setattr(module, name, layers[-1])
    with torch.inference_mode():
        network(**speech)
    for layer in layers:
        layer.settle()
