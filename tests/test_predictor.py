"""scribbleseg.load: an array gives the mask that its file gives."""

import numpy as np
import pytest

import scribbleseg as ss
from scribbleseg.data.volume import read_label, read_volume


@pytest.fixture
def scan(small):
    return sorted((small / "imagesTr").iterdir())[-1]


def test_an_array_gives_the_mask_of_its_file(trained, scan, tmp_path):
    voxels, grid = read_volume(scan)
    loaded = ss.load(trained)
    found = loaded.predict(voxels, grid.spacing_mm)
    mask, *maps = ss.predict(trained, scan, tmp_path / "mask.nii.gz", probabilities=True)
    assert found.dtype == np.uint8 and np.array_equal(found, read_label(mask)[0])
    assert np.array_equal(loaded.probabilities(voxels), [read_volume(path)[0] for path in maps])
    assert loaded.classes == ("background", "square", "core") and loaded.channels == ("MR0",)


def test_packed_models_and_means(trained, scan, tmp_path):
    voxels = read_volume(scan)[0]
    model = ss.pack(trained, tmp_path / "model.zip")
    one, other, both = (ss.load(runs).probabilities(voxels) for runs in (str(trained), model, [trained, model]))
    assert one.shape == (3, *voxels.shape) and np.allclose(one.sum(0), 1, atol=1e-5)
    assert np.allclose(both, (one + other) / 2, atol=1e-6)
    assert not model.unlink() and ss.load(trained).predict(voxels).shape == voxels.shape


@pytest.mark.parametrize(
    ("image", "spacing", "words"),
    [
        (np.zeros((5, 6)), (1, 1, 1), r"shape \(5, 6\); expected \[D, H, W\]"),
        (np.zeros((2, 3, 5, 6)), (1, 1, 1), "the 1 channel MR0"),
        ("scan.nii.gz", (1, 1, 1), "the image is no array of numbers .* Give grey values"),
        (np.zeros((0, 5, 6)), (1, 1, 1), "expected"),
        (np.full((3, 5, 6), np.nan), (1, 1, 1), "NaN or infinite"),
        (np.zeros((3, 5, 6)), (1, 1), "distances of slices, rows and columns"),
        (np.zeros((3, 5, 6)), (1, 0, 1), "distances of slices, rows and columns"),
    ],
)
def test_what_is_no_volume_is_refused(trained, image, spacing, words):
    with pytest.raises(ss.InputError, match=words):
        ss.load(trained).predict(image, spacing)
