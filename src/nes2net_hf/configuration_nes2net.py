"""Nes2Net configuration. This file travels with every released checkpoint: it imports only transformers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PretrainedConfig
from transformers.activations import ACT2FN

LAYER_AGGREGATIONS = ("last", "weighted_sum", "squeeze_excitation", "attentive_merging")
BACKEND_VARIANTS = ("nes2net", "nes2net_x")
POOLINGS = ("mean", "attentive_statistics")
ACTIVATIONS = ("relu", "selu")
SCORES = ("log_odds", "bonafide_logit")
ID2LABEL = {0: "spoof", 1: "bonafide"}
# Names of the class of bona fide speech, without capitals, spaces, hyphens and underscores.
BONAFIDE_WORDS = ("bonafide", "genuine", "real", "human")
# Attention that a file may choose: any other name can make transformers fetch a kernel from the Hub and run it.
_ATTENTION = ("eager", "sdpa", "flex_attention")
_QUANTISERS = ("bitsandbytes", "torchao")  # which run what is installed; others fetch kernels as well
_DTYPES = ("float16", "bfloat16", "float32", "float64")
_LARGEST = 1_000_000  # of any size in a configuration
# Encoders of which it is known whether a norm follows the last layer, so that it can be left out below the top.
_TYPES_WITH_KNOWN_LAYERS = (
    "wav2vec2", "wavlm", "hubert", "unispeech", "unispeech-sat", "data2vec-audio", "wav2vec2-conformer",
    "wav2vec2-bert", "whisper",
)  # fmt: skip
# Kernels and strides of the waveform stem: its frames are 20 ms apart, like those of all published encoders.
STEM_KERNELS, STEM_STRIDES = (40, 7, 5, 5, 3), (10, 4, 2, 2, 2)
STEM_HOP = math.prod(STEM_STRIDES)  # samples
_READ_FEATURES = ("wav2vec2-bert", "whisper")  # from log-mel features, which the model computes; all others convolve

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
            wav2vec2-conformer ...; or wav2vec2-bert, or whisper, of which only the encoder is built. A dict needs its
            `model_type`.
        encoder_layers (`list[int]`, *optional*, defaults to all):
            Which hidden states of the encoder the aggregation reads, in ascending order: 0 is the input of the first
            transformer layer and n the output of layer n, as in `hidden_states` of transformers. Layers above the last
            of them are not built. The output of the top layer L comes after the encoder's final norm, where it has
            one; a selection that stops below reads no final norm.
        layer_aggregation (`str`, *optional*, defaults to `"last"`):
            What the back-end reads of the encoder's L + 1 hidden states, or of those in `encoder_layers`: `"last"`,
            `"weighted_sum"`, `"squeeze_excitation"` (the paper's SEA) or `"attentive_merging"` (AttM).
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
        split_attention (`bool`, *optional*, defaults to `False`):
            Whether the groups of the outer Res2Net attend to their neighbours before they are joined: Nes2Net-LA
            (Zhang et al. 2025, arXiv 2512.07352), with `"nes2net_x"`.
        waveform_stem (`list[int]`, *optional*):
            Widths of the five convolutions of a stem that reads the waveform beside the encoder. Its frames, projected
            to the encoder's width, are added to the aggregated ones. With it, a model on Whisper also reads what a
            log-mel spectrogram loses, such as phase. Unset means no stem.
        hidden_act (`str`, *optional*, defaults to `"relu"`):
            `"relu"` or `"selu"`, everywhere in the back-end but inside squeeze-excitation.
        pooling (`str`, *optional*, defaults to `"mean"`):
            `"mean"` or `"attentive_statistics"` over time.
        pooling_bottleneck (`int`, *optional*, defaults to 128):
            Bottleneck of the attentive statistics.
        id2label (`dict[int, str]`, *optional*, defaults to `{0: "spoof", 1: "bonafide"}`):
            Names of the classes in the order of the logits, two or more, in any order; keys may be text, as in JSON.
            Exactly one name must mean bona fide (bonafide, genuine, real or human; capitals, spaces, hyphens and
            underscores do not count): the others are kinds of spoof. What reads a logit asks `bonafide_index`.
        label2id (`dict[str, int]`, *optional*):
            The inverse of `id2label`.
        classifier_outputs (`int`, *optional*, defaults to one for each label):
            One for each label, or, of two labels, 1 for a head of one logit x; the model then returns the logits
            +x/2 of bona fide and -x/2 of spoof.
        cosine_scale (`float`, *optional*):
            If set, the classifier has no bias, and each logit (or x) is `cosine_scale` times the cosine between the
            pooled features and a weight vector, as OC-Softmax (Zhang et al. 2021) and AM-Softmax (Wang et al. 2018)
            train it. Unset means a linear classifier.
        score (`str`, *optional*, defaults to `"log_odds"`):
            What a score is: `"log_odds"`, log p(bona fide) - log p(any spoof), which is the logit of bona fide minus
            that of spoof, or minus the log-sum-exp of those of several kinds of spoof; or `"bonafide_logit"`, that
            logit alone, as some published systems score. Higher = bona fide.
        threshold (`float`, *optional*):
            Score from which a recording is called bona fide; unset means 0.
        calibration (`dict`, *optional*):
            What makes a score a log-likelihood ratio of bona fide over spoof (natural log): `scale`, `offset`, and of
            their fit the `prior` of spoof, the `provenance` and the `population`. `undecided` is the share of errors
            that is accepted: scores that allow more get the label `undecided`.
        class_weights (`list[float]`, *optional*):
            Weights of (spoof, bona fide) in the cross entropy, such as (0.1, 0.9) in the published recipes. This order
            does not depend on `id2label`. The first weight applies to every kind of spoof.
        demonstration (`bool`, *optional*, defaults to `False`):
            Whether the model only shows how things work, so that nobody should rely on its verdicts. `nes2net detect`
            says so, and gives no probability.

    Raises:
        ValueError: a field is invalid or contradicts another; the message names it.
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
        classifier_outputs: int | None = None,
        cosine_scale: float | None = None,
        score: str = "log_odds",
        threshold: float | None = None,
        calibration: dict[str, Any] | None = None,
        class_weights: list[float] | tuple[float, float] | None = None,
        demonstration: bool = False,
        encoder_layers: list[int] | tuple[int, ...] | None = None,
        split_attention: bool = False,
        waveform_stem: list[int] | None = None,
        **kwargs: Any,
    ) -> None:
        _check_names(type(self), kwargs)
        id2label = _with_integers(ID2LABEL if kwargs.get("id2label") is None else kwargs["id2label"])
        label2id = kwargs.get("label2id")
        _check_labels(id2label, label2id)
        kwargs["id2label"] = id2label
        kwargs["label2id"] = {label: index for index, label in id2label.items()}
        self.encoder_config = _as_encoder_config(XLSR_300M if encoder_config is None else encoder_config)
        self.encoder_layers = list(encoder_layers) if isinstance(encoder_layers, (list, tuple)) else encoder_layers
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
        self.classifier_outputs = len(id2label) if classifier_outputs is None else classifier_outputs
        self.cosine_scale = cosine_scale
        self.score = score
        self.threshold = threshold
        self.calibration = calibration
        self.class_weights = list(class_weights) if isinstance(class_weights, (list, tuple)) else class_weights
        self.demonstration = demonstration
        self.split_attention = split_attention
        self.waveform_stem = waveform_stem
        # Saving adds the config and the saved class; the bare model is named here, so that AutoModel finds it too.
        kwargs.setdefault("auto_map", {"AutoModel": "modeling_nes2net.Nes2NetModel"})
        _check_dtype("dtype", kwargs)
        try:
            super().__init__(**kwargs)
        except Exception as error:  # transformers raises other errors for a value of a wrong type
            raise ValueError(_in_one_line(error)) from None
        self.check()

    def __setattr__(self, key: str, value: Any) -> None:
        if key == "id2label":
            value = _with_integers(value)
        elif key == "label2id" and isinstance(value, Mapping):
            value = {label: _as_integer(index) for label, index in value.items()}
        super().__setattr__(key, value)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """
        Creates the configuration; every way of loading calls this.

        Labels in `kwargs` replace those of the file before anything else is set, so that the other fields can be
        checked against them. New labels mean that the model will be trained again. The threshold and the calibration
        were fitted to the scores of the old weights, so they are dropped, as is the mark of a demonstration model.

        Raises:
            ValueError: a value in the file is invalid, or refers to code or files elsewhere.
        """
        config_dict = dict(_as_fields(config_dict))
        try:
            _check_places(config_dict)
            labels = kwargs.pop("id2label", None)
            if labels is not None:
                config_dict |= {"id2label": labels, "label2id": kwargs.pop("label2id", None)}
                config_dict |= {"threshold": None, "calibration": None, "demonstration": False}
                if isinstance(labels, Mapping) and (
                    len(labels) != 2 or config_dict.get("classifier_outputs") not in (1, None)
                ):
                    config_dict["classifier_outputs"] = len(labels)
            loaded = super().from_dict(config_dict, **kwargs)
            (loaded[0] if isinstance(loaded, tuple) else loaded).check()
        except RecursionError:
            raise ValueError("config.json is nested too deeply.") from None
        except Exception as error:
            raise ValueError(f"config.json: {_in_one_line(error)}") from None
        return loaded

    @classmethod
    def _dict_from_json_file(cls, json_file: Any) -> dict[str, Any]:
        try:
            return _as_fields(super()._dict_from_json_file(json_file))
        except RecursionError:
            raise ValueError("config.json is nested too deeply.") from None
        except ValueError as error:  # not JSON, not UTF-8, an integer of thousands of digits, or our own error
            reason = _in_one_line(error)
            if not reason.startswith("config.json"):
                reason = f"config.json is not JSON: {reason}"
            raise ValueError(reason) from None

    @classmethod
    def from_json_file(cls, json_file: Any) -> Any:
        return cls.from_dict(cls._dict_from_json_file(json_file))

    @property
    def bonafide_index(self) -> int:
        """Index of the logit for bona fide speech; the other logits are for spoof."""
        labels: Any = self.id2label
        return next(index for index, label in labels.items() if is_bonafide(label))

    @property
    def spoof_indices(self) -> list[int]:
        """Indices of the logits for kinds of spoof."""
        labels: Any = self.id2label
        return [index for index in sorted(labels) if index != self.bonafide_index]

    @property
    def hidden_size(self) -> int:
        """D, the number of features per frame, from the encoder to the back-end."""
        return self.encoder_config.hidden_size

    @property
    def min_samples(self) -> int:
        """Shortest input in samples: one frame of the encoder (400 = 25 ms; 560 = 35 ms for w2v-BERT)."""
        if self.encoder_config.model_type in _READ_FEATURES:  # one or two windows of the Fourier transform
            return 560 if self.encoder_config.model_type == "wav2vec2-bert" else 400
        length = 1
        for kernel, stride in zip(
            reversed(self.encoder_config.conv_kernel), reversed(self.encoder_config.conv_stride)
        ):
            length = (length - 1) * stride + kernel
        return length

    @property
    def max_samples(self) -> int | None:
        """Longest input in samples: 480,000 (30 s) for Whisper, whose positions end there; None for all others."""
        encoder = self.encoder_config
        return encoder.max_source_positions * self.frame_samples if encoder.model_type == "whisper" else None

    @property
    def frame_samples(self) -> int:
        """The hop between encoder frames in samples: 320 (20 ms) for all published encoders."""
        if self.encoder_config.model_type in _READ_FEATURES:
            return 320  # two hops of 160 samples of the features
        return math.prod(self.encoder_config.conv_stride)

    @property
    def top_layer(self) -> int:
        """The last layer that is read, and so the number of layers that are built."""
        return self.encoder_layers[-1] if self.encoder_layers else self.encoder_config.num_hidden_layers

    def frames(self, samples: Any) -> Any:
        """
        Number of encoder frames for a number of samples, an integer or a tensor, of at least `min_samples`. w2v-BERT
        joins two frames of 25 ms at hops of 10 ms, and drops an odd one; Whisper has one for each whole 20 ms.
        """
        encoder = self.encoder_config
        if encoder.model_type == "wav2vec2-bert":
            return (samples - 240) // 320
        if encoder.model_type == "whisper":
            return samples // 320
        for kernel, stride in zip(encoder.conv_kernel, encoder.conv_stride):
            samples = (samples - kernel) // stride + 1
        return samples

    def check(self) -> None:
        """Raises ValueError if a field is invalid or contradicts another. The message names the field."""
        encoder = self.encoder_config
        _check_labels(self.id2label, self.label2id)
        reads_features = getattr(encoder, "model_type", None) in _READ_FEATURES
        needed = ("hidden_size",) if reads_features else ("hidden_size", "conv_kernel", "conv_stride")
        missing = [name for name in needed if not hasattr(encoder, name)]
        if missing:
            raise ValueError(
                f"encoder_config of type {_short(getattr(encoder, 'model_type', type(encoder).__name__))} has no "
                f"{' and no '.join(missing)}: use one that reads waveforms, such as wav2vec2."
            )
        _check_encoder(encoder)
        choices: tuple[Any, ...]
        for name, choices in (
            ("layer_aggregation", LAYER_AGGREGATIONS),
            ("backend_variant", BACKEND_VARIANTS),
            ("hidden_act", ACTIVATIONS),
            ("pooling", POOLINGS),
            ("score", SCORES),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(map(str, choices))}, got {_short(getattr(self, name))}."
                )
        for name, least in (
            ("outer_scale", 2),
            ("inner_scale", 2),
            ("kernel_size", 1),
            ("dilation", 1),
            ("se_reduction", 1),
            ("pooling_bottleneck", 1),
        ):
            _check_integer(name, getattr(self, name), least)
        _check_integer("dilation", self.dilation, 1, most=1000)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd, so that it is centred on a frame, got {self.kernel_size}.")
        if self.hidden_size % self.outer_scale:
            raise ValueError(
                f"outer_scale must divide the encoder's hidden_size {self.hidden_size}, got {self.outer_scale}."
            )
        if (self.hidden_size // self.outer_scale) % self.inner_scale:
            raise ValueError(
                f"inner_scale must divide hidden_size / outer_scale = {self.hidden_size // self.outer_scale}, "
                f"got {self.inner_scale}."
            )
        if not all(isinstance(name, str) for name in _as_list(self.architectures)):
            raise ValueError(f"architectures must be a list of names, got {_short(self.architectures)}.")
        if getattr(encoder, "add_adapter", False):
            raise ValueError(
                "encoder_config.add_adapter must be False: Nes2Net reads the frames of the encoder itself."
            )
        dropping = "encoder_layerdrop" if encoder.model_type == "whisper" else "layerdrop"
        if self.layer_aggregation != "last" and getattr(encoder, dropping, None):
            raise ValueError(
                f"encoder_config.{dropping} must be 0 with layer_aggregation={self.layer_aggregation!r}, because a "
                f"dropped layer has no hidden states; got {getattr(encoder, dropping)}."
            )
        if self.encoder_layers is not None:
            self._check_layers(self.encoder_layers)
        if self.waveform_stem is not None:
            self._check_stem(self.waveform_stem)
        labels = len(self.id2label or ())
        allowed = (1, 2) if labels == 2 else (labels,)
        if type(self.classifier_outputs) is not int or self.classifier_outputs not in allowed:
            raise ValueError(
                f"classifier_outputs must be {' or '.join(map(str, allowed))} with {labels} labels in "
                f"id2label, got {_short(self.classifier_outputs)}."
            )
        if self.cosine_scale is not None and not (_is_finite(self.cosine_scale) and self.cosine_scale > 0):
            raise ValueError(f"cosine_scale must be a positive number or None, got {_short(self.cosine_scale)}.")
        if self.threshold is not None and not _is_finite(self.threshold):
            raise ValueError(f"threshold must be a finite number or None, got {_short(self.threshold)}.")
        if self.calibration is not None:
            self._check_calibration(self.calibration)
        for name in ("demonstration", "split_attention"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {_short(getattr(self, name))}.")
        weights = self.class_weights
        if weights is not None and not (
            isinstance(weights, list) and len(weights) == 2 and all(_is_finite(w) and w > 0 for w in weights)
        ):
            raise ValueError(f"class_weights must be two positive numbers (spoof, bona fide), got {_short(weights)}.")

    def _check_stem(self, widths: Any) -> None:
        if not isinstance(widths, list) or len(widths) != len(STEM_KERNELS):
            raise ValueError(
                f"waveform_stem must be a list of {len(STEM_KERNELS)} widths, such as [64, 96, 128, 192, 256], "
                f"got {_short(widths)}."
            )
        for width in widths:
            _check_integer("waveform_stem", width, 1)
        if self.frame_samples != STEM_HOP:
            raise ValueError(
                f"waveform_stem needs an encoder with {STEM_HOP} samples from frame to frame, this one "
                f"has {self.frame_samples}: leave it out."
            )

    def _check_layers(self, layers: Any) -> None:
        top = self.encoder_config.num_hidden_layers
        if (
            not isinstance(layers, list)
            or not all(type(layer) is int and 0 <= layer <= top for layer in layers)
            or layers != sorted(set(layers))
            or not any(layers)
        ):
            raise ValueError(
                f"encoder_layers must be ascending numbers from 0 to {top}, the encoder's top layer, and not 0 alone, "
                f"got {_short(layers)}."
            )
        if self.layer_aggregation == "last" and len(layers) > 1:
            raise ValueError(
                f"encoder_layers must name one layer with layer_aggregation='last', got {_short(layers)}: name one, "
                "or choose another aggregation."
            )
        kind = self.encoder_config.model_type
        if layers[-1] < top and kind not in _TYPES_WITH_KNOWN_LAYERS:
            raise ValueError(
                f"encoder_layers must end with the top layer {top} for an encoder of type {kind!r}, whose final norm "
                f"is not known, got {_short(layers)}."
            )

    def _check_calibration(self, calibration: Any) -> None:
        fields = {"scale", "offset", "prior"}
        if (
            not isinstance(calibration, dict)
            or not fields <= calibration.keys() <= fields | {"provenance", "population", "undecided"}
            or not all(isinstance(calibration.get(key), (dict, type(None))) for key in ("provenance", "population"))
        ):
            raise ValueError(
                "calibration must have scale, offset and prior, and may have provenance, population and undecided, "
                f"got {_short(calibration)}."
            )
        if not _is_finite(calibration["scale"]) or calibration["scale"] <= 0 or not _is_finite(calibration["offset"]):
            raise ValueError(
                f"calibration must have a positive scale and a finite offset, got {_short(calibration['scale'])} and "
                f"{_short(calibration['offset'])}."
            )
        if not _is_finite(calibration["prior"]) or not 0 < calibration["prior"] < 1:
            raise ValueError(f"calibration.prior must be between 0 and 1, got {_short(calibration['prior'])}.")
        share = calibration.get("undecided")
        if share is not None and not (_is_finite(share) and 0 < share < 0.5):
            raise ValueError(f"calibration.undecided must be between 0 and 0.5, got {_short(share)}.")
        if calibration.get("population") is not None and not _is_population(calibration["population"]):
            raise ValueError(
                "calibration.population must have a name, and for each of bonafide and spoof its recordings and "
                "199 ascending scores."
            )


def is_bonafide(label: str) -> bool:
    """Returns whether a class name means bona fide speech; every other name means a kind of spoof."""
    return re.sub(r"[\s_-]", "", label.lower()) in BONAFIDE_WORDS


def rows_by_label(stored: Mapping[Any, str], wanted: Mapping[int, str]) -> list[int]:
    """
    Returns, for each of the `wanted` labels, the row of a classifier that has the `stored` labels. Labels are matched
    by name, or as bona fide; rows with other names follow in their order.
    """
    names = {_plain(label): int(index) for index, label in stored.items()}
    rows = [names.pop(_plain(wanted[index]), None) for index in range(len(wanted))]
    others = iter(sorted(names.values()))
    return [next(others) if row is None else row for row in rows]


def _plain(label: str) -> str:
    return "bonafide" if is_bonafide(label) else re.sub(r"[\s_-]", "", label.lower())


def _as_list(value: Any) -> Any:
    """Returns a list unchanged, None as an empty list, and anything else as a list that fails the check of names."""
    return value if isinstance(value, (list, tuple)) else [] if value is None else [None]


def _as_fields(config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise ValueError(f"config.json must hold an object of fields, got {_short(config)}.")
    return config


def _as_encoder_config(fields: Any) -> Any:
    if isinstance(fields, PretrainedConfig):
        return fields
    if not isinstance(fields, dict) or not isinstance(fields.get("model_type"), str):
        raise ValueError("encoder_config must name its model_type, such as 'wav2vec2' or 'wavlm'.")
    if fields["model_type"] == Nes2NetConfig.model_type:
        raise ValueError("encoder_config.model_type must be a speech encoder, not another Nes2Net.")
    _check_dtype("encoder_config.dtype", fields)
    try:
        return AutoConfig.for_model(**fields)
    except Exception as error:  # each encoder has its own checks
        raise ValueError(f"encoder_config: {_in_one_line(error)}") from None


def _check_names(kind: type, fields: Mapping[str, Any]) -> None:
    """Unknown fields become attributes: checks that none hides a method or property of the class."""
    for name in fields:
        own = getattr(kind, name, None)
        if callable(own) or (isinstance(own, property) and own.fset is None):
            raise ValueError(f"{name} is not a setting: remove it.")


def _check_dtype(name: str, fields: Mapping[str, Any]) -> None:
    dtype = fields.get("dtype", fields.get("torch_dtype"))
    if dtype is not None and str(dtype).removeprefix("torch.") not in _DTYPES:
        raise ValueError(f"{name} must be one of {', '.join(_DTYPES)}, got {_short(dtype)}.")


def _check_places(fields: Mapping[str, Any], where: str = "") -> None:
    """Checks that a file does not make transformers contact the Hub, or read other files."""
    for key, value in fields.items():
        name = f"{where}{key}"
        if key in ("attn_implementation", "_attn_implementation", "_attn_implementation_internal"):
            for one in value.values() if isinstance(value, dict) else (value,):
                if one is not None and one not in _ATTENTION:
                    raise ValueError(
                        f"{name} must be one of {', '.join(_ATTENTION)}, got {_short(one)}: pass any other to "
                        "from_pretrained as attn_implementation."
                    )
        elif key == "transformers_weights" and value is not None:
            raise ValueError(f"{name} is not allowed, because the weights are in model.safetensors: remove it.")
        elif key == "quantization_config" and not (
            isinstance(value, dict) and value.get("quant_method") in _QUANTISERS
        ):
            raise ValueError(f"{name}.quant_method must be one of {', '.join(_QUANTISERS)}, got {_short(value)}.")
        elif isinstance(value, dict):
            _check_places(value, f"{name}.")


def _check_labels(id2label: Any, label2id: Any) -> None:
    if (
        not isinstance(id2label, Mapping)
        or len(id2label) < 2
        or sorted(map(str, id2label)) != sorted(map(str, range(len(id2label))))
        or not all(isinstance(label, str) and label.strip() for label in id2label.values())
        or len(set(id2label.values())) < len(id2label)
    ):
        raise ValueError(
            f"id2label must name classes 0, 1 and so on, at least two, each differently, got {_short(id2label)}."
        )
    found = [label for label in id2label.values() if is_bonafide(label)]
    if len(found) != 1:
        raise ValueError(
            f"id2label must have exactly one class for bona fide speech, named {', '.join(BONAFIDE_WORDS[:-1])} or "
            f"{BONAFIDE_WORDS[-1]}, got {_short(', '.join(id2label.values()))}."
        )
    if label2id is None:
        return
    inverse = {label: index for index, label in id2label.items()}
    if not isinstance(label2id, Mapping) or {key: _as_integer(value) for key, value in label2id.items()} != inverse:
        raise ValueError(f"label2id must be the inverse of id2label {_short(dict(id2label))}, got {_short(label2id)}.")


def _with_integers(id2label: Any) -> Any:
    """Keys are text in JSON and in the example script of transformers."""
    return {_as_integer(key): label for key, label in id2label.items()} if isinstance(id2label, Mapping) else id2label


def _as_integer(value: Any) -> Any:
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,6}", value) else value


def _check_encoder(encoder: Any) -> None:
    """Checks what transformers accepts silently, and what would fail only in the middle of a recording."""
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "encoder_ffn_dim")
    lengths_of_features = ("num_mel_bins", "max_source_positions", "conv_depthwise_kernel_size")
    groups = ("num_conv_pos_embeddings", "num_conv_pos_embedding_groups", "conv_pos_kernel_size")
    _check_integer("encoder_config.num_hidden_layers", getattr(encoder, "num_hidden_layers", 1), 1, most=200)
    for name in (*sizes, *groups, *lengths_of_features):
        if hasattr(encoder, name):
            _check_integer(f"encoder_config.{name}", getattr(encoder, name), 1)
    for name in ("num_attention_heads", "num_conv_pos_embedding_groups"):
        if encoder.hidden_size % getattr(encoder, name, 1):
            raise ValueError(
                f"encoder_config.{name} must divide its hidden_size {encoder.hidden_size}, "
                f"got {getattr(encoder, name)}."
            )
    if encoder.model_type in _READ_FEATURES:
        _check_features(encoder)
    else:
        _check_convolutions(encoder)
    for name in ("hidden_act", "feat_extract_activation", "activation_function"):
        value = getattr(encoder, name, "gelu")
        if isinstance(value, str) and value not in ACT2FN:
            raise ValueError(f"encoder_config.{name} must be an activation of transformers, got {_short(value)}.")
    if getattr(encoder, "feat_extract_norm", "layer") not in ("layer", "group"):
        raise ValueError(
            f"encoder_config.feat_extract_norm must be layer or group, got {_short(encoder.feat_extract_norm)}."
        )
    chances = ("layerdrop", "encoder_layerdrop", "mask_time_prob", "mask_feature_prob")
    dropouts = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "dropout")
    for name in (*dropouts, "conformer_conv_dropout", *chances):
        chance: Any = getattr(encoder, name, 0.0)
        if chance is not None and not (_is_finite(chance) and 0 <= chance <= 1):
            raise ValueError(f"encoder_config.{name} must be between 0 and 1, got {_short(chance)}.")
    if not (_is_finite(getattr(encoder, "layer_norm_eps", 1e-5)) and getattr(encoder, "layer_norm_eps", 1e-5) > 0):
        raise ValueError(f"encoder_config.layer_norm_eps must be positive, got {_short(encoder.layer_norm_eps)}.")


def _check_convolutions(encoder: Any) -> None:
    lengths = {}
    for name in ("conv_dim", "conv_kernel", "conv_stride"):
        values = getattr(encoder, name, None)
        if not isinstance(values, (list, tuple)) or not values:
            raise ValueError(f"encoder_config.{name} must be a list of integers, got {_short(values)}.")
        for value in values:
            _check_integer(f"encoder_config.{name}", value, 1)
        lengths[name] = len(values)
    if len(set(lengths.values())) > 1:
        raise ValueError(
            "encoder_config.conv_dim, conv_kernel and conv_stride must have the same length, got "
            f"{', '.join(map(str, lengths.values()))}."
        )


def _check_features(encoder: Any) -> None:
    """Checks what the features computed in the model must have in common with the encoder."""
    if encoder.model_type == "wav2vec2-bert":
        if encoder.feature_projection_input_dim != 160:
            raise ValueError(
                "encoder_config.feature_projection_input_dim must be 160, two frames of 80 mel bands, got "
                f"{_short(encoder.feature_projection_input_dim)}."
            )
        if encoder.conv_depthwise_kernel_size % 2 == 0:
            raise ValueError(
                f"encoder_config.conv_depthwise_kernel_size must be odd, got {encoder.conv_depthwise_kernel_size}."
            )
        for name in ("left_max_position_embeddings", "right_max_position_embeddings"):
            _check_integer(f"encoder_config.{name}", getattr(encoder, name), 0)
    elif encoder.num_mel_bins > 200:
        raise ValueError(
            f"encoder_config.num_mel_bins must be at most 200, for 201 frequencies, got {encoder.num_mel_bins}."
        )


def _check_integer(name: str, value: Any, least: int, most: int = _LARGEST) -> None:
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {_short(value)}.")
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {_short(value)}.")


def _is_population(value: dict[str, Any]) -> bool:
    """Returns whether a value of `calibration.population` has what a score is compared with."""
    for kind in ("bonafide", "spoof"):
        known = value.get(kind)
        if not isinstance(known, dict) or not _is_finite(known.get("recordings")) or known["recordings"] < 1:
            return False
        scores = known.get("scores")
        if not isinstance(scores, list) or len(scores) != 199:
            return False
        finite = [score for score in scores if score is not None]
        if not all(map(_is_finite, finite)) or finite != sorted(finite):
            return False
    return isinstance(value.get("name"), str)


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 1e300


def _short(value: Any) -> str:
    """Returns the text that a message shows for a value from a file."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested endlessly, or an integer of thousands of digits
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 100 else f"{text[:97]}..."


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, ValueError) or len(text) <= 300 else f"{text[:297]}..."


Nes2NetConfig.register_for_auto_class()
