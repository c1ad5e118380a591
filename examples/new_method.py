"""A method of somebody else's: one class, named on the command line, without a change to scribbleseg.

From the folder above this one:

    PYTHONPATH=. scribbleseg train DATASET RUN --method examples.new_method:FlipConsistency --set weight=0.5

or as `your_package.module:YourClass` once it is installed; then PYTHONPATH is not needed.
"""

from scribbleseg.core.recipe import Recipe
from scribbleseg.losses.supervised import partial_cross_entropy
from scribbleseg.methods.base import Method


class FlipConsistency(Method):
    """L = pCE + w · mean |p(x) − flip p(flip x)|²: a slice and its mirror image should be segmented alike."""

    recipe = Recipe(lr=0.03)

    def __init__(self, network, *, weight: float = 1.0):  # keyword-only arguments become --set options
        super().__init__(network)
        self.weight = weight

    def losses(self, batch, progress):
        logits = self.network(batch.image)
        mirrored = self.network(batch.image.flip(3)).flip(3)
        difference = logits.softmax(1) - mirrored.softmax(1)
        return {
            "pce": partial_cross_entropy(logits, batch.label),
            "flip": self.weight * difference.square().mean(),
        }
