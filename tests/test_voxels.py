"""Patches from a flat buffer: places, interpolation, labels, and strokes that survive shrinking."""

import math

import numpy as np
import pytest
import torch

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.depth import deepen_image, deepen_label, deepen_strokes, network_depth
from scribbleseg.data.preparation import network_shape, resample_label, resample_strokes
from scribbleseg.data.voxels import Voxels, lay_out
from scribbleseg.training.augment import patch_affine, random_intensity
from scribbleseg.training.batches import draw_patches

STRAIGHT = torch.eye(2)[None]


def patches(voxels: Voxels, index: list[int], centre: list[list[float]], matrix: torch.Tensor, *size: int):
    voxels.size = size
    return voxels.patches(torch.tensor(index), torch.tensor(centre), matrix.expand(len(index), -1, -1))


def two_slices() -> tuple[Voxels, list[torch.Tensor], list[torch.Tensor]]:
    """Slices of 6 × 8 and 5 × 4 pixels that count their pixels; strokes: 1 in the first, 0 and 2 in the second."""
    images = [torch.arange(48.0).view(6, 8), 100 + torch.arange(20.0).view(5, 4)]
    labels = [torch.full((6, 8), UNLABELED, dtype=torch.uint8), torch.full((5, 4), UNLABELED, dtype=torch.uint8)]
    labels[0][2, 3:6], labels[1][0], labels[1][4, 3] = 1, 0, 2
    flat = torch.cat([image.flatten() for image in images])[None].half()
    maps = {"label": torch.cat([label.flatten() for label in labels])}
    return lay_out(flat, maps, None, [(6, 8), (5, 4)], 3), images, labels


def test_a_straight_patch_is_a_crop():
    voxels, images, labels = two_slices()
    batch = patches(voxels, [1, 0], [[1.5, 1.5], [3.5, 4.5]], STRAIGHT, 4, 4)
    assert torch.equal(batch.image[0, 0], images[1][:4]) and torch.equal(batch.image[1, 0], images[0][2:6, 3:7])
    assert torch.equal(batch.label[0], labels[1][:4].long()) and torch.equal(batch.label[1], labels[0][2:6, 3:7].long())


def test_half_a_pixel_is_interpolated_and_outside_is_empty():
    voxels, images, _ = two_slices()
    batch = patches(voxels, [0], [[2.0, 2.0]], STRAIGHT, 2, 2)
    assert batch.image[0, 0, 0, 0] == images[0][1:3, 1:3].mean()
    batch = patches(voxels, [1], [[-0.5, 1.5]], STRAIGHT, 4, 4)
    assert (batch.image[0, 0, :2] == 0).all() and (batch.label[0, :2] == UNLABELED).all()
    assert torch.equal(batch.image[0, 0, 2:], images[1][:2])


def test_a_quarter_turn_and_a_scale():
    voxels, images, _ = two_slices()
    turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])  # the patch's rows run along the slice's columns
    batch = patches(voxels, [1], [[1.5, 1.5]], turn, 4, 4)
    assert torch.equal(batch.image[0, 0], images[1][:4].rot90(-1))
    batch = patches(voxels, [0], [[2.5, 3.5]], 2 * STRAIGHT, 2, 2)
    assert (
        batch.image[0, 0, 0, 0] == images[0][1:3, 2:4].mean() and batch.image[0, 0, 1, 1] == images[0][3:5, 4:6].mean()
    )


def test_every_class_is_drawn_alike_however_rare():
    """Class 1 in a slice of its own, class 2 in one pixel, class 0 in four: each a third; a rare one in 1 of 50 too."""
    torch.manual_seed(0)
    voxels, _, labels = two_slices()
    index, place = voxels.on_strokes(6000)
    found = torch.stack([labels[i][tuple(at)] for i, at in zip(index.tolist(), place.long().tolist())])
    assert (torch.bincount(found.long(), minlength=3) - 2000).abs().max() < 150
    many = torch.zeros(50, 4, dtype=torch.uint8)
    many[17, 2] = 1
    rare = lay_out(torch.zeros(1, 200), {"label": many.flatten()}, None, [(2, 2)] * 50, 3)
    index, place = rare.on_strokes(4000)
    assert abs(int((index == 17).sum()) - 2040) < 150, "half of the patches, though it is in 2 % of the slices"
    assert (place[index == 17] == torch.tensor([1.0, 0])).all(1).sum() > 1900


def test_places_are_anywhere_and_moved_inside():
    torch.manual_seed(0)
    voxels, _, _ = two_slices()
    index = torch.tensor([0, 1] * 1000)
    place = voxels.anywhere(index)
    assert (place >= 0).all() and (place < voxels.shape[index]).all() and (place.std(0) > 1).all()
    voxels.size = (4, 4)
    moved = voxels.inside(index, place, 0.0)
    first, last = (moved - 1.5), (moved + 1.5)
    assert first.min() == 0 and (last <= voxels.shape[index] - 1).all() and (moved[index == 1][:, 1] == 1.5).all()
    assert voxels.inside(index, place, 0.25).min() == 0.5, "a row of the patch may lie outside"


def test_rotation_and_scale_are_those_of_the_docstring():
    torch.manual_seed(0)
    matrix = patch_affine(2000, torch.device("cpu"), 30.0, (0.7, 1.4))
    scale = torch.linalg.det(matrix).sqrt()
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]) * 180 / math.pi
    assert 0.7 <= scale.min() < 0.72 and 1.36 < scale.max() <= 1.4 and abs(float(scale.log().mean())) < 0.02
    assert -30 <= angle.min() < -29 and 29 < angle.max() <= 30


def test_intensity_stays_near_and_differs_by_sample():
    torch.manual_seed(0)
    image = torch.rand(8, 1, 16, 16)
    changed = random_intensity(image)
    assert changed.shape == image.shape and (changed - image).abs().amax() < 0.8
    assert len({round(float(x), 3) for x in (changed - image).mean((1, 2, 3))}) == 8


def test_a_batch_of_patches():
    torch.manual_seed(0)
    voxels, _, _ = two_slices()
    voxels.size = (16, 16)
    whole = draw_patches(voxels, torch.tensor([0, 1, 0, 1]), slice(None), torch.channels_last)
    assert whole.image.shape == (4, 1, 16, 16) and whole.image.is_contiguous(memory_format=torch.channels_last)
    assert whole.label.dtype == torch.int64


def test_every_second_patch_is_centred_on_a_stroke():
    torch.manual_seed(0)
    label = torch.full((40, 40), UNLABELED, dtype=torch.uint8)
    label[20, 20] = 1
    voxels = lay_out(torch.zeros(1, 1600).half(), {"label": label.flatten()}, None, [(40, 40)], 2)
    voxels.size = (5, 5)
    batch = draw_patches(voxels, torch.zeros(400, dtype=torch.long), slice(None), torch.channels_last)
    assert (batch.label[::2, 2, 2] == 1).all() and (batch.label[1::2] == 1).flatten(1).any(1).float().mean() < 0.1


def test_a_patch_is_centred_on_a_stroke_of_its_own_item():
    """Three slices of other sizes; the batch asks for the first alone, which has no strokes."""
    torch.manual_seed(0)
    shapes = [(9, 9), (12, 7), (8, 10)]
    labels = [torch.full(shape, UNLABELED, dtype=torch.uint8) for shape in shapes]
    labels[1][9, 2], labels[2][3, 7] = 0, 1
    item = torch.cat([torch.full_like(label, number).flatten() for number, label in enumerate(labels)])
    maps = {"label": torch.cat([label.flatten() for label in labels]), "item": item}
    voxels = lay_out(torch.zeros(1, len(item)).half(), maps, None, shapes, 2)
    voxels.size = (3, 3)
    batch = draw_patches(voxels, torch.zeros(40, dtype=torch.long), slice(None), torch.channels_last)
    label, item = batch.label[:, 1, 1], batch.maps["item"][:, 1, 1]
    assert set(zip(item[::2].tolist(), label[::2].tolist())) == {(1, 0), (2, 1)}
    assert (item[1::2] == 0).all() and (batch.label[1::2] == UNLABELED).all()


def test_the_slices_of_a_patch_are_scaled_like_its_plane_and_stay_in_it():
    """Maps hold each voxel's slice, row and column; on strokes the middle voxel of the patch is that of the volume."""
    torch.manual_seed(0)
    slices, rows, columns = torch.meshgrid(torch.arange(41), torch.arange(49), torch.arange(49), indexing="ij")
    label = torch.full((41, 49, 49), UNLABELED, dtype=torch.uint8)
    label[20, 24, 24] = 1
    maps = {"label": label, "slice": slices, "row": rows, "column": columns}
    flat = {name: value.flatten().to(torch.uint8) for name, value in maps.items()}
    voxels = lay_out(torch.zeros(1, label.numel()).half(), flat, None, [(41, 49, 49)], 2)
    voxels.size = (31, 31, 3)
    batch = draw_patches(voxels, torch.zeros(40, dtype=torch.long), slice(None), torch.channels_last_3d)
    assert (batch.label[::2, 15, 15, 1] == 1).all()
    slices, rows, columns = (batch.maps[name][::2] for name in ("slice", "row", "column"))
    depth = slices[:, 30, 15, 1] - slices[:, 0, 15, 1]  # 30 voxels of the patch, scaled and rounded
    side = torch.hypot(*((axis[:, 15, 30, 1] - axis[:, 15, 0, 1]).float() for axis in (rows, columns)))
    assert (depth - side).abs().max() < 2.5 and depth.min() < 27 and depth.max() > 34
    assert (slices == slices[:, :, :1, :1]).all(), "a slice of the patch lies in one of the volume"
    assert (rows == rows[:, :1]).all() and (columns == columns[:, :1]).all(), "every slice is turned alike"


def test_volumes_are_cut_like_slices():
    """A volume of 3 × 4 × 5 behind one of 2 × 2 × 2: crops, half a slice, and turns that stay in the plane."""
    volumes = [torch.arange(8.0).view(2, 2, 2), 10 + torch.arange(60.0).view(3, 4, 5)]
    label = torch.full((68,), UNLABELED, dtype=torch.uint8)
    label[8 + 47] = 1  # slice 2, row 1, column 2 of the second
    flat = torch.cat([volume.flatten() for volume in volumes])[None].half()
    voxels = lay_out(flat, {"label": label}, None, [(2, 2, 2), (3, 4, 5)], 2)
    straight = torch.eye(3)[None]
    batch = patches(voxels, [1, 0], [[1.5, 1.5, 2.5], [0.5, 0.5, 0.5]], straight, 2, 2, 2)
    assert torch.equal(batch.image[0, 0], volumes[1][1:, 1:3, 2:4]) and torch.equal(batch.image[1, 0], volumes[0])
    assert (batch.label[0] == 1).nonzero().tolist() == [[1, 0, 0]]
    half = patches(voxels, [1], [[0.5, 1.0, 1.0]], straight, 1, 1, 1)
    assert half.image.item() == volumes[1][:2, 1, 1].mean()
    index, place = voxels.on_strokes(3)
    assert index.tolist() == [1] * 3 and place.tolist() == [[2.0, 1.0, 2.0]] * 3
    turn = torch.tensor([[[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]]])
    batch = patches(voxels, [1], [[1.0, 1.5, 1.5]], turn, 3, 4, 4)
    assert torch.equal(batch.image[0, 0], volumes[1][:, :, :4].rot90(-1, (1, 2)))
    voxels.size = (2, 4, 4)
    drawn = draw_patches(voxels, torch.tensor([0, 1]), slice(None), torch.channels_last_3d)
    assert drawn.image.shape == (2, 1, 2, 4, 4) and drawn.label.shape == (2, 2, 4, 4)


def test_slices_are_resampled_and_strokes_stay():
    label = torch.full((6, 2, 2), UNLABELED, dtype=torch.uint8)
    label[4, 1, 0], label[:, 0, 1] = 2, 1
    fewer, more = deepen_strokes(label, 2), deepen_strokes(label, 12)
    assert (fewer == 2).nonzero().tolist() == [[1, 1, 0]] and (fewer[:, 0, 1] == 1).all()
    assert (more == 2).nonzero().tolist() == [[9, 1, 0]] and (more == 1).sum() == 6
    assert torch.equal(deepen_strokes(label, 6), label) and torch.equal(deepen_label(label, 6), label)
    image = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 2, 2)
    assert torch.allclose(deepen_image(image, 3)[:, 0, 0, 0], torch.tensor([0.625, 2.5, 4.375]), atol=0.2)
    assert deepen_image(image, 6) is image
    assert network_depth(10, 2.0, 5.0) == 4 and network_depth(1, 0.1, 5.0) == 1


def test_a_thin_stroke_survives_shrinking():
    label = np.full((1, 512, 512), UNLABELED, np.uint8)
    label[0, :, 201], label[0, 300, ::2], label[0, 300, 10] = 1, 0, 2
    shrunk = resample_strokes(label, (128, 128)).numpy()
    assert (shrunk[0, :, 50] == 1).sum() >= 127 and (shrunk == 2).sum() == 1 and (shrunk[0, 75] == 0).sum() >= 126
    assert (resample_label(label, (128, 128)).numpy() == 2).sum() == 0, "the nearest neighbour loses it"
    assert (resample_strokes(label, (600, 600)).numpy() == 1).sum() > 500


def test_the_networks_shape_is_isotropic():
    assert network_shape((256, 200), (1.5, 0.75), 1.5) == (256, 100)
    assert network_shape((3, 3), (0.1, 0.1), 10.0) == (1, 1)


@pytest.mark.parametrize("preset", ["fast"])
def test_a_run_on_patches_learns_predicts_and_resumes(tmp_path, preset):
    from small import small_dataset
    from test_train import log, same_weights

    from scribbleseg.config import Predict, Train
    from scribbleseg.inference.predict import predict
    from scribbleseg.training.plan import read_plan
    from scribbleseg.training.train import resume, train

    data = small_dataset(tmp_path / "data")
    changes = {"preset": preset, "preparation": "patches", "iterations": 6, "size": 32, "batch": 4, "val_share": 0.3}
    run = train(Train(data, tmp_path / "run", **changes))
    plan = read_plan(run)[1]
    assert plan.preparation == "patches" and plan.fitted.unit == "mm" and plan.fitted.pixel > 0
    assert len(predict(Predict((run,), data, tmp_path / "masks"))) == 2
    assert "val_mean_dice" in log(run)[-1]
    again = train(Train(data, tmp_path / "again", **changes))
    assert same_weights(run, again)
    resume(run)
