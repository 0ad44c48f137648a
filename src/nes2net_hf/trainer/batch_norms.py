"""Measures the batch-norm statistics of averaged weights: the mean of statistics does not match the mean weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..modeling_nes2net import MaskedBatchNorm


@torch.no_grad()
def measure_batch_norms(model: Any, stream: Iterable[dict[str, torch.Tensor]], batches: int) -> None:
    """
    Replaces a model's batch-norm statistics by those of the first `batches` batches, equally weighted. Unlike torch's
    `update_bn`, it reads batches with masks, and dropout stays off.

    Args:
        model: a model in evaluation mode.
    """
    norms = [module for module in model.modules() if isinstance(module, MaskedBatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
    for number, batch in zip(range(batches), stream):
        for norm in norms:
            norm.momentum = 1 / (number + 1)
        model(**{key: value.to(model.device) for key, value in batch.items() if key not in ("labels", "corpus")})
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
        norm.eval()
