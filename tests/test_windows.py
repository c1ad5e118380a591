"""Blended windows, the way back to the image's grid, and the shape of patches."""

import functools
import itertools
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from scribbleseg.core.errors import InputError
from scribbleseg.data.fitting import between_slices, suits_3d
from scribbleseg.data.raster import Raster, spread
from scribbleseg.data.volume import Grid
from scribbleseg.networks.windows import SIGMA, blended, read, starts
from scribbleseg.training.patch import depth_multiple, patch_of_volume, slice_side


def test_windows_cover_an_axis_and_share_half():
    assert starts(32, 32) == [0] and starts(20, 32) == [0] and starts(33, 32) == [0, 1]
    for length in (40, 64, 100, 513):
        found = starts(length, 32)
        assert found[0] == 0 and found[-1] == length - 32 and max(np.diff(found)) <= 16


@pytest.mark.parametrize("window", [(8, 16), (6, 8, 16)])
def test_windows_are_blended_as_the_sum_over_all_of_them(window):
    """Against Gaussian weights in all axes at once, for scores that depend on the whole window."""
    image = torch.rand(2, 3, *(side + extra for side, extra in zip(window, (9, 0, 21))))

    def score(part):
        assert part.shape[2:] == window
        return part - part.flatten(2).mean(2).view(2, 3, *[1] * len(window))

    factors = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (SIGMA * n)) ** 2).clip(1e-3) for n in window]
    weight = torch.from_numpy(functools.reduce(np.multiply, np.ix_(*factors))).float()
    total, norm = torch.zeros_like(image), torch.zeros(image.shape[2:])
    for corner in itertools.product(*map(starts, image.shape[2:], window)):
        place = tuple(slice(start, start + side) for start, side in zip(corner, window))
        total[..., *place] += weight * score(image[..., *place])
        norm[place] += weight
    found = list(blended(score, image, window))
    assert len(found) > 1 and torch.allclose(torch.cat(found, 2), total / norm, atol=1e-5)


def test_slices_are_read_whole_unless_they_are_far_larger_than_the_patches():
    seen = []

    def score(part):
        seen.append(tuple(part.shape[2:]))
        return 2 * part

    for space, shapes in (((60, 30), {(64, 32)}), ((70, 30), {(32, 32)}), ((20, 20), {(32, 32)})):
        image = torch.rand(3, 1, *space)
        (found,) = read(score, image, (32, 32))
        assert torch.allclose(found, 2 * image, atol=1e-6) and set(seen) == shapes
        seen.clear()


@pytest.mark.parametrize("space", [(5, 20, 70), (20, 40, 16), (3, 9, 9)])
def test_volumes_are_read_in_windows_and_smaller_ones_are_filled_up(space):
    image, seen = torch.rand(1, 1, *space), []

    def score(part):
        seen.append(tuple(part.shape[2:]))
        return 2 * part

    found = torch.cat(list(read(score, image, (8, 16, 16))), 2)
    assert torch.allclose(found, 2 * image, atol=1e-6) and set(seen) == {(8, 16, 16)}


@pytest.mark.parametrize("depth", [4, 9, 10, 23])
def test_probabilities_come_back_to_the_slices_of_the_image(depth):
    """A ramp along the slices, in parts of uneven length: linear in between, constant beyond the first and last."""
    ramp = torch.arange(float(depth)).view(1, 1, -1, 1, 1).expand(1, 2, depth, 3, 5)
    parts = iter([ramp[:, :, :3], ramp[:, :, 3:4], ramp[:, :, 4:]])
    if depth == 4:
        parts = iter([ramp])
    found = list(spread(parts, depth, (10, 6, 5), 4))
    assert [part.shape for part in found] == [(2, 4, 6, 5), (2, 4, 6, 5), (2, 2, 6, 5)]
    expected = ((np.arange(10) + 0.5) * depth / 10 - 0.5).clip(0, depth - 1)
    assert np.allclose(torch.cat(found, 1)[1, :, 2, 2], expected, atol=1e-5)


def test_3d_where_spacing_and_size_allow_it():
    def grid(spacing, shape=(64, 64, 20)):
        return Grid(shape, np.diag([*spacing, 1.0]), None)

    assert suits_3d([grid((1, 1, 3))]) and not suits_3d([grid((1, 1, 3.1))])
    assert not suits_3d([grid((1, 1, 1), (64, 64, 15))]) and not suits_3d([])
    assert suits_3d([grid((1, 1, 1)), grid((1, 1, 8))]) and not suits_3d([grid((1, 1, 1))] + [grid((1, 1, 8))] * 2)


def test_the_shape_of_patches():
    shapes = torch.tensor([[200, 190]] * 97 + [[500, 500]] * 3)
    assert slice_side(shapes, 256) == 208 and slice_side(shapes, 128) == 128
    large, thick = torch.tensor([[300, 512, 512]]), torch.tensor([[28, 190, 190]])
    assert patch_of_volume(large, 1.0, 2**21, 16) == (128, 128)
    assert patch_of_volume(large, 1.0, 2**17, 16) == (48, 48)
    depth, side = patch_of_volume(thick, 3.5, 2**17, 4)
    assert (depth, side) == (20, 80) and depth * side**2 <= 2**17
    assert patch_of_volume(thick, 3.5, 2**21, 4) == (28, 192), "no larger than the volume"
    assert patch_of_volume(large, 1.0, 2**21, 16, side=64) == (304, 64), "a side that was asked for is kept"
    assert patch_of_volume(torch.tensor([[1, 64, 64]]), 1.0, 2**17, 16) == (16, 64)
    assert depth_multiple("unet3d", 1.0) == 16 and depth_multiple("unet3d", 3.5) == 4
    assert depth_multiple("monai:UNet", 3.5) == 16
    assert between_slices([5.0, 7.0, 6.0], 2.0) == 6.0 and between_slices([0.7], 2.0) == 2.0


@pytest.mark.parametrize(
    ("raster", "shape", "spacing", "fits"),
    [
        (Raster(pixel=1.0, between=2.0), (4, 8, 8), (31.0, 1.0, 1.0), True),
        (Raster(pixel=1.0, between=2.0), (4, 8, 8), (33.0, 1.0, 1.0), False),  # slices over 16 times as far apart
        (Raster(pixel=1.0), (4, 8, 8), (33.0, 1.0, 1.0), True),  # in 2-D slices stay as they are
        (Raster(pixel=1.0), (4, 8, 8), (1.0, 17.0, 17.0), False),
        (Raster(pixel=1.0, between=1.0, unit="voxels"), (4, 8, 8), (33.0, 17.0, 17.0), True),
        (Raster(pixel=1.0), (1, 2000, 2000), (1.0, 10.0, 10.0), False),  # would have 20 000 pixels a side
        (Raster(side=2048), (4, 128, 100), (1.0, 1.0, 1.0), True),
        (Raster(side=2048), (4, 127, 100), (1.0, 1.0, 1.0), False),
    ],
)
def test_a_volume_of_quite_another_scale_does_not_fit(raster, shape, spacing, fits):
    with nullcontext() if fits else pytest.raises(InputError, match="scan: has (voxels|slices) of .* the run makes"):
        raster.check("scan", shape, spacing)
