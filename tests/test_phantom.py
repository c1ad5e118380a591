"""The phantom: anatomy, layout, repeatability."""

import hashlib

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from scribbleseg.config import Phantom
from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import load_volume
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.synthetic.heart import draw_patient
from scribbleseg.data.synthetic.phantom import phantom

RV, MYO, LV = 1, 2, 3


@pytest.fixture(scope="module")
def hearts():
    return [heart for seed in range(12) for heart in draw_patient(seed)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom") / "new" / "set"
    phantom(Phantom(folder, cases=7))
    return folder


def touches(one, other):
    return (ndimage.binary_dilation(one) & other).any()


def test_the_left_ventricle_lies_in_its_ring(hearts):
    for heart in hearts:
        for truth in heart.truth:
            around = ndimage.binary_dilation(truth == LV) & (truth != LV)
            assert (truth[around] == MYO).all()


def test_the_right_ventricle_is_one_piece_beside_the_ring(hearts):
    for heart in hearts:
        for truth in heart.truth:
            if (truth == RV).any():
                assert touches(truth == RV, truth == MYO) or not (truth == MYO).any()
                assert not touches(truth == RV, truth == LV)


def test_outlines_follow_what_is_seen(hearts):
    """Blood ends where the label ends: the first pixel outside the right ventricle is darker, as is that outside the
    left.
    """
    for heart in hearts:
        for label in (RV, LV):
            inside = heart.truth == label
            rim = np.stack([ndimage.binary_dilation(one) for one in inside]) & ~inside
            assert np.median(heart.image[rim]) < 0.9 * np.median(heart.image[inside])


def test_every_heart_has_every_structure_and_stays_in_the_picture(hearts):
    for heart in hearts:
        assert set(np.unique(heart.truth)) == {0, RV, MYO, LV}
        edge = np.ones(heart.truth.shape, bool)
        edge[:, 2:-2, 2:-2] = False
        assert (heart.truth[edge] == 0).all()
        middle = heart.truth[len(heart.truth) // 2 - 1]
        assert (middle == MYO).sum() > 60 and (middle == LV).sum() > 40


def test_apex_and_base_lack_structures(hearts):
    assert all((heart.truth[-1] != RV).all() for heart in hearts)
    assert any((heart.truth[-1] != LV).all() for heart in hearts)
    base = [bool(heart.truth[0].any()) for heart in hearts]
    assert any(base) and not all(base)


def test_systole_has_the_smaller_cavity_of_the_same_patient(hearts):
    for diastole, systole in zip(hearts[::2], hearts[1::2], strict=True):
        assert diastole.truth.shape == systole.truth.shape and np.array_equal(diastole.affine, systole.affine)
        assert (systole.truth == LV).sum() < 0.9 * (diastole.truth == LV).sum()


def test_hearts_differ_in_place_size_contrast_and_grid(hearts):
    places = np.array([np.argwhere(heart.truth == LV).mean(0)[1:] / heart.truth.shape[1:] for heart in hearts[::2]])
    assert (places.std(0) > 0.03).all()
    sizes = np.array([(heart.truth == LV).sum() / (heart.truth > 0).sum() for heart in hearts[::2]])
    assert np.ptp(sizes) > 0.1
    contrasts = np.array(
        [heart.image[heart.truth == MYO].mean() / heart.image[heart.truth == LV].mean() for heart in hearts]
    )
    assert (contrasts < 0.85).all() and np.ptp(contrasts) > 0.1
    assert len({heart.truth.shape for heart in hearts}) > 6


def test_blood_is_not_the_only_bright_thing(hearts):
    """A threshold would find the left ventricle elsewhere too."""
    for heart in hearts:
        bright = heart.image > np.median(heart.image[heart.truth == LV])
        assert (bright & (heart.truth == 0)).sum() > 0.1 * (bright & (heart.truth == LV)).sum()


def test_affines_are_short_axis_scans(hearts):
    oblique = 0
    for heart in hearts:
        axes = heart.affine[:3, :3]
        spacing_mm = np.linalg.norm(axes, axis=0)
        assert np.allclose(axes.T @ axes, np.diag(spacing_mm**2), atol=1e-9) and np.linalg.det(axes) > 0
        assert 1 < spacing_mm[0] < 2.5 and spacing_mm[0] == pytest.approx(spacing_mm[1]) and 7 < spacing_mm[2] < 11
        oblique += np.count_nonzero(np.abs(axes) > 1e-6) > 3
    assert 0 < oblique < len(hearts)


def test_the_layout_is_read(folder):
    dataset = read_dataset(folder)
    assert dataset.classes == ("background", "RV", "Myo", "LV") and dataset.ignore == 4 and len(dataset.cases) == 7
    for case in dataset.cases.values():
        volume = load_volume(dataset, case)
        drawn = volume.scribble != UNLABELED
        assert np.array_equal(volume.scribble[drawn], volume.truth[drawn])
        assert set(np.unique(volume.scribble)) == {0, 1, 2, 3, UNLABELED}
        assert 0.005 < drawn.mean() < 0.05
        assert volume.grid.spacing_mm[0] > volume.grid.spacing_mm[1]  # slices come first
        assert nibabel.load(case.images[0]).header.get_xyzt_units()[0] == "mm"


def test_folds_hold_out_a_third_of_the_patients(folder):
    dataset = read_dataset(folder)
    assert dataset.patient("heart001_es") == dataset.patient("heart001_ed") == "heart001"
    folds = dataset.folds("final")  # checks that no patient leaks
    assert len(folds) == 3
    assert sorted(name for fold in folds for name in fold.test) == sorted(dataset.cases)
    assert all(set(fold.train) == dataset.cases.keys() - set(fold.test) and fold.train and fold.test for fold in folds)


def test_the_same_seed_writes_the_same_bytes(folder, tmp_path):
    def bytes_of(place, names):
        return {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in names}

    phantom(Phantom(tmp_path / "again", cases=4))
    names = [str(path.relative_to(tmp_path / "again")) for path in (tmp_path / "again").glob("*/*.nii.gz")]
    assert len(names) == 12
    assert bytes_of(folder, names) == bytes_of(tmp_path / "again", names)  # whatever the number of cases
    phantom(Phantom(tmp_path / "other", cases=3, seed=1))
    names = [name for name in names if "heart001" in name]
    ours, other = bytes_of(folder, names), bytes_of(tmp_path / "other", names)
    assert all(ours[name] != other[name] for name in names)


def test_refusals(folder, tmp_path):
    before = sorted(folder.rglob("*"))
    with pytest.raises(InputError, match="not empty"):
        phantom(Phantom(folder, cases=3))
    assert sorted(folder.rglob("*")) == before
    with pytest.raises(InputError, match="cases is 2"):
        phantom(Phantom(tmp_path / "few", cases=2))
    assert not list(tmp_path.iterdir())
