"""Labels of other tools: values, segments, grids that are smaller or turned, lost geometry, DICOM, bad cases."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as itk
from nnunet_rules import faults
from tiny import OBLIQUE, SHAPE, image, save, tiny_set, truth

from scribbleseg import cli
from scribbleseg.config import Evaluate, Import
from scribbleseg.core.errors import InputError
from scribbleseg.data.dicom import read_series
from scribbleseg.data.importers import import_dataset
from scribbleseg.data.itk import from_itk, write_itk
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.nifti import two_places
from scribbleseg.data.placing import place
from scribbleseg.data.volume import Grid, read_label, read_volume, write_volume
from scribbleseg.evaluation.scores import evaluate

CLASSES = ("liver=1", "kidney=2", "background=5")


def drawn() -> np.ndarray:
    """0 is not drawn, 5 is background."""
    label = np.zeros(SHAPE, np.uint8)
    label[2:5, 3, 1], label[6:9, 4, 2], label[1:11, 8, 0] = 1, 2, 5
    return label


def expected() -> np.ndarray:
    label = np.full(SHAPE, 3, np.uint8)
    for value, meaning in ((1, 1), (2, 2), (5, 0)):
        label[drawn() == value] = meaning
    return label


@pytest.fixture
def scans(tmp_path) -> Path:
    save(tmp_path / "images" / "anna.nii.gz", image(0))
    (tmp_path / "labels").mkdir()
    return tmp_path


def imported(folder: Path, case: str = "anna", **more) -> np.ndarray:
    import_dataset(Import("folders", (folder / "images", folder / "labels"), folder / "set", CLASSES, **more))
    label, grid = read_label(folder / "set" / "labelsTr" / f"{case}.nii.gz", (0, 1, 2))
    assert grid.same_place(read_volume(folder / "set" / "imagesTr" / f"{case}_0000.nii.gz")[1])
    return label


def test_values_become_classes(scans, capsys):
    save(scans / "labels" / "anna-label.nii.gz", drawn())
    save(scans / "images" / "berta.nii.gz", image(1))
    words = ["--class", "liver=1", "--class", "kidney=2", "--class", "background=5", "--not-drawn", "0"]
    places = [str(scans / part) for part in ("images", "labels", "set")]
    assert cli.main(["import", "folders", *places, *words, "--channel", "CT"]) == 0
    dataset = read_dataset(scans / "set")
    assert dataset.classes == ("background", "liver", "kidney") and dataset.channels == ("CT",)
    label, _ = read_label(scans / "set" / "labelsTr" / "anna.nii.gz", (0, 1, 2))
    assert np.array_equal(label, expected())
    assert (read_label(dataset.case("berta").scribble)[0] == 3).all() and faults(scans / "set") == []
    assert "without a label: 1 of 2 scans (berta); each got one without strokes" in capsys.readouterr().err
    copied = (scans / "set" / "imagesTr" / "anna_0000.nii.gz").read_bytes()
    assert copied == (scans / "images" / "anna.nii.gz").read_bytes()


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flip", [(1, 1, 1), (-1, 1, -1)])
def test_a_smaller_and_turned_grid_is_placed_by_its_geometry(scans, axes, flip):
    part = drawn()[1:11, 2:9]  # smaller
    affine = OBLIQUE.copy()
    affine[:3, 3] = (OBLIQUE @ [1, 2, 0, 1])[:3]
    turned = part.transpose(axes)
    affine[:, :3] = affine[:, list(axes)]
    for axis, direction in enumerate(flip):
        if direction < 0:
            turned = np.flip(turned, axis)
            affine[:, 3] += affine[:, axis] * (turned.shape[axis] - 1)
            affine[:, axis] *= -1
    save(scans / "labels" / "anna.nii.gz", np.ascontiguousarray(turned), affine)
    assert np.array_equal(imported(scans), expected())


def test_what_cannot_be_placed_is_said(scans):
    half = OBLIQUE.copy()
    half[:3, 3] += 0.5 * OBLIQUE[:3, 0]
    save(scans / "labels" / "anna.nii.gz", drawn(), half)
    with pytest.raises(InputError, match="lie between .*--same-voxels takes it"):
        imported(scans)
    outside = OBLIQUE.copy()
    outside[:3, 3] += 10 * OBLIQUE[:3, 0]
    save(scans / "labels" / "anna.nii.gz", drawn(), outside)
    with pytest.raises(InputError, match="15 drawn voxels lie outside"):
        imported(scans)
    save(scans / "labels" / "anna.nii.gz", np.where(drawn() == 2, 7, drawn()).astype(np.uint8))
    with pytest.raises(InputError, match=r"has the values 7 \(3 voxels\)"):
        imported(scans)
    assert not (scans / "set").exists(), "nothing is left half-written"


def test_a_label_that_lost_its_geometry(scans, capsys):
    save(scans / "labels" / "anna.nii.gz", drawn(), np.eye(4))
    assert np.array_equal(imported(scans, same_voxels=True), expected())
    assert "anna.nii.gz: lies elsewhere than its image" in capsys.readouterr().err


@pytest.mark.parametrize("kind", [".nii.gz", ".nrrd", ".seg.nrrd"])
def test_a_label_without_a_place_is_not_placed_by_chance(scans, kind):
    """Voxels of 1 mm at whole numbers: a part of the label would fit somewhere."""
    (scans / "images" / "anna.nii.gz").unlink()
    save(scans / "images" / "anna.nii.gz", image(0), np.diag([-1.0, -1, 1, 1]))
    part, path = drawn()[1:, 1:, :3], scans / "labels" / f"anna{kind}"
    if kind != ".nii.gz":
        head = f"NRRD0004\ntype: uchar\ndimension: 3\nsizes: {' '.join(map(str, part.shape))}\nencoding: raw\n"
        segments = [f"Segment{value}_LabelValue:={value}\n" for value in (1, 2, 5) if kind == ".seg.nrrd"]
        path.write_bytes(f"{head}{''.join(segments)}\n".encode() + part.T.tobytes())
    else:
        save(path, part, None)
    with pytest.raises(InputError, match="its header says no place of its voxels.* Save it again on the image's grid"):
        imported(scans)


def test_a_series_without_a_pixel_size_is_refused(tmp_path):
    """SimpleITK makes it 1 mm."""
    folder = tmp_path / "images" / "anna"
    write_series(folder, image(0), [10, 12.5, 15, 17.5])
    for path in folder.iterdir():
        content = path.read_bytes()
        assert content.count(b"\x28\x00\x30\x00") == 1
        path.write_bytes(content.replace(b"\x28\x00\x30\x00", b"\x28\x00\x20\x00"))
    with pytest.raises(InputError, match="do not say how large a pixel is"):
        read_series(folder)


def seg_nrrd(path: Path, segments: list[tuple[str, int, np.ndarray]]) -> None:
    """A segmentation as 3D Slicer writes it, one layer; (name, value, voxels)."""
    voxels = np.zeros(SHAPE, np.uint8)
    for _, value, where in segments:
        voxels[where] = value
    write_itk(path, voxels, np.diag([1.0, 1, 3, 1]), None)
    file = itk.ReadImage(str(path))
    for number, (name, value, _) in enumerate(segments):
        file.SetMetaData(f"Segment{number}_Name", name)
        file.SetMetaData(f"Segment{number}_LabelValue", str(value))
        file.SetMetaData(f"Segment{number}_Layer", "0")
    itk.WriteImage(file, str(path))


def test_segments_of_slicer_come_by_their_names(tmp_path):
    save(tmp_path / "images" / "anna.nii.gz", image(0), np.diag([1.0, 1, 3, 1]))
    (tmp_path / "labels").mkdir()
    parts = [("Liver", 3, drawn() == 1), ("right kidney", 1, drawn() == 2), ("other", 2, drawn() == 5)]
    seg_nrrd(tmp_path / "labels" / "anna.seg.nrrd", parts)
    places = (tmp_path / "images", tmp_path / "labels")
    classes = ("liver=Liver", "kidney=right kidney", "background=other")
    import_dataset(Import("folders", places, tmp_path / "set", classes))
    label, _ = read_label(tmp_path / "set" / "labelsTr" / "anna.nii.gz", (0, 1, 2))
    assert np.array_equal(label, expected())
    with pytest.raises(InputError, match="no option names its segment 'other'"):
        import_dataset(Import("folders", places, tmp_path / "again", classes[:2]))


def test_options_that_contradict_each_other(scans):
    save(scans / "labels" / "anna.nii.gz", drawn())
    places = (scans / "images", scans / "labels")
    for classes, not_drawn, words in (
        ((), (), "needs the classes"),
        (("liver=1", "kidney=1"), (), "value 1 has two meanings"),
        (("liver=1",), ("1",), "value 1 has two meanings"),
        (("liver=1", "liver=2"), (), "liver was given twice. "),
        (("liver=1", " Liver =2"), (), "Liver was given twice, as liver too"),
        (("background=0",), (), "at least one class more"),
        (("ignore=1",), (), "is no name of a class"),
    ):
        with pytest.raises(InputError, match=words):
            import_dataset(Import("folders", places, scans / "set", classes, not_drawn))
    with pytest.raises(InputError, match="expected IMAGES LABELS DST"):
        import_dataset(Import("folders", scans / "images", scans / "set", CLASSES))
    with pytest.raises(InputError, match="takes no --class"):
        import_dataset(Import("acdc", scans / "images", scans / "set", CLASSES))
    with pytest.raises(InputError, match="takes no --same-voxels"):
        import_dataset(Import("acdc", scans / "images", scans / "set", same_voxels=True))


def write_series(folder: Path, voxels: np.ndarray, steps: list[float], more: dict | None = None) -> None:
    """One file per slice; `more`: tag → its value by the slice's number."""
    folder.mkdir(parents=True)
    writer = itk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, plane in enumerate(voxels.T):
        file = itk.GetImageFromArray(plane)
        file.SetSpacing([0.8, 0.7])
        tags = {"0020|000e": "1.2.3.4", "0020|000d": "1.2.3", "0008|0060": "CT", "0020|0013": str(number)}
        tags |= {"0008|0018": f"1.2.3.4.{number}", "0020|0032": f"5\\6\\{steps[number]}"}
        tags |= {"0020|0037": "1\\0\\0\\0\\1\\0", "0018|0050": "2.5"}
        for tag, value in (tags | {tag: value(number) for tag, value in (more or {}).items()}).items():
            file.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{9 - number}.dcm"))
        writer.Execute(file)


def test_a_dicom_series_comes_in(tmp_path):
    voxels = image(0)
    write_series(tmp_path / "images" / "anna" / "inner", voxels, [10, 12.5, 15, 17.5])
    affine = np.array([[-0.8, 0, 0, -5], [0, -0.7, 0, -6], [0, 0, 2.5, 10], [0, 0, 0, 1]])
    save(tmp_path / "labels" / "anna.nii.gz", drawn(), affine)
    assert np.array_equal(imported(tmp_path), expected())
    stored = nibabel.load(tmp_path / "set" / "imagesTr" / "anna_0000.nii.gz")
    assert np.array_equal(np.asanyarray(stored.dataobj), voxels) and np.allclose(stored.affine, affine)


def test_a_series_with_a_gap_is_refused(tmp_path):
    write_series(tmp_path / "images" / "anna", image(0), [10, 12.5, 17.5, 20])
    save(tmp_path / "labels" / "anna.nii.gz", drawn())
    with pytest.raises(InputError, match=r"2.5 to 5 mm apart; expected even distances"):
        imported(tmp_path)


def test_a_series_that_is_no_volume_is_refused(tmp_path):
    folder = tmp_path / "images" / "anna"
    save(tmp_path / "labels" / "anna.nii.gz", drawn())
    steps = [10, 12.5, 15, 17.5]
    for change, words in (
        (lambda: (folder / "6.dcm").write_bytes((folder / "6.dcm").read_bytes()[:-30]), "6.dcm: not read as part"),
        (lambda: (folder / "6.dcm").write_bytes(b""), "6.dcm: not read as part"),
        (lambda: (folder / "10.dcm").symlink_to("nowhere"), "10.dcm.*: not read as part"),
        (lambda: shutil.copy(folder / "6.dcm", folder / "copy"), "mm apart; expected even distances"),
    ):
        write_series(folder, image(0), steps)
        change()
        with pytest.raises(InputError, match=words):
            imported(tmp_path)
        shutil.rmtree(folder)
    for more, words in (
        ({"0020|0032": lambda number: f"5\\{6 + number}\\{steps[number]}"}, "shifted sideways by up to 3.* mm"),
        ({"0020|0032": lambda number: "5\\6\\10"}, "its 4 slices lie at one place"),
        (
            {"0020|0037": lambda number: "1\\0\\0\\0\\1\\0" if number != 1 else "0\\1\\0\\-1\\0\\0"},
            "turned to each other",
        ),
    ):
        write_series(folder, image(0), steps, more)
        with pytest.raises(InputError, match=words):
            imported(tmp_path)
        shutil.rmtree(folder)
    assert not (tmp_path / "set").exists()


def test_slices_with_scales_of_their_own_are_not_rounded(tmp_path):
    """PET: each slice has its own slope. The first has whole numbers, so the volume would have them."""
    folder, voxels = tmp_path / "images" / "anna", image(0)
    whole = {"0028|1052": lambda number: "0", "0028|1053": lambda number: "2"}
    write_series(folder, voxels, [10, 12.5, 15, 17.5], whole)
    for path in sorted(folder.iterdir())[:-1]:  # 9.dcm is the first slice
        content, slope = path.read_bytes(), b"\x28\x00\x53\x10\x02\x00\x00\x00"
        assert content.count(slope + b"2 ") == 1
        path.write_bytes(content.replace(slope + b"2 ", slope + b".5"))
    (tmp_path / "labels").mkdir()
    found = read_series(folder)[0].T
    apart = [from_itk(itk.ReadImage(str(folder / f"{9 - number}.dcm")))[0][:, :, 0] for number in range(4)]
    assert any((part % 1).any() for part in apart)
    assert np.array_equal(found, np.stack(apart, 2))


def test_what_is_there_and_not_imported_is_named(scans, capsys):
    save(scans / "labels" / "anna.nii.gz", drawn())
    (scans / "labels" / "notes.txt").write_text("x", encoding="utf-8")
    (scans / "images" / "more").mkdir()
    imported(scans)
    said = capsys.readouterr().err
    assert "1 not imported, no labels: notes.txt" in said and "1 not imported, no scans: more" in said
    shutil.rmtree(scans / "set")
    for part in ("images", "labels"):
        odd = scans / part / "berta.nii.gz"
        odd.symlink_to("nowhere")
        with pytest.raises(InputError, match="berta.nii.gz: links to nowhere, which is gone"):
            imported(scans)
        odd.unlink()
        odd.mkdir()
        with pytest.raises(InputError, match="berta.nii.gz: has the name of a volume and is no file"):
            imported(scans)
        odd.rmdir()
    file, labels = scans / "images" / "anna.nii.gz", scans / "labels"
    for given, words in (((file, labels), "is a file. Give the folder of the scans"), ((file.parent, file), "labels")):
        with pytest.raises(InputError, match=words):
            import_dataset(Import("folders", given, scans / "set", CLASSES))


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("LabelValue", "x", "Segment0_LabelValue is 'x'"),
        ("LabelValue", "-3", "Segment0_LabelValue is '-3'"),
        ("Layer", "-1", "Segment0_Layer is '-1'"),
        ("Layer", "2", "in layer 2 of 1"),
    ],
)
def test_a_segmentation_with_an_odd_header_is_refused(tmp_path, key, value, words):
    save(tmp_path / "images" / "anna.nii.gz", image(0), np.diag([1.0, 1, 3, 1]))
    (tmp_path / "labels").mkdir()
    path = tmp_path / "labels" / "anna.seg.nrrd"
    seg_nrrd(path, [("Liver", 3, drawn() == 1)])
    file = itk.ReadImage(str(path))
    file.SetMetaData(f"Segment0_{key}", value)
    itk.WriteImage(file, str(path))
    with pytest.raises(InputError, match=words):
        import_dataset(
            Import("folders", (tmp_path / "images", tmp_path / "labels"), tmp_path / "set", ("liver=Liver",))
        )


def two_headed(path: Path, codes: tuple[int, int]) -> nibabel.Nifti1Image:
    file = nibabel.Nifti1Image(image(0), None)
    q, s = np.diag([-1.0, -1, 2, 1]), np.diag([1.0, 1, 2, 1])
    q[:3, 3] = 10, 20, 30
    file.header.set_qform(q, code=codes[0])
    file.header.set_sform(s, code=codes[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(file, path)
    return file


@pytest.mark.parametrize("codes", [(1, 1), (1, 2), (2, 4), (0, 2), (1, 0)])
def test_two_geometries_are_read_as_itk_reads_them(tmp_path, codes):
    path = tmp_path / "two.nii"
    two_headed(path, codes)
    file = itk.ReadImage(str(path))
    theirs = np.eye(4)
    theirs[:3, :3] = np.reshape(file.GetDirection(), (3, 3)) * file.GetSpacing()
    theirs[:3, 3] = file.GetOrigin()
    grid = read_volume(path)[1]
    assert np.allclose(grid.affine, np.diag([-1, -1, 1, 1]) @ theirs, atol=1e-4)
    assert two_places(grid.header) == (0 not in codes)
    write_volume(tmp_path / "mask.nii", np.zeros((4, 10, 12), np.uint8), grid)
    again = read_volume(tmp_path / "mask.nii")[1]
    assert again.same_place(grid), "a mask lies where its image lies"
    for form in ("get_sform", "get_qform"):
        assert np.array_equal(getattr(again.header, form)(), getattr(grid.header, form)())


def test_the_import_names_scans_with_two_geometries(scans, capsys):
    two_headed(scans / "images" / "anna.nii.gz", (1, 2))
    affine = np.diag([-1.0, -1, 2, 1])
    affine[:3, 3] = 10, 20, 30
    save(scans / "labels" / "anna.nii.gz", drawn(), affine)
    assert np.array_equal(imported(scans), expected())
    assert "anna: the header has two places that differ" in capsys.readouterr().err


def test_place_keeps_every_voxel():
    rng = np.random.default_rng(0)
    own = Grid((5, 6, 7), OBLIQUE, None)
    label = rng.integers(0, 3, own.shape).astype(np.uint8)
    found, outside = place(label, own, own, 0)
    assert np.array_equal(found, label) and outside == 0
    beside = OBLIQUE.copy()
    beside[:3, 3] += 3 * OBLIQUE[:3, 0]
    found, outside = place(label, Grid((5, 6, 7), beside, None), own, 0)
    assert np.array_equal(found[3:], label[:2]) and outside == (label[2:] != 0).sum()
    assert place(label, Grid((5, 6, 7), OBLIQUE @ np.diag([2, 1, 1, 1.0]), None), own, 0) is None


def predictions(tmp_path: Path) -> tuple[Path, Path]:
    folder = tiny_set(tmp_path / "set")
    for number in range(3):
        save(tmp_path / "found" / f"case{number}.nii.gz", truth())
    return tmp_path / "found", folder / "labelsTr_dense"


def test_one_bad_case_does_not_stop_the_others(tmp_path, capsys):
    found, true = predictions(tmp_path)
    save(found / "case1.nii.gz", truth()[:5])
    words = ["evaluate", str(found), str(true), "--out", str(tmp_path / "scores.csv")]
    assert cli.main(words) == 2
    said = capsys.readouterr()
    assert "1 of 3 cases could not be scored (the others were). Not scored:\n" in said.err
    assert "case1.nii.gz: has another shape" in said.err
    rows = (tmp_path / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert {row.split(",")[0] for row in rows[1:]} == {"case0", "case2"} and "inner" in said.out


def test_masks_that_lost_their_geometry_are_scored_voxel_by_voxel(tmp_path, capsys):
    found, true = predictions(tmp_path)
    save(found / "case1.nii.gz", truth(), np.eye(4))
    rows = evaluate(Evaluate(found, true, same_voxels=True))
    assert len(rows) == 6 and all(row["dice"] == 1 for row in rows)
    assert "case1.nii.gz: lies elsewhere" in capsys.readouterr().err


def test_the_mscmr_import_names_a_label_without_its_geometry(tmp_path, capsys):
    for part, kind in (("train", "scribble"), ("val", "manual")):
        for number in range(2):
            name = f"subject{number + 5 * (part == 'val')}_DE"
            save(tmp_path / "raw" / part / "images" / f"{name}.nii.gz", image(number))
            label = np.full(SHAPE, 4, np.uint8) if kind == "scribble" else np.zeros(SHAPE, np.uint8)
            label[3:6, 2:5, 1] = 1
            lost = np.eye(4) if (part, number) == ("train", 1) else OBLIQUE
            save(tmp_path / "raw" / part / "labels" / f"{name}_{kind}.nii.gz", label, lost)
    with pytest.raises(InputError, match="--same-voxels"):
        import_dataset(Import("mscmr", tmp_path / "raw", tmp_path / "set"))
    import_dataset(Import("mscmr", tmp_path / "raw", tmp_path / "set", same_voxels=True))
    assert "subject1_DE_scribble.nii.gz: lies elsewhere" in capsys.readouterr().err
    label, grid = read_label(tmp_path / "set" / "labelsTr" / "subject1_DE.nii.gz", (0, 1, 2))
    assert (label == 1).sum() == 9 and (label == 4).sum() == label.size - 9 and np.allclose(grid.affine, OBLIQUE)
    info = json.loads((tmp_path / "set" / "dataset.json").read_text(encoding="utf-8"))
    assert info["channel_names"] == {"0": "LGE"}
