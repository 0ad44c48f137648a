"""
Sharpness-aware minimisation (SAM, Foret et al. 2021): the gradient of a step is taken where the loss is worst nearby.

Our own few lines, because optimisers of other packages (pytorch-optimizer has one) know nothing of passes, processes
and exact resume, and keep a copy of the weights in every checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def climbed(model: nn.Module, rho: float) -> Iterator[None]:
    """
    Within it, the weights w are at w + rho · g / |g| (equation 2 with p = 2), where g are their gradients. Batch-norm
    statistics do not change, so that they are those of the weights themselves. Then w is back, bit for bit.
    """
    learning = [weight.detach() for weight in model.parameters() if weight.grad is not None]
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    before = [weight.clone() for weight in learning]
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    length = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]).norm()
    for weight, gradient in zip(learning, gradients):
        weight.add_(gradient * (rho / (length + 1e-12)))
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for weight, value in zip(learning, before):
            weight.copy_(value)
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
