"""An average of the weights that training keeps beside them: EMA or SWA, by torch."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .batch_norms import measure_batch_norms
from .batches import BatchStream
from .recipe import AverageRecipe


class RunningAverage:
    """
    The average of a model's weights, as `AverageRecipe` describes it.

    Args:
        model: the model before training, not yet prepared by accelerate.
    """

    def __init__(self, model: nn.Module, recipe: AverageRecipe) -> None:
        self.recipe = recipe
        is_ema = recipe.name == "ema"
        # SWA measures batch-norm statistics itself. A moving average of the statistics fits that of the weights.
        average = get_ema_multi_avg_fn(recipe.decay) if is_ema else None
        self.state = AveragedModel(model, multi_avg_fn=average, use_buffers=is_ema)
        self.state.eval()

    @property
    def model(self) -> Any:
        """The model with the averaged weights; None before there is an average."""
        return self.state.module if int(self.state.n_averaged) else None

    def after_step(self, model: nn.Module) -> None:
        """Adds the weights after a step."""
        if self.recipe.name == "ema":
            self.state.update_parameters(model)

    def after_epoch(self, model: nn.Module, epoch: int, stream: BatchStream) -> None:
        """
        Adds the weights after an epoch, counted from 1, and measures batch-norm statistics.

        Args:
            stream: training batches of this process, from the beginning of this epoch.
        """
        if self.recipe.name == "swa" and epoch >= self.recipe.first_epoch:
            self.state.update_parameters(model)
            measure_batch_norms(self.state.module, stream, self.recipe.batch_norm_batches)
