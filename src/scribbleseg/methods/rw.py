"""Random walker: scribbles are spread through each slice once, then trained on as if they were dense."""

from collections import Counter
from importlib.metadata import version
from typing import Annotated

import numpy as np
from torch import Tensor, nn

from ..core.labels import UNLABELED
from ..data.case import Volume
from ..data.voxels import Batch
from ..losses.supervised import dice_loss, partial_cross_entropy
from .base import Method
from .options import at_least, one_of


def walk(
    image: np.ndarray, scribble: np.ndarray, classes: int, beta: float = 100.0, missing: str = "present"
) -> np.ndarray:
    """The class whose seeds a random walker from each pixel meets first (Grady, TPAMI 2006), of one slice.

    image [channels, H, W] in [0, 1], scribble uint8 [H, W] with UNLABELED; the result is like the scribble. Intensities
    are rescaled from (−.35, 1.35) to (−1, 1) [WSL4MIS]. A slice with background scribble only becomes background; one
    with a single foreground class, or without scribble, has nothing to decide and keeps its scribble.
    missing="background": a slice that lacks any foreground class becomes all background [released comparison code].
    """
    from skimage.segmentation import random_walker

    drawn = np.unique(scribble[scribble != UNLABELED])
    if missing == "background" and set(range(1, classes)) - set(drawn.tolist()):
        return np.zeros_like(scribble)
    if drawn.tolist() == [0]:
        return np.zeros_like(scribble)
    if len(drawn) < 2 or (scribble != UNLABELED).all():
        return scribble.copy()
    # 1, 2, … without gaps, as the solver returns them
    seeds = np.where(scribble == UNLABELED, 0, np.searchsorted(drawn, scribble) + 1)
    rescaled = image.astype(np.float64) * 2 / 1.7  # (−.35, 1.35) to (−1, 1), less the shift: only differences count
    labels = random_walker(rescaled, seeds, beta=beta, mode="bf", channel_axis=0)
    return drawn[labels - 1]


class RandomWalker(Method):
    """L = ½ (CE + Dice) on the random walker's labels."""

    dims = (2, 3)
    learns_from_bare = False

    def __init__(
        self,
        network: nn.Module,
        *,
        beta: Annotated[float, at_least(0), "β, how strongly an edge stops the walker"] = 100.0,
        missing: Annotated[
            str,
            one_of("present", "background"),
            "slices that lack a class: solved with the classes drawn, or all background [released code]",
        ] = "present",
    ):
        super().__init__(network)
        self.beta = beta
        self.missing = missing

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        slices = zip(volume.image.swapaxes(0, 1), volume.scribble)
        solved = [walk(image, scribble, volume.classes, self.beta, self.missing) for image, scribble in slices]
        return {"label": np.stack(solved)}

    def target_key(self, volume: Volume) -> dict[str, object]:
        settings = {"beta": self.beta, "missing": self.missing, "classes": volume.classes}
        return {"method": "rw", **settings, "scikit-image": version("scikit-image")}

    def notes(self, volume: Volume) -> dict[str, int]:
        def kind(scribble: np.ndarray) -> str:
            drawn = np.unique(scribble[scribble != UNLABELED]).tolist()
            if len(drawn) == volume.classes:
                return "slices with every class"
            if len(drawn) > 1:
                return "slices that lack a class"
            if not drawn:
                return "slices without scribble"
            return "slices with one foreground class only" if drawn[0] else "slices with background only"

        return Counter(map(kind, volume.scribble))

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        return {
            "ce": 0.5 * partial_cross_entropy(logits, batch.label),
            "dice": 0.5 * dice_loss(logits.softmax(1), batch.label),
        }
