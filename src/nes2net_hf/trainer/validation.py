"""Evaluates the dev partition on all processes: loss, EER, min DCF and Cllr, with each utterance exactly once."""

from __future__ import annotations

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
    accelerator: Accelerator, model: Any, dataset: Any, loss: Loss, batch_size: int, epoch: int = 0
) -> Validation:
    """
    Evaluates the model on a dataset.

    Args:
        model: a model prepared by accelerate.
        dataset: a `WindowDataset` or a `FeatureSet`.
        batch_size: utterances per pass on this process.
        epoch: the epoch to draw augmentation for, if the dataset augments.

    Raises:
        BrokenDataError: an utterance cannot be read.
    """
    plain = accelerator.unwrap_model(model)
    plain.eval()
    for buffer in plain.buffers():  # batch-norm statistics differ between processes after a training step
        broadcast(buffer)
    processes = accelerator.num_processes
    batches = share_out(dataset.by_length(), batch_size, accelerator.process_index, processes)
    judged: list[tuple[np.ndarray, np.ndarray, float, float]] = []
    loaded = in_order(dataset, batches, dataset.collate, dataset.recipe.workers, epoch)
    for batch in tqdm(loaded, desc="dev", unit="batch", total=len(batches), leave=False):
        batch = {key: value.to(accelerator.device) for key, value in batch.items()}
        labels = batch.pop("labels")
        with accelerator.autocast():
            logits = plain(**batch).logits
        logits = logits.float()
        summed, weight = float(loss(plain.two_classes(logits), labels)), float(loss.weight(labels))
        counted = labels != IGNORED  # leave out frames past the end of shorter utterances
        scores = plain.score(logits)[counted].cpu().numpy()
        judged.append((labels[counted].cpu().numpy(), scores, summed, weight))
    everyone = gather_object(judged)
    labels, scores = (np.concatenate([part[index] for part in everyone]) for index in (0, 1))
    classes = scores[labels == 1], scores[labels == 0]
    eer, threshold = equal_error_rate(*classes)
    return Validation(
        loss=sum(part[2] for part in everyone) / sum(part[3] for part in everyone),
        eer=eer,
        min_dcf=min_dcf(*classes).dcf,
        cllr=cllr(*classes),
        threshold=threshold,
    )
