"""Nes2Net configuration. This file travels with every released checkpoint: it imports only transformers."""

from __future__ import annotations

import math
from typing import Any

from transformers import AutoConfig, PretrainedConfig

LAYER_AGGREGATIONS = ("last", "weighted_sum", "squeeze_excitation", "attentive_merging")
BACKEND_VARIANTS = ("nes2net", "nes2net_x")
POOLINGS = ("mean", "attentive_statistics")
ACTIVATIONS = ("relu", "selu")
SCORES = ("log_odds", "bonafide_logit")
ID2LABEL = {0: "spoof", 1: "bonafide"}

# XLS-R 300M as it is fine-tuned in the published ASVspoof 2021 system: no masking, no dropout, no layerdrop.
XLSR_300M: dict[str, Any] = {
    "model_type": "wav2vec2",
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
}


class Nes2NetConfig(PretrainedConfig):
    r"""
    Configuration of Nes2Net (Liu et al. 2025, arXiv 2504.05657): a speech encoder, an aggregation of its layers, a
    nested Res2Net back-end, pooling over time and a linear classifier.

    Args:
        encoder_config (`PretrainedConfig` or `dict`, *optional*, defaults to XLS-R 300M's):
            The encoder, any waveform model of transformers: wav2vec2, wavlm, hubert, data2vec-audio, unispeech-sat,
            wav2vec2-conformer ... A dict needs its `model_type`.
        layer_aggregation (`str`, *optional*, defaults to `"last"`):
            What the back-end reads of the encoder's L + 1 hidden states: `"last"`, `"weighted_sum"`,
            `"squeeze_excitation"` (the paper's SEA) or `"attentive_merging"` (AttM).
        backend_variant (`str`, *optional*, defaults to `"nes2net_x"`):
            `"nes2net"`, or `"nes2net_x"` with learnable weights over a growing stack of columns.
        outer_scale (`int`, *optional*, defaults to 8):
            Groups of channels in the outer Res2Net.
        inner_scale (`int`, *optional*, defaults to 8):
            Groups of channels in each inner block (the paper's Nes_ratio).
        kernel_size (`int`, *optional*, defaults to 3):
            Odd kernel of the inner convolutions, in frames.
        dilation (`int`, *optional*, defaults to 1):
            Their dilation, in frames (2 in the ASVspoof 2021 recipe, 1 elsewhere).
        se_reduction (`int`, *optional*, defaults to 1):
            Reduction of the squeeze-excitation bottleneck (SE_ratio); the bottleneck never falls below 2.
        hidden_act (`str`, *optional*, defaults to `"relu"`):
            `"relu"` or `"selu"`, everywhere in the back-end but inside squeeze-excitation.
        pooling (`str`, *optional*, defaults to `"mean"`):
            `"mean"` or `"attentive_statistics"` over time.
        pooling_bottleneck (`int`, *optional*, defaults to 128):
            Bottleneck of the attentive statistics.
        classifier_outputs (`int`, *optional*, defaults to 2):
            2, or 1 for a head of one logit x; the model then returns the logits (-x/2, +x/2).
        score (`str`, *optional*, defaults to `"log_odds"`):
            What a score is: `"log_odds"` (logit 1 - logit 0) or `"bonafide_logit"` (logit 1 alone, as some published
            systems score). Higher = bona fide.
        threshold (`float`, *optional*):
            Score from which a recording is called bona fide; unset means 0.
        calibration (`dict`, *optional*):
            What makes a score a log-likelihood ratio of bona fide over spoof (natural log): `scale`, `offset`, and of
            their fit the `prior` of spoof and the `provenance`.
        class_weights (`list[float]`, *optional*):
            Weights of (spoof, bona fide) in the cross entropy, as (0.1, 0.9) in the published recipes.

    Raises:
        ValueError: a field is impossible or contradicts another; the message names it.
    """

    model_type = "nes2net"
    sub_configs = {"encoder_config": AutoConfig}  # noqa: RUF012 - transformers' own form

    def __init__(
        self,
        encoder_config: PretrainedConfig | dict[str, Any] | None = None,
        layer_aggregation: str = "last",
        backend_variant: str = "nes2net_x",
        outer_scale: int = 8,
        inner_scale: int = 8,
        kernel_size: int = 3,
        dilation: int = 1,
        se_reduction: int = 1,
        hidden_act: str = "relu",
        pooling: str = "mean",
        pooling_bottleneck: int = 128,
        classifier_outputs: int = 2,
        score: str = "log_odds",
        threshold: float | None = None,
        calibration: dict[str, Any] | None = None,
        class_weights: list[float] | tuple[float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if encoder_config is None:
            encoder_config = XLSR_300M
        if isinstance(encoder_config, dict):
            encoder_config = dict(encoder_config)
            if "model_type" not in encoder_config:
                raise ValueError("encoder_config must name its model_type, e.g. 'wav2vec2' or 'wavlm'.")
            encoder_config = AutoConfig.for_model(**encoder_config)
        self.encoder_config = encoder_config
        self.layer_aggregation = layer_aggregation
        self.backend_variant = backend_variant
        self.outer_scale = outer_scale
        self.inner_scale = inner_scale
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.se_reduction = se_reduction
        self.hidden_act = hidden_act
        self.pooling = pooling
        self.pooling_bottleneck = pooling_bottleneck
        self.classifier_outputs = classifier_outputs
        self.score = score
        self.threshold = threshold
        self.calibration = calibration
        self.class_weights = list(class_weights) if isinstance(class_weights, (list, tuple)) else class_weights
        kwargs.setdefault("id2label", ID2LABEL)
        kwargs.setdefault("label2id", {label: index for index, label in ID2LABEL.items()})
        # Saving adds the config and the saved class; the bare model is named here, so that AutoModel finds it as well.
        kwargs.setdefault("auto_map", {"AutoModel": "modeling_nes2net.Nes2NetModel"})
        super().__init__(**kwargs)
        self.check()

    @property
    def hidden_size(self) -> int:
        """D, the features per frame that the encoder gives and the back-end reads."""
        return self.encoder_config.hidden_size

    @property
    def min_samples(self) -> int:
        """Shortest input, in samples, of which the encoder's convolutions make one frame (400 = 25 ms)."""
        length = 1
        for kernel, stride in zip(
            reversed(self.encoder_config.conv_kernel), reversed(self.encoder_config.conv_stride)
        ):
            length = (length - 1) * stride + kernel
        return length

    def check(self) -> None:
        """Raises ValueError naming the first field that is impossible or contradicts another."""
        encoder = self.encoder_config
        missing = [name for name in ("hidden_size", "conv_kernel", "conv_stride") if not hasattr(encoder, name)]
        if missing:
            raise ValueError(
                f"encoder_config of type {getattr(encoder, 'model_type', type(encoder).__name__)!r} has no "
                f"{' and no '.join(missing)}: the encoder must read waveforms, as wav2vec2, wavlm or hubert do."
            )
        choices: tuple[Any, ...]
        for name, choices in (
            ("layer_aggregation", LAYER_AGGREGATIONS),
            ("backend_variant", BACKEND_VARIANTS),
            ("hidden_act", ACTIVATIONS),
            ("pooling", POOLINGS),
            ("score", SCORES),
            ("classifier_outputs", (1, 2)),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}, got {getattr(self, name)!r}.")
        for name, least in (
            ("outer_scale", 2),
            ("inner_scale", 2),
            ("kernel_size", 1),
            ("dilation", 1),
            ("se_reduction", 1),
            ("pooling_bottleneck", 1),
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}.")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that a frame has its own centre, got {self.kernel_size}.")
        if self.hidden_size % self.outer_scale:
            raise ValueError(
                f"outer_scale must divide the encoder's hidden_size {self.hidden_size}, got {self.outer_scale}."
            )
        if (self.hidden_size // self.outer_scale) % self.inner_scale:
            raise ValueError(
                f"inner_scale must divide hidden_size / outer_scale = {self.hidden_size // self.outer_scale}, "
                f"got {self.inner_scale}."
            )
        if getattr(encoder, "add_adapter", False):
            raise ValueError("encoder_config.add_adapter must be False: Nes2Net reads the encoder's own frames.")
        if self.layer_aggregation != "last" and getattr(encoder, "layerdrop", None):
            raise ValueError(
                f"encoder_config.layerdrop must be 0 with layer_aggregation={self.layer_aggregation!r}: a dropped "
                f"layer is missing from the hidden states, got {encoder.layerdrop}."
            )
        if self.id2label != ID2LABEL:
            raise ValueError(f"id2label must be {ID2LABEL}, got {self.id2label}.")
        if self.threshold is not None and not _is_finite(self.threshold):
            raise ValueError(f"threshold must be a finite number or None, got {self.threshold!r}.")
        if self.calibration is not None:
            self._check_calibration(self.calibration)
        weights = self.class_weights
        if weights is not None and not (
            isinstance(weights, list) and len(weights) == 2 and all(_is_finite(w) and w > 0 for w in weights)
        ):
            raise ValueError(f"class_weights must be two positive numbers (spoof, bona fide), got {weights!r}.")

    def _check_calibration(self, calibration: Any) -> None:
        fields = {"scale", "offset", "prior"}
        if not isinstance(calibration, dict) or not fields <= calibration.keys() <= fields | {"provenance"}:
            raise ValueError(f"calibration must have scale, offset, prior and maybe provenance, got {calibration!r}.")
        if not _is_finite(calibration["scale"]) or calibration["scale"] <= 0 or not _is_finite(calibration["offset"]):
            raise ValueError(
                f"calibration must have a positive scale and a finite offset, got {calibration['scale']!r} and "
                f"{calibration['offset']!r}."
            )
        if not _is_finite(calibration["prior"]) or not 0 < calibration["prior"] < 1:
            raise ValueError(f"calibration.prior must lie between 0 and 1, got {calibration['prior']!r}.")


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


Nes2NetConfig.register_for_auto_class()
