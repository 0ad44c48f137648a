"""
Optimiser and learning-rate schedule of a recipe.

We use our own schedule. torch's `CosineAnnealingLR` has one lowest rate for all parameters, but here layers may have
different rates. Its state also differs from the state that version 0.1.0 saved.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from .recipe import ModelRecipe, Recipe

_ENCODER = "nes2net.encoder."
_LAYER = re.compile(r"\.encoder\.layers\.(\d+)\.")


def depth_of(name: str, layers: int) -> int:
    """Returns how many encoder layers are above an encoder weight; its convolutions count as below all layers."""
    match = _LAYER.search(name)
    return layers - 1 - int(match[1]) if match else layers


def _layers(names: Iterable[str]) -> int:
    return max((int(match[1]) for name in names if (match := _LAYER.search(name))), default=-1) + 1


def held_back(model: nn.Module, recipe: ModelRecipe, epoch: int) -> list[nn.Parameter]:
    """
    Returns the encoder's weights that do not learn in an epoch, counted from 0: all during `freeze_epochs`; then, with
    `thaw_layers`, those below the layers that are thawed.
    """
    thawed = epoch - recipe.freeze_epochs + 1
    if thawed > 0 and recipe.thaw_layers is None:
        return []
    encoder = [(name, weight) for name, weight in model.named_parameters() if name.startswith(_ENCODER)]
    layers = _layers(name for name, _ in encoder)
    top = max(0, thawed) * (recipe.thaw_layers or 0)
    return [weight for name, weight in encoder if depth_of(name, layers) >= top]


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """
    Groups the trainable parameters by learning rate. Back-end and classifier have the recipe's rate. The encoder has
    its own, multiplied by `layer_decay` for each layer below the top (its convolutions count as below all layers).
    """
    top = recipe.optimiser.learning_rate
    encoder_rate = recipe.optimiser.encoder_learning_rate or top
    learning = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    layers = _layers(name for name, _ in learning)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in learning:
        rate = top
        if name.startswith(_ENCODER):
            rate = encoder_rate * recipe.optimiser.layer_decay ** depth_of(name, layers)
        groups.setdefault(rate, []).append(parameter)
    return [{"params": parameters, "lr": rate} for rate, parameters in groups.items()]


def build_optimiser(model: nn.Module, recipe: Recipe) -> Optimizer:
    """Builds Adam or AdamW over `parameter_groups`."""
    kind = {"adam": Adam, "adamw": AdamW}[recipe.optimiser.name]
    low, high = recipe.optimiser.betas
    return kind(
        parameter_groups(model, recipe),
        lr=recipe.optimiser.learning_rate,
        betas=(low, high),
        weight_decay=recipe.optimiser.weight_decay,
    )


def learning_rate_factor(recipe: Recipe, steps_per_epoch: int) -> Callable[[int], float]:
    """Returns a function from the optimiser step (from 0) to the factor of the base learning rate."""
    schedule = recipe.schedule
    floor = schedule.final_learning_rate / recipe.optimiser.learning_rate
    total = recipe.epochs * steps_per_epoch

    def cosine(part: float) -> float:
        return floor + (1 - floor) * (1 + math.cos(math.pi * part)) / 2

    def factor(step: int) -> float:
        if step < schedule.warmup_steps:
            return step / schedule.warmup_steps
        if schedule.name == "cosine":
            # With batches of a budget, epochs may have more steps than the first.
            return cosine(min(1.0, (step - schedule.warmup_steps) / max(1, total - schedule.warmup_steps)))
        if schedule.name == "cosine_epochs":
            # No restart at the bottom: the cosine rises again.
            assert schedule.period is not None
            return cosine(step // steps_per_epoch / schedule.period)
        return 1.0

    return factor


def validated_epochs(recipe: Recipe) -> list[int]:
    """Returns the epochs, counted from 1, after which dev is evaluated."""
    return [epoch for epoch in _evaluated(recipe) if epoch >= recipe.validation.first_epoch or epoch == recipe.epochs]


def _evaluated(recipe: Recipe) -> Iterable[int]:
    """Returns the epochs that `validation.epochs` chooses. The last epoch is one of them, so that a run has a best."""
    if recipe.validation.epochs == "all":
        return range(1, recipe.epochs + 1)
    period = recipe.schedule.period
    assert period is not None
    # The learning rate is lowest at odd multiples of the period. The published recipe evaluates dev after the first
    # epoch, and from the second minimum onwards at each minimum and one epoch before and after it.
    chosen = {1} | {
        epoch
        for epoch in range(2 * period + 2, recipe.epochs + 1)
        if (epoch - period) % (2 * period) in (2 * period - 1, 0, 1)
    }
    return sorted(epoch for epoch in chosen | {recipe.epochs} if epoch <= recipe.epochs)
