"""The gradients of one step: over the passes and processes that share a batch, each utterance counts once."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device

from .losses import Loss


class Part(NamedTuple):
    """This process's part of the results of a batch."""

    loss: torch.Tensor
    """Part of the mean loss, (): the sum over processes is `num_processes` times the mean."""
    of_corpora: torch.Tensor
    """Summed loss and summed weight of each corpus, (K, 2)."""


def accumulate(
    accelerator: Accelerator,
    model: Any,
    loss: Loss,
    batch: dict[str, torch.Tensor],
    passes: int,
    share: float = 1.0,
    corpora: int = 0,
) -> Part:
    """
    Adds the gradients of this process's share of a batch to those of the model.

    Args:
        model: a model prepared by accelerate.
        batch: this process's share of the batch.
        passes: how many parts to divide it into.
        share: factor of the gradients: the utterances of the batch relative to those of a mean batch.
        corpora: K, the number of corpora whose losses to sum; 0 if the batch does not name them.
    """
    # Divide the loss by the weight of the whole batch over all processes: a mean of the processes' means differs.
    weight = torch.tensor(float(loss.weight(batch["labels"])), device=accelerator.device)
    weight = accelerator.reduce(weight, reduction="sum").item()
    total = torch.zeros((), device=accelerator.device)
    of_corpora = torch.zeros(corpora, 2, device=accelerator.device)
    parts = [{key: value.tensor_split(passes)[index] for key, value in batch.items()} for index in range(passes)]
    for index, part in enumerate(parts):
        part = send_to_device(part, accelerator.device, non_blocking=True)
        labels, sources = part.pop("labels"), part.pop("corpus", None)
        with accelerator.no_sync(model) if index < passes - 1 else nullcontext():
            logits = accelerator.unwrap_model(model).two_classes(model(**part).logits.float())
            # The factor num_processes cancels the averaging of gradients over processes.
            mean = loss(logits, labels) * (accelerator.num_processes / weight)
            accelerator.backward(mean * share)
        total += mean.detach()
        if sources is not None:
            of_corpora += _by_corpus(loss, logits.detach(), labels, sources, corpora)
    return Part(total, of_corpora)


def _by_corpus(
    loss: Loss, logits: torch.Tensor, labels: torch.Tensor, sources: torch.Tensor, corpora: int
) -> torch.Tensor:
    """Returns the summed loss and weight of each corpus, (K, 2)."""
    sums = logits.new_zeros(corpora, 2)
    for source in sources.unique().tolist():
        mine = sources == source
        sums[source, 0], sums[source, 1] = loss(logits[mine], labels[mine]), loss.weight(labels[mine])
    return sums
