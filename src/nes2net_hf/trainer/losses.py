"""Losses as sums with weights, so that incomplete batches, passes and processes add up exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from .recipe import Recipe

IGNORED = -100  # label of frames that do not count, as in torch's cross entropy


class Loss(Protocol):
    """The mean loss of a set of utterances is the sum of their losses divided by the sum of their weights."""

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Returns the sum of the losses for float32 logits (B, 2) of spoof and bona fide, and labels (B,) 0 or 1."""

    def weight(self, labels: Tensor) -> Tensor:
        """Returns the sum of the weights of utterances with labels (B,)."""


def build_loss(recipe: Recipe) -> Loss:
    """Returns the recipe's loss."""
    if recipe.model.head == "frames":
        factors = [resolution // 20 for resolution in recipe.loss.resolutions]
        return FrameLoss(recipe.model.config.get("class_weights") or (1.0, 1.0), factors, recipe.loss.whole_utterance)
    if recipe.loss.name == "focal":
        return FocalLoss(recipe.loss.gamma, recipe.loss.alpha, *recipe.loss.targets)
    weights = recipe.model.config.get("class_weights") or (1.0, 1.0)
    if recipe.loss.name == "am_softmax":
        return AdditiveMargin(weights, recipe.loss.margin * recipe.model.config["cosine_scale"])
    if recipe.loss.name == "oc_softmax":
        return OneClass(recipe.loss.margins, recipe.model.config["cosine_scale"])
    return WeightedCrossEntropy(weights)


class WeightedCrossEntropy:
    """
    Cross entropy with class weights. Its mean equals that of `torch.nn.CrossEntropyLoss(weight)`.

    Args:
        class_weights: weights of spoof and bona fide.
    """

    def __init__(self, class_weights: tuple[float, float]) -> None:
        self.class_weights = torch.tensor(class_weights, dtype=torch.float32)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, weight=self.class_weights.to(logits), reduction="sum")

    def weight(self, labels: Tensor) -> Tensor:
        return self.class_weights.to(labels.device)[labels].sum()


class FrameLoss:
    """
    Mean over several segment lengths of the weighted cross entropy of segments. A segment is spoofed if any of its
    frames is: it takes the lowest label of its frames, and the logits of its least bona fide frame. Zhang et al. 2022
    train PartialSpoof's resolutions of 20 to 640 ms together in this way.

    Args:
        class_weights: weights of spoof and bona fide.
        factors: frames per segment, for each resolution.
        whole_utterance: whether the whole utterance is an additional segment.
    """

    def __init__(self, class_weights: tuple[float, float], factors: Sequence[int], whole_utterance: bool) -> None:
        self.entropy = WeightedCrossEntropy(class_weights)
        self.factors, self.whole_utterance = list(factors), whole_utterance

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Takes logits (B, T, 2) and labels (B, T). Frames with label -100 do not count."""
        total = logits.new_zeros(())
        everything = float(self.weight(labels))
        factors = self.factors_for(labels)
        for factor in factors:
            segments, truth = pool_segments(logits, labels, factor)
            # Give each length the same weight, although there are fewer long segments.
            share = everything / max(float(self.entropy.weight(truth)), 1e-12)
            total = total + self.entropy(segments, truth) * share / len(factors)
        return total

    def weight(self, labels: Tensor) -> Tensor:
        return self.entropy.weight(labels[labels != IGNORED])

    def factors_for(self, labels: Tensor) -> list[int]:
        """Returns the frames per segment for each resolution, including the whole utterance if it counts."""
        return [*self.factors, labels.shape[1]] if self.whole_utterance else self.factors


def pool_segments(logits: Tensor, labels: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """
    Pools logits (B, T, 2) and labels (B, T) of frames into segments of `factor` frames. Returns, for the N segments
    that have a label, the logits of the least bona fide frame, (N, 2), and the lowest label, (N,).
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
    Focal loss (Lin et al. 2017, equation 4) of the log-odds x with smoothed targets t, as the CtrSVDD systems use it:
    bce = BCE(x, t), p_t = exp(-bce), loss = alpha · (1 - p_t)^gamma · bce.

    Args:
        gamma, alpha: parameters of the equation.
        spoof, bonafide: smoothed targets of the classes.
    """

    def __init__(self, gamma: float, alpha: float, spoof: float, bonafide: float) -> None:
        self.gamma, self.alpha, self.targets = gamma, alpha, torch.tensor([spoof, bonafide])

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        log_odds = logits[:, 1] - logits[:, 0]
        bce = F.binary_cross_entropy_with_logits(log_odds, self.targets.to(logits)[labels], reduction="none")
        return (self.alpha * (1 - torch.exp(-bce)) ** self.gamma * bce).sum()

    def weight(self, labels: Tensor) -> Tensor:
        return torch.tensor(float(len(labels)), device=labels.device)


class AdditiveMargin(WeightedCrossEntropy):
    """
    AM-Softmax (Wang et al. 2018, equation 6): cross entropy of scaled cosines, after the one of the utterance's own
    class is reduced by a margin.

    Args:
        class_weights: weights of spoof and bona fide.
        margin: the margin times the classifier's scale.
    """

    def __init__(self, class_weights: tuple[float, float], margin: float) -> None:
        super().__init__(class_weights)
        self.margin = margin

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        return super().__call__(logits - self.margin * F.one_hot(labels, 2), labels)


class OneClass:
    """
    OC-Softmax (Zhang et al. 2021, equation 4): bona fide speech is pulled to one direction, and spoofs are kept away
    from it. For the cosine c to that direction, loss = softplus(scale · (m_bonafide - c)) for bona fide, and
    softplus(scale · (c - m_spoof)) for spoof. The log-odds are scale · c.

    Args:
        margins: cosines that spoofs should stay below, and bona fide speech above.
        scale: the classifier's scale (the paper's alpha).
    """

    def __init__(self, margins: Sequence[float], scale: float) -> None:
        self.margins = scale * torch.tensor(margins, dtype=torch.float32)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        beyond = logits[:, 1] - logits[:, 0] - self.margins.to(logits)[labels]
        return F.softplus(torch.where(labels == 1, -beyond, beyond)).sum()

    def weight(self, labels: Tensor) -> Tensor:
        return torch.tensor(float(len(labels)), device=labels.device)
