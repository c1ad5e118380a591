"""Read the ring: which pixels are surely background, because the annotator drew background strokes around the rest."""

from collections.abc import Iterable

import numpy as np
from scipy import ndimage
from skimage.morphology import convex_hull_image

from ..core.labels import UNLABELED

READ_FROM = 0.5  # share of a data set's slices whose background strokes enclose the structures
LARGEST_GAP = 120.0  # degrees without background strokes, as seen from the middle of the foreground strokes


def outside_ring(scribble: np.ndarray, reach: float) -> np.ndarray | None:
    """Pixels of a slice outside its closed ring: bool [H, W]; None if background strokes enclose nothing.

    scribble: integer [H, W] with 0 for background and UNLABELED where nothing was drawn. The background strokes are
    widened by `reach` pixels. What connects to the slice's edge without crossing them is outside. The ring is closed if
    no foreground stroke lies there.
    """
    background, foreground = scribble == 0, (scribble != 0) & (scribble != UNLABELED)
    if not background.any() or not foreground.any():
        return None
    free = np.pad(ndimage.distance_transform_edt(~background) > reach, 1, constant_values=True)
    regions, _ = ndimage.label(free)
    outside = (regions == regions[0, 0])[1:-1, 1:-1]
    return None if (outside & foreground).any() else outside


def outside_hull(scribble: np.ndarray) -> np.ndarray | None:
    """Pixels of a slice outside the convex hull of its background strokes; None if these enclose nothing.

    They have to lie all around, with gaps of at most LARGEST_GAP: strokes on two sides say nothing of how far a
    structure reaches between them. And no foreground stroke may lie outside.
    """
    background, foreground = scribble == 0, (scribble != 0) & (scribble != UNLABELED)
    if not background.any() or not foreground.any() or _gap(background, foreground) > LARGEST_GAP:
        return None
    outside = ~convex_hull_image(background)
    return None if (outside & foreground).any() else outside


def _gap(background: np.ndarray, foreground: np.ndarray) -> float:
    """The largest angle without background pixels, as seen from the mean foreground pixel; degrees."""
    rows, columns = (np.argwhere(background) - np.argwhere(foreground).mean(0)).T
    angles = np.sort(np.degrees(np.arctan2(rows, columns)))
    return float(np.diff(angles, append=angles[0] + 360).max())


def enclosure(scribble: np.ndarray, reach: float, rule: str) -> np.ndarray:
    """What is surely background and was not drawn: uint8 [D, H, W], 0 there and UNLABELED elsewhere.

    rule "hull": outside of the convex hull of a slice's background strokes, or of its ring where the hull encloses
    nothing. rule "ring", of older runs: outside of the closed ring alone. A slice with background
    strokes alone is background. A slice without background strokes says nothing.
    """
    found = np.full(scribble.shape, UNLABELED, np.uint8)
    for drawn, target in zip(scribble, found):
        if not ((drawn != 0) & (drawn != UNLABELED)).any():
            outside = np.full(drawn.shape, True) if (drawn == 0).any() else None
        else:
            outside = outside_hull(drawn) if rule == "hull" else None
            outside = outside_ring(drawn, reach) if outside is None else outside
        if outside is not None:
            target[outside & (drawn == UNLABELED)] = 0
    return found


def enclosing_slices(scribble: np.ndarray, reach: float) -> tuple[int, int]:
    """In how many slices of [D, H, W] the hull or the ring holds the foreground strokes, and how many have such."""
    drawn = [part for part in scribble if ((part != 0) & (part != UNLABELED)).any()]
    return sum(outside_hull(part) is not None or outside_ring(part, reach) is not None for part in drawn), len(drawn)


def not_enclosed(share: float) -> str:
    """What a user is told where too few slices enclose their structures to learn from it."""
    return (
        f"in {int(100 * share)} % of the slices the background strokes enclose the structures: too few, so nothing is "
        "learnt about what lies outside. The model may find structures far from the strokes. To prevent that, draw "
        "background around all structures of each slice that you draw on"
    )


def choose_rule(counts: Iterable[tuple[int, int]]) -> tuple[str, float]:
    """The rule for a data set from `enclosing_slices` of its cases, and the share of slices that enclose.

    hull from half of the slices on, else off; also off without foreground strokes.
    """
    enclosing, drawn = np.sum(list(counts) or [(0, 0)], axis=0)
    share = float(enclosing / drawn) if drawn else 0.0
    return ("hull" if share >= READ_FROM else "off"), share
