"""Patches from a flat buffer: places, interpolation, labels, and strokes that survive shrinking."""

import math

import numpy as np
import pytest
import torch

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.preparation import network_shape, resample_label, resample_strokes
from scribbleseg.data.voxels import Voxels
from scribbleseg.training.augment import patch_affine, random_intensity
from scribbleseg.training.batches import draw_patches, lay_out

STRAIGHT = torch.eye(2)[None]


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
    index = torch.tensor([1, 0])
    batch = voxels.patches(index, torch.tensor([[1.5, 1.5], [3.5, 4.5]]), STRAIGHT.expand(2, 2, 2), 4)
    assert torch.equal(batch.image[0, 0], images[1][:4]) and torch.equal(batch.image[1, 0], images[0][2:6, 3:7])
    assert torch.equal(batch.label[0], labels[1][:4].long()) and torch.equal(batch.label[1], labels[0][2:6, 3:7].long())


def test_half_a_pixel_is_interpolated_and_outside_is_empty():
    voxels, images, _ = two_slices()
    batch = voxels.patches(torch.tensor([0]), torch.tensor([[2.0, 2.0]]), STRAIGHT, 2)
    assert batch.image[0, 0, 0, 0] == images[0][1:3, 1:3].mean()
    batch = voxels.patches(torch.tensor([1]), torch.tensor([[-0.5, 1.5]]), STRAIGHT, 4)
    assert (batch.image[0, 0, :2] == 0).all() and (batch.label[0, :2] == UNLABELED).all()
    assert torch.equal(batch.image[0, 0, 2:], images[1][:2])


def test_a_quarter_turn_and_a_scale():
    voxels, images, _ = two_slices()
    turn = torch.tensor([[[0.0, -1.0], [1.0, 0.0]]])  # the patch's rows run along the slice's columns
    batch = voxels.patches(torch.tensor([1]), torch.tensor([[1.5, 1.5]]), turn, 4)
    assert torch.equal(batch.image[0, 0], images[1][:4].rot90(-1))
    batch = voxels.patches(torch.tensor([0]), torch.tensor([[2.5, 3.5]]), 2 * STRAIGHT, 2)
    assert (
        batch.image[0, 0, 0, 0] == images[0][1:3, 2:4].mean() and batch.image[0, 0, 1, 1] == images[0][3:5, 4:6].mean()
    )


def test_centres_lie_on_strokes_of_every_class_alike():
    torch.manual_seed(0)
    voxels, _, labels = two_slices()
    index = torch.ones(4000, dtype=torch.long)
    row, column = voxels.centres(index, 1.0).long().unbind(1)
    classes = torch.bincount(labels[1][row, column].long(), minlength=3)
    assert classes.sum() == 4000 and classes[1] == 0, "a drawn pixel each time"
    assert abs(int(classes[2]) - 2000) < 150, "one pixel of class 2 against four of class 0"
    anywhere = voxels.centres(index, 0.0)
    assert (anywhere >= 0).all() and (anywhere < torch.tensor([5, 4])).all() and anywhere[:, 0].std() > 1


def test_slices_without_strokes_are_drawn_from_too():
    voxels, _, _ = two_slices()
    voxels.count[:] = 0
    place = voxels.centres(torch.tensor([0] * 500), 1.0)
    assert (place >= 0).all() and (place < torch.tensor([6, 8])).all()


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
    whole = draw_patches(voxels, torch.tensor([0, 1, 0, 1]), slice(None), 16, torch.channels_last)
    assert whole.image.shape == (4, 1, 16, 16) and whole.image.is_contiguous(memory_format=torch.channels_last)
    assert whole.label.dtype == torch.int64


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
