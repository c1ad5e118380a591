import math

import pytest
import torch
import torch.nn.functional as F

from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.losses.separation import annotated_box, foreground_augmentation
from scribbleseg.training.augment import random_affine, random_sharpness, upright_affine, warp

U = UNLABELED


def matrix(degrees, flip_x=1.0, flip_y=1.0):
    angle = math.radians(degrees)
    return torch.tensor(
        [
            [
                [math.cos(angle) * flip_x, -math.sin(angle) * flip_y, 0],
                [math.sin(angle) * flip_x, math.cos(angle) * flip_y, 0],
            ]
        ]
    )


def test_box_of_drawn_slices():
    label = torch.full((3, 5, 6), U)
    label[0, 1, 2] = 0  # background scribble counts as annotated
    label[0, 3, 4] = 2
    label[1, 2, 2] = 0
    box, found = annotated_box(label)
    assert box.tolist() == [[1, 2, 4, 5], [2, 2, 3, 3], [0, 0, 0, 0]]
    assert found.tolist() == [True, True, False]
    box, found = annotated_box(label, foreground_only=True)
    assert box.tolist() == [[3, 4, 4, 5], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found.tolist() == [True, False, False]


def test_quarter_turns_and_flips_move_whole_pixels():
    image, label = torch.rand(1, 1, 8, 8), torch.randint(0, 4, (1, 1, 8, 8))
    label[0, 0, 3, 3] = U
    square = [(turns, flip) for turns in range(4) for flip in (False, True)]
    seen = set()
    for turns in range(4):
        for flips in ((1.0, 1.0), (-1.0, 1.0), (1.0, -1.0)):
            moved, labels = warp(image, label, matrix(90 * turns, *flips))
            names = []
            for (k, flip), got, source in (
                (name, *pair) for pair in ((moved, image), (labels, label)) for name in square
            ):
                wanted = torch.rot90(source.flip(3) if flip else source, k, (2, 3))
                if torch.allclose(got.double(), wanted.double(), atol=1e-4):
                    names.append((k, flip))
            assert len(names) == 2 and names[0] == names[1], "image and label move alike, by a symmetry of the square"
            seen.add(names[0])
    assert seen == set(square)


def test_identity_changes_nothing():
    image, label = torch.rand(3, 1, 7, 9), torch.randint(0, 256, (3, 2, 7, 9))
    moved, labels = warp(image, label, matrix(0).expand(3, 2, 3))
    assert torch.allclose(moved, image, atol=1e-6) and torch.equal(labels, label)


def test_images_are_interpolated_and_labels_are_not():
    label = torch.tensor([[[[0, 0, 3, 3]] * 4]])
    quarter_pixel = torch.tensor([[[1.0, 0, 0.25 * 2 / 4], [0, 1, 0]]])
    moved, labels = warp(label.float(), label, quarter_pixel)
    assert torch.allclose(moved[0, 0, 0], torch.tensor([0, 0.75, 3, 2.25])) and torch.equal(labels, label)


def test_rotation_pads_with_unlabelled_and_black():
    image, label = torch.ones(1, 1, 32, 32), torch.zeros(1, 1, 32, 32, dtype=torch.long)
    moved, labels = warp(image, label, matrix(20))
    assert labels[0, 0, 0, 0] == U and moved[0, 0, 0, 0] == 0
    assert labels[0, 0, 16, 16] == 0 and moved[0, 0, 16, 16] == 1
    assert set(labels.unique().tolist()) == {0, U}


def test_image_and_label_move_together():
    label = torch.zeros(16, 1, 64, 64, dtype=torch.long)
    label[:, :, 12:30, 20:50] = 1
    torch.manual_seed(0)
    moved, labels = warp(label.float(), label, random_affine(16, label.device))
    inside = labels != U
    assert ((moved > 0.5) == (labels == 1))[inside].float().mean() > 0.99
    assert (labels == 1).flatten(1).sum(1).min() > 0.9 * 18 * 30


def test_augmentation_is_drawn_as_stated():
    torch.manual_seed(0)
    theta = random_affine(20_000, torch.device("cpu"))
    cos, sin = theta[:, 0, 0], theta[:, 1, 0]
    flipped = theta[:, :, :2].det() < 0
    plain = (theta[:, 0, 0] == 1) & (theta[:, 1, 1] == 1) & ~flipped
    assert flipped.float().mean() == pytest.approx(0.5, abs=0.02)
    assert plain.float().mean() == pytest.approx(0.25, abs=0.02)
    mirrored = (
        theta[flipped, :, :2].round().add(0.0).flatten(1)
    )  # a quarter turn and a flip: one of the square's four reflections
    reflections, count = mirrored.unique(dim=0, return_counts=True)
    assert len(reflections) == 4 and torch.allclose(count / 20_000, torch.tensor(0.125), atol=0.01)
    angle = torch.rad2deg(torch.atan2(sin, cos))[~flipped]
    assert angle.abs().max() <= 20.001 and angle.min() < -19 and angle.max() > 19
    assert angle.mean().abs() < 0.5 and angle.square().mean() == pytest.approx(
        20**2 / 3 / 2, rel=0.05
    )  # uniform in half of them
    assert torch.linalg.det(theta[:, :, :2]).abs().allclose(torch.ones(20_000), atol=1e-5)


def drawn(rows, columns, value, size=8):
    label = torch.full((size, size), U)
    label[rows[0] : rows[1], columns[0] : columns[1]] = value
    return label


def test_fadc_pastes_the_donors_box_into_the_recipients():
    scribble = torch.stack([drawn((0, 4), (0, 4), 1), drawn((4, 6), (2, 6), 2)])
    image = torch.stack([torch.full((1, 8, 8), 0.1), torch.arange(64.0).view(1, 8, 8)])
    pseudo = torch.stack([torch.zeros(8, 8, dtype=torch.long), torch.arange(64).view(8, 8) % 4])
    mixed, labels, pseudos = foreground_augmentation(image, scribble, pseudo, donor=torch.tensor([1, 0]))
    # recipient box rows 0-3, columns 0-3 ← donor rows 4-5, columns 2-5: each donor row twice
    rows, columns = torch.tensor([4, 4, 5, 5]), torch.tensor([2, 3, 4, 5])
    assert torch.equal(mixed[0, 0, :4, :4], image[1, 0][rows][:, columns])
    assert torch.equal(pseudos[0, :4, :4], pseudo[1][rows][:, columns])
    assert (labels[0, :4, :4] == 2).all()
    outside = torch.ones(8, 8, dtype=torch.bool)
    outside[:4, :4] = False
    assert torch.equal(mixed[0, 0][outside], image[0, 0][outside]) and torch.equal(
        labels[0][outside], scribble[0][outside]
    )
    assert (mixed[1, 0, 4:6, 2:6] == 0.1).all() and (labels[1, 4:6, 2:6] == 1).all()


def test_fadc_leaves_samples_without_a_box_alone():
    scribble = torch.stack([torch.full((8, 8), U), drawn((4, 6), (2, 6), 2), drawn((1, 2), (1, 2), 0)])
    image, pseudo = torch.rand(3, 1, 8, 8), torch.randint(0, 4, (3, 8, 8))
    mixed, labels, pseudos = foreground_augmentation(image, scribble, pseudo, donor=torch.tensor([1, 0, 1]))
    for row in (0, 1):  # no box to fill; a donor without a box
        assert (
            torch.equal(mixed[row], image[row])
            and torch.equal(labels[row], scribble[row])
            and torch.equal(pseudos[row], pseudo[row])
        )
    assert labels[2, 1, 1] == 2
    foreground = foreground_augmentation(image, scribble, pseudo, box="foreground", donor=torch.tensor([1, 0, 1]))
    assert torch.equal(foreground[1], scribble), "the background-only sample has no foreground box"


def test_fadc_draws_donors_that_have_a_box():
    torch.manual_seed(0)
    scribble = torch.stack([torch.full((8, 8), U)] * 6 + [drawn((4, 6), (2, 6), 2), drawn((0, 4), (0, 4), 1)])
    image = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 8, 8)
    seen = set()
    for _ in range(20):
        mixed, _, _ = foreground_augmentation(image, scribble, scribble)
        seen |= set(mixed[6, 0, 4:6, 2:6].unique().tolist())
    assert seen == {6.0, 7.0}


@pytest.mark.parametrize(("box", "other"), [("annotated", U), ("foreground", 0)])
def test_fadc_wastes_no_draw_on_donors_without_a_box(box, other):
    """30 of 60 slices have a box: one of them is its own donor on average, and 15 would draw a donor without a box."""
    torch.manual_seed(0)
    scribble = torch.stack([drawn((0, 2), (0, 2), other)] * 30 + [drawn((0, 2), (0, 2), 1)] * 30)
    own = torch.arange(60.0)
    mixed, _, _ = foreground_augmentation(own.view(60, 1, 1, 1).expand(60, 1, 8, 8), scribble, scribble, box)
    donor = mixed[:, 0, 0, 0]
    assert torch.equal(donor[:30], own[:30]) and (donor[30:] >= 30).all()
    assert (donor[30:] == own[30:]).sum() <= 5


def test_fadc_refuses_an_unknown_box():
    with pytest.raises(InputError, match="box is 'all'.*annotated"):
        foreground_augmentation(
            torch.rand(1, 1, 8, 8), torch.zeros(1, 8, 8).long(), torch.zeros(1, 8, 8).long(), box="all"
        )


def test_fadc_interpolates_the_image_alone_if_asked():
    """The donor's box is two pixels wide, the recipient's four: of 0 and 1 bilinear makes 0, ¼, ¾, 1."""
    image, scribble = torch.full((2, 1, 4, 8), 9.0), torch.full((2, 4, 8), UNLABELED)
    scribble[0, 1:3, 2:6], scribble[1, 2, 5:7] = 1, torch.tensor([2, 3])
    image[1, 0, 2, 5:7] = torch.tensor([0.0, 1.0])
    donor = torch.tensor([1, 1])
    mixed, labels, pseudos = foreground_augmentation(image, scribble, scribble, donor=donor, resize="bilinear")
    for row in (1, 2):
        torch.testing.assert_close(mixed[0, 0, row], torch.tensor([9, 9, 0, 0.25, 0.75, 1, 9, 9]))
        assert labels[0, row, 2:6].tolist() == pseudos[0, row, 2:6].tolist() == [2, 2, 3, 3]
    assert (mixed[0, 0, [0, 3]] == 9).all() and torch.allclose(mixed[1], image[1])
    nearest, *_ = foreground_augmentation(image, scribble, scribble, donor=donor)
    assert nearest[0, 0, 1, 2:6].tolist() == [0, 0, 1, 1]
    with pytest.raises(InputError, match="resize is 'cubic'; expected 'nearest' or 'bilinear'"):
        foreground_augmentation(image, scribble, scribble, resize="cubic")


def test_upright_never_mirrors_and_stays_within_its_ranges():
    torch.manual_seed(0)
    matrices = upright_affine(2000, torch.device("cpu"), max_degrees=20, scales=(0.8, 1.25), max_shift=0.1)
    linear, shift = matrices[:, :, :2], matrices[:, :, 2]
    scale = torch.linalg.det(linear).sqrt()  # a mirror image has a negative determinant: nan
    angle = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert 0.8 <= scale.min() < 0.82 and 1.22 < scale.max() <= 1.25 + 1e-6
    assert 19 < angle.abs().max() <= 20 + 1e-3
    assert 0.19 < shift.abs().max() <= 0.2  # affine_grid counts from -1 to 1: a tenth of a side is .2


def test_sharpness_blurs_a_fifth_and_coarsens_a_quarter():
    torch.manual_seed(0)
    image = torch.randn(4000, 1, 8, 8)
    changed = random_sharpness(image)
    same = (changed == image).flatten(1).all(1)
    coarse = F.interpolate(F.avg_pool2d(image, 2), (8, 8), mode="bilinear", align_corners=False)
    halved = torch.isclose(changed, coarse).flatten(1).all(1)
    assert abs(same.float().mean() - 0.55) < 0.03 and abs(halved.float().mean() - 0.25) < 0.03
    blurred = ~(same | halved)
    assert 0.2 < (changed[blurred].var() / image.var()) < 0.6
    flat = torch.full((50, 2, 3, 6, 4), 0.3)  # a volume; a flat one stays as it is
    assert torch.allclose(random_sharpness(flat), flat)


def test_blur_spreads_a_point_alike_in_both_directions_and_in_its_own_channel():
    torch.manual_seed(0)
    image = torch.zeros(60, 2, 9, 9)
    image[:, 0, 4, 4] = 1
    changed = random_sharpness(image)
    assert not changed[:, 1].any()
    blurred = [point for point in changed[:, 0] if 0 < point[4, 6] < point[4, 5] < point[4, 4] < 1]
    assert 5 <= len(blurred) <= 20
    for point in blurred:
        assert torch.allclose(point, point.T) and torch.allclose(point, point.flip(0)) and abs(point.sum() - 1) < 1e-5
        assert 0.5 <= (0.5 / (point[4, 4] / point[4, 5]).log()) ** 0.5 <= 1  # σ of exp(−1 / 2σ²)
