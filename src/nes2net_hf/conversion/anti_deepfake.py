"""
The encoders post-trained to tell fake speech by nii-yamagishilab (AntiDeepfake, arXiv 2506.21090).

Their files have fairseq's keys under one prefix, and a linear head over the mean of the last layer, which is dropped:
the encoder is what a new detector starts from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from torch import Tensor

from .reading import Checkpoint

PREFIX, HEAD = "m_ssl.model.", ("proj_fc.weight", "proj_fc.bias")
LICENSE = "CC-BY-NC-SA-4.0"
_CARD = f"""---
license: {LICENSE.lower()}
library_name: transformers
tags: [anti-spoofing, deepfake-detection]
---

# An AntiDeepfake encoder for transformers

Converted by nes2net_hf from `{{file}}` (SHA-256 `{{sha256}}`), an encoder that nii-yamagishilab
post-trained to tell fake speech (arXiv 2506.21090). Only names changed; the linear head is not in it. The weights are
under {LICENSE}: no commercial use, and what is trained from them has the same licence. They were trained on 29
corpora, among them ASVspoof 2019, 2021 and 5, so results on those are not results on unseen data.

Their waveforms were normalised: train with `data.normalize: true`.
"""


def is_anti_deepfake(tensors: Mapping[str, Tensor]) -> bool:
    return f"{PREFIX}encoder.pos_conv.0.weight_v" in tensors


def bare_encoder(checkpoint: Checkpoint) -> Checkpoint:
    """Returns the checkpoint with the encoder's keys alone, without their prefix."""
    tensors = {key.removeprefix(PREFIX): tensor for key, tensor in checkpoint.tensors.items() if key not in HEAD}
    return replace(checkpoint, tensors=tensors)


def remarks(checkpoint: Checkpoint) -> Iterator[str]:
    """Yields the lines that a conversion prints."""
    yield "system    an AntiDeepfake encoder (nii-yamagishilab), post-trained to tell fake speech"
    yield f"licence   {LICENSE}: no commercial use, and what is trained from it must have the same licence"
    yield "input     waveforms were normalised as a whole: set data.normalize to true in the recipe"
    if any(key in checkpoint.tensors for key in HEAD):
        yield (
            "dropped   proj_fc, its own head (mean over the frames of the last layer, then one linear layer: "
            "logit 0 = fake, 1 = real)"
        )


def card(checkpoint: Checkpoint) -> str:
    """Returns the model card of the converted folder, from which its licence is read."""
    return _CARD.format(file=checkpoint.path.name, sha256=checkpoint.sha256)
