"""The shape of the patches: what the volumes' size and the memory allow."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..data.voxels import Voxels
from ..networks.unet3d import depth_strides
from .plan import Plan

MOST_SIDE = 128  # pixels: the side of a 3-D patch that the network's pixel is chosen for
CPU_VOXELS = 2**17  # of a 3-D patch on a CPU: about 4 s a step on one core with the U-Net and two patches
CUDA_VOXELS = 2**21
VOXEL_BYTES = 12 * 2**10  # of a GPU's memory per voxel of a patch: two patches under a method with a teacher
SHORTEST = 32  # pixels of a patch's side


def choose_patch(plan: Plan, voxels: Voxels, device: torch.device, side: int | None) -> Plan:
    """The plan with the shape of its patches for these items; `side` is what the user wants."""
    shapes = voxels.shape.cpu()
    if plan.dims == 2:
        return replace(plan, size=slice_side(shapes, plan.size) if side is None else side)
    multiple = depth_multiple(plan.network, plan.anisotropy)
    depth, side = patch_of_volume(shapes, plan.anisotropy, most_voxels(device), multiple, side)
    return replace(plan, depth=depth, size=side)


def depth_multiple(network: str, anisotropy: float) -> int:
    """Of what the number of slices of a patch is a multiple."""
    return int(np.prod(depth_strides(anisotropy))) if network == "unet3d" else 16


def most_voxels(device: torch.device) -> int:
    """How many voxels a 3-D patch may have."""
    if device.type == "cpu":
        return CPU_VOXELS
    return int(min(CUDA_VOXELS, torch.cuda.get_device_properties(device).total_memory / VOXEL_BYTES))


def slice_side(shapes: Tensor, most: int) -> int:
    """Side of a 2-D patch: `most`, or less where it holds 95 % of the slices. shapes: rows and columns [N, 2]."""
    return min(most, _up(float(np.percentile(shapes.amax(1).numpy(), 95)), 16))


def patch_of_volume(
    shapes: Tensor, anisotropy: float, voxels: int, multiple: int, side: int | None = None
) -> tuple[int, int]:
    """(slices, side) of a 3-D patch: as long each way in mm, as far as the volumes are, with at most `voxels` voxels.

    shapes: slices, rows and columns [N, 3]. anisotropy: distance of the slices over the side of a pixel. The number of
    slices is a multiple of `multiple`, the side of 16; `side` is kept if it is given.
    """
    deep, high, wide = np.median(shapes.numpy(), axis=0)
    widest, deepest = max(SHORTEST, _up(max(high, wide), 16)), _up(deep, multiple)

    def depth_for(side: int) -> int:
        return int(np.clip(voxels // side**2 // multiple * multiple, multiple, deepest))

    if side is not None:
        return depth_for(side), side
    cube = int(np.clip(round((voxels * anisotropy) ** (1 / 3) / 16) * 16, SHORTEST, widest))
    depth = depth_for(cube)
    if depth == deepest:  # what the depth leaves over goes to the sides
        cube = int(np.clip((voxels / depth) ** 0.5 // 16 * 16, cube, widest))
    return depth, cube


def _up(value: float, multiple: int) -> int:
    return max(1, -(-int(np.ceil(value)) // multiple)) * multiple
