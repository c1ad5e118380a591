"""benchmarks/pack.py: labels come back as they were, images to a step."""

import json

import nibabel
import numpy as np
import pack
from small import small_dataset

from scribbleseg.data.intensity import normalise
from scribbleseg.data.volume import read_volume


def test_two_halves_make_the_data_set(tmp_path):
    folder = small_dataset(tmp_path / "small")
    image = min((folder / "imagesTr").iterdir())
    bright = nibabel.load(image)
    voxels = np.asarray(bright.dataobj).copy()
    voxels[0, 0, 0] = 10 * voxels.max()  # clipped in training
    nibabel.save(nibabel.Nifti1Image(voxels, bright.affine), image)
    for part in (1, 2):
        pack.pack(folder, tmp_path / f"{part}.zip", part, 2)
    pack.unpack([tmp_path / "1.zip", tmp_path / "2.zip"], tmp_path / "again")
    files = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file()}
    for path in files:
        if path.name == "dataset.json":
            assert json.loads((tmp_path / "again" / path).read_text()) == json.loads((folder / path).read_text()) | {
                "scribbleseg_note": pack.NOTE
            }
            continue
        if path.suffix == ".json":
            assert (folder / path).read_bytes() == (tmp_path / "again" / path).read_bytes()
            continue
        one, other = (nibabel.load(root / path) for root in (folder, tmp_path / "again"))
        before, after = np.asarray(one.dataobj), np.asarray(other.dataobj)
        assert np.allclose(one.affine, other.affine)
        if path.parent.name.startswith("labels"):
            assert np.array_equal(before, after)
        else:
            away = normalise(after) - normalise(before)
            assert 64 < len(np.unique(after)) <= 128 and np.abs(away).max() <= 0.51 / 127, "nearest of 128 steps"


def test_lengths_in_another_unit_are_millimetres(tmp_path):
    folder = small_dataset(tmp_path / "small")
    for path in (folder / "imagesTr").iterdir():
        file = nibabel.load(path)
        file.header.set_xyzt_units("micron")
        nibabel.save(file, path)
    pack.pack(folder, tmp_path / "a.zip", 1, 1)
    pack.unpack([tmp_path / "a.zip"], tmp_path / "again")
    image = min((folder / "imagesTr").iterdir())
    before, after = read_volume(image)[1], read_volume(tmp_path / "again" / "imagesTr" / image.name)[1]
    assert np.allclose(before.affine, after.affine)
    assert np.allclose(before.affine[:3], nibabel.load(image).affine[:3] / 1000)
    assert np.allclose(before.spacing_mm, after.spacing_mm, rtol=1e-6)


def test_bytes_come_back_whatever_the_values():
    stored = np.random.default_rng(0).integers(0, 256, (7, 5, 3)).astype(np.uint8)
    assert np.array_equal(pack.decode(pack.encode(stored), stored.shape), stored)
