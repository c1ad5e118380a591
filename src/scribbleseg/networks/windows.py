"""Scores of an image that is larger than what a network reads at once: from overlapping windows, blended."""

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WHOLE = 2.0  # slices are read whole up to this many times the side of the window
SIGMA = 1 / 8  # width of the Gaussian weight, as a share of the window's side
LEAST = 1e-3  # of the weight, at the corners of a window


def read(score: Callable[[Tensor], Tensor], image: Tensor, window: Sequence[int]) -> Iterator[Tensor]:
    """Scores of an image [N, C, *space], [N, K, *space], of volumes in parts of some slices that follow each other.

    score: [N, C, *any] → [N, K, *any]. window: the shape of what the network was trained on. Slices are read whole,
    filled up with zeros to a multiple of 16, unless they are more than twice as large as the window. Those, and all
    volumes, are read in windows; smaller ones are put in the middle of a window of zeros.
    """
    space = tuple(image.shape[2:])
    if len(space) == 2 and max(space) <= WHOLE * max(window):
        below, right = (-side % 16 for side in space)
        yield score(F.pad(image, (0, right, 0, below)))[:, :, : space[0], : space[1]]
        return
    lacking = [max(0, side - have) for side, have in zip(window, space)]
    ends = [end for missing in reversed(lacking) for end in (missing // 2, missing - missing // 2)]
    filled = F.pad(image, ends) if any(lacking) else image  # no copy of a large volume
    first, *rest = (slice(missing // 2, missing // 2 + have) for missing, have in zip(lacking, space))
    parts = blended(score, filled, window)
    if len(space) == 2:
        parts = iter([torch.cat(list(parts), 2)])
    for part in parts:  # where slices were added there is one part
        yield (part[:, :, first] if lacking[0] else part)[:, :, :, *rest]


def starts(length: int, window: int) -> list[int]:
    """Where windows begin along an axis: evenly spread, neighbours share half or more; [0] if one holds it all."""
    count = 1 + max(0, -(-2 * (length - window) // window))
    return [round(index * (length - window) / max(1, count - 1)) for index in range(count)]


def blended(score: Callable[[Tensor], Tensor], image: Tensor, window: Sequence[int], axis: int = 2) -> Iterator[Tensor]:
    """Weighted means of the scores of overlapping windows, in parts along `axis` that follow each other.

    score: [N, C, *window] → [N, K, *window]. image [N, C, *space], at least as large as the window along every axis.
    The weights are Gaussian, products of one factor per axis. Only the sums of one window's length along `axis` are in
    memory.
    """
    last = axis == image.dim() - 1

    def inner(part: Tensor) -> Tensor:
        return score(part) if last else torch.cat(list(blended(score, part, window, axis + 1)), axis + 1)

    side = window[axis - 2]
    place = torch.arange(side) - (side - 1) / 2
    weight = (-0.5 * (place / (SIGMA * side)) ** 2).exp().clamp(min=LEAST)
    weight = weight.view(-1, *[1] * (image.dim() - 1 - axis))
    begun, total, norm = 0, None, weight
    for start in starts(image.shape[axis], side):
        found = inner(image.narrow(axis, start, side))
        weight = weight.to(found.device)
        found = found * weight
        if total is None:
            total, norm = found, weight
            continue
        done = start - begun
        yield total.narrow(axis, 0, done) / norm[:done]
        kept = side - done
        found.narrow(axis, 0, kept).add_(total.narrow(axis, done, kept))
        norm = weight + torch.cat([norm[done:], torch.zeros_like(weight[:done])])
        begun, total = start, found
    assert total is not None
    yield total / norm
