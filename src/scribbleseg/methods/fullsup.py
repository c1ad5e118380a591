"""Full supervision: cross-entropy and Dice on dense masks, the reference for scribble methods."""

import numpy as np
from torch import Tensor

from ..core.errors import InputError
from ..core.recipe import Recipe
from ..data.case import Volume
from ..data.voxels import Batch
from ..losses.supervised import dice_loss, partial_cross_entropy
from .base import Method


class FullSup(Method):
    """L = ½ (CE + Dice) on dense masks, learning rate .03 [WSL4MIS]."""

    dims = (2, 3)
    recipe = Recipe(lr=0.03)

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        """The dense mask. Raises InputError where a case has none."""
        if volume.truth is None:
            raise InputError(
                f"{volume.case.id}: fullsup trains on dense masks, and labelsTr_dense has none for this case. "
                "Add it, or use a scribble method."
            )
        return {"label": volume.truth}

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        return {
            "ce": 0.5 * partial_cross_entropy(logits, batch.label),
            "dice": 0.5 * dice_loss(logits.softmax(1), batch.label),
        }
