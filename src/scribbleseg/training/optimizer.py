"""A recipe's optimiser and its learning rate."""

import numpy as np
import torch

from ..core.recipe import Recipe
from ..methods.base import Method


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The learning rate at progress t, in [0, 1].

    poly: lr (1 − t)^.9; cosine: lr (1 + cos πt)/2; step: lr γ^(steps passed); constant: lr; onecycle (Smith & Topin
    2019, with constant momentum): along cosines from lr/25 to lr in the first 30 % of the run, then to 0.
    """
    rise = min(progress / 0.3, 1)
    factor = {
        "poly": (1 - progress) ** 0.9,
        "cosine": (1 + np.cos(np.pi * progress)) / 2,
        "onecycle": 0.04 + 0.48 * (1 - np.cos(np.pi * rise))
        if rise < 1
        else (1 + np.cos(np.pi * (progress - 0.3) / 0.7)) / 2,
        "step": recipe.gamma ** sum(progress >= share for share in recipe.step_at),
        "constant": 1.0,
    }[recipe.schedule]
    return recipe.lr * float(factor)


def make_optimizer(recipe: Recipe, method: Method, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser over everything the method trains; SGD has momentum .9. On CUDA a graph can record it."""
    parameters = [p for p in method.parameters() if p.requires_grad]
    cuda = device.type == "cuda"
    rate, decay = recipe.lr, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=decay, fused=cuda or None)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(parameters, rate, weight_decay=decay, capturable=cuda, fused=cuda or None)
