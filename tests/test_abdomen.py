"""The abdomen: Hounsfield units, organs of very different size, a rare lesion, thick slices and cubes, PET."""

import numpy as np
import pytest

from scribbleseg.config import Phantom
from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import load_volume
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.synthetic import abdomen
from scribbleseg.data.synthetic.abdomen import CLASSES, draw_abdomen
from scribbleseg.data.synthetic.phantom import phantom

LIVER, AORTA, LESION = CLASSES.index("liver"), CLASSES.index("aorta"), CLASSES.index("lesion")


@pytest.fixture(scope="module")
def thick():
    return draw_abdomen(3, lesion=True, pet=True)


@pytest.fixture(scope="module")
def cubes():
    return draw_abdomen(3, isotropic=True, lesion=True)


def spacing(scan):
    return np.linalg.norm(scan.affine[:3, :3], axis=0)  # x, y, z


def test_voxels_are_slabs_or_cubes_of_one_patient(thick, cubes):
    x, y, z = spacing(thick)
    assert x == y and 1.9 <= x <= 2.1 and 6.5 <= z <= 7.5
    assert len(set(spacing(cubes))) == 1 and 2.8 <= spacing(cubes)[0] <= 3.2
    litres = [[(scan.truth == c).sum() * spacing(scan).prod() for c in range(1, 6)] for scan in (thick, cubes)]
    assert np.allclose(*litres, rtol=0.25)


def test_tissues_have_their_hounsfield_units(thick):
    ct, truth = thick.images[0], thick.truth
    assert ct.dtype == np.int16 and (ct < -900).mean() > 0.3 and ct.max() > 300
    assert ct[3, :3].mean() == pytest.approx(-1000, abs=15), "air"
    assert 80 < np.median(ct[truth == LIVER]) < 130
    assert np.median(ct[truth == LESION]) < np.median(ct[truth == LIVER]) - 25
    rows = (ct[3] > -600).any(1).nonzero()[0]
    assert np.diff(rows).max() > 3, "a gap of air between the body and the table"


def test_organs_differ_in_size_and_the_lesion_is_rare(thick):
    share = np.bincount(thick.truth.ravel(), minlength=6) / thick.truth.size
    assert share[LIVER] > 15 * share[AORTA] > 15 * 5 * share[LESION] > 0
    assert (thick.truth == AORTA).any((1, 2)).all() and 1 <= (thick.truth == LESION).any((1, 2)).sum() <= 4


def test_the_lesion_is_bright_in_the_pet(thick):
    pet = thick.images[1]
    assert pet.shape == thick.truth.shape and pet.dtype == np.float32 and pet.min() >= 0
    assert pet[thick.truth == LESION].mean() > 1.3 * pet[thick.truth == LIVER].mean()


def test_a_data_set_of_abdomens(tmp_path, monkeypatch):
    monkeypatch.setattr(abdomen, "ISOTROPIC", (5.0, 5.4))  # a fifth of the voxels
    phantom(Phantom(tmp_path / "set", "abdomen", cases=3, isotropic=True, pet=True))
    dataset = read_dataset(tmp_path / "set")
    assert dataset.classes == CLASSES and dataset.channels == ("CT", "PET") and len(dataset.folds("final")) == 3
    for name, case in dataset.cases.items():
        volume = load_volume(dataset, case)
        drawn = volume.scribble != UNLABELED
        assert volume.truth is not None and np.array_equal(volume.scribble[drawn], volume.truth[drawn])
        assert (LESION in volume.scribble) == (name == "abdomen001"), "every fourth, beginning with the first"
        assert len(volume.image) == 2 and volume.grid.spacing_mm[0] == pytest.approx(volume.grid.spacing_mm[1])


def test_the_heart_has_no_options_of_the_abdomen(tmp_path):
    with pytest.raises(InputError, match="for --anatomy abdomen"):
        phantom(Phantom(tmp_path / "set", pet=True))
