"""Write the model card of a converted checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import ModelCardData

from ..cards import read_benchmark, render, variant_title
from ..configuration_nes2net import Nes2NetConfig
from .systems import System


def write_card(
    folder: Path,
    *,
    config: Nes2NetConfig,
    system: System,
    source: str | None,
    file_name: str,
    sha256: str,
    assumed: Mapping[str, str],
) -> None:
    """Writes the model card as `folder/README.md`, with the figures that the authors published."""
    from ..version import __version__

    encoder = config.encoder_config
    metadata = ModelCardData(
        library_name="transformers",
        pipeline_tag="audio-classification",
        tags=["anti-spoofing", "deepfake-detection", "nes2net"],
        base_model=system.base_model,
    )
    one_logit = "they are (-x/2, +x/2), and their difference is the official score, the single logit x"
    variant = "Nes2Net-LA" if config.split_attention else variant_title(config.backend_variant)
    card = render(
        "converted.md",
        metadata=metadata.to_yaml(),
        title=f"{variant} on {system.encoder_name}",
        version=__version__,
        source=f"`{source}` on the Hub, " if source else "",
        file_name=file_name,
        sha256=sha256,
        architecture=(
            f"{variant} ({config.hidden_act}, scales {config.outer_scale} x {config.inner_scale}, dilation "
            f"{config.dilation}, {config.pooling} pooling) on a {encoder.model_type} encoder of "
            f"{encoder.num_hidden_layers} layers, layer aggregation `{config.layer_aggregation}`."
        ),
        input=(
            "the whole utterance, layer-normalised"
            if system.length_policy == "whole"
            else f"its first {system.window_length:,} samples, repeated if it is shorter, not normalised"
        ),
        score=one_logit if config.classifier_outputs == 1 else "the one for `bonafide` is the official score",
        window=f"{system.window_length:,} samples",
        assumed=assumed,
        license=system.license,
        figures=system.figures,
        benchmarks=[read_benchmark(name) for name in system.benchmarks],
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
