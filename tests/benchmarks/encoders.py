"""
Prints the table of encoders in docs/models.md: `python -m tests.benchmarks.encoders`. Configurations are those that
the publishers give, as far as a public source shows them; parameters and multiply-accumulates are counted on the meta
device, without weights. `tests/model/test_encoders.py` keeps the table true.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig

from nes2net_hf import Nes2NetConfig, Nes2NetModel
from nes2net_hf.modeling_nes2net import _keeps_to_its_mask
from nes2net_hf.pretrained.info import count_macs, without_memory

LAYER = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
GROUP = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}


def size(features: int, layers: int, ffn: int, heads: int) -> dict[str, int]:
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")
    return dict(zip(names, (features, layers, ffn, heads), strict=True))


def whisper(features: int, layers: int, heads: int, bands: int) -> dict[str, int]:
    names = ("d_model", "encoder_layers", "encoder_ffn_dim", "encoder_attention_heads", "num_mel_bins")
    return dict(zip(names, (features, layers, 4 * features, heads, bands), strict=True))


@dataclass(frozen=True)
class Encoder:
    """An encoder on the Hub, its configuration, its licence, and how well both are known."""

    name: str
    kind: str
    fields: dict[str, Any]
    license: str
    source: str
    """`read` in the publisher's files; `copy` in a copy of them; `general` knowledge that nobody confirmed."""
    normalised: str = "yes"
    """Whether the Hub's own extractor normalises the waveform."""


BASE, LARGE, XL, XXL = (
    size(768, 12, 3072, 12), size(1024, 24, 4096, 16), size(1280, 48, 5120, 16), size(1920, 48, 7680, 16)
)  # fmt: skip
ENCODERS = (
    Encoder("facebook/wav2vec2-base", "wav2vec2", BASE | GROUP, "Apache-2.0", "general"),
    Encoder("facebook/wav2vec2-large", "wav2vec2", LARGE | GROUP, "Apache-2.0", "read"),
    Encoder("facebook/wav2vec2-large-lv60", "wav2vec2", LARGE | LAYER, "Apache-2.0 (general)", "read"),
    Encoder("facebook/wav2vec2-xls-r-300m", "wav2vec2", LARGE | LAYER, "Apache-2.0 (general)", "copy"),
    Encoder("facebook/wav2vec2-xls-r-1b", "wav2vec2", XL | LAYER, "Apache-2.0 (general)", "copy"),
    Encoder("facebook/wav2vec2-xls-r-2b", "wav2vec2", XXL | LAYER, "Apache-2.0 (general)", "copy"),
    Encoder("facebook/mms-300m", "wav2vec2", LARGE | LAYER, "CC BY-NC 4.0", "read"),
    Encoder("facebook/mms-1b", "wav2vec2", XL | LAYER, "CC BY-NC 4.0", "read"),
    Encoder("utter-project/mHuBERT-147", "hubert", BASE | GROUP, "CC BY-NC-SA 4.0", "read"),
    Encoder("microsoft/wavlm-base", "wavlm", BASE | GROUP, "not stated", "general", "no (general)"),
    Encoder("microsoft/wavlm-base-plus", "wavlm", BASE | GROUP, "not stated", "copy", "no"),
    Encoder("microsoft/wavlm-large", "wavlm", LARGE | LAYER | {"conv_bias": False}, "not stated", "copy",
            "yes (general)"),
    Encoder("facebook/w2v-bert-2.0", "wav2vec2-bert", LARGE, "not checked", "read", "features"),
    Encoder("openai/whisper-tiny", "whisper", whisper(384, 4, 6, 80), "not checked", "general", "features"),
    Encoder("openai/whisper-large-v3", "whisper", whisper(1280, 32, 20, 128), "not checked", "general", "features"),
)  # fmt: skip


def config_of(encoder: Encoder) -> Nes2NetConfig:
    return Nes2NetConfig(AutoConfig.for_model(encoder.kind, **encoder.fields))


def parameters(config: Nes2NetConfig) -> int:
    with torch.device("meta"):
        return sum(one.numel() for one in Nes2NetModel(config).encoder.parameters())


def row(encoder: Encoder) -> str:
    """Returns a row of the table."""
    config = config_of(encoder)
    count = parameters(config)
    macs = count_macs(without_memory(config))["encoder"]
    together = "together" if _keeps_to_its_mask(config.encoder_config) else "by length"
    kept, half, trained = (f"{count * size / 1e9:.2f}" for size in (4, 2, 16))
    return (
        f"| `{encoder.name}` | {count / 1e6:,.0f} | {kept} | {half} | {trained} | {macs / 1e9:,.1f} | {together} | "
        f"{encoder.normalised} | {encoder.license} | {encoder.source} |"
    )


HEADER = (
    "| encoder | million parameters | GB float32 | GB bfloat16 | GB in training | GMAC a window | batches | "
    "Hub normalises | licence | configuration |\n"
    "|---|---:|---:|---:|---:|---:|---|---|---|---|"
)


if __name__ == "__main__":
    print(HEADER)
    for one in ENCODERS:
        print(row(one), flush=True)
