"""Batches of slices or patches, augmented or as they are."""

import functools
from dataclasses import replace

import torch
from torch import Tensor

from ..core.labels import UNLABELED
from ..data.voxels import Batch, Slices, Voxels
from .augment import Augmentation, patch_affine, random_intensity, random_sharpness, warp

OUTSIDE = 1 / 8  # share of a patch's side by which it may leave the slice or volume


def layout_of(dims: int) -> torch.memory_format:
    """How images lie in memory: channels last, in 2-D or 3-D."""
    return torch.channels_last if dims == 2 else torch.channels_last_3d


def augment_slices(slices: Slices, matrix: Tensor, layout: torch.memory_format = torch.channels_last) -> Batch:
    """The slices as a batch, each under its affine matrix [N, 2, 3]."""
    return augmented(slices, functools.partial(warp, matrix=matrix), layout)


def augmented(drawn: Slices | Batch, augmentation: Augmentation, layout: torch.memory_format) -> Batch:
    """Slices, or patches of a batch, as the augmentation changes their image and all labels together."""
    layers = [drawn.label, *drawn.maps.values(), *([] if drawn.truth is None else [drawn.truth])]
    image, labels = augmentation(drawn.image, torch.stack([layer.long() for layer in layers], 1))
    label, *others = labels.unbind(1)
    truth = None if drawn.truth is None else others.pop()
    return Batch(image.contiguous(memory_format=layout), label, dict(zip(drawn.maps, others)), truth)


def draw_patches(
    voxels: Voxels, index: Tensor, part: slice, layout: torch.memory_format, straight: bool = False
) -> Batch:
    """Patches, rotated in the plane, scaled, with other intensities and sharpness: every second centred on a stroke.

    The others lie anywhere in the items `index`. A patch leaves its item by an eighth of its sides at most. Random
    numbers of place and shape are drawn for the whole batch, even if this process has only a `part` of it. `straight`:
    patches are cut as they are.
    """
    drawn, stroke = voxels.on_strokes((len(index) + 1) // 2)
    place, index = voxels.anywhere(index), index.clone()
    place[::2], index[::2] = stroke, drawn
    place = voxels.inside(index, place, OUTSIDE)
    if straight:
        return voxels.patches(index[part], place[part], _straight(voxels.dims, index[part]))
    turn = patch_affine(len(index), index.device)
    matrix = turn
    if voxels.dims == 3:  # slices are scaled like the plane, and stay in it
        matrix = turn.new_zeros(len(turn), 3, 3)
        matrix[:, 0, 0], matrix[:, 1:, 1:] = torch.linalg.vector_norm(turn[:, 0], dim=1), turn
    batch = voxels.patches(index[part], place[part], matrix[part])
    image = random_sharpness(random_intensity(batch.image))
    return replace(batch, image=image.contiguous(memory_format=layout))


def _straight(dims: int, index: Tensor) -> Tensor:
    """The matrices of `Voxels.patches` that change nothing, [n, dims, dims]."""
    return torch.eye(dims, device=index.device).expand(len(index), -1, -1)


def most_drawn(slices: Slices | Voxels, count: int, device: torch.device) -> Batch:
    """The slices with most foreground scribble, as they are; of Voxels the patch in the middle of a slice or volume."""
    if isinstance(slices, Voxels):
        index = slices.count[:, 1:].sum(1).topk(min(count, len(slices)), sorted=True).indices
        batch = slices.patches(index, slices.shape[index] / 2 - 0.5, _straight(slices.dims, index))
        return replace(batch, image=batch.image.contiguous(memory_format=layout_of(slices.dims)))
    drawn = torch.cat([((part != UNLABELED) & (part != 0)).flatten(1).sum(1) for part in slices.label.split(1024)])
    some = slices.take(drawn.topk(min(count, len(drawn)), sorted=True).indices).to(device)
    maps = {name: value.long() for name, value in some.maps.items()}
    truth = None if some.truth is None else some.truth.long()
    return Batch(some.image.contiguous(memory_format=torch.channels_last), some.label.long(), maps, truth)
