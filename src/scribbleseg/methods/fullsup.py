"""Full supervision: cross-entropy and Dice on dense masks, the reference for scribble methods."""

from ..core.recipe import Recipe
from ..losses.supervised import dice_loss, partial_cross_entropy
from .base import Method, dense


class FullSup(Method):
    """½ (CE + Dice) on dense masks, learning rate .03 [WSL4MIS]."""

    recipe = Recipe(lr=0.03)

    def targets(self, volume):
        return {"label": dense(volume, "fullsup")}

    def losses(self, batch, progress):
        logits = self.network(batch.image)
        return {
            "ce": 0.5 * partial_cross_entropy(logits, batch.label),
            "dice": 0.5 * dice_loss(logits.softmax(1), batch.label),
        }
