"""
Makes a model's encoder faster, with the same results within float32 rounding.

`speed_up` replaces the `forward` of some modules; weights, their names and the modules stay as they are. Each
replacement applies only where it is faster, and otherwise calls the module's own `forward`, as on a GPU or while a
graph is traced.

Letters in shapes: B utterances, S samples, T frames, C channels, D features, H attention heads.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.activations import GELUActivation
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

Model = TypeVar("Model", bound=nn.Module)

_BLOCK = 100  # frames of 20 ms: their activations fit in a processor's cache, and bound the memory of long inputs


def speed_up(model: Model, training: bool = False) -> Model:
    """
    Speeds up a model on a CPU, and lets WavLM's attention call its projections. Returns the same model.

    A model that was sped up returns no attentions of a WavLM encoder.

    Args:
        training: leave linear layers as they are, because they are faster only without gradients.
    """
    for module in model.modules():
        if _is_front_end(module):
            _replace(module, _front_end)
        elif isinstance(module, WavLMAttention):
            _replace(module, _wavlm_attention)
        elif not training and _has_fused_linear():
            if type(module) is nn.Linear:
                _replace(module, _linear)
            elif _is_feed_forward(module):
                _replace(module, _feed_forward)
    return model


def undo(model: Model) -> Model:
    """Gives a model its own code back, as torch can export it. Returns the same model."""
    for module in model.modules():
        if isinstance(module.__dict__.get("forward"), partial):
            del module.forward
    return model


def _replace(module: Any, forward: Callable[..., Any]) -> None:
    # An attribute of the instance hides the method of its class, and a copy of the model gets its own.
    module.forward = partial(forward, module)


@cache
def _has_bfloat16() -> bool:
    """Returns whether oneDNN computes in bfloat16 on this CPU; where it does not, its operators refuse bfloat16."""
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return torch.backends.mkldnn.is_available() and supported is not None and bool(supported())


def _is_plain(x: Tensor) -> bool:
    """Returns whether a tensor is on a CPU, and neither traced nor cast on the way."""
    return (
        x.device.type == "cpu"
        and (x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and _has_bfloat16()))
        and not torch.compiler.is_compiling()
        and not torch.is_autocast_enabled("cpu")
    )


# --------------------------------------------------------------------------------------------------------------------
# The convolutions that read the waveform
# --------------------------------------------------------------------------------------------------------------------


def _is_front_end(module: Any) -> bool:
    """Returns whether these are convolutions as in wav2vec 2.0, each followed by a norm or none and an activation."""
    found = getattr(module, "conv_layers", None)
    layers: list[Any] = list(found) if isinstance(found, nn.ModuleList) else []
    if not layers or layers[0].conv.in_channels != 1:
        return False
    norms: list[Any] = [getattr(layer, "layer_norm", None) for layer in layers]
    # Group norm has one group per channel, in the first layer only.
    by_time = [isinstance(norm, nn.GroupNorm) for norm in norms]
    return (
        all(type(layer.conv) is nn.Conv1d and hasattr(layer, "activation") for layer in layers)
        and all(layer.conv.groups == 1 and layer.conv.dilation == (1,) for layer in layers)
        and all(layer.conv.padding == (0,) for layer in layers)
        and all(norm is None or isinstance(norm, (nn.LayerNorm, nn.GroupNorm)) for norm in norms)
        and not any(by_time[1:])
        and (not by_time[0] or norms[0].num_groups == norms[0].num_channels)
    )


def _front_end(module: Any, input_values: Tensor) -> Tensor:
    """
    (B, S) → (B, C, T), utterance by utterance and block by block, each convolution as matrix products over (T, C).

    Channels last, a layer needs no transposition for its norm, and its input no copy.
    """
    # Adapters may have replaced a convolution, and checkpointing belongs to the layers' own way.
    own = any(
        type(layer.conv) is not nn.Conv1d or (layer.training and getattr(layer, "gradient_checkpointing", False))
        for layer in module.conv_layers
    )
    if own or not _is_plain(input_values):
        return type(module).forward(module, input_values)
    first, *others = module.conv_layers
    if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):  # its statistics are over the whole utterance
        rows = [_through(others, _normalised_over_time(first, samples.unsqueeze(1))) for samples in input_values]
    else:
        rows = [_in_blocks(module.conv_layers, samples.unsqueeze(1)) for samples in input_values]
    return torch.stack(rows).transpose(1, 2)


def _in_blocks(layers: Any, samples: Tensor) -> Tensor:
    """(S, 1) → (T, C)"""
    reach = hop = 1
    for layer in reversed(layers):
        reach = (reach - 1) * layer.conv.stride[0] + layer.conv.kernel_size[0]
        hop *= layer.conv.stride[0]
    frames = (len(samples) - reach) // hop + 1
    starts = range(0, frames, _BLOCK)
    return torch.cat(
        [_through(layers, samples[hop * start : hop * (min(start + _BLOCK, frames) - 1) + reach]) for start in starts]
    )


def _through(layers: Any, x: Tensor) -> Tensor:
    """(S, C) → (T, C')"""
    for layer in layers:
        x = _convolve(layer.conv, x)
        if getattr(layer, "layer_norm", None) is not None:
            x = layer.layer_norm(x)
        x = layer.activation(x)
    return x


def _normalised_over_time(layer: Any, x: Tensor) -> Tensor:
    """(S, 1) → (T, C)"""
    x, norm = _convolve(layer.conv, x), layer.layer_norm
    variance, mean = torch.var_mean(x, 0, unbiased=False)
    scale = torch.rsqrt(variance + norm.eps) * norm.weight
    return layer.activation(torch.addcmul(norm.bias - mean * scale, x, scale))


def _convolve(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """(T, C) → (T', C')"""
    kernel, stride, channels = conv.kernel_size[0], conv.stride[0], conv.in_channels
    frames = (len(x) - kernel) // stride + 1
    weight = conv.weight.transpose(1, 2).flatten(1)  # (C', kernel · C)
    if channels == 1:
        return _dense(x.squeeze(1).unfold(0, kernel, stride).contiguous(), weight, conv.bias)
    # Up to `stride` neighbouring frames are one row of a matrix that needs no copy; a longer kernel takes several.
    out: Any = None
    for tap in range(0, kernel, stride):
        taps = min(stride, kernel - tap)
        rows = x[tap:].as_strided((frames, taps * channels), (stride * channels, 1))
        part = weight[:, tap * channels : (tap + taps) * channels]
        out = _dense(rows, part.contiguous(), conv.bias) if out is None else out.addmm_(rows, part.T)
    return out


# --------------------------------------------------------------------------------------------------------------------
# Linear layers
# --------------------------------------------------------------------------------------------------------------------


@cache
def _has_fused_linear() -> bool:
    """
    Returns whether torch has oneDNN's matrix product with bias and activation in one pass, and it computes correctly.

    torch.compile uses this operator; it has no public name, so that its meaning is tested here.
    """
    if not torch.backends.mkldnn.is_available():
        return False
    x, weight, bias = torch.linspace(-2, 2, 48).view(4, 12), torch.linspace(1, -1, 36).view(3, 12), torch.ones(3)
    expected = F.linear(x, weight, bias)
    try:
        with torch.inference_mode():
            return torch.allclose(_fused(x, weight, bias, "none"), expected, atol=1e-5) and torch.allclose(
                _fused(x, weight, bias, "gelu"), F.gelu(expected), atol=1e-5
            )
    except (AttributeError, RuntimeError, TypeError):
        return False


def _fused(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation, [], "none" if activation == "gelu" else "")


def _fuses(x: Tensor, weight: Tensor) -> bool:
    """Returns whether this product can be computed in one pass: it has no gradients."""
    return not torch.is_grad_enabled() and _is_plain(x) and weight.dtype == x.dtype


def _dense(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    fused = _has_fused_linear() and _fuses(x, weight)
    return _fused(x, weight, bias, "none") if fused else F.linear(x, weight, bias)


def _linear(module: Any, input: Tensor) -> Tensor:
    return _dense(input, module.weight, module.bias)


def _is_feed_forward(module: Any) -> bool:
    return isinstance(getattr(module, "intermediate_act_fn", None), GELUActivation) and all(
        hasattr(module, name)
        for name in ("intermediate_dense", "intermediate_dropout", "output_dense", "output_dropout")
    )


def _feed_forward(module: Any, hidden_states: Tensor) -> Tensor:
    """(…, D) → (…, D), with the GELU computed in the pass of the first linear layer."""
    dense = module.intermediate_dense
    if type(dense) is not nn.Linear or not _fuses(hidden_states, dense.weight):
        return type(module).forward(module, hidden_states)
    return module.output_dense(_fused(hidden_states, dense.weight, dense.bias, "gelu"))


# --------------------------------------------------------------------------------------------------------------------
# WavLM's attention
# --------------------------------------------------------------------------------------------------------------------


def _wavlm_attention(
    module: Any,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    index: int = 0,
    **kwargs: Any,
) -> tuple[Tensor, None, Tensor]:
    """
    (B, T, D) and the position bias (H, T, T) → (B, T, D), None for the attentions, and the position bias.

    The gated position bias is the mask of torch's scaled dot-product attention. The projections run as modules, so
    that they can be quantised or have LoRA adapters; transformers reads only their weights.
    """
    batch, frames, _ = hidden_states.shape
    heads = hidden_states.view(batch, frames, module.num_heads, -1)
    if position_bias is None:
        position_bias = module.compute_bias(frames, frames)
    gates = module.gru_rel_pos_linear(heads.transpose(1, 2)).unflatten(-1, (2, 4)).sum(-1).sigmoid()
    gate_a, gate_b = gates.chunk(2, dim=-1)  # (B, H, T, 1)
    bias = (gate_a * (gate_b * module.gru_rel_pos_const - 1.0) + 2.0) * position_bias
    if attention_mask is not None:
        bias = bias.masked_fill(attention_mask[:, None, None, :].ne(1), float("-inf"))
    query, key, value = (
        project(hidden_states).view(heads.shape).transpose(1, 2)
        for project in (module.q_proj, module.k_proj, module.v_proj)
    )
    dropout = module.dropout if module.training else 0.0
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias.to(query.dtype), dropout_p=dropout)
    return module.out_proj(mixed.transpose(1, 2).reshape(hidden_states.shape)), None, position_bias
