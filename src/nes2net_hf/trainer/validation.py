"""Evaluates the dev partition on all processes: loss, EER, min DCF and Cllr, with each utterance exactly once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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
    of_corpora: dict[str, Validation] = field(default_factory=dict)
    """The results on each corpus, if there are several."""

    def record(self, suffix: str = "") -> dict[str, float]:
        """Returns the results by their names in `metrics.jsonl`. `suffix` follows the name of each figure."""
        figures = {"loss": self.loss, "eer": self.eer, "min_dcf": self.min_dcf, "cllr": self.cllr}
        named = {f"dev_{figure}{suffix}": value for figure, value in figures.items()}
        if self.of_corpora:
            named[f"dev_eer_mean{suffix}"] = sum(one.eer for one in self.of_corpora.values()) / len(self.of_corpora)
        for name, one in self.of_corpora.items():
            named |= {f"dev_loss{suffix}/{name}": one.loss, f"dev_eer{suffix}/{name}": one.eer}
        return named


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
    # The loss of each utterance, if it is needed for something else than the mean over all.
    each = bool(loss_batch or dataset.names)
    judged: list[tuple[np.ndarray, np.ndarray, list[list[float]], list[int], np.ndarray]] = []
    loaded = in_order(dataset, batches, dataset.collate, dataset.recipe.workers, epoch)
    shown = tqdm(loaded, desc="dev", unit="batch", total=len(batches), leave=False)
    for rows, batch in zip(batches, shown, strict=True):
        batch = {key: value.to(accelerator.device) for key, value in batch.items()}
        labels = batch.pop("labels")
        batch.pop("corpus", None)
        with accelerator.autocast():
            logits = plain(**batch).logits
        logits = logits.float()
        losses = _losses(loss, plain.two_classes(logits), labels, 1 if each else len(labels))
        counted = labels != IGNORED  # leave out frames past the end of shorter utterances
        scores = plain.score(logits)[counted].cpu().numpy()
        per_row = counted.flatten(1).sum(1) if counted.dim() > 1 else counted.long()
        judged.append((labels[counted].cpu().numpy(), scores, losses, rows, np.repeat(rows, per_row.cpu().numpy())))
    everyone = gather_object(judged)
    labels, scores, row_of_score = (np.concatenate([part[index] for part in everyone]) for index in (0, 1, 4))
    of_row = {row: pair for part in everyone for row, pair in zip(part[3], part[2])} if each else {}
    if loss_batch:
        mean = _batch_means([of_row[row] for row in sorted(of_row)], loss_batch)
    else:
        mean = _mean([pair for part in everyone for pair in part[2]])
    of_corpora = {}
    for index, name in enumerate(dataset.names):
        mine = dataset.sources[row_of_score] == index
        pairs = [pair for row, pair in of_row.items() if dataset.sources[row] == index]
        of_corpora[name] = _results(labels[mine], scores[mine], _mean(pairs))
    return _results(labels, scores, mean, of_corpora)


def _results(
    labels: np.ndarray, scores: np.ndarray, loss: float, of_corpora: dict[str, Validation] | None = None
) -> Validation:
    classes = scores[labels == 1], scores[labels == 0]
    eer, threshold = equal_error_rate(*classes)
    return Validation(loss, eer, min_dcf(*classes).dcf, cllr(*classes), threshold, of_corpora or {})


def _losses(loss: Loss, logits: torch.Tensor, labels: torch.Tensor, size: int) -> list[list[float]]:
    """Returns the summed loss and the weight of every `size` utterances, for logits (B, 2) and labels (B,)."""
    parts = zip(logits.split(size), labels.split(size), strict=True)
    return torch.stack([torch.stack([loss(part, truth), loss.weight(truth)]) for part, truth in parts]).tolist()


def _mean(losses: Sequence[Sequence[float]]) -> float:
    """Returns the weighted mean of pairs of a summed loss and its weight."""
    return sum(summed for summed, _ in losses) / sum(weight for _, weight in losses)


def _batch_means(pairs: Sequence[Sequence[float]], size: int) -> float:
    """Returns the mean over batches of `size` utterances of the weighted mean of their losses."""
    means = [_mean(pairs[start : start + size]) for start in range(0, len(pairs), size)]
    return sum(means) / len(means)
