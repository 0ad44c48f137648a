"""Evaluates the dev partition on all processes: loss, EER, min DCF and Cllr, with each utterance exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object, tqdm

from ..metrics import cllr, equal_error_rate, min_dcf
from .batches import in_order, share_out
from .losses import IGNORED, Loss


@dataclass(frozen=True)
class Validation:
    """
    Results on dev, over utterances or frames. `eer` is a fraction, and `threshold` the score at the EER. `min_dcf` has
    the costs of ASVspoof 5. `cllr` is in bits, and takes the scores as log-likelihood ratios.
    """

    loss: float
    eer: float
    min_dcf: float
    cllr: float
    threshold: float


@torch.inference_mode()
def validate(
    accelerator: Accelerator,
    model: Any,
    dataset: Any,
    loss: Loss,
    batch_size: int,
    epoch: int = 0,
    loss_batch: int | None = None,
) -> Validation:
    """
    Evaluates the model on a dataset.

    Args:
        model: a model prepared by accelerate.
        dataset: a `WindowDataset` or a `FeatureSet`.
        batch_size: utterances per pass on this process.
        epoch: the epoch to draw augmentation for, if the dataset augments.
        loss_batch: if given, the loss is the plain mean of the weighted mean losses of batches of so many utterances,
            in the order of the dataset's rows. The incomplete last batch counts like the others.

    Raises:
        BrokenDataError: an utterance cannot be read.
    """
    plain = accelerator.unwrap_model(model)
    plain.eval()
    for buffer in plain.buffers():  # batch-norm statistics differ between processes after a training step
        broadcast(buffer)
    processes = accelerator.num_processes
    batches = share_out(dataset.by_length(), batch_size, accelerator.process_index, processes)
    judged: list[tuple[np.ndarray, np.ndarray, list[list[float]], list[int]]] = []
    loaded = in_order(dataset, batches, dataset.collate, dataset.recipe.workers, epoch)
    shown = tqdm(loaded, desc="dev", unit="batch", total=len(batches), leave=False)
    for rows, batch in zip(batches, shown, strict=True):
        batch = {key: value.to(accelerator.device) for key, value in batch.items()}
        labels = batch.pop("labels")
        with accelerator.autocast():
            logits = plain(**batch).logits
        logits = logits.float()
        losses = _losses(loss, plain.two_classes(logits), labels, 1 if loss_batch else len(labels))
        counted = labels != IGNORED  # leave out frames past the end of shorter utterances
        scores = plain.score(logits)[counted].cpu().numpy()
        judged.append((labels[counted].cpu().numpy(), scores, losses, rows))
    everyone = gather_object(judged)
    labels, scores = (np.concatenate([part[index] for part in everyone]) for index in (0, 1))
    classes = scores[labels == 1], scores[labels == 0]
    eer, threshold = equal_error_rate(*classes)
    return Validation(
        loss=_batch_means(everyone, loss_batch)
        if loss_batch
        else _mean([pair for part in everyone for pair in part[2]]),
        eer=eer,
        min_dcf=min_dcf(*classes).dcf,
        cllr=cllr(*classes),
        threshold=threshold,
    )


def _losses(loss: Loss, logits: torch.Tensor, labels: torch.Tensor, size: int) -> list[list[float]]:
    """Returns the summed loss and the weight of every `size` utterances, for logits (B, 2) and labels (B,)."""
    parts = zip(logits.split(size), labels.split(size), strict=True)
    return torch.stack([torch.stack([loss(part, truth), loss.weight(truth)]) for part, truth in parts]).tolist()


def _mean(losses: Sequence[Sequence[float]]) -> float:
    """Returns the weighted mean of pairs of a summed loss and its weight."""
    return sum(summed for summed, _ in losses) / sum(weight for _, weight in losses)


def _batch_means(judged: Iterable[tuple[Any, Any, list[list[float]], list[int]]], size: int) -> float:
    """Returns the mean over batches of `size` rows, in order, of the weighted mean of the rows' losses."""
    of_row = {row: pair for _, _, losses, rows in judged for row, pair in zip(rows, losses, strict=True)}
    pairs = [of_row[row] for row in sorted(of_row)]
    means = [_mean(pairs[start : start + size]) for start in range(0, len(pairs), size)]
    return sum(means) / len(means)
