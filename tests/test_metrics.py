"""Drawn masks, the empty cases by name, and medpy and MONAI as judges."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from scribbleseg.core.errors import InputError
from scribbleseg.evaluation.metrics import assd_mm, diagonal_mm, dice, hd95_mm, score


def draw(picture: str) -> np.ndarray:
    """One slice [1, H, W]: # is inside."""
    return np.array([[[mark == "#" for mark in line.strip()] for line in picture.strip().splitlines()]])


SQUARE = draw("""
    ......
    .###..
    .###..
    .###..
    ......
""")
SHIFTED = draw("""
    ......
    ..###.
    ..###.
    ..###.
    ......
""")
EMPTY = np.zeros_like(SQUARE)


def test_dice_of_a_shifted_square():
    assert dice(SQUARE, SHIFTED) == pytest.approx(2 * 6 / 18)


def test_distances_follow_the_spacing_of_their_axis():
    # one slice: every voxel is surface (above and below is outside); three voxels each way stick out by one column
    for columns_mm in (1.0, 2.5):
        spacing_mm = (10.0, 7.0, columns_mm)
        assert hd95_mm(SQUARE, SHIFTED, spacing_mm) == pytest.approx(columns_mm)
        assert assd_mm(SQUARE, SHIFTED, spacing_mm) == pytest.approx(6 * columns_mm / 18)
    assert hd95_mm(SQUARE.swapaxes(1, 2), SHIFTED.swapaxes(1, 2), (10.0, 7.0, 2.5)) == pytest.approx(7.0)


def test_hd95_pools_both_directions_and_interpolates():
    bar = draw("##########..........")
    longer = draw("####################")
    # bar → longer: ten zeros; longer → bar: ten zeros and 1, 2, …, 10.
    # Of 30 sorted values place .95·29 = 27.55 lies between 8 and 9.
    assert hd95_mm(longer, bar, (1, 1, 1)) == pytest.approx(8.55)
    assert hd95_mm(bar, longer, (1, 1, 1)) == pytest.approx(8.55)  # the larger of two percentiles would be 9.05
    assert assd_mm(longer, bar, (1, 1, 1)) == pytest.approx(55 / 30)  # the mean of two means would be 55 / 40


def test_voxels_inside_are_no_surface():
    block = np.zeros((7, 7, 7), bool)
    block[1:6, 1:6, 1:6] = True
    hollow = block.copy()
    hollow[3, 3, 3] = False
    # the hole makes its six neighbours surface, one voxel below the block's:
    # 98 zeros from the block, 98 zeros and six ones back
    assert assd_mm(hollow, block, (1, 1, 1)) == pytest.approx(6 / 202)


def test_the_edge_of_the_volume_is_surface():
    whole = np.ones((5, 5, 5), bool)
    core = np.zeros_like(whole)
    core[2, 2, 2] = True
    # 98 surface voxels of the 5³ cube see the one in the middle.
    # The eight corners, at √12, are the highest of 99 distances
    assert hd95_mm(core, whole, (1, 1, 1)) == pytest.approx(12**0.5)
    assert hd95_mm(whole, whole, (1, 1, 1)) == 0


def test_a_perfect_prediction():
    assert score(SQUARE, SQUARE, (5, 1, 1)) == (1, 0, 0, False, False)


def test_both_empty_is_undefined_and_not_counted():
    scores = score(EMPTY, EMPTY, (1, 1, 1))
    assert all(map(math.isnan, scores[:3])) and scores[3:] == (False, False)
    assert math.isnan(dice(EMPTY, EMPTY))


def test_missing_prediction_has_dice_0_and_no_distance():
    scores = score(EMPTY, SQUARE, (1, 1, 1))
    assert scores.dice == 0 and math.isnan(scores.hd95_mm) and math.isnan(scores.assd_mm)
    assert scores.missing is True and scores.spurious is False


def test_spurious_prediction_has_dice_0_and_no_distance():
    scores = score(SQUARE, EMPTY, (1, 1, 1))
    assert scores.dice == 0 and math.isnan(scores.hd95_mm) and math.isnan(scores.assd_mm)
    assert scores.missing is False and scores.spurious is True


def test_diagonal_is_in_mm():
    assert diagonal_mm((2, 3, 1), (1.5, 4.0, 4.0)) == 13


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((SQUARE.astype(int), SQUARE, (1, 1, 1)), "int64 and bool"),
        ((SQUARE, SQUARE[:, 1:], (1, 1, 1)), r"\(1, 5, 6\), truth \(1, 4, 6\)"),
        ((SQUARE, SQUARE, (1, 1)), "expected 3 positive"),
        ((SQUARE, SQUARE, (1, 0, 1)), "expected 3 positive"),
    ],
)
def test_errors_say_what_was_got(arguments, words):
    with pytest.raises(InputError, match=words):
        score(*arguments)


def blobs(seed: int, shape=(9, 40, 36)) -> tuple[np.ndarray, np.ndarray]:
    """Two masks that overlap in part, touch the edge of the volume and have islands."""
    rng = np.random.default_rng(seed)
    shared, *own = (gaussian_filter(rng.normal(size=shape), (1, 3, 3)) for _ in range(3))
    return tuple(shared + 0.7 * part > 0.05 for part in own)


def assert_as_medpy(prediction, truth, spacing_mm):
    binary = pytest.importorskip("medpy.metric.binary")
    expected = (
        binary.dc(prediction, truth),
        binary.hd95(prediction, truth, spacing_mm),
        binary.assd(prediction, truth, spacing_mm),
    )
    assert score(prediction, truth, spacing_mm)[:3] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (5.0, 0.73, 0.76), (0.8, 2.5, 1.1)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_medpy_on_random_blobs(seed, spacing_mm):
    assert_as_medpy(*blobs(seed), spacing_mm)


def test_equals_medpy_in_two_dimensions():
    prediction, truth = blobs(9)
    assert_as_medpy(prediction[4], truth[4], (0.7, 1.3))


def test_equals_medpy_on_a_real_acdc_volume(shared_data):
    h5py = pytest.importorskip("h5py")
    path = sorted((shared_data / "ACDC" / "ACDC_training_volumes").glob("*.h5"))[7]
    with h5py.File(path) as file:
        truth = file["label"][:]
    for value in (1, 2, 3):
        assert_as_medpy(np.roll(truth, 3, 1) == value, truth == value, (10.0, 1.5, 1.5))


def test_equals_medpy_on_a_real_mscmr_volume(shared_data):
    from scribbleseg.data.volume import read_label

    truth, grid = read_label(shared_data / "MSCMR_dataset" / "val" / "labels" / "subject8_DE_manual.nii.gz")
    prediction = np.roll(truth, (1, 4), (0, 2))
    assert_as_medpy(prediction == 2, truth == 2, grid.spacing_mm)


def test_dice_equals_monai():
    monai = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    prediction, truth = blobs(3)
    judge = monai.DiceMetric(include_background=True)(
        *(torch.from_numpy(mask)[None, None].float() for mask in (prediction, truth))
    )
    assert dice(prediction, truth) == pytest.approx(judge.item(), rel=1e-6)
