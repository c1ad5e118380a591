"""Partial cross-entropy: the cross-entropy over scribbled pixels only."""

from ..core.recipe import Recipe
from ..losses.supervised import partial_cross_entropy
from .base import Method


class PCE(Method):
    """The baseline: L = CE over Ω. Learning rate .03 [WSL4MIS]."""

    recipe = Recipe(lr=0.03)

    def losses(self, batch, progress):
        return {"pce": partial_cross_entropy(self.network(batch.image), batch.label)}
