"""Simulated scribbles: never wrong, repeatable, like the hand's."""

import itertools

import numpy as np
import pytest
from scipy import ndimage
from small import small_dataset

from scribbleseg.config import Simulate
from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import load_volume
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.synthetic.simulate import _draw, simulate, simulate_scribbles


def ring_and_disc(size=96, slices=3):
    """A disc (2) in a ring (1), with a bar (3) apart from both."""
    y, x = np.indices((size, size)) - size // 2
    radius = np.hypot(y, x)
    truth = np.zeros((size, size), np.uint8)
    truth[radius < 24] = 1
    truth[radius < 15] = 2
    truth[np.ix_(range(20, 70), range(6, 18))] = 3
    return np.repeat(truth[None], slices, 0)


def counts(scribble, classes=4):
    return np.array([(scribble == label).sum() for label in range(classes)])


@pytest.mark.parametrize("thickness", [1, 2, 5, 12])
def test_every_stroke_lies_in_its_class(thickness):
    truth = ring_and_disc()
    for seed in range(5):
        scribble = simulate_scribbles(truth, 4, coverage=1, thickness=thickness, seed=seed)
        assert scribble.shape == truth.shape and scribble.dtype == np.uint8
        drawn = scribble != UNLABELED
        assert np.array_equal(scribble[drawn], truth[drawn])
        assert all((scribble[index] == label).any() for index in range(len(truth)) for label in range(4))


def test_strokes_keep_off_the_edge():
    truth = ring_and_disc(slices=8)
    scribble = simulate_scribbles(truth, 4)
    for label in (1, 2, 3):
        depth = np.stack([ndimage.distance_transform_edt(mask) for mask in truth == label])
        assert np.median(depth[scribble == label]) >= 2
        assert (depth[scribble == label] > 1).mean() > 0.9


def test_the_ring_is_drawn_all_around_and_the_bar_along_its_length():
    truth = ring_and_disc(slices=1)
    scribble = simulate_scribbles(truth, 4, coverage=1)[0]
    y, x = np.nonzero(scribble == 1)
    angles = np.sort(np.arctan2(y - 48, x - 48))
    assert np.diff(np.append(angles, angles[0] + 2 * np.pi)).max() < np.deg2rad(40)
    rows = np.nonzero(scribble == 3)[0]
    assert np.ptp(rows) > 30


def test_background_surrounds_the_structures_at_a_distance():
    truth = ring_and_disc(size=160, slices=6)
    truth[truth == 3] = 0
    scribble = simulate_scribbles(truth, 3, coverage=1)
    for slice_truth, slice_scribble in zip(truth, scribble, strict=True):
        distance = ndimage.distance_transform_edt(slice_truth == 0)[slice_scribble == 0]
        assert 4 < np.median(distance) < 35
        y, x = np.nonzero(slice_scribble == 0)
        assert len(np.unique((np.arctan2(y - 80, x - 80) / (np.pi / 4)).round() % 8)) == 8


def test_the_same_seed_draws_the_same():
    truth = ring_and_disc()
    first = simulate_scribbles(truth, 4, seed=3)
    assert np.array_equal(first, simulate_scribbles(truth, 4, seed=3))
    assert not np.array_equal(first, simulate_scribbles(truth, 4, seed=4))
    assert not np.array_equal(first[0], first[1])  # every slice has strokes of its own
    assert np.array_equal(first[:1], simulate_scribbles(truth[:1], 4, seed=3))  # whatever else the volume holds


def test_more_coverage_adds_strokes_and_keeps_those_there():
    truth = ring_and_disc()
    volumes = [simulate_scribbles(truth, 4, coverage=coverage, seed=1) for coverage in (0.2, 0.5, 0.8, 1.0)]
    for less, more in itertools.pairwise(volumes):
        assert (more[less != UNLABELED] != UNLABELED).all()
        assert (counts(more) > counts(less)).all()
    share = counts(volumes[1]).sum() / counts(volumes[3]).sum()
    assert 0.4 < share < 0.65


def test_thicker_strokes_cover_more():
    truth = ring_and_disc()
    totals = np.array([counts(simulate_scribbles(truth, 4, thickness=thickness, seed=1)) for thickness in (1, 2, 3, 5)])
    assert (np.diff(totals, axis=0) > 0).all()
    assert 1.6 < totals[1, 0] / totals[0, 0] < 2.4  # a stroke twice as wide


def test_thickness_is_the_width_in_pixels():
    truth = np.zeros((1, 40, 40), np.uint8)
    truth[0, 18:23, 3:37] = 1  # too thin for an inner contour: one stroke along it
    for thickness in (1, 2, 3):
        widths = (simulate_scribbles(truth, 2, coverage=1, thickness=thickness)[0] == 1).sum(0)
        assert np.median(widths[widths > 0]) == thickness


@pytest.mark.parametrize("pixels", [1, 2, 3, 4])
def test_tiny_structures_get_a_pixel(pixels):
    truth = np.zeros((1, 30, 30), np.uint8)
    truth[0, 12, 12 : 12 + pixels] = 1
    for seed in range(10):
        scribble = simulate_scribbles(truth, 2, coverage=0.1, seed=seed)
        assert 1 <= (scribble == 1).sum() <= pixels and (truth[scribble == 1] == 1).all()


def test_every_class_of_any_shape_is_drawn():
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((60, 20, 24)), (0, 1.2, 1.2))
    truth = np.digitize(noise, [-0.2, 0.1, 0.3]).astype(np.uint8)
    scribble = simulate_scribbles(truth, 4)
    for slice_truth, slice_scribble in zip(truth, scribble, strict=True):
        assert set(np.unique(slice_truth)) == set(np.unique(slice_scribble)) - {UNLABELED}
    assert np.array_equal(scribble[scribble != UNLABELED], truth[scribble != UNLABELED])


def test_a_curve_that_misses_its_class_leaves_the_deepest_pixel():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 2:7] = True
    drawn = _draw([(np.array([[0.0, 0.0], [0.0, 8.0]]), 1.0)], mask, 1, np.random.default_rng(0))
    assert np.argwhere(drawn).tolist() == [[4, 4]]


def test_each_component_is_drawn():
    truth = np.zeros((1, 60, 60), np.uint8)
    truth[0, 5:15, 5:25] = truth[0, 40:44, 30:50] = 1
    scribble = simulate_scribbles(truth, 2)[0]
    assert (scribble[5:15, 5:25] == 1).any() and (scribble[40:44, 30:50] == 1).any()


def test_slices_without_structures_get_background_only_and_full_ones_none():
    truth = np.stack([np.zeros((50, 60), np.uint8), np.ones((50, 60), np.uint8)])
    scribble = simulate_scribbles(truth, 3)
    assert set(np.unique(scribble[0])) == {0, UNLABELED} and set(np.unique(scribble[1])) == {1, UNLABELED}
    assert (scribble[0] == 0).sum() > 20


def test_a_slice_of_another_shape_and_no_slice():
    assert simulate_scribbles(np.zeros((0, 8, 8), np.uint8), 2).shape == (0, 8, 8)
    narrow = np.zeros((1, 3, 40), np.uint8)
    narrow[0, 1, 10:20] = 1
    assert (simulate_scribbles(narrow, 2) == 1).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [({"coverage": 0}, "coverage is 0"), ({"coverage": 1.5}, "1.5"), ({"thickness": 0}, "thickness is 0")],
)
def test_options_out_of_range(options, words):
    with pytest.raises(InputError, match=words):
        simulate_scribbles(ring_and_disc(), 4, **options)


def test_statistics_are_those_of_hands(shared_data):
    h5py = pytest.importorskip("h5py")
    paths = sorted((shared_data / "ACDC" / "ACDC_training_volumes").glob("*.h5"))[::17]
    hand, ours = np.zeros(4), np.zeros(4)
    for path in paths:
        with h5py.File(path) as file:
            truth = file["label"][:].astype(np.uint8)
            hand += counts(file["scribble"][:])
        ours += counts(simulate_scribbles(truth, 4, seed=2))
    assert (np.abs(np.log(ours / hand)) < np.log(1.5)).all(), (hand, ours)
    assert abs(ours.sum() / hand.sum() - 1) < 0.25


def test_simulate_writes_what_a_data_set_needs(tmp_path):
    folder = small_dataset(tmp_path / "set", cases=3)
    for path in (folder / "labelsTr").iterdir():
        path.unlink()
    (folder / "labelsTr").rmdir()
    simulate(Simulate(folder))
    dataset = read_dataset(folder)
    for case in dataset.cases.values():
        volume = load_volume(dataset, case)  # checks values, shape and affine
        drawn = volume.scribble != UNLABELED
        assert set(np.unique(volume.scribble)) == {0, 1, 2, UNLABELED}
        assert np.array_equal(volume.scribble[drawn], volume.truth[drawn])
    assert not list(folder.glob(".partial*"))
    before = {path.name: path.read_bytes() for path in (folder / "labelsTr").iterdir()}
    simulate(Simulate(folder, overwrite=True))
    assert before == {path.name: path.read_bytes() for path in (folder / "labelsTr").iterdir()}
    simulate(Simulate(folder, seed=1, overwrite=True))
    assert all(before[path.name] != path.read_bytes() for path in (folder / "labelsTr").iterdir())


def test_simulate_does_not_replace_scribbles_unasked(tmp_path):
    folder = small_dataset(tmp_path / "set", cases=3)
    before = {path.name: path.read_bytes() for path in (folder / "labelsTr").iterdir()}
    with pytest.raises(
        InputError, match=r"case.0 a.nii.gz: exists already, and so do .* a dense mask \(3\). Add --overwrite"
    ):
        simulate(Simulate(folder))
    assert before == {path.name: path.read_bytes() for path in (folder / "labelsTr").iterdir()}


def test_simulate_draws_what_is_missing_and_keeps_the_rest(tmp_path, capsys):
    folder = small_dataset(tmp_path / "set", cases=3)
    before = {path.name: path.read_bytes() for path in (folder / "labelsTr").iterdir()}
    (folder / "labelsTr" / "case.1 a.nii.gz").unlink()
    (folder / "labelsTr_dense" / "case.2 a.nii.gz").unlink()
    simulate(Simulate(folder))
    after = {path.name: path.read_bytes() for path in (folder / "labelsTr").iterdir()}
    assert after.keys() == before.keys() and [name for name in before if before[name] != after[name]] == [
        "case.1 a.nii.gz"
    ]
    assert "1 of 2 cases had a scribble, which was kept. Drew scribbles for 1 case\n" in capsys.readouterr().out


def test_simulate_writes_all_or_nothing(tmp_path):
    folder = small_dataset(tmp_path / "set", cases=3)
    before = {path.name: path.read_bytes() for path in (folder / "labelsTr").iterdir()}
    last = sorted((folder / "labelsTr_dense").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:60])
    with pytest.raises(InputError, match=last.name):
        simulate(Simulate(folder, overwrite=True))
    assert before == {path.name: path.read_bytes() for path in (folder / "labelsTr").iterdir()}
    assert not list(folder.glob(".partial*"))


def test_simulate_needs_dense_masks(tmp_path):
    folder = small_dataset(tmp_path / "set", cases=3, dense=False)
    with pytest.raises(InputError, match="labelsTr_dense"):
        simulate(Simulate(folder))
