"""A method of your own: one class, named on the command line, without a change to scribbleseg.

From the folder above this one:

    PYTHONPATH=. scribbleseg train DATASET RUN --method examples.new_method:FlipConsistency --set weight=0.5

Once your package is installed, name it `your_package.module:YourClass`; PYTHONPATH is not needed then.
"""

from typing import Annotated

from scribbleseg.losses import partial_cross_entropy
from scribbleseg.methods.base import Method, Recipe
from scribbleseg.methods.options import at_least


class FlipConsistency(Method):
    """L = pCE + w · mean |p(x) − flip p(flip x)|²: a slice and its mirror image should be segmented alike."""

    recipe = Recipe(lr=0.03)

    # keyword-only arguments become --set options, with their range and meaning
    def __init__(self, network, *, weight: Annotated[float, at_least(0), "w, weight of the flip term"] = 1.0):
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
