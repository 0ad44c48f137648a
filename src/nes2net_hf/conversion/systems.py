"""The official families of systems: the prefixes of their encoders, and the settings of their recipes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class System:
    """One family of systems: names, prefix of the encoder's keys, and settings that the weights do not show."""

    name: str
    title: str
    encoder_prefix: str
    encoder_type: str  # transformers' model_type
    encoder_config: str  # a file in `encoder_configs/`
    encoder_name: str
    base_model: str  # the encoder's id on the Hub, for cards
    dilation: int
    score: str
    length_policy: str
    window_length: int
    do_normalize: bool
    class_weights: tuple[float, float] | None
    benchmarks: tuple[str, ...]  # sources of `model_cards/benchmarks/`
    dropped: tuple[str, ...] = ()  # prefixes, after the encoder's, of keys used only in pre-training
    unused: tuple[str, ...] = ()  # prefixes of whole keys that the official code never uses
    license: str = "The authors' repositories have no licence: ask the authors before you pass the weights on."
    figures: str = (
        "EER in per cent, as published by Liu et al. (2025, arXiv 2504.05657) and their repositories for systems of "
        "this family.\n**Not reproduced here.** The file does not say which of these systems this checkpoint is."
    )

    def default_encoder_config(self) -> dict[str, Any]:
        """Returns the configuration of the encoder of the published systems."""
        return read_encoder_config(self.encoder_config)

    def is_dropped(self, key: str) -> bool:
        return key.startswith((*(self.encoder_prefix + prefix for prefix in self.dropped), *self.unused))


def read_encoder_config(name: str) -> dict[str, Any]:
    """Returns a configuration from the package: `xlsr-300m` or `wavlm-large`."""
    file = resources.files(__package__) / "encoder_configs" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def has_wavlm_keys(keys: Iterable[str]) -> bool:
    """Returns whether the keys are WavLM's. Its gated relative positions distinguish it from wav2vec 2.0."""
    return any(".self_attn.grep_a" in key for key in keys)


# Keys that fairseq's wav2vec 2.0 uses only in pre-training.
PRETRAINING = ("quantizer.", "project_q.", "final_proj.", "input_quantizer.", "project_inp.", "target_glu.")

# The systems on fairseq's XLS-R 300M: ASVspoof 2021 LA and DF, In-the-Wild.
FAIRSEQ_XLSR = System(
    name="fairseq-xlsr",
    title="Nes2Net on fairseq's XLS-R (ASVspoof 2021 LA and DF, In-the-Wild)",
    encoder_prefix="ssl_model.model.",
    encoder_type="wav2vec2",
    encoder_config="xlsr-300m",
    encoder_name="XLS-R 300M",
    base_model="facebook/wav2vec2-xls-r-300m",
    dilation=2,
    score="bonafide_logit",
    length_policy="first",
    window_length=64_600,
    do_normalize=False,
    class_weights=(0.1, 0.9),
    benchmarks=("asvspoof2021-la", "asvspoof2021-df", "in-the-wild"),
    dropped=PRETRAINING,
)

# Nes2Net-X with attention between the groups of its outer Res2Net, by other authors.
NES2NET_LA = replace(
    FAIRSEQ_XLSR,
    name="fairseq-xlsr-la",
    title="Nes2Net-LA on fairseq's XLS-R (Zhang et al. 2025, arXiv 2512.07352)",
    benchmarks=(),
    unused=("Nested_Res2Net_TDNN.global_attn.",),
    license=(
        "The authors' code is under CC BY-NC 4.0; for the weights no licence is stated: ask the authors before you "
        "pass them on."
    ),
    figures=(
        "Nes2Net-LA is by Zhang et al. (2025, arXiv 2512.07352), not by the authors of Nes2Net. They publish an EER "
        "of 1.42 % on\nIn-the-Wild, 0.56 % on MultiAPI-Spoof and 5.64 % on AI4T. **Not reproduced here.** The epoch "
        "was chosen on In-the-Wild\nitself, so that 1.42 % is no result on unseen data: do not set it beside results "
        "that were selected elsewhere.\nTheir evaluation cuts longer recordings at a random place; this folder reads "
        "the first 64,600 samples."
    ),
)


# The systems on s3prl's WavLM-Large, whose 25 layers are aggregated: CtrSVDD.
S3PRL_WAVLM = System(
    name="s3prl-wavlm",
    title="Nes2Net on the layers of s3prl's WavLM (CtrSVDD)",
    encoder_prefix="ssl_model.model.model.",
    encoder_type="wavlm",
    encoder_config="wavlm-large",
    encoder_name="WavLM-Large",
    base_model="microsoft/wavlm-large",
    dilation=1,
    score="log_odds",  # the single logit x is returned as (-x/2, +x/2), so the score is x
    length_policy="whole",
    window_length=64_000,
    do_normalize=True,
    class_weights=None,  # focal loss
    benchmarks=("ctrsvdd",),
)


# The systems on unilm's WavLM-Large: ASVspoof 5.
UNILM_WAVLM = System(
    name="unilm-wavlm",
    title="Nes2Net on unilm's WavLM (ASVspoof 5)",
    encoder_prefix="ssl_model.model.",
    encoder_type="wavlm",
    encoder_config="wavlm-large",
    encoder_name="WavLM-Large",
    base_model="microsoft/wavlm-large",
    dilation=1,
    score="bonafide_logit",
    length_policy="first",
    window_length=64_600,
    do_normalize=False,
    class_weights=(0.1, 0.9),
    benchmarks=("asvspoof5",),
)
