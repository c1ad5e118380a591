"""What a random walker says about slices beyond their strokes: probabilities, widths, and labels with a network."""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..core.labels import UNLABELED
from ..data.intensity import unit_range
from ..data.voxels import Slices, Voxels
from ..losses.enclosure import known
from ..networks.windows import read

ROUNDING = 1e-3  # how far a resized image may leave [0, 1]
FAINT = 1e-3  # least probability of the walker, so that a network can outvote it; and least r_k


def walker_probs(image: np.ndarray, seeds: np.ndarray, classes: int, beta: float) -> np.ndarray:
    """The probability that a random walker from a pixel meets a seed of each class first (Grady, TPAMI 2006).

    image [channels, H, W], seeds uint8 [H, W] with UNLABELED; float16 [classes, H, W], 0 for a class without seeds and
    1 on a seed of its own. Without seeds all are 0. It is solved in the box around the unlabelled pixels.
    """
    from skimage.segmentation import random_walker

    probs = (np.arange(classes)[:, None, None] == seeds).astype(np.float16)
    drawn = np.unique(seeds[seeds != UNLABELED])
    open_ = seeds == UNLABELED
    if not open_.any() or not len(drawn):
        return probs
    box = tuple(slice(max(place.min() - 1, 0), place.max() + 2) for place in open_.nonzero())
    inside = np.unique(seeds[box][~open_[box]])
    if len(inside) < 2:
        probs[inside, *box] = 1
        return probs
    # 1, 2, … without gaps, as the solver returns them
    numbered = np.where(open_[box], 0, np.searchsorted(inside, seeds[box]) + 1)
    pixels = image[:, *box].astype(np.float64)
    if not np.ptp(pixels):  # without edges the solver would divide by the standard deviation, 0
        pixels, beta = np.arange(pixels.size, dtype=float).reshape(pixels.shape), 0.0
    found = random_walker(pixels, numbered, beta=beta, mode="bf", return_full_prob=True, channel_axis=0)
    probs[inside, *box] = found.clip(0, 1)
    return probs


def half_widths(labels: Iterable[np.ndarray], classes: int) -> np.ndarray:
    """Per class the median over slices of the radius of the largest disc inside it, in pixels: float [classes].

    labels [H, W] of each slice. A class that is nowhere gets 0.
    """
    widest: list[list[float]] = [[] for _ in range(classes)]
    for label in labels:
        part = np.pad(label, 1, constant_values=UNLABELED)
        for value in np.unique(part[part < classes]):
            widest[value].append(distance_transform_edt(part == value).max())
    return np.array([np.median(values) if values else 0.0 for values in widest])


def walk(
    slices: Slices | Voxels,
    seeds: np.ndarray,
    labels: Tensor,
    probs: Callable[[Tensor], Tensor],
    beta: float,
    gamma: float,
) -> tuple[list[tuple[Tensor, np.ndarray, Tensor]], np.ndarray]:
    """What network and walker together find in each slice that has seeds, and the walker's half widths, [K].

    seeds, labels: uint8, shaped like the slices' label. probs: image [1, channels, *space] → p [1, K, *space] on the
    CPU. Of each slice: a view [H, W] of its part of `labels`, into which the caller writes; its seeds [H, W]; p a^γ,
    float16 [K, H, W], a: the walker's probabilities, FAINT at least. Without any seed both results are empty. An item
    whose grey values are not in [0, 1] is scaled to it for the walker.
    """
    found, walked = [], []
    for place, image in slices.items():
        plane = image.shape[-2:]
        drawn, part = seeds[place].reshape(-1, *plane), labels[place].view(-1, *plane)
        p = torch.cat(list(read(probs, image, slices.size)), 2).view(-1, *part.shape)
        pixels = image[0].reshape(-1, *part.shape).cpu().numpy()
        if pixels.min() < -ROUNDING or pixels.max() > 1 + ROUNDING:  # β is meant for grey values from 0 to 1
            pixels = unit_range(pixels)
        for number in (drawn != UNLABELED).any((1, 2)).nonzero()[0].tolist():
            a = walker_probs(pixels[:, number], drawn[number], len(p), beta)
            score = p[:, number] * torch.from_numpy(a).clamp(min=FAINT) ** gamma
            found.append((part[number], drawn[number], score.half()))
            walked.append(a.argmax(0))
    return found, half_widths(walked, len(found[0][2]) if found else 0)


def label_slices(
    slices: Slices | Voxels, probs: Callable[[Tensor], Tensor], beta: float, gamma: float, narrow: float
) -> tuple[Tensor, Tensor]:
    """ŷ = argmax_k p_k a_k^γ r_k of the pixels without a seed in slices that have some, and log r, float [K].

    Seeds: the strokes, and the enclosed background where the run reads it.

    r_k = R_k / max R, R_k the walker's half width of class k, between `narrow` and 1; the background has 1. ŷ: uint8
    like the slices' label, on the CPU, with UNLABELED elsewhere. Without any seed log r is empty. See `walk`.
    """
    told = torch.full_like(slices.label, UNLABELED, device="cpu")
    walked, widths = walk(slices, known(slices).cpu().numpy(), told, probs, beta, gamma)
    ratio = torch.from_numpy(widths / max(widths[1:].max(initial=0), 1)).clamp(max(narrow, FAINT), 1).view(-1, 1, 1)
    ratio[:1] = 1
    for open_, drawn, score in walked:
        label = (score * ratio).argmax(0).to(torch.uint8)
        open_.copy_(torch.where(torch.from_numpy(drawn == UNLABELED), label, UNLABELED))
    return told, ratio.flatten().log()
