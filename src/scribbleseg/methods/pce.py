"""Partial cross-entropy: the cross-entropy over scribbled pixels only."""

from torch import Tensor

from ..core.recipe import Recipe
from ..data.voxels import Batch
from ..losses.enclosure import enclosure_term
from ..losses.supervised import partial_cross_entropy
from .base import Method


class PCE(Method):
    """The baseline: L = CE over the scribbled pixels Ω. Learning rate .03 [WSL4MIS]."""

    dims = (2, 3)
    recipe = Recipe(lr=0.03)
    reads_enclosure = True
    learns_from_bare = False

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        return {"pce": partial_cross_entropy(logits, batch.label)} | enclosure_term(logits, batch)
