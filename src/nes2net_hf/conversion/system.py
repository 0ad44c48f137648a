"""What an official family of systems is: how it is told from its keys, and its recipe."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class System:
    """One family: its name, where its encoder lies among the keys, and what its recipe says that weights do not."""

    name: str
    title: str
    encoder_prefix: str
    encoder_type: str  # transformers' model_type
    encoder_config: str  # a file of `encoder_configs/`
    encoder_name: str
    base_model: str  # the encoder's id on the Hub, for cards
    dilation: int
    score: str
    length_policy: str
    window_length: int
    do_normalize: bool
    class_weights: tuple[float, float] | None
    benchmarks: tuple[str, ...]  # sources of `model_cards/benchmarks/`
    dropped: tuple[str, ...] = ()  # prefixes, below the encoder's, of keys that only pre-training needs

    def default_encoder_config(self) -> dict[str, Any]:
        """The configuration of the encoder that the published systems use."""
        return read_encoder_config(self.encoder_config)

    def is_dropped(self, key: str) -> bool:
        return key.startswith(tuple(self.encoder_prefix + prefix for prefix in self.dropped))


def read_encoder_config(name: str) -> dict[str, Any]:
    """A configuration that travels in the package: `xlsr-300m` or `wavlm-large`."""
    file = resources.files(__package__) / "encoder_configs" / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8"))


def has_wavlm_keys(keys: Iterable[str]) -> bool:
    """WavLM's gated relative positions tell it from wav2vec 2.0."""
    return any(".self_attn.grep_a" in key for key in keys)
