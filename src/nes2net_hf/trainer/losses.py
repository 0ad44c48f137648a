"""Losses as sums with their weights, so that ragged batches, passes and processes add up exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .recipe import Recipe

IGNORED = -100  # the label of frames that do not count, as in torch's cross entropy


class Loss(Protocol):
    """The mean over any utterances is the sum of their losses over the sum of their weights."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, 2) of spoof and bona fide in float32, and labels (B,) of 0 and 1 → the sum of the losses."""

    def weight(self, labels: Tensor) -> Tensor:
        """Labels (B,) → the sum of the utterances' weights."""


def build_loss(recipe: Recipe) -> Loss:
    """The recipe's loss."""
    if recipe.model.head == "frames":
        factors = [resolution // 20 for resolution in recipe.loss.resolutions]
        return FrameLoss(recipe.model.config.get("class_weights") or (1.0, 1.0), factors, recipe.loss.whole_utterance)
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


class FrameLoss:
    """
    Weighted cross entropy of segments of several lengths, as the mean over the lengths. A segment is spoofed if any of
    its frames is: its label is the lowest of theirs, and its logits are those of the least bona fide frame (Zhang et
    al. 2022 train PartialSpoof's resolutions of 20 to 640 ms together).

    Args:
        class_weights: of spoof and bona fide.
        factors: frames of a segment, one for each resolution.
        whole_utterance: whether the utterance is one more segment.
    """

    def __init__(self, class_weights: tuple[float, float], factors: Sequence[int], whole_utterance: bool) -> None:
        self.entropy = WeightedCrossEntropy(class_weights)
        self.factors, self.whole_utterance = list(factors), whole_utterance

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, T, 2) and labels (B, T); frames with label -100 do not count."""
        total = logits.new_zeros(())
        everything = float(self.weight(labels))
        factors = self.factors_for(labels)
        for factor in factors:
            segments, truth = pool_segments(logits, labels, factor)
            # Each length has the same weight, although there are fewer long segments.
            share = everything / max(float(self.entropy.weight(truth)), 1e-12)
            total = total + self.entropy(segments, truth) * share / len(factors)
        return total

    def weight(self, labels: Tensor) -> Tensor:
        return self.entropy.weight(labels[labels != IGNORED])

    def factors_for(self, labels: Tensor) -> list[int]:
        """Frames of a segment for each resolution, the whole utterance's among them."""
        return [*self.factors, labels.shape[1]] if self.whole_utterance else self.factors


def pool_segments(logits: Tensor, labels: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """
    Frames (B, T, 2) and (B, T) → the N segments of `factor` frames that have a label: for each, the logits of its
    least bona fide frame, (N, 2), and its lowest label, (N,).
    """
    excess = -labels.shape[1] % factor
    labels = F.pad(labels, (0, excess), value=IGNORED).unflatten(1, (-1, factor))
    logits = F.pad(logits, (0, 0, 0, excess)).unflatten(1, (-1, factor))
    counted = labels != IGNORED
    log_odds = (logits[..., 1] - logits[..., 0]).masked_fill(~counted, float("inf"))
    least = log_odds.argmin(-1, keepdim=True)
    chosen = logits.gather(2, least.unsqueeze(-1).expand(-1, -1, -1, 2)).squeeze(2)
    truth = labels.masked_fill(~counted, 1).amin(-1)
    keep = counted.any(-1)
    return chosen[keep], truth[keep]


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
