"""Losses as sums, and the weights they stand for, so that ragged batches, passes and processes add up exactly."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .recipe import Recipe


class Loss(Protocol):
    """The mean over any utterances is the sum of their losses over the sum of their weights."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, 2) in float32 and labels (B,) → the sum of the utterances' losses."""

    def weight(self, labels: Tensor) -> Tensor:
        """Labels (B,) → the sum of the utterances' weights."""


def build_loss(recipe: Recipe) -> Loss:
    """The recipe's loss."""
    if recipe.loss.name == "focal":
        return FocalLoss(recipe.loss.gamma, recipe.loss.alpha, *recipe.loss.targets)
    return WeightedCrossEntropy(recipe.model.config.get("class_weights") or (1.0, 1.0))


class WeightedCrossEntropy:
    """
    Cross entropy with a weight for each class; its mean is that of `torch.nn.CrossEntropyLoss(weight)`.

    Args:
        class_weights: of spoof and bona fide.
    """

    def __init__(self, class_weights: tuple[float, float]) -> None:
        self.class_weights = torch.tensor(class_weights, dtype=torch.float32)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, weight=self.class_weights.to(logits), reduction="sum")

    def weight(self, labels: Tensor) -> Tensor:
        return self.class_weights.to(labels.device)[labels].sum()


class FocalLoss:
    """
    Focal loss (Lin et al. 2017, equation 4) of the log-odds x against smoothed targets t, as the CtrSVDD systems use
    it: bce = BCE(x, t), p_t = exp(-bce), loss = alpha · (1 - p_t)^gamma · bce.

    Args:
        gamma, alpha: of the equation.
        spoof, bonafide: the targets of the classes.
    """

    def __init__(self, gamma: float, alpha: float, spoof: float, bonafide: float) -> None:
        self.gamma, self.alpha, self.targets = gamma, alpha, torch.tensor([spoof, bonafide])

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_odds = logits[:, 1] - logits[:, 0]
        bce = F.binary_cross_entropy_with_logits(log_odds, self.targets.to(logits)[labels], reduction="none")
        return (self.alpha * (1 - torch.exp(-bce)) ** self.gamma * bce).sum()

    def weight(self, labels: Tensor) -> Tensor:
        return torch.tensor(float(len(labels)), device=labels.device)
