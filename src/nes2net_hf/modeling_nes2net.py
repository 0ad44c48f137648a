"""
Nes2Net (Liu et al. 2025, arXiv 2504.05657): encoder → layer aggregation → nested Res2Net → pooling → classifier.

Letters in shapes: B utterances, S samples, T frames, D features, L encoder layers, C channels of an outer group,
w channels of an inner group, c columns. This file travels with every released checkpoint: it imports only torch,
numpy, transformers and the configuration beside it.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedModel
from transformers.audio_utils import mel_filter_bank, window_function
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPooling,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils import find_adapter_config_file, is_peft_available, logging

from .configuration_nes2net import ID2LABEL, STEM_HOP, STEM_KERNELS, STEM_STRIDES, Nes2NetConfig, rows_by_label

logger = logging.get_logger(__name__)

# Encoders whose frames do not depend on masked padding, where they normalise by layer (measured, padded batch against
# each utterance alone). All others see the padding through group norm or convolutions, whatever the mask says.
_ENCODERS_THAT_KEEP_TO_THEIR_MASK = ("wav2vec2", "wavlm", "hubert", "unispeech", "unispeech-sat", "wav2vec2-bert")


# --------------------------------------------------------------------------------------------------------------------
# Small parts
# --------------------------------------------------------------------------------------------------------------------


class MaskedBatchNorm(nn.BatchNorm2d):
    """
    Batch norm over (B, C, 1, T) whose statistics in training come from valid frames only.

    Where `synchronized`, they come from the frames of all processes, with any back-end of torch.distributed, CPUs'
    included (torch's own SyncBatchNorm has no form for CPUs).
    """

    synchronized = False

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """`input` (B, C, 1, T); `mask` (B, 1, 1, T) of ones and zeros, or None where every frame is valid."""
        together = self.synchronized and torch.distributed.is_available() and torch.distributed.is_initialized()
        if not self.training or (mask is None and not together):
            return super().forward(input)
        x = input.float()
        if mask is None:
            mask = x.new_ones(x.shape[0], 1, 1, x.shape[3])
        add_up = _SumOverProcesses.apply if together else lambda sums: sums
        frames = add_up(mask.sum(dtype=torch.float32))
        mean = add_up((x * mask).sum((0, 2, 3), keepdim=True)) / frames
        centred = (x - mean) * mask
        variance = add_up(centred.square().sum((0, 2, 3), keepdim=True)) / frames
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None and self.momentum is not None
            unbiased = variance * frames / (frames - 1).clamp(min=1)
            self.running_mean.lerp_(mean.flatten().to(self.running_mean), self.momentum)
            self.running_var.lerp_(unbiased.flatten().to(self.running_var), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight.view(1, -1, 1, 1) * torch.rsqrt(variance + self.eps)
        return (centred * scale + self.bias.view(1, -1, 1, 1)).to(input.dtype)


class _SumOverProcesses(torch.autograd.Function):
    """A sum over all processes, whose gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        torch.distributed.all_reduce(total)
        return total


class Conv(nn.Conv1d):
    """
    A 1-D convolution over (B, C, 1, T) that keeps the channels last in memory.

    So laid out, the narrow convolutions and batch norms of the back-end are 1.5 to 2 times as fast on a CPU as over
    (B, C, T), for which torch has no such layout; the weights stay those of a 1-D convolution.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, 1, T) → (B, C', 1, T')"""
        stride, padding, dilation = (1, *self.stride), (0, *self.padding), (1, *self.dilation)
        return F.conv2d(input, self.weight.unsqueeze(2), self.bias, stride, padding, dilation, self.groups)


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32, whatever the precision of its weights and input or autocast say."""

    def forward(self, input: Tensor) -> Tensor:
        # The meta device, on which costs are counted, has no autocast.
        with torch.autocast("cpu" if input.is_meta else input.device.type, enabled=False):
            return F.linear(input.float(), self.weight.float(), self.bias.float())


class CosineClassifier(Float32Linear):
    """(..., D) → (..., C): the cosines between features and each row of the weights, times `scale`."""

    def __init__(self, features: int, outputs: int, scale: float) -> None:
        super().__init__(features, outputs, bias=False)
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast("cpu" if input.is_meta else input.device.type, enabled=False):
            return self.scale * F.linear(F.normalize(input.float(), dim=-1), F.normalize(self.weight.float(), dim=-1))


class Activation(nn.Module):
    """ReLU or SELU, in place: nothing before it here needs its own output, but for a hook on that one's gradient."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = F.relu if name == "relu" else F.selu

    def forward(self, input: Tensor) -> Tensor:
        # Such a hook hands on a view. A compiler knows by itself what may be in place.
        return self.function(input, inplace=torch.compiler.is_compiling() or not input._is_view())


def _masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _mean_over_time(x: Tensor, mask: Tensor | None) -> Tensor:
    """(..., T) → (...), over valid frames."""
    if mask is None:
        return x.mean(-1)
    return (x * mask).sum(-1) / mask.sum(-1)


# --------------------------------------------------------------------------------------------------------------------
# Encoders that read features
# --------------------------------------------------------------------------------------------------------------------


class LogMel(nn.Module):
    """
    Log-mel features of waveforms, as the feature extractors of transformers compute them, within 1e-4.

    They are computed in float64: in float32, the Fourier transform of a frame has errors as large as the content of
    its quiet bands, which the logarithm shows. The constants are no buffers, so that no dtype or device moves them.
    """

    def __init__(self, filters: np.ndarray, window: np.ndarray) -> None:
        """`filters` (frequencies, bands) and `window` (400,), in float64."""
        super().__init__()
        self.filters, self.window = torch.from_numpy(filters), torch.from_numpy(window)

    def mel(self, frames: Tensor) -> Tensor:
        """Frames (B, T, 400) → power in each mel band (B, T, bands)"""
        size = 2 * (self.filters.shape[0] - 1)
        spectrum = torch.view_as_real(torch.fft.rfft(frames * self.window.to(frames.device), size))
        return spectrum.square().sum(-1) @ self.filters.to(frames.device)

    def forward(self, input_values: Tensor, attention_mask: Tensor | None, config: Nes2NetConfig) -> Tensor:
        """(B, S) waveforms, and a mask (B, S) or None → what the encoder reads, in float32"""
        device = input_values.device
        place = torch.device("cpu") if device.type == "mps" else device  # Apple's GPUs have no float64
        waveforms = input_values.to(place, torch.float64)
        lengths = None
        if attention_mask is not None:
            waveforms = waveforms * attention_mask.to(place)
            lengths = attention_mask.sum(-1).to(place)
        with torch.autocast("cpu" if place.type == "meta" else place.type, enabled=False):
            return self.features(waveforms, lengths, config).to(device, torch.float32)

    def features(self, waveforms: Tensor, lengths: Tensor | None, config: Nes2NetConfig) -> Tensor:
        raise NotImplementedError


class KaldiLogMel(LogMel):
    """
    The features of w2v-BERT 2.0 (`SeamlessM4TFeatureExtractor`): 80 log-mel bands as Kaldi computes them, normalised
    over the utterance band by band, two frames joined to one.
    """

    def __init__(self) -> None:
        filters = mel_filter_bank(257, 80, 20, 8000, 16_000, mel_scale="kaldi", triangularize_in_mel_space=True)
        super().__init__(filters, window_function(400, "povey", periodic=False))

    def features(self, waveforms: Tensor, lengths: Tensor | None, config: Nes2NetConfig) -> Tensor:
        """(B, S) → (B, T, 160)"""
        pairs = config.frames(waveforms.shape[1])
        frames = waveforms.unfold(-1, 400, 160) * 2**15
        frames = frames - frames.mean(-1, keepdim=True)
        first = frames[..., :1]
        frames = frames - 0.97 * torch.cat([first, frames[..., :-1]], dim=-1)
        bands = self.mel(frames).clamp(min=1.192092955078125e-07).log()
        if lengths is None:
            bands = (bands - bands.mean(1, keepdim=True)) / (bands.var(1, keepdim=True) + 1e-7).sqrt()
        else:
            count = ((lengths - 400) // 160 + 1)[:, None, None]
            valid = torch.arange(bands.shape[1], device=bands.device)[:, None] < count
            bands = (bands - (bands * valid).sum(1, keepdim=True) / count) * valid
            variance = bands.square().sum(1, keepdim=True) / (count - 1)
            bands = bands / (variance + 1e-7).sqrt()
        return bands[:, : 2 * pairs].reshape(bands.shape[0], pairs, 160)


class WhisperLogMel(LogMel):
    """
    The features of Whisper (`WhisperFeatureExtractor`): log-mel bands within 80 dB of the loudest, without the silence
    that fills them to 30 s.
    """

    def __init__(self, bands: int) -> None:
        filters = mel_filter_bank(201, bands, 0, 8000, 16_000, norm="slaney", mel_scale="slaney")
        super().__init__(filters, window_function(400, "hann"))

    def features(self, waveforms: Tensor, lengths: Tensor | None, config: Nes2NetConfig) -> Tensor:
        """(B, S) → (B, bands, 2T + 1): what the T positions see, the last of them one frame beyond its own two"""
        frames = config.frames(waveforms.shape[1])
        end = 160 * 2 * config.encoder_config.max_source_positions
        # Behind the recording is silence, which four frames more reach. The edges of the 30 s are mirrored.
        place = torch.arange(-200, waveforms.shape[1] + 1200, device=waveforms.device).abs()
        place = torch.where(place < end, place, 2 * end - 2 - place)
        padded = F.pad(waveforms, (0, 1200)).index_select(1, place)
        bands = self.mel(padded.unfold(-1, 400, 160)[:, : 2 * frames + 4]).clamp(min=1e-10).log10()
        bands = torch.maximum(bands, bands.amax((1, 2), keepdim=True) - 8)
        bands = ((bands + 4) / 4)[:, : 2 * frames + 1]
        # Behind the 30 s is no silence: the convolution pads its input with zeros.
        inside = torch.arange(bands.shape[1], device=bands.device) < end // 160
        return (bands * inside[:, None]).transpose(1, 2)


@cache
def _whisper_frames_encoder() -> Any:
    """Returns the class of Whisper's encoder, made only where it is needed: its module takes time to import."""
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    class WhisperFramesEncoder(WhisperEncoder):
        """
        Whisper's encoder, which reads only the positions that the recording fills, where transformers' own always
        reads 30 s. The positions of a recording of 30 s get the same states from both.
        """

        _keys_to_ignore_on_load_unexpected = [r"^(model\.)?decoder\.", r"^proj_out\."]  # noqa: RUF012

        def forward(
            self,
            input_features: Tensor,
            attention_mask: Tensor | None = None,
            output_hidden_states: bool = False,
            **unused: Any,
        ) -> BaseModelOutput:
            """
            `input_features` (B, bands, 2T + 1) as [`WhisperLogMel`] computes them, and a mask of frames (B, T) or
            None → `last_hidden_state` (B, T, D), and where asked for `hidden_states`, L + 1, the last one after the
            final norm.
            """
            # Each convolution would pad the right side with zeros, where there is a frame more.
            hidden = F.gelu(self.conv1(input_features))[..., :-1]
            hidden = F.gelu(self.conv2(hidden)).transpose(1, 2)
            hidden = hidden + self.embed_positions(torch.arange(hidden.shape[1], device=hidden.device))
            hidden = F.dropout(hidden, self.dropout, self.training)
            mask = None
            if attention_mask is not None:
                mask = hidden.new_zeros(hidden.shape[0], 1, 1, hidden.shape[1])
                mask = mask.masked_fill(~attention_mask[:, None, None].bool(), torch.finfo(hidden.dtype).min)
            states = [hidden]
            for layer in self.layers:
                if not (self.training and self.layerdrop and torch.rand([]) < self.layerdrop):
                    hidden = layer(hidden, mask)
                    hidden = hidden[0] if isinstance(hidden, tuple) else hidden  # transformers before 5.2
                    states.append(hidden)
            hidden = self.layer_norm(hidden)
            kept: Any = (*states[:-1], hidden) if output_hidden_states else None
            return BaseModelOutput(last_hidden_state=hidden, hidden_states=kept)

    return WhisperFramesEncoder


def _build_features(encoder_config: Any) -> LogMel | None:
    """Returns None where the encoder reads waveforms."""
    if encoder_config.model_type == "wav2vec2-bert":
        return KaldiLogMel()
    return WhisperLogMel(encoder_config.num_mel_bins) if encoder_config.model_type == "whisper" else None


def _build_encoder(config: Nes2NetConfig) -> PreTrainedModel:
    """Returns the encoder with random weights, up to the last layer that is read."""
    encoder_config = _up_to_the_last_read(config)
    if encoder_config.model_type == "whisper":
        return _without_unread_norm(_whisper_frames_encoder()._from_config(encoder_config), config)
    return _without_unread_norm(AutoModel.from_config(encoder_config), config)


def _load_encoder(config: Nes2NetConfig, name: str, revision: str | None) -> PreTrainedModel:
    """
    Returns the encoder with its pretrained weights, up to the last layer that is read.

    Raises:
        ValueError: some of its weights are missing, which transformers would draw at random.
    """
    place: dict[str, Any] = {"revision": revision, "dtype": torch.float32, "output_loading_info": True}
    kind: Any = AutoModel
    if config.encoder_config.model_type == "whisper":
        # Without the decoder, whichever of its classes saved the weights.
        kind, place["key_mapping"] = _whisper_frames_encoder(), {r"^(?:model\.)?encoder\.(.*)": r"\1"}
    encoder, report = kind.from_pretrained(name, config=_up_to_the_last_read(config), **place)
    encoder = _without_unread_norm(encoder, config)
    missing = sorted(
        key for key in report["missing_keys"] if key in encoder.state_dict() and key != "masked_spec_embed"
    )
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} weights of its encoder, such as {missing[0]}: download it again."
        )
    return encoder


def _up_to_the_last_read(config: Nes2NetConfig) -> Any:
    encoder_config = config.encoder_config
    if config.top_layer < encoder_config.num_hidden_layers:
        encoder_config = copy.deepcopy(encoder_config)
        encoder_config._attn_implementation = config.encoder_config._attn_implementation
        encoder_config.num_hidden_layers = config.top_layer
    return encoder_config


def _without_unread_norm(encoder: Any, config: Nes2NetConfig) -> PreTrainedModel:
    """Below the top layer, no final norm is read: it belongs to the states of the top."""
    kind = config.encoder_config
    if config.top_layer < kind.num_hidden_layers:
        if kind.model_type == "whisper":
            encoder.layer_norm = nn.Identity()
        elif kind.model_type == "wav2vec2-conformer" or (
            # In the others the same norm precedes the first layer, and so it does in every data2vec.
            getattr(kind, "do_stable_layer_norm", False) and kind.model_type != "data2vec-audio"
        ):
            encoder.encoder.layer_norm = nn.Identity()
    return encoder


# --------------------------------------------------------------------------------------------------------------------
# Aggregation of the encoder's layers
# --------------------------------------------------------------------------------------------------------------------


class LastLayer(nn.Module):
    """The encoder's last hidden state, as it is."""

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        return hidden_states[-1]


class WeightedSum(nn.Module):
    """Sum of the layers with softmax weights."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.ones(layers))

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        return _weigh(hidden_states, self.layer_weights.softmax(0).expand(hidden_states[0].shape[0], -1))


class SqueezeExcitationAggregation(nn.Module):
    """SEA (Liu et al. 2025): each layer is weighed by what all layers' means over time and features say."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(layers, max(1, layers // 3), bias=False)
        self.excite = nn.Linear(max(1, layers // 3), layers, bias=False)

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        means = torch.stack([_mean_over_time(h.mean(-1).unsqueeze(1), mask)[:, 0] for h in hidden_states], dim=1)
        return _weigh(hidden_states, self.excite(self.squeeze(means).relu()).sigmoid())


class AttentiveMerging(nn.Module):
    """
    AttM (Pan et al. 2024): layers are weighed by attention over their means, then merged by a linear layer.

    That layer reads one tensor (B, T, D·L) of all weighted layers: 330 MB for 16 windows of 4 s of a large encoder.
    """

    def __init__(self, layers: int, features: int) -> None:
        super().__init__()
        self.feature_weights = nn.Parameter(torch.empty(features, 1))
        self.squeeze = nn.Parameter(torch.empty(layers, max(1, layers // 2)))
        self.excite = nn.Parameter(torch.empty(max(1, layers // 2), layers))
        self.projection = nn.Linear(features * layers, features)

    def forward(self, hidden_states: Sequence[Tensor], mask: Tensor | None) -> Tensor:
        means = torch.stack([_mean_over_time(h.transpose(1, 2), mask) for h in hidden_states], dim=1)  # (B, L, D)
        attention = F.silu((means @ self.feature_weights).squeeze(-1))
        weights = (F.silu(attention @ self.squeeze) @ self.excite).sigmoid()  # (B, L)
        weighted = [h * w[:, None, None] for h, w in zip(hidden_states, weights.unbind(1))]
        return self.projection(torch.stack(weighted, dim=-1).flatten(2))  # features major, layers minor


def _weigh(hidden_states: Sequence[Tensor], weights: Tensor) -> Tensor:
    """Sum of L layers (B, T, D) by weights (B, L), without a stack of them in memory."""
    total = hidden_states[0] * weights[:, 0, None, None]
    for layer, hidden in enumerate(hidden_states[1:], start=1):
        total = total + hidden * weights[:, layer, None, None]
    return total


def _build_aggregation(config: Nes2NetConfig) -> nn.Module:
    """
    Every aggregation reads hidden states (B, T, D), L + 1 or those of `encoder_layers`, and a mask (B, 1, T), and
    returns (B, T, D).
    """
    layers = len(config.encoder_layers or range(config.encoder_config.num_hidden_layers + 1))
    if config.layer_aggregation == "weighted_sum":
        return WeightedSum(layers)
    if config.layer_aggregation == "squeeze_excitation":
        return SqueezeExcitationAggregation(layers)
    if config.layer_aggregation == "attentive_merging":
        return AttentiveMerging(layers, config.hidden_size)
    return LastLayer()


# --------------------------------------------------------------------------------------------------------------------
# Nested Res2Net back-end
# --------------------------------------------------------------------------------------------------------------------


class ScaleStep(nn.Module):
    """One step of the plain inner Res2Net: dilated convolution → activation → batch norm."""

    def __init__(self, channels: int, config: Nes2NetConfig) -> None:
        super().__init__()
        span = config.dilation * (config.kernel_size - 1) // 2
        self.conv = Conv(channels, channels, config.kernel_size, padding=span, dilation=config.dilation)
        self.act = Activation(config.hidden_act)
        self.norm = MaskedBatchNorm(channels)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, w, 1, T) → (B, w, 1, T)"""
        return self.norm(self.act(self.conv(_masked(x, mask))), mask)


class ColumnStep(ScaleStep):
    """
    One step of variant X: the same convolution over every column, then their learnt sum.

    The c columns are folded into the batch, (c·B, w, 1, T): one 1-D convolution over all of them, where a stack in an
    axis of its own would need a 2-D one and a product and sum over strided memory.
    """

    def __init__(self, channels: int, columns: int, config: Nes2NetConfig) -> None:
        super().__init__(channels, config)
        self.column_weights = nn.Parameter(torch.full((columns,), 1 / columns))

    def forward(self, columns: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Columns (c·B, w, 1, T) → the new columns (c·B, w, 1, T) and their weighted sum (B, w, 1, T)."""
        count = self.column_weights.shape[0]
        columns = super().forward(columns, None if mask is None else mask.repeat(count, 1, 1, 1))
        rows, width, _, frames = columns.shape
        # Channels last, a column is one row of memory, and the sum over columns one matrix product.
        flat = columns.permute(0, 2, 3, 1).reshape(count, -1)
        total = (self.column_weights @ flat).view(rows // count, 1, frames, width).permute(0, 3, 1, 2)
        return columns, total


class SqueezeExcitation(nn.Module):
    """
    Channel gates from the mean over valid frames.

    In the authors' code, only the SELU and ASVspoof 5 systems keep the bottleneck at 2 or more. It matters only if the
    reduction is more than half the channels: no published checkpoint is concerned, because all have a reduction of 1.
    """

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        bottleneck = max(2, channels // reduction)
        self.squeeze = Conv(channels, bottleneck, 1)
        self.excite = Conv(bottleneck, channels, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, C, 1, T) → (B, C, 1, T)"""
        mean = _mean_over_time(x, mask).unsqueeze(-1)
        return x * self.excite(self.squeeze(mean).relu()).sigmoid()


class InnerBlock(nn.Module):
    """Res2Net inside one outer group (section III of the paper), plain or variant X, with a residual connection."""

    def __init__(self, channels: int, config: Nes2NetConfig) -> None:
        super().__init__()
        self.scale = config.inner_scale
        self.has_columns = config.backend_variant == "nes2net_x"
        width = channels // self.scale
        self.conv_in = Conv(channels, channels, 1)
        self.norm_in = MaskedBatchNorm(channels)
        if self.has_columns:
            self.steps = nn.ModuleList(ColumnStep(width, i + 2, config) for i in range(self.scale - 1))
        else:
            self.steps = nn.ModuleList(ScaleStep(width, config) for _ in range(self.scale - 1))
        self.conv_out = Conv(channels, channels, 1)
        self.norm_out = MaskedBatchNorm(channels)
        self.squeeze_excitation = SqueezeExcitation(channels, config.se_reduction)
        self.act = Activation(config.hidden_act)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, C, 1, T) → (B, C, 1, T)"""
        *groups, rest = self.norm_in(self.act(self.conv_in(x)), mask).chunk(self.scale, dim=1)
        outputs = []
        if self.has_columns:
            columns = rest
            for group, step in zip(groups, self.steps):
                columns, z = step(torch.cat([columns, group]), mask)
                outputs.append(z)
        else:
            for group, step in zip(groups, self.steps):
                outputs.append(step(outputs[-1] + group if outputs else group, mask))
        h = self.norm_out(self.act(self.conv_out(torch.cat([*outputs, rest], dim=1))), mask)
        return self.squeeze_excitation(h, mask) + x


class AttentiveSplits(nn.Module):
    """
    Attention of each split to itself and its two neighbours, over their means in time (Nes2Net-LA, Zhang et al. 2025,
    arXiv 2512.07352). The first and the last split count twice for themselves, as in the authors' code.

    The name is not "Attention": from a class of that name, transformers concludes that a model's attention is fixed.
    """

    def __init__(self, splits: int, channels: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )
        self.positions = nn.Parameter(torch.empty(splits, channels))

    def forward(self, splits: list[Tensor], mask: Tensor | None) -> list[Tensor]:
        """K splits (B, C, 1, T) → K splits (B, C, 1, T), each with the result of its attention at every frame"""
        tokens = torch.stack([_mean_over_time(split, mask)[..., 0] for split in splits], dim=1)  # (B, K, C)
        query, key, value = (proj(tokens) + self.positions for proj in (self.q_proj, self.k_proj, self.v_proj))
        last = len(splits) - 1
        around = [[max(0, k - 1), k, min(last, k + 1)] for k in range(len(splits))]
        weights = ((query.unsqueeze(2) * key[:, around]).sum(-1) / tokens.shape[-1] ** 0.5).softmax(-1)  # (B, K, 3)
        weights = F.dropout(weights, 0.1, self.training)
        found = self.out_proj((weights.unsqueeze(-1) * value[:, around]).sum(2))
        return [split + its[..., None, None] for split, its in zip(splits, found.unbind(1))]


class Nes2NetBackend(nn.Module):
    """Nested Res2Net: an outer Res2Net over the encoder's features, each of whose steps is an inner Res2Net."""

    def __init__(self, config: Nes2NetConfig) -> None:
        super().__init__()
        self.scale = config.outer_scale
        channels = config.hidden_size // self.scale
        self.blocks = nn.ModuleList(InnerBlock(channels, config) for _ in range(self.scale - 1))
        self.norms = nn.ModuleList(MaskedBatchNorm(channels) for _ in range(self.scale - 1))
        self.split_attention = AttentiveSplits(self.scale, channels) if config.split_attention else None
        self.norm_out = MaskedBatchNorm(config.hidden_size)
        self.act = Activation(config.hidden_act)

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, D, T), and a mask (B, 1, T) of ones for valid frames or None → (B, D, T)"""
        if mask is not None:
            mask = mask.unsqueeze(2)
        features = features.unsqueeze(2).contiguous(memory_format=torch.channels_last)
        *groups, rest = features.chunk(self.scale, dim=1)
        outputs: list[Tensor] = []
        for group, block, norm in zip(groups, self.blocks, self.norms):
            x = outputs[-1] + group if outputs else group
            outputs.append(norm(self.act(block(_masked(x, mask), mask)), mask))
        outputs.append(rest)
        if self.split_attention is not None:
            outputs = self.split_attention(outputs, mask)
        return self.act(self.norm_out(torch.cat(outputs, dim=1), mask)).squeeze(2)


# --------------------------------------------------------------------------------------------------------------------
# Pooling over time
# --------------------------------------------------------------------------------------------------------------------


class MeanPooling(nn.Module):
    """Mean over valid frames, in float32."""

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D, T) → (B, D)"""
        return _mean_over_time(x.float(), mask)


class AttentiveStatisticsPooling(nn.Module):
    """Attention-weighted mean and standard deviation (Okabe et al. 2018), attention per channel, in float32."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv1d(channels, bottleneck, 1)
        self.attend = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D, T) → (B, 2D)"""
        logits = self.attend(self.squeeze(x).tanh()).float()
        if mask is not None:
            logits = logits.masked_fill(mask == 0, float("-inf"))
        attention = logits.softmax(-1)
        x = x.float()
        mean = (attention * x).sum(-1)
        # In two passes: E[x²] − mean² under a root would lose the digits that padding invariance needs.
        variance = (attention * (x - mean.unsqueeze(-1)).square()).sum(-1)
        return torch.cat([mean, variance.clamp(min=1e-10).sqrt()], dim=1)


def _build_pooling(config: Nes2NetConfig) -> nn.Module:
    if config.pooling == "attentive_statistics":
        return AttentiveStatisticsPooling(config.hidden_size, config.pooling_bottleneck)
    return MeanPooling()


# --------------------------------------------------------------------------------------------------------------------
# Models
# --------------------------------------------------------------------------------------------------------------------


class Nes2NetPreTrainedModel(PreTrainedModel):
    """Initialisation and loading shared by all Nes2Net models."""

    config_class = Nes2NetConfig
    base_model_prefix = "nes2net"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    # It stays in float32 even if the rest is in half precision or quantised: it is small, and computes the scores.
    _keep_in_fp32_modules = _keep_in_fp32_modules_strict = ["classifier"]  # noqa: RUF012
    _no_split_modules = ["Nes2NetBackend", "AttentiveMerging", "AttentiveStatisticsPooling"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            module.reset_parameters()
            return
        super()._init_weights(module)
        if isinstance(module, ColumnStep):
            nn.init.constant_(module.column_weights, 1 / module.column_weights.numel())
        elif isinstance(module, AttentiveSplits):
            nn.init.trunc_normal_(module.positions, std=0.02)
        elif isinstance(module, WeightedSum):
            nn.init.ones_(module.layer_weights)
        elif isinstance(module, AttentiveMerging):
            for weight in (module.feature_weights, module.squeeze, module.excite):
                nn.init.normal_(weight)  # as in the authors' code

    def score(self, logits: Tensor) -> Tensor:
        """Logits (..., C) of the C labels → scores (...), higher = bona fide, as `config.score` defines them."""
        spoof, bonafide = self.two_classes(logits).unbind(-1)
        return bonafide if self.config.score == "bonafide_logit" else bonafide - spoof

    def two_classes(self, logits: Tensor) -> Tensor:
        """
        Logits (..., C) of the C labels, in any order → (..., 2), for spoof and bona fide. Their softmax gives the
        probabilities of any kind of spoof and of bona fide; their difference is the log-odds.
        """
        index = self.config.bonafide_index
        spoof = torch.cat([logits[..., :index], logits[..., index + 1 :]], dim=-1)
        spoof = spoof.squeeze(-1) if spoof.shape[-1] == 1 else spoof.logsumexp(-1)
        return torch.stack([spoof, logits[..., index]], dim=-1)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *model_args: Any, **kwargs: Any) -> Any:
        """
        Loads a model as transformers does, with two differences. If the labels that you pass are in another order than
        those of the folder (class folders sort alphabetically), the rows of the classifier are reordered, so that each
        logit keeps its meaning. And a folder that would load weights from elsewhere is refused.

        Raises:
            ValueError: a value in the folder's files is invalid, the folder has an adapter, or its index names files
                outside it.
        """
        place = {name: kwargs[name] for name in _PLACE if name in kwargs}
        _check_files(pretrained_model_name_or_path, place)
        try:
            loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        except RuntimeError as error:
            if "ignore_mismatched_sizes" not in str(error):
                raise
            raise ValueError(
                f"{pretrained_model_name_or_path}: the shapes in config.json differ from those of the weights, as "
                "the report shows: restore the config.json of these weights, or pass ignore_mismatched_sizes=True."
            ) from error
        asked = kwargs.get("id2label") or kwargs.get("config")
        if asked is not None and pretrained_model_name_or_path is not None:
            try:
                stored, _ = cls.config_class.get_config_dict(pretrained_model_name_or_path, **place)
            except OSError:  # weights without a configuration: the labels that were passed count
                return loaded
            _put_in_order(loaded[0] if isinstance(loaded, tuple) else loaded, stored.get("id2label") or ID2LABEL)
        return loaded

    @classmethod
    def from_encoder_pretrained(
        cls,
        encoder: str,
        *,
        encoder_overrides: dict[str, Any] | None = None,
        revision: str | None = None,
        attn_implementation: str | None = None,
        **config_fields: Any,
    ) -> Nes2NetPreTrainedModel:
        """
        Creates a new model around a pretrained encoder: its weights are loaded, all other weights are random.

        As in the published recipes, the encoder runs without SpecAugment and layerdrop.

        Args:
            encoder (`str`): Hub id or folder, e.g. `"facebook/wav2vec2-xls-r-300m"`.
            encoder_overrides (`dict`, *optional*): fields of the encoder's configuration to change, e.g. dropouts.
            revision (`str`, *optional*): branch, tag or commit on the Hub.
            attn_implementation (`str`, *optional*): of the encoder, e.g. `"eager"` or `"sdpa"`.
            **config_fields: fields of [`Nes2NetConfig`], e.g. `layer_aggregation="squeeze_excitation"`.

        Raises:
            ValueError: a field of the configuration is invalid.
        """
        # Each encoder takes those that it has; Whisper's own name of its layerdrop is another.
        overrides = {"layerdrop": 0.0, "encoder_layerdrop": 0.0, "apply_spec_augment": False}
        overrides |= encoder_overrides or {}
        encoder_config = AutoConfig.from_pretrained(encoder, revision=revision, **overrides)
        config = Nes2NetConfig(encoder_config=encoder_config, **config_fields)
        if attn_implementation is not None:
            encoder_config._attn_implementation = attn_implementation
        _settle_attention(encoder_config)
        pretrained = _load_encoder(config, encoder, revision)
        model = cls(config)
        model.base_model.encoder = pretrained
        return model

    def freeze_feature_encoder(self) -> None:
        """Stops gradients in the encoder's first convolutions, if it has any (w2v-BERT has none)."""
        encoder: Any = self.base_model.encoder
        if hasattr(encoder, "feature_extractor"):
            encoder.feature_extractor._freeze_parameters()
        for name in ("conv1", "conv2"):  # Whisper's
            if hasattr(encoder, name):
                getattr(encoder, name).requires_grad_(False)

    def freeze_encoder(self) -> None:
        """Stops gradients in the whole encoder; aggregation, back-end and classifier still learn."""
        self.freeze_feature_encoder()
        self.base_model.encoder.requires_grad_(False)


_STEM_MARGIN = 290  # samples: half of what a stem's frame reads, 900, beyond the 320 to the next frame


class WaveformStem(nn.Module):
    """
    Convolutions on the waveform, those of wav2vec 2.0 (Baevski et al. 2020) but smaller, and a projection to the
    encoder's width. Frame t reads the 900 samples around the middle of samples 320 t to 320 (t + 1); outside the
    recording there is silence.
    """

    def __init__(self, config: Nes2NetConfig) -> None:
        super().__init__()
        # Imported only where it is needed, because that takes time.
        from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2Config, Wav2Vec2FeatureEncoder

        widths = config.waveform_stem
        assert widths is not None
        shape = Wav2Vec2Config(
            conv_dim=widths, conv_kernel=STEM_KERNELS, conv_stride=STEM_STRIDES, conv_bias=True,
            feat_extract_norm="layer",
        )  # fmt: skip
        self.convolutions = Wav2Vec2FeatureEncoder(shape)
        self.projection = nn.Linear(widths[-1], config.hidden_size)

    def forward(self, waveforms: Tensor, attention_mask: Tensor | None, frames: int) -> Tensor:
        """(B, S), and a mask of samples (B, S) or None → (B, frames, D)."""
        if attention_mask is not None:
            waveforms = waveforms * attention_mask.to(waveforms.dtype)
        padded = F.pad(waveforms, (_STEM_MARGIN, STEM_HOP * frames + _STEM_MARGIN - waveforms.shape[1]))
        return self.projection(self.convolutions(padded).transpose(1, 2))


class Nes2NetModel(Nes2NetPreTrainedModel):
    """Waveform → frame features of the nested Res2Net and their pooled embedding, without the classifier."""

    def __init__(self, config: Nes2NetConfig) -> None:
        config.check()
        super().__init__(config)
        _settle_attention(config.encoder_config)
        self.features = _build_features(config.encoder_config)
        self.encoder = _build_encoder(config)
        self.aggregation = _build_aggregation(config)
        self.stem = None if config.waveform_stem is None else WaveformStem(config)
        self.backend = Nes2NetBackend(config)
        self.pooling = _build_pooling(config)
        self.post_init()

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        encoder_hidden_states: Tensor | None = None,
    ) -> BaseModelOutputWithPooling | tuple:
        """
        Args:
            input_values (B, S): waveforms as [`Nes2NetFeatureExtractor`] prepares them.
            attention_mask (B, S), *optional*: 1 for samples, 0 for padding behind them.
            output_attentions: whether to return the encoder's attentions (needs eager attention).
            output_hidden_states: whether to return the encoder's hidden states (B, T, D) of all layers that are built,
                L + 1 in all, the last one after its final layer norm.
            return_dict: False for a tuple.
            encoder_hidden_states (B, K, T, D), *optional*: in place of `input_values`, what the encoder made of them
                before: K = L + 1 layers, those of `encoder_layers`, or the last one alone where the aggregation is
                `"last"`. `attention_mask` is then of frames (B, T).

        Returns:
            `last_hidden_state` (B, T, D), the back-end's frames; `pooler_output` (B, D), or (B, 2D) with attentive
            statistics, in float32; `hidden_states`; `attentions`.

        Raises:
            ValueError: inputs of a wrong shape or too short, or a mask that is not right-padded.
        """
        output_attentions = self.config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        features, hidden_states, attentions, frame_mask = self.encode(
            input_values, attention_mask, bool(output_attentions), bool(output_hidden_states), encoder_hidden_states
        )
        mask = None if frame_mask is None else frame_mask.unsqueeze(1).to(features.dtype)
        frames = self.backend(features.transpose(1, 2), mask)
        output = BaseModelOutputWithPooling(
            last_hidden_state=frames.transpose(1, 2),
            pooler_output=self.pooling(frames, mask),
            hidden_states=hidden_states if output_hidden_states else None,
            attentions=attentions,
        )
        return output if self._wants_dict(return_dict) else output.to_tuple()

    def encode(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        encoder_hidden_states: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...] | None, Tensor | None]:
        """
        What the back-end reads: (B, S) waveforms → aggregated features (B, T, D), the encoder's hidden states (those
        that the aggregation reads, or all where asked), its attentions, and the mask (B, T) of valid frames (None if
        all are). Arguments as of `forward`.
        """
        if encoder_hidden_states is not None:
            if self.stem is not None:
                raise ValueError("A model with a waveform_stem needs input_values, not encoder_hidden_states.")
            kept = encoder_hidden_states.unbind(1)
            return self._aggregate(kept, attention_mask), kept, None, attention_mask
        if input_values is None:
            raise ValueError("input_values or encoder_hidden_states must be given.")
        lengths = self._check_inputs(input_values, attention_mask)
        if lengths is not None and min(lengths) == input_values.shape[1]:
            attention_mask = lengths = None
        # Do not keep layers that nothing reads: in a large encoder they take most of the memory.
        every_layer = output_hidden_states or self.config.layer_aggregation != "last"
        if output_attentions and self.config.encoder_config.model_type == "whisper":
            raise ValueError("output_attentions is not supported with a whisper encoder: omit it.")
        if lengths is not None and not _keeps_to_its_mask(self.config.encoder_config):
            if output_attentions:
                raise ValueError(
                    "output_attentions needs utterances of equal length with a "
                    f"{self.config.encoder_config.model_type} encoder, because each length in a "
                    "batch runs separately: pass them one by one."
                )
            hidden_states, attentions = self._encode_by_length(input_values, lengths, every_layer), None
        else:
            hidden_states, attentions = self._run_encoder(input_values, attention_mask, every_layer, output_attentions)
        frame_mask = None
        if attention_mask is not None:
            valid = self.config.frames(attention_mask.sum(-1))
            frame_mask = torch.arange(hidden_states[-1].shape[1], device=valid.device) < valid.unsqueeze(1)
        read = hidden_states
        if self.config.encoder_layers is not None and len(hidden_states) > 1:
            read = tuple(hidden_states[layer] for layer in self.config.encoder_layers)
        features = self._aggregate(read, frame_mask)
        if self.stem is not None:
            waveforms = input_values.to(self.encoder.dtype)
            features = features + self.stem(waveforms, attention_mask, features.shape[1])
        return features, hidden_states if output_hidden_states else read, attentions, frame_mask

    def _aggregate(self, hidden_states: tuple[Tensor, ...], frame_mask: Tensor | None) -> Tensor:
        mask = None if frame_mask is None else frame_mask.unsqueeze(1).to(hidden_states[-1].dtype)
        return self.aggregation(hidden_states, mask)

    def _run_encoder(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None,
        every_layer: bool,
        output_attentions: bool = False,
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
        if self.features is not None:
            inputs = self.features(input_values, attention_mask, self.config)
            if attention_mask is not None:  # of frames from here on
                valid = self.config.frames(attention_mask.sum(-1)).unsqueeze(1)
                frames = torch.arange(self.config.frames(input_values.shape[1]), device=valid.device)
                attention_mask = (frames < valid).long()
        else:
            inputs = input_values
        output = self.encoder(
            inputs.to(self.encoder.dtype),
            attention_mask=attention_mask,
            output_hidden_states=every_layer,
            output_attentions=output_attentions or None,
            return_dict=True,
        )
        # In transformers, the last hidden state precedes the final layer norm; the published systems use it after.
        earlier = output.hidden_states[:-1] if every_layer else ()
        return (*earlier, output.last_hidden_state), output.attentions

    def _encode_by_length(self, input_values: Tensor, lengths: list[int], every_layer: bool) -> tuple[Tensor, ...]:
        """Returns the hidden states of a ragged batch for encoders that see padding: each length runs separately."""
        logger.warning_once(
            f"The {self.config.encoder_config.model_type} encoder does not mask padding everywhere, so each length in "
            "a batch runs separately: exact, but slower. For speed, batch utterances of similar length."
        )
        frames = int(self.config.frames(input_values.shape[1]))
        order: list[int] = []
        groups: list[tuple[Tensor, ...]] = []
        for length in sorted(set(lengths)):
            rows = [row for row, its_length in enumerate(lengths) if its_length == length]
            hidden_states, _ = self._run_encoder(input_values[rows, :length], None, every_layer)
            groups.append(tuple(F.pad(h, (0, 0, 0, frames - h.shape[1])) for h in hidden_states))
            order += rows
        back = sorted(range(len(order)), key=order.__getitem__)
        return tuple(torch.cat(layer)[back] for layer in zip(*groups))

    def _check_inputs(self, input_values: Tensor, attention_mask: Tensor | None) -> list[int] | None:
        """Returns the valid samples per utterance, if masked; raises ValueError for inputs that cannot be encoded."""
        if input_values.dim() != 2:
            raise ValueError(
                f"input_values must have shape (batch, samples), got {tuple(input_values.shape)}: "
                "prepare them with Nes2NetFeatureExtractor."
            )
        least = self.config.min_samples
        if input_values.shape[1] < least:
            raise ValueError(
                f"input_values is too short: {input_values.shape[1]} samples, the encoder needs at least {least}."
            )
        most = self.config.max_samples
        if most is not None and input_values.shape[1] > most:
            raise ValueError(
                f"input_values is too long: {input_values.shape[1]} samples, a "
                f"{self.config.encoder_config.model_type} encoder reads at most {most}: pass windows of that length."
            )
        # Reading the mask's values would break a compiled or exported graph.
        if attention_mask is None or torch.compiler.is_compiling():
            return None
        if attention_mask.shape != input_values.shape:
            raise ValueError(
                f"attention_mask must have the shape of input_values {tuple(input_values.shape)}, "
                f"got {tuple(attention_mask.shape)}."
            )
        if (attention_mask[:, 1:] > attention_mask[:, :-1]).any():
            raise ValueError("attention_mask must be ones then zeros in every row: pad on the right.")
        lengths = attention_mask.sum(-1).tolist()
        if min(lengths) < least:
            raise ValueError(
                f"input_values[{lengths.index(min(lengths))}] is too short: {min(lengths)} valid samples, "
                f"the encoder needs at least {least}."
            )
        return lengths

    def _wants_dict(self, return_dict: bool | None) -> bool:
        return bool(self.config.return_dict if return_dict is None else return_dict)


class Nes2NetForAudioClassification(Nes2NetPreTrainedModel):
    """Nes2Net with its classifier: logits for the labels of `config.id2label`, by default 0 = spoof, 1 = bona fide."""

    def __init__(self, config: Nes2NetConfig) -> None:
        super().__init__(config)
        self.nes2net = Nes2NetModel(config)
        embedding = config.hidden_size * (2 if config.pooling == "attentive_statistics" else 1)
        self.classifier = _classifier(embedding, config)
        self.post_init()

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        encoder_hidden_states: Tensor | None = None,
    ) -> SequenceClassifierOutput | tuple:
        """
        Args:
            input_values (B, S): waveforms as [`Nes2NetFeatureExtractor`] prepares them.
            attention_mask (B, S), *optional*: 1 for samples, 0 for padding behind them.
            labels (B,), *optional*: indices of `config.id2label`, for the cross entropy weighted by `class_weights`.
            output_attentions, output_hidden_states, return_dict, encoder_hidden_states: as in [`Nes2NetModel`].

        Returns:
            `loss` where labels are given; `logits` (B, C) in float32, of the C labels; `hidden_states`; `attentions`.

        Raises:
            ValueError: inputs of a wrong shape or too short, or a mask that is not right-padded.
        """
        output = self.nes2net(
            input_values,
            attention_mask=attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            encoder_hidden_states=encoder_hidden_states,
        )
        logits = _classify(self.classifier, output.pooler_output, self.config)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits, labels.to(logits.device), weight=_class_weights(self.config, logits))
        result = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )
        return result if self.nes2net._wants_dict(return_dict) else result.to_tuple()


class Nes2NetForAudioFrameClassification(Nes2NetPreTrainedModel):
    """
    Nes2Net without pooling: logits for the labels of `config.id2label`, by default 0 = spoof and 1 = bona fide, of
    every frame of 20 ms, for speech that is spoofed in parts (PartialSpoof, Zhang et al. 2022).

    Raises:
        ValueError: `pooling` is not `"mean"`: attentive statistics would have weights that nothing reads.
    """

    def __init__(self, config: Nes2NetConfig) -> None:
        if config.pooling != "mean":
            raise ValueError(f"pooling must be 'mean' where frames are classified, got {config.pooling!r}.")
        super().__init__(config)
        self.nes2net = Nes2NetModel(config)
        self.classifier = _classifier(config.hidden_size, config)
        self.post_init()

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        encoder_hidden_states: Tensor | None = None,
    ) -> TokenClassifierOutput | tuple:
        """
        Args:
            input_values (B, S): waveforms as [`Nes2NetFeatureExtractor`] prepares them.
            attention_mask (B, S), *optional*: 1 for samples, 0 for padding behind them.
            labels (B, T), *optional*: of each frame the index of `config.id2label`, -100 = not counted, for the cross
                entropy weighted by `class_weights`; those beyond the encoder's frames are not counted either.
            output_attentions, output_hidden_states, return_dict, encoder_hidden_states: as in [`Nes2NetModel`].

        Returns:
            `loss` where labels are given; `logits` (B, T, C) in float32, those of padding without meaning;
            `hidden_states`; `attentions`.

        Raises:
            ValueError: inputs of a wrong shape or too short, or a mask that is not right-padded.
        """
        output = self.nes2net(
            input_values,
            attention_mask=attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            encoder_hidden_states=encoder_hidden_states,
        )
        logits = _classify(self.classifier, output.last_hidden_state, self.config)
        loss = None
        if labels is not None:
            labels = labels[:, : logits.shape[1]].to(logits.device)
            counted = logits[:, : labels.shape[1]].transpose(1, 2)
            loss = F.cross_entropy(counted, labels, weight=_class_weights(self.config, logits))
        result = TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=output.hidden_states, attentions=output.attentions
        )
        return result if self.nes2net._wants_dict(return_dict) else result.to_tuple()


_PLACE = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder", "token")


def _check_files(name: Any, place: dict[str, Any]) -> None:
    """Raises ValueError if a folder would load weights from elsewhere."""
    if name is None:
        return
    folder = os.path.join(name, place["subfolder"]) if place.get("subfolder") else os.fspath(name)
    is_local = os.path.isdir(name)
    if (is_local or is_peft_available()) and find_adapter_config_file(os.fspath(name), **place) is not None:
        raise ValueError(
            f"{folder} has an adapter_config.json, so transformers would load the weights of another model: merge the "
            "adapter into a model folder, or load it with peft.PeftModel.from_pretrained."
        )
    for file in sorted(os.listdir(folder)) if is_local else ():  # the Hub's cache refuses such paths
        if file.endswith(".index.json"):
            _check_index(os.path.join(folder, file))


def _check_index(path: str) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            index = json.load(file)
        files = set(index["weight_map"].values())
        if not files or not isinstance(index["metadata"], dict):
            raise ValueError
        outside = [name for name in files if PurePosixPath(name).name != name or PureWindowsPath(name).name != name]
        outside += [name for name in files if not name.endswith((".safetensors", ".bin"))]
    except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError):
        raise ValueError(
            f"{path} must be JSON with metadata, and with a weight_map from weight names to files in the same folder."
        ) from None
    if outside:
        raise ValueError(f"{path}: weight_map must name files in the same folder, got {min(outside)[:100]!r}.")


def _put_in_order(model: Any, stored: dict[Any, str]) -> None:
    """Puts the rows of a loaded classifier into the order of the model's labels."""
    classifier = getattr(model, "classifier", None)
    if classifier is None or model.config.classifier_outputs != len(stored):  # one logit, or new rows
        return
    rows = rows_by_label(stored, model.config.id2label)
    if rows == sorted(rows):
        return
    with torch.no_grad():
        for parameter in classifier.parameters():
            if parameter.is_meta:
                raise ValueError(
                    "id2label must have the folder's order if weights are offloaded: reorder it, or do not offload."
                )
            parameter.copy_(parameter[rows])


def _class_weights(config: Any, logits: Tensor) -> Tensor | None:
    """Returns the weight of each label (C,)."""
    if config.class_weights is None:
        return None
    spoof, bonafide = config.class_weights
    weights = [bonafide if label == config.bonafide_index else spoof for label in range(config.num_labels)]
    return torch.tensor(weights, dtype=logits.dtype, device=logits.device)


def _classifier(features: int, config: Any) -> nn.Module:
    if config.cosine_scale is not None:
        return CosineClassifier(features, config.classifier_outputs, config.cosine_scale)
    return Float32Linear(features, config.classifier_outputs)


def _classify(classifier: nn.Module, features: Tensor, config: Any) -> Tensor:
    """(..., D) → logits (..., C), in float32 regardless of the weights' dtype and of autocast."""
    with torch.autocast(features.device.type, enabled=False):  # also for adapters around the classifier
        logits = classifier(features.float()).float()
    if config.classifier_outputs == 1:
        # A head of one logit x keeps it: softmax of (-x/2, +x/2) is its sigmoid, their difference is x.
        halves = [-logits / 2, logits / 2]
        logits = torch.cat(halves if config.bonafide_index == 1 else halves[::-1], dim=-1)
    return logits


def _keeps_to_its_mask(encoder_config: Any) -> bool:
    return (
        encoder_config.model_type in _ENCODERS_THAT_KEEP_TO_THEIR_MASK
        and getattr(encoder_config, "feat_extract_norm", "layer") == "layer"
    ) or (
        # Our own code gives Whisper's layers a mask, in the form that these two read.
        encoder_config.model_type == "whisper" and encoder_config._attn_implementation in ("eager", "sdpa")
    )


def _settle_attention(encoder_config: Any) -> None:
    """WavLM raises on an explicit "sdpa" from the outer model, so encoders without sdpa fall back to eager."""
    encoder_class = MODEL_MAPPING.get(type(encoder_config), None)
    if encoder_config._attn_implementation == "sdpa" and not getattr(encoder_class, "_supports_sdpa", True):
        logger.warning_once(f"The {encoder_config.model_type} encoder has no sdpa attention: eager attention is used.")
        encoder_config._attn_implementation = "eager"


Nes2NetModel.register_for_auto_class("AutoModel")
Nes2NetForAudioClassification.register_for_auto_class("AutoModelForAudioClassification")
Nes2NetForAudioFrameClassification.register_for_auto_class("AutoModelForAudioFrameClassification")
