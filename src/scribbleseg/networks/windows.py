"""Scores of an image that is larger than what a network reads at once: from overlapping windows, blended."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

SIGMA = 1 / 8  # width of the Gaussian weight, as a share of the window's side
LEAST = 1e-3  # of the weight, at the corners of a window


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
