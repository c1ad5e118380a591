import json
import shutil

import h5py
import nibabel
import numpy as np
import pytest
from nnunet_rules import faults
from tiny import OBLIQUE, save

from scribbleseg.config import Import
from scribbleseg.core.errors import InputError
from scribbleseg.data.case import load_volume
from scribbleseg.data.importers import import_dataset
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import read_label, read_volume, write_volume

VOLUMES = ("patient001_frame01", "patient050_frame01", "patient100_frame13")


def fails(source, src, dst, words):
    """The import raises InputError and leaves nothing behind."""
    with pytest.raises(InputError, match=words):
        import_dataset(Import(source, src, dst))
    assert not dst.exists() and not list(dst.parent.glob(".partial-*"))


# --- WSL4MIS


@pytest.fixture
def wsl4mis(tmp_path):
    """Two volumes and one patient in slices, twelve of them so that the order is that of numbers, not of text."""
    src = tmp_path / "ACDC"
    for index, (folder, names) in enumerate(
        (("volumes", ["patient007_frame01", "patient031_frame12"]), ("slices", ["patient061_frame01"]))
    ):
        for name in names:
            arrays = _arrays(index)
            (src / folder).mkdir(parents=True, exist_ok=True)
            files = {f"{name}.h5": arrays}
            if folder == "slices":
                files = {f"{name}_slice_{z}.h5": {key: array[z] for key, array in arrays.items()} for z in range(12)}
            for file, content in files.items():
                with h5py.File(src / folder / file, "w") as h5:
                    for key, array in content.items():
                        h5[key] = array
    return src


def _arrays(seed):
    random = np.random.default_rng(seed)
    shape = (12, 9, 7)
    return {
        "image": random.random(shape, np.float32),
        "label": random.integers(0, 4, shape, np.uint8),
        "scribble": random.integers(0, 5, shape, np.uint16),
    }


def test_wsl4mis_volumes_keep_every_voxel(wsl4mis, tmp_path):
    import_dataset(Import("wsl4mis", wsl4mis, tmp_path / "set"))
    dataset = read_dataset(tmp_path / "set")
    assert list(dataset.cases) == ["patient007_frame01", "patient031_frame12"]
    assert (
        dataset.classes == ("background", "RV", "Myo", "LV")
        and dataset.ignore == 4
        and dataset.spacing_unit == "voxels"
    )
    assert dataset.patient("patient007_frame01") == "patient007"
    _same(dataset, "patient007_frame01", _arrays(0))
    assert faults(dataset.folder) == []
    stored = nibabel.load(dataset.case("patient007_frame01").images[0])
    assert stored.shape == (7, 9, 12) and np.array_equal(stored.affine, np.eye(4))
    info = json.loads((tmp_path / "set" / "dataset.json").read_text(encoding="utf-8"))
    assert info["strata"] == {"patient007": "dilated", "patient031": "hypertrophic"} and info["numTraining"] == 2
    assert [fold.name for fold in dataset.folds("cv5")] == ["1-20 dilated", "21-40 hypertrophic"]


def _same(dataset, case, arrays):
    files = dataset.case(case)
    for path, key in ((files.images[0], "image"), (files.scribble, "scribble"), (files.truth, "label")):
        assert np.array_equal(read_volume(path)[0], arrays[key])


def test_wsl4mis_slices_are_put_together_by_number(wsl4mis, tmp_path):
    import_dataset(Import("wsl4mis", wsl4mis / "slices", tmp_path / "set"))
    _same(read_dataset(tmp_path / "set"), "patient061_frame01", _arrays(1))


def test_wsl4mis_bad_input(wsl4mis, tmp_path):
    slices, volumes, dst = wsl4mis / "slices", wsl4mis / "volumes", tmp_path / "set"
    fails("wsl4mis", tmp_path / "none", dst, "has no files such as patient001_frame01.h5")
    (slices / "patient061_frame01_slice_5.h5").unlink()
    fails("wsl4mis", slices, dst, r"patient061_frame01 has slices \[0, 1, 2, 3, 4, 6,.*expected 0 to 11")
    path = volumes / "patient007_frame01.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    fails("wsl4mis", wsl4mis, dst, "patient007_frame01.h5: cannot be read as HDF5")
    path.write_bytes(whole)
    with h5py.File(path, "a") as h5:
        h5["scribble"][0, 0, 0] = 9
    fails("wsl4mis", wsl4mis, dst, "patient007_frame01.h5: has value 9")
    with h5py.File(path, "a") as h5:
        del h5["scribble"]
    fails("wsl4mis", wsl4mis, dst, "has no 'scribble'")
    with h5py.File(path, "a") as h5:
        h5["scribble"] = np.zeros((2, 2, 2), np.uint8)
    fails("wsl4mis", wsl4mis, dst, "have shapes")
    with h5py.File(path, "a") as h5:
        del h5["scribble"]
        h5["scribble"] = np.full((12, 9, 7), 1.5)
    fails("wsl4mis", wsl4mis, dst, "patient007_frame01.h5: has label value 1.5; expected whole numbers")
    with h5py.File(path, "a") as h5:
        h5["scribble"][:] = np.nan
    fails("wsl4mis", wsl4mis, dst, "patient007_frame01.h5: has label value nan")
    with h5py.File(path, "a") as h5:
        del h5["scribble"]
        h5.create_dataset("scribble", (10**6, 10**5, 10), np.uint8, chunks=True)  # a few bytes on disk
    fails("wsl4mis", wsl4mis, dst, "/scribble promises 1000000000000 bytes")
    with h5py.File(path, "a") as h5:
        del h5["scribble"]
        h5.create_group("scribble")
    fails("wsl4mis", wsl4mis, dst, "/scribble is no array of numbers")


def test_a_taken_folder_is_left_alone(wsl4mis, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine.txt").write_text("keep", encoding="utf-8")
    with pytest.raises(InputError, match="exists already"):
        import_dataset(Import("wsl4mis", wsl4mis, tmp_path / "set"))
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine.txt"]


def test_wsl4mis_on_real_files(shared_data, tmp_path):
    """The slice layout gives the same volumes as the volume layout, which gives the h5 arrays."""
    source = shared_data / "ACDC"
    (tmp_path / "volumes").mkdir()
    for name in VOLUMES:
        shutil.copy(source / "ACDC_training_volumes" / f"{name}.h5", tmp_path / "volumes")
    import_dataset(Import("wsl4mis", tmp_path / "volumes", tmp_path / "a"))
    import_dataset(Import("wsl4mis", source / "ACDC_training_slices", tmp_path / "b"))
    one, other = read_dataset(tmp_path / "a"), read_dataset(tmp_path / "b")
    assert tuple(one.cases) == tuple(other.cases) == VOLUMES
    for name in VOLUMES:
        with h5py.File(source / "ACDC_training_volumes" / f"{name}.h5") as h5:
            arrays = {key: h5[key][()] for key in h5}
        _same(one, name, arrays)
        _same(other, name, arrays)
        assert np.array_equal(load_volume(one, one.case(name)).image[0], arrays["image"])  # already clipped and scaled


# --- MSCMR


def test_mscmr_on_real_files(shared_data, tmp_path):
    src = tmp_path / "MSCMR_dataset"
    real = shared_data / "MSCMR_dataset"
    picked = [("train", "subject9", "scribble"), ("train", "subject13", "scribble"), ("val", "subject41", "manual")]
    for part, subject, kind in picked:
        for folder, name in (("images", f"{subject}_DE.nii.gz"), ("labels", f"{subject}_DE_{kind}.nii.gz")):
            (src / part / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(real / part / folder / name, src / part / folder)
    import_dataset(Import("mscmr", tmp_path, tmp_path / "set"))
    dataset = read_dataset(tmp_path / "set")
    assert dataset.cases["subject9_DE"].scribble and not dataset.cases["subject9_DE"].truth and not dataset.tests
    assert dataset.cases["subject41_DE"].truth and (read_label(dataset.cases["subject41_DE"].scribble)[0] == 4).all()
    image = dataset.cases["subject9_DE"].images[0]
    assert image.read_bytes() == (src / "train" / "images" / "subject9_DE.nii.gz").read_bytes()
    (fold,) = dataset.folds("25-5-15")
    assert fold.train == ("subject13_DE", "subject9_DE") and fold.val == ("subject41_DE",) and fold.test == ()
    assert dataset.folds("final")[0].test == ("subject41_DE",)
    _, grid = read_volume(image)  # import → prediction → file
    prediction = load_volume(dataset, dataset.case("subject41_DE")).truth
    where = read_volume(dataset.case("subject41_DE").images[0])[1]
    write_volume(tmp_path / "prediction.nii.gz", prediction, where)
    one, other = (
        nibabel.load(tmp_path / "prediction.nii.gz"),
        nibabel.load(src / "val" / "labels" / "subject41_DE_manual.nii.gz"),
    )
    assert np.array_equal(one.dataobj, other.dataobj) and np.allclose(one.affine, other.affine, atol=1e-4)
    assert not grid.same_place(where)


def test_mscmr_classes_match_anatomy(shared_data):
    """Value 2 encloses value 3 (myocardium, LV); value 1 is beside them, to the right (RV)."""
    from scipy.ndimage import binary_fill_holes

    path = shared_data / "MSCMR_dataset" / "val" / "labels" / "subject41_DE_manual.nii.gz"
    label = np.asanyarray(nibabel.load(path).dataobj)
    ring = label == 2
    inside = np.stack([binary_fill_holes(ring[..., z]) for z in range(ring.shape[2])], -1) & ~ring
    assert set(np.unique(label[inside])) == {3}
    centre = {
        value: nibabel.affines.apply_affine(nibabel.load(path).affine, np.argwhere(label == value).mean(0))
        for value in (1, 3)
    }
    assert centre[1][0] > centre[3][0] + 20  # mm; x grows to the patient's right


@pytest.fixture
def mscmr(tmp_path):
    src = tmp_path / "src"
    for part, subject, kind in (
        ("train", 2, "scribble"),
        ("val", 3, "manual"),
        ("TestSet", 4, "manual"),
        ("TestSet", 5, None),
    ):
        save(
            src / part / "images" / f"subject{subject}_DE.nii.gz",
            np.random.default_rng(subject).integers(0, 99, (6, 5, 4), np.int16),
        )
        if kind:
            top = 5 if kind == "scribble" else 4
            label = np.random.default_rng(subject).integers(0, top, (6, 5, 4), np.uint16)
            save(src / part / "labels" / f"subject{subject}_DE_{kind}.nii.gz", label)
    return src


def test_mscmr_test_set_with_and_without_labels(mscmr, tmp_path):
    import_dataset(Import("mscmr", mscmr, tmp_path / "set"))
    dataset = read_dataset(tmp_path / "set")
    assert list(dataset.tests) == ["subject4_DE", "subject5_DE"]
    assert dataset.tests["subject4_DE"].truth and dataset.tests["subject5_DE"].truth is None
    assert dataset.folds("25-5-15")[0].test == ("subject4_DE", "subject5_DE")
    assert dataset.splits() == ["final", "25-5-15"], "one scribbled subject: nobody to set aside"


def test_mscmr_has_a_split_to_choose_settings_on(mscmr, tmp_path):
    for subject in range(11, 20):
        for folder, name in (("images", f"subject{subject}_DE"), ("labels", f"subject{subject}_DE_scribble")):
            shutil.copy(
                mscmr / "train" / folder / f"{name}.nii.gz".replace(str(subject), "2"),
                mscmr / "train" / folder / f"{name}.nii.gz",
            )
    import_dataset(Import("mscmr", mscmr, tmp_path / "set"))
    dataset = read_dataset(tmp_path / "set")
    (fold,) = dataset.folds("tuning")
    scribbled = {name for name, case in dataset.cases.items() if case.truth is None}
    assert (
        len(fold.val) == 2 and len(fold.train) == 8 and set(fold.train) | set(fold.val) == scribbled and not fold.test
    )
    assert dataset.default_split() == "25-5-15"


def test_mscmr_bad_input(mscmr, tmp_path):
    dst = tmp_path / "set"
    fails("mscmr", tmp_path / "none", dst, "has no train/images")
    dense = mscmr / "val" / "labels" / "subject3_DE_manual.nii.gz"
    whole = dense.read_bytes()
    save(dense, np.full((6, 5, 4), 4, np.uint16))  # 4 is for scribbles
    fails("mscmr", mscmr, dst, "subject3_DE_manual.nii.gz: has value 4")
    dense.write_bytes(whole)
    path = mscmr / "train" / "labels" / "subject2_DE_scribble.nii.gz"
    label = np.asanyarray(nibabel.load(path).dataobj)
    save(path, label, OBLIQUE + np.eye(4))
    fails("mscmr", mscmr, dst, "subject2_DE_scribble.nii.gz: has another affine")
    save(path, label * 2)
    fails("mscmr", mscmr, dst, "subject2_DE_scribble.nii.gz: has value 6")
    path.unlink()
    fails("mscmr", mscmr, dst, "subject2_DE_scribble.nii.gz: no such file")


# --- ACDC, the challenge's files


@pytest.fixture
def acdc(tmp_path):
    src = tmp_path / "training"
    random = np.random.default_rng(0)
    for patient, group in ((1, "DCM"), (30, None), (70, "NOR"), (101, "HCM")):
        folder = src / f"patient{patient:03}"
        for frame in (1, 12):
            stem = f"patient{patient:03}_frame{frame:02}"
            save(folder / f"{stem}.nii.gz", random.integers(0, 255, (6, 5, 4), np.int16))
            save(folder / f"{stem}_gt.nii.gz", random.integers(0, 4, (6, 5, 4), np.uint8))
            if patient <= 100 and (patient, frame) != (70, 12):
                save(folder / f"{stem}_scribble.nii.gz", random.integers(0, 5, (6, 5, 4), np.uint8))
        save(folder / f"patient{patient:03}_4d.nii.gz", random.integers(0, 255, (6, 5, 4, 3), np.int16))
        if group:
            (folder / "Info.cfg").write_text(
                f"ED: 1\nES: 12\nGroup: {group}\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n", encoding="utf-8"
            )
    return src


@pytest.mark.parametrize("above", [False, True])
def test_acdc(acdc, tmp_path, above, capsys):
    import_dataset(Import("acdc", tmp_path if above else acdc, tmp_path / "set"))
    dataset = read_dataset(tmp_path / "set")
    assert len(dataset.cases) == 6 and list(dataset.tests) == ["patient101_frame01", "patient101_frame12"]
    case = dataset.case("patient030_frame12")
    for path, kind in ((case.images[0], ""), (case.scribble, "_scribble"), (case.truth, "_gt")):
        assert path.read_bytes() == (acdc / "patient030" / f"patient030_frame12{kind}.nii.gz").read_bytes()
    assert dataset.tests["patient101_frame01"].truth
    assert (read_label(dataset.case("patient070_frame12").scribble)[0] == 4).all() and faults(dataset.folder) == []
    assert "without a scribble: 1 of 8 frames (first: patient070_frame12" in capsys.readouterr().out
    strata = json.loads((tmp_path / "set" / "dataset.json").read_text(encoding="utf-8"))["strata"]
    assert strata == {
        "patient001": "dilated",
        "patient030": "hypertrophic",
        "patient070": "normal",
        "patient101": "hypertrophic",
    }
    folds = dataset.folds("cv5")
    assert [fold.name for fold in folds] == ["1-20 dilated", "21-40 hypertrophic", "61-80 normal"]
    assert folds[0].test == ("patient001_frame01", "patient001_frame12") and len(folds[0].train) == 4
    for name in dataset.splits():
        dataset.folds(name)


def test_files_of_other_names_are_named(acdc, mscmr, tmp_path, capsys):
    scribble = acdc / "patient001" / "patient001_frame01_scribble.nii.gz"
    scribble.rename(scribble.with_name("patient001_frame01_scribbles.nii.gz"))
    import_dataset(Import("acdc", acdc, tmp_path / "acdc"))
    assert "1 not imported, no frames or labels: patient001_frame01_scribbles.nii.gz" in capsys.readouterr().err
    (mscmr / "val" / "labels" / "subject3_DE_mask.nii.gz").touch()
    import_dataset(Import("mscmr", mscmr, tmp_path / "mscmr"))
    assert "1 file not imported: subject3_DE_mask.nii.gz" in capsys.readouterr().err
    (mscmr / "TestSet" / "labels" / "subject5_DE_manual.nii.gz").symlink_to("nowhere")
    fails("mscmr", mscmr, tmp_path / "other", "subject5_DE_manual.nii.gz: links to nowhere, which is gone")


def test_acdc_bad_input(acdc, tmp_path):
    dst = tmp_path / "set"
    fails("acdc", tmp_path / "none", dst, "has no files such as patient001/patient001_frame01.nii.gz")
    info = acdc / "patient001" / "Info.cfg"
    info.write_text("Group: XYZ\n", encoding="utf-8")
    fails("acdc", acdc, dst, "Group 'XYZ'; expected one of DCM")
    info.write_bytes(b"Group: DCM\xff\n")
    fails("acdc", acdc, dst, "Info.cfg: byte 11 is not UTF-8")
    info.unlink()
    scan = acdc / "patient001" / "patient001_frame01.nii.gz"
    whole = scan.read_bytes()
    scan.write_bytes(whole[:60])
    fails("acdc", acdc, dst, "patient001_frame01.nii.gz: cannot be read")
    scan.unlink()
    fails("acdc", acdc, dst, "has no image patient001_frame01.nii.gz")
    scan.write_bytes(whole)
    shutil.copytree(acdc / "patient001", acdc / "copy")
    fails("acdc", acdc, dst, "the same file is also at")


# --- NCI-ISBI 2013

PATIENTS = (
    "Prostate3T-01-0001",
    "Prostate3T-01-0002",
    "ProstateDx-01-0006",
    "ProstateDx-01-0007",
    "ProstateDx-01-0008",
)


@pytest.fixture(scope="module")
def nci_isbi(tmp_path_factory):
    """TCIA's tree: collection/patient/study/series/*.dcm with file names that do not follow position, masks apart from
    it.
    """
    itk = pytest.importorskip("SimpleITK")
    src = tmp_path_factory.mktemp("nci-isbi")
    for index, patient in enumerate(PATIENTS):
        image, mask = _prostate(itk, index)
        series = src / "Prostate" / patient / "1.3.6.1" / f"t2-{index}"
        _write_dicom(itk, image, patient, f"1.2.826.0.1.3680043.2.1125.{index + 1}.1", series)
        if index == 0:  # a second series of another size: a scout
            _write_dicom(itk, image[:, :, :2], patient, "1.2.826.0.1.3680043.2.1125.99.1", series.parent / "scout")
        ends = ("", "", "_correctedLabels", "_truth", "")
        (src / "masks").mkdir(exist_ok=True)
        stored = itk.Flip(mask, (False, False, True)) if index == 1 else mask  # slices the other way round, same place
        itk.WriteImage(stored, str(src / "masks" / f"{patient}{ends[index]}.nrrd"), True)
    return src


def _prostate(itk, seed):
    random = np.random.default_rng(seed)
    image = itk.GetImageFromArray(random.integers(0, 900, (5, 8, 9), np.int16))
    label = np.zeros((5, 8, 9), np.uint8)
    label[1:4, 2:6, 3:8] = 2
    label[1:3, 5:7, 3:8] = 1
    mask = itk.GetImageFromArray(label)
    tilt = np.deg2rad(20)
    for file in (image, mask):
        file.SetSpacing((0.6, 0.7, 3.6))
        file.SetOrigin((-60.0, -40.5, 12.25))
        file.SetDirection((1, 0, 0, 0, np.cos(tilt), -np.sin(tilt), 0, np.sin(tilt), np.cos(tilt)))
    return image, mask


def _write_dicom(itk, image, patient, uid, folder):
    folder.mkdir(parents=True)
    writer = itk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    direction = image.GetDirection()
    for z in range(image.GetDepth()):
        line = image[:, :, z : z + 1]
        position = image.TransformIndexToPhysicalPoint((0, 0, z))
        tags = {
            "0008|0060": "MR",
            "0008|0018": f"{uid}.{z + 1}",
            "0010|0020": patient,
            "0020|000d": uid[:-2],
            "0020|000e": uid,
            "0020|0013": str(image.GetDepth() - z),
            "0020|0032": "\\".join(f"{v:.6f}" for v in position),
            "0020|0037": "\\".join(f"{direction[i]:.8f}" for i in (0, 3, 6, 1, 4, 7)),
        }
        for key, value in tags.items():
            line.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"000{(z * 3) % 5}.dcm"))
        writer.Execute(line)


def test_nci_isbi(nci_isbi, tmp_path, capsys):
    itk = pytest.importorskip("SimpleITK")
    import_dataset(Import("nci-isbi", nci_isbi, tmp_path / "set"))
    dataset = read_dataset(tmp_path / "set")
    assert tuple(dataset.cases) == PATIENTS and dataset.classes == ("background", "PZ", "CG") and dataset.ignore == 3
    for index, patient in enumerate(PATIENTS):
        image, mask = _prostate(itk, index)
        case = dataset.case(patient)
        for path, source in ((case.images[0], image), (case.truth, mask)):
            stored = itk.ReadImage(str(path))
            assert np.array_equal(itk.GetArrayFromImage(stored), itk.GetArrayFromImage(source))
            assert stored.GetSpacing() == pytest.approx(source.GetSpacing(), abs=1e-4)
            assert stored.GetOrigin() == pytest.approx(source.GetOrigin(), abs=1e-3)
            assert stored.GetDirection() == pytest.approx(source.GetDirection(), abs=1e-4)
        assert (read_label(case.scribble)[0] == 3).all()
    assert faults(dataset.folder) == []
    assert "without scribbles: 5 of 5 cases; `scribbleseg simulate" in capsys.readouterr().out
    assert [fold.test for fold in dataset.folds("cv5")] == [(patient,) for patient in PATIENTS]


def test_nci_isbi_takes_scribbles_that_are_there(nci_isbi, tmp_path):
    itk = pytest.importorskip("SimpleITK")
    src = tmp_path / "src"
    shutil.copytree(nci_isbi, src)
    _, mask = _prostate(itk, 2)
    drawn = itk.GetArrayFromImage(mask)
    drawn[:, ::2] = 3
    scribble = itk.GetImageFromArray(drawn)
    scribble.CopyInformation(mask)
    (src / "scribbles").mkdir()
    itk.WriteImage(scribble, str(src / "scribbles" / f"{PATIENTS[2]}.nii.gz"))
    import_dataset(Import("nci-isbi", src, tmp_path / "set"))
    dataset = read_dataset(tmp_path / "set")
    assert np.array_equal(read_volume(dataset.case(PATIENTS[2]).scribble)[0], drawn)
    assert np.array_equal(read_volume(dataset.case(PATIENTS[2]).truth)[0], itk.GetArrayFromImage(mask))


def test_nci_isbi_prefers_the_corrected_mask(nci_isbi, tmp_path):
    itk = pytest.importorskip("SimpleITK")
    src = tmp_path / "src"
    shutil.copytree(nci_isbi, src)
    _, mask = _prostate(itk, 2)
    for end in ("", "_truth"):  # sorted before and after _correctedLabels
        itk.WriteImage(itk.Cast(mask > 0, itk.sitkUInt8), str(src / "masks" / f"{PATIENTS[2]}{end}.nrrd"))
    import_dataset(Import("nci-isbi", src, tmp_path / "set"))
    truth = read_dataset(tmp_path / "set").case(PATIENTS[2]).truth
    assert np.array_equal(read_volume(truth)[0], itk.GetArrayFromImage(mask))


def test_nci_isbi_bad_input(nci_isbi, tmp_path):
    itk = pytest.importorskip("SimpleITK")
    dst, src = tmp_path / "set", tmp_path / "src"
    fails("nci-isbi", tmp_path / "none", dst, "has no masks such as Prostate3T-01-0001.nrrd")
    shutil.copytree(nci_isbi, src)
    path = src / "masks" / f"{PATIENTS[0]}.nrrd"
    mask = itk.ReadImage(str(path))
    moved = itk.Image(mask)
    moved.SetOrigin((-50.0, -40.5, 12.25))
    itk.WriteImage(moved, str(path))
    fails("nci-isbi", src, dst, "Prostate3T-01-0001.nrrd: lies elsewhere")
    itk.WriteImage(mask * 3, str(path))
    fails("nci-isbi", src, dst, "Prostate3T-01-0001.nrrd: has value")
    itk.WriteImage(mask, str(path))
    next(src.rglob("t2-0/*.dcm")).unlink()
    fails("nci-isbi", src, dst, r"0 DICOM series of its patient have its size \(9, 8, 5\)")


def test_nci_isbi_holds_its_files_to_what_they_carry(nci_isbi, tmp_path, capsys):
    itk = pytest.importorskip("SimpleITK")
    dst, src = tmp_path / "set", tmp_path / "src"
    shutil.copytree(nci_isbi, src)
    mask, scan = src / "masks" / f"{PATIENTS[0]}.nrrd", next(src.rglob("t2-0/0003.dcm"))
    for path, change, words in (
        (mask, lambda content: content[:-20] + bytes([content[-20] ^ 4]) + content[-19:], "0001.nrrd: cannot be read"),
        (scan, lambda content: content[:-30], "0003.dcm: not read as part of the series"),
        (scan, lambda content: content.replace(b"-60\\", b"-63\\"), "apart; expected even|shifted sideways"),
    ):
        whole = path.read_bytes()
        assert change(whole) != whole
        path.write_bytes(change(whole))
        fails("nci-isbi", src, dst, words)
        path.write_bytes(whole)
    itk.WriteImage(itk.Cast(itk.ReadImage(str(mask)), itk.sitkFloat32) * 0.5, str(mask))
    fails("nci-isbi", src, dst, "0001.nrrd: has label value 0.5; expected whole numbers")
    itk.WriteImage(itk.Cast(_prostate(itk, 0)[1], itk.sitkInt16) - 1, str(mask))
    fails("nci-isbi", src, dst, "0001.nrrd: has value -1")
    mask.rename(mask.with_name("Prostate-1.nrrd"))
    import_dataset(Import("nci-isbi", src, dst))
    said = capsys.readouterr().err
    assert "1 not imported, no masks or scribbles: Prostate-1.nrrd" in said
    assert f"1 patient not imported, without a mask: {PATIENTS[0]}" in said
