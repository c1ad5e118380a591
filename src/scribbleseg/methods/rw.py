"""Random walker: scribbles are spread through each slice once, then trained on as if they were dense."""

from collections import Counter

import numpy as np

from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..data.cache import cached
from ..losses.supervised import dice_loss, partial_cross_entropy
from .base import Method


def walk(
    image: np.ndarray, scribble: np.ndarray, classes: int, beta: float = 100.0, missing: str = "present"
) -> np.ndarray:
    """The class whose seeds a random walker from each pixel meets first (Grady, TPAMI 2006), of one slice.

    image [channels, H, W] in [0, 1], scribble uint8 [H, W] with UNLABELED; the result is like the scribble. Intensities are
    rescaled from (−.35, 1.35) to (−1, 1) [WSL4MIS]. A slice with background scribble only becomes background; one with a single
    foreground class, or without scribble, has nothing to decide and keeps its scribble. missing="background": a slice that lacks
    any foreground class becomes all background, as in the released comparison code.
    """
    from skimage.segmentation import random_walker

    drawn = np.unique(scribble[scribble != UNLABELED])
    if missing == "background" and set(range(1, classes)) - set(drawn.tolist()):
        return np.zeros_like(scribble)
    if drawn.tolist() == [0]:
        return np.zeros_like(scribble)
    if len(drawn) < 2 or (scribble != UNLABELED).all():
        return scribble.copy()
    seeds = np.where(
        scribble == UNLABELED, 0, np.searchsorted(drawn, scribble) + 1
    )  # 1, 2, … without gaps, as the solver returns them
    rescaled = image.astype(np.float64) * 2 / 1.7  # (−.35, 1.35) to (−1, 1), less the shift: only differences count
    labels = random_walker(rescaled, seeds, beta=beta, mode="bf", channel_axis=0)
    return drawn[labels - 1]


class RandomWalker(Method):
    """½ (CE + Dice) on the random walker's labels."""

    def __init__(self, network, *, beta: float = 100.0, missing: str = "present"):
        super().__init__(network)
        if missing not in ("present", "background"):
            raise InputError(
                f"rw: missing is '{missing}'; it is 'present' (solved with the classes drawn) or 'background' (as released)."
            )
        self.beta = beta
        self.missing = missing

    def targets(self, volume):
        import skimage

        def solve():
            slices = zip(volume.image.swapaxes(0, 1), volume.scribble)
            return np.stack(
                [walk(image, scribble, volume.classes, self.beta, self.missing) for image, scribble in slices]
            )

        settings = {
            "beta": self.beta,
            "missing": self.missing,
            "classes": volume.classes,
            "scikit-image": skimage.__version__,
        }
        return {"label": cached(volume, "rw", settings, solve)}

    def notes(self, volume):
        def kind(scribble):
            drawn = np.unique(scribble[scribble != UNLABELED]).tolist()
            if len(drawn) == volume.classes:
                return "slices with every class"
            if len(drawn) > 1:
                return "slices that lack a class"
            if not drawn:
                return "slices without scribble"
            return "slices with one foreground class only" if drawn[0] else "slices with background only"

        return Counter(map(kind, volume.scribble))

    def losses(self, batch, progress):
        logits = self.network(batch.image)
        return {
            "ce": 0.5 * partial_cross_entropy(logits, batch.label),
            "dice": 0.5 * dice_loss(logits.softmax(1), batch.label),
        }
