import itertools
import json

import nibabel
import numpy as np
import pytest
from tiny import OBLIQUE, SHAPE, edit, image, save, scribble, tiny_set, truth

from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import load_image, load_label, load_volume
from scribbleseg.data.intensity import normalise
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import Grid, read_image, read_label, read_volume, write_volume
from scribbleseg.evaluation.scores import score_files

SHEARED = OBLIQUE.copy()
SHEARED[:3, 0] += 0.2 * SHEARED[:3, 1]  # columns no longer at right angles


@pytest.fixture
def folder(tmp_path):
    return tiny_set(tmp_path / "set")


# --- geometry


@pytest.mark.parametrize("affine", [OBLIQUE, SHEARED], ids=["oblique", "sheared"])
@pytest.mark.parametrize("kind", [".nii.gz", ".nii"])
def test_round_trip_keeps_every_voxel_and_the_header(tmp_path, affine, kind):
    stored = image(1)
    source = save(tmp_path / "a.nii.gz", stored, affine)
    nifti = nibabel.load(source)
    nifti.header.set_xyzt_units("mm", "sec")
    nifti.set_sform(affine, 2)
    nifti.set_qform(None, 0)
    nibabel.save(nifti, source)
    voxels, grid = read_volume(source)
    write_volume(tmp_path / f"b{kind}", voxels, grid)
    copy = nibabel.load(tmp_path / f"b{kind}")
    assert np.array_equal(np.asanyarray(copy.dataobj), stored)
    assert np.allclose(copy.affine, affine, atol=1e-6)
    assert copy.header.get_zooms() == nifti.header.get_zooms()
    assert (copy.header["sform_code"], copy.header["qform_code"], copy.header.get_xyzt_units()) == (2, 0, ("mm", "sec"))


ORIENTATIONS = list(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@pytest.mark.parametrize("thick", range(3))
def test_slices_lie_across_the_thick_axis_in_all_48_orientations(tmp_path, thick):
    spacing = np.array([0.8, 0.8, 0.8])
    spacing[thick] = 6.0
    shape = (5, 6, 7)
    stored = image(2, shape)
    for order, signs in ORIENTATIONS:
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(order)] * (np.array(signs) * spacing)
        path = save(tmp_path / "a.nii", stored, affine)
        voxels, grid = read_volume(path)
        rest = [axis for axis in (2, 1, 0) if axis != thick]
        assert np.array_equal(voxels, stored.transpose(thick, *rest))
        assert grid.spacing_mm == pytest.approx((6, 0.8, 0.8))
        write_volume(tmp_path / "b.nii", voxels, grid)
        copy = nibabel.load(tmp_path / "b.nii")
        assert np.array_equal(np.asanyarray(copy.dataobj), stored) and np.allclose(copy.affine, affine)


def test_equal_spacings_take_the_last_axis_and_a_single_slice_its_own():
    assert Grid((4, 5, 6), np.eye(4), None).order == (2, 1, 0)
    thin = np.diag([1.0, 1.0, 0.5, 1.0])
    assert Grid((4, 5, 6), thin, None).order == (1, 2, 0)
    assert Grid((4, 5, 1), thin, None).order == (2, 1, 0)
    assert Grid((4, 5), thin, None).order == (2, 1, 0)


@pytest.mark.parametrize("spacing_mm", [0.3125, 0.9375, 1.0, 1.0625])
def test_equal_spacings_stay_equal_in_float32(spacing_mm):
    for seed in range(20):
        affine = np.eye(4, dtype=np.float32)
        affine[:3, :3] = spacing_mm * np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
        assert Grid((6, 6, 6), affine, None).order == (2, 1, 0)


def test_what_belongs_to_an_image_is_read_in_its_order(tmp_path):
    """Of two files at the same place one takes another slice axis by itself: their spacings lie on both sides of what
    counts as equal.
    """
    above, below = np.diag([1, 1, 0.999002, 1]), np.diag([1, 1, 0.998998, 1])
    cube = np.random.default_rng(0).integers(0, 3, (6, 6, 6), dtype=np.uint8)
    first = save(tmp_path / "first.nii.gz", cube.astype(np.int16), above)
    second = save(tmp_path / "second.nii.gz", cube, below)
    grids = [read_volume(path)[1] for path in (first, second)]
    assert [grid.order for grid in grids] == [(2, 1, 0), (1, 2, 0)] and grids[0].same_place(grids[1])
    assert np.array_equal(load_label(second, grids[0], first, 3, ignored=True), cube.transpose(2, 1, 0))
    channels, _ = load_image((first, second))
    assert np.array_equal(channels[0], channels[1])
    assert [row["dice"] for row in score_files(second, first)[0]] == [1, 1]


def test_same_place_is_to_a_twentieth_of_a_voxel():
    def moved(axis, mm):
        affine = OBLIQUE.copy()
        affine[axis, 3] += mm
        return Grid(SHAPE, affine, None)

    grid = Grid(SHAPE, OBLIQUE, None)  # the smallest voxel size is .74 mm
    for axis in range(3):
        assert grid.same_place(moved(axis, 0.036)) and not grid.same_place(moved(axis, -0.038))
    turned = OBLIQUE.copy()
    turned[:3, 0] *= 1.008  # .048 mm along its second axis at the end of twelve voxels
    assert not grid.same_place(Grid(SHAPE, turned, None))
    assert not grid.same_place(Grid(SHAPE[::-1], OBLIQUE, None))


@pytest.mark.parametrize("kind", [".nrrd", ".mha"])
def test_itk_formats_round_trip_and_agree_with_nifti(tmp_path, kind):
    itk = pytest.importorskip("SimpleITK")
    rotation = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation * (0.7, 0.9, 4.0)
    affine[:3, 3] = (10, -20, 30)
    voxels, grid = read_volume(save(tmp_path / "a.nii.gz", image(3), affine))
    write_volume(tmp_path / f"a{kind}", voxels, grid)
    oracle = itk.ReadImage(str(tmp_path / "a.nii.gz"))  # ITK's own reading of the same NIfTI
    file = itk.ReadImage(str(tmp_path / f"a{kind}"))
    for one, other in (
        (file.GetSpacing(), oracle.GetSpacing()),
        (file.GetOrigin(), oracle.GetOrigin()),
        (file.GetDirection(), oracle.GetDirection()),
    ):
        assert one == pytest.approx(other, abs=1e-5)
    again, place = read_volume(tmp_path / f"a{kind}")
    assert np.array_equal(again, voxels) and place.same_place(grid)
    write_volume(tmp_path / f"b{kind}", again, place)
    copy = itk.ReadImage(str(tmp_path / f"b{kind}"))
    for one, other in (
        (copy.GetSpacing(), file.GetSpacing()),
        (copy.GetOrigin(), file.GetOrigin()),
        (copy.GetDirection(), file.GetDirection()),
    ):
        assert one == pytest.approx(other, abs=1e-12)
    assert np.array_equal(itk.GetArrayFromImage(copy), itk.GetArrayFromImage(oracle))


def test_real_oblique_scan_round_trips(shared_data, tmp_path):
    path = shared_data / "MSCMR_dataset" / "val" / "images" / "subject41_DE.nii.gz"
    voxels, grid = read_volume(path)
    assert grid.spacing_mm == pytest.approx((5, 0.75, 0.75), abs=1e-4) and voxels.shape == (15, 400, 400)
    write_volume(tmp_path / "copy.nii.gz", voxels, grid)
    one, other = nibabel.load(path), nibabel.load(tmp_path / "copy.nii.gz")
    assert np.array_equal(one.dataobj, other.dataobj) and np.array_equal(one.affine, other.affine)
    assert other.get_data_dtype() == one.get_data_dtype()


# --- volumes that cannot be used


def test_volume_errors_name_the_file(tmp_path):
    def fails(path, words, read=read_image):
        with pytest.raises(InputError, match=words) as error:
            read(path)
        assert path.name in str(error.value)

    fails(tmp_path / "none.nii.gz", "no such file")
    fails(tmp_path / "scan.jpg", "not a volume")
    whole = save(tmp_path / "whole.nii.gz", image(0, (40, 40, 9)))
    for name, content in (("cut.nii.gz", whole.read_bytes()[:5000]), ("text.nii.gz", b"hello"), ("empty.nii.gz", b"")):
        (tmp_path / name).write_bytes(content)
        fails(tmp_path / name, "cannot be read as NIfTI")
    (tmp_path / "cut.nrrd").write_bytes(b"NRRD0004\nnothing")
    fails(tmp_path / "cut.nrrd", "cannot be read")
    fails(
        save(tmp_path / "time.nii.gz", image(0, (6, 5, 4, 3))), r"shape \(6, 5, 4, 3\); expected a 3-D volume. Split it"
    )
    fails(save(tmp_path / "line.nii.gz", image(0, (6,))), r"shape \(6,\); expected a 3-D volume")
    header = bytearray(save(tmp_path / "nothing.nii", image(0)).read_bytes())
    header[44:46] = b"\0\0"  # the second of its sizes
    (tmp_path / "nothing.nii").write_bytes(header)
    fails(tmp_path / "nothing.nii", r"shape \(12, 0, 4\); expected a 3-D volume")
    colours = np.zeros(SHAPE, [(colour, np.uint8) for colour in "RGB"])
    for name, array in (("rgb", colours), ("complex", np.ones(SHAPE, np.complex64))):
        for read in (read_image, read_label):
            fails(
                save(tmp_path / f"{name}.nii.gz", array),
                "has voxels of type .* expected one real number per voxel",
                read,
            )
    for value in (np.nan, np.inf):
        odd = image(0).astype(np.float32)
        odd[1, 2, 3] = value
        fails(save(tmp_path / "odd.nii.gz", odd), "1 of 480 voxels are NaN or infinite")
    fails(save(tmp_path / "half.nii.gz", np.full(SHAPE, 1.5, np.float32)), "label value 1.5", read_label)


@pytest.mark.parametrize("size", [(6, 5), (6, 5, 4)])
def test_colours_in_other_formats_are_no_volume(tmp_path, size):
    itk = pytest.importorskip("SimpleITK")
    for name in ("a.nrrd", "a.mha"):
        itk.WriteImage(itk.Image(size, itk.sitkVectorUInt8, 3), str(tmp_path / name))
        for read in (read_image, read_label):
            with pytest.raises(InputError, match=f"{name}: has 3 numbers in every voxel; expected one"):
                read(tmp_path / name)


def test_a_trailing_axis_of_one_is_a_3d_volume(tmp_path):
    path = save(tmp_path / "a.nii.gz", image(0)[..., None])
    voxels, grid = read_volume(path)
    assert voxels.shape == (4, 10, 12)
    write_volume(tmp_path / "b.nii.gz", voxels, grid)
    assert nibabel.load(tmp_path / "b.nii.gz").shape == (*SHAPE, 1)


# --- a data set


def test_reads_what_was_written(folder):
    dataset = read_dataset(folder)
    assert (dataset.classes, dataset.ignore, dataset.channels, dataset.name) == (
        ("background", "outer", "inner"),
        3,
        ("MR",),
        "tiny",
    )
    assert dataset.patient("case1") == "p0" and dataset.spacing_unit == "mm"
    volume = load_volume(dataset, dataset.case("case0"))
    assert np.array_equal(volume.truth, truth().transpose(2, 1, 0))
    expected = scribble().transpose(2, 1, 0)
    assert (
        np.array_equal(volume.scribble, np.where(expected == 3, UNLABELED, expected))
        and volume.scribble.dtype == np.uint8
    )
    assert np.allclose(volume.image[0], normalise(image(0).astype(np.float32).transpose(2, 1, 0)))
    assert [fold.test for fold in dataset.folds("final")] == [("case2", "case3"), ("case0", "case1")]


def test_normalise_clips_the_brightest_hundredth():
    values = np.arange(1001, dtype=np.float32).reshape(1, 7, 143)
    out = normalise(values)
    assert out.min() == 0 and out.max() == 1 and (out == 1).sum() == 11 and out.flat[495] == pytest.approx(0.5)
    spike = np.zeros((1, 20, 20), np.float32)
    spike[0, 0, 0] = 5
    assert normalise(spike).max() == 1 and normalise(spike).sum() == 1


def test_a_case_without_scribble_is_unlabelled(folder):
    (folder / "labelsTr" / "case0.nii.gz").unlink()
    dataset = read_dataset(folder)
    volume = load_volume(dataset, dataset.case("case0"))
    assert (volume.scribble == UNLABELED).all() and volume.truth is not None


def test_an_nnunet_set_with_two_channels_another_ending_and_no_extras(tmp_path):
    folder = tmp_path / "Dataset007_Own"
    for name in ("left_knee_a", "left_knee_b"):
        for channel in range(2):
            save(folder / "imagesTr" / f"{name}_000{channel}.nii", image(channel))
        save(folder / "labelsTr" / f"{name}.nii", scribble())
    labels = {"background": 0, "a": 1, "b": 2, "ignore": 3}
    description = {"channel_names": {"0": "T1", "1": "T2"}, "labels": labels, "numTraining": 2, "file_ending": ".nii"}
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    dataset = read_dataset(folder)
    assert list(dataset.cases) == ["left_knee_a", "left_knee_b"] and dataset.splits() == []
    volume = load_volume(dataset, dataset.case("left_knee_b"))
    assert volume.image.shape == (2, 4, 10, 12) and volume.truth is None and not np.array_equal(*volume.image)
    (folder / "imagesTr" / "left_knee_b_0001.nii").unlink()
    with pytest.raises(
        InputError,
        match=r"imagesTr: 1 of 2 cases lacks channels: dataset.json names 2 channels \(0000, 0001\). Add "
        r"left_knee_b_0001.nii, or",
    ):
        read_dataset(folder)
    (folder / "imagesTr" / "left_knee_b_0000.nii").rename(folder / "imagesTr" / "left_knee_b_0007.nii")
    with pytest.raises(
        InputError,
        match=r"lacks channels: .* Add left_knee_b_0000.nii, left_knee_b_0001.nii, or .* "
        r"left_knee_b_0007.nii: no such channel",
    ):
        read_dataset(folder)


LABELS = {"background": 0, "outer": 1, "inner": 2}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS, '"ignore": 3'),
        (LABELS | {"ignore": 1, "inner": 3}, "without a gap"),
        ({"background": 0, "outer": 1, "inner": 3, "ignore": 4}, "without a gap"),
        ({"background": 0, "outer": 1, "ignore": 9}, "'ignore' has value 9; it must follow the last class. Write 2"),
        (LABELS | {"ignore": 3, "both": [1, 2]}, "region-based"),
        ({"background": 0, "ignore": 1}, "without a gap"),
    ],
)
def test_label_lists_that_do_not_work(folder, labels, words):
    edit(folder, labels=labels)
    with pytest.raises(InputError, match=words) as error:
        read_dataset(folder)
    assert "dataset.json" in str(error.value)


def test_folders_that_are_no_data_set(folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    none, file = tmp_path / "none", folder / "dataset.json"
    for path, words in ((empty, "has no dataset.json"), (none, "no such folder"), (file, "is a file. A data set is")):
        with pytest.raises(InputError, match=words):
            read_dataset(path)
    (empty / "dataset.json").write_text((folder / "dataset.json").read_text(encoding="utf-8"))
    with pytest.raises(InputError, match="no images"):
        read_dataset(empty)
    edit(folder, file_ending=None)
    with pytest.raises(InputError, match="has no 'file_ending'"):
        read_dataset(folder)
    (folder / "dataset.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match="not readable as JSON"):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"labels": ["background", "outer"]},
            r"'labels' is \['background', 'outer'\]: expected an object; got a list",
        ),
        ({"channel_names": ["MR"]}, r"'channel_names' is \['MR'\]: expected an object; got a list"),
        ({"channel_names": {"0": 1}}, r"'channel_names\[...\]': expected text; got a whole number"),
        ({"file_ending": 7}, "'file_ending' is 7: expected text; got a whole number"),
        ({"file_ending": "nii.gz"}, "'file_ending' is 'nii.gz': expected text that begins with a dot"),
        ({"channel_names": {"1": "LGE"}}, "channel_names has the numbers 1; expected 0, 1, …"),
        (
            {"labels": {"background": 0, "a": 1, "Ignore": 2}},
            "label 'Ignore' is read in lower case only: write .ignore.: 2.",
        ),
        ({"groups": [["case0", "case1"]]}, r"'groups' is \[\['case0', 'case1'\]\]: expected an object; got a list"),
        (
            {"groups": {"case0.nii.gz": "p0"}},
            "groups names no case that has an image .first: 'case0.nii.gz'.; expected case → patient. Known: case0,",
        ),
        (
            {"groups": {"p0": ["case0", "case1"]}},
            r"'groups\[...\]': expected text or a number; got a list",
        ),
        (
            {"groups": {"case0": ["p0"]}},
            r"'groups\[...\]': expected text or a number; got a list",
        ),
        ({"groups": {"case0": True}}, r"'groups\[...\]': expected text or a number; got true or false"),
    ],
)
def test_a_description_of_other_types_is_refused(folder, changes, words):
    edit(folder, **changes)
    with pytest.raises(InputError, match=words) as error:
        read_dataset(folder)
    assert "dataset.json" in str(error.value)


def test_a_description_that_is_no_object(folder):
    (folder / "dataset.json").write_text("[1]", encoding="utf-8")
    for read in (read_dataset, lambda folder: score_files(folder / "labelsTr_dense", folder / "labelsTr_dense")):
        with pytest.raises(InputError, match=r"dataset.json: expected an object; got a list"):
            read(folder)


def test_patients_may_be_numbers(folder):
    edit(folder, groups={"case0": 7, "case1": "7", "case2": 8})
    dataset = read_dataset(folder)
    assert [dataset.patient(case) for case in dataset.cases] == ["7", "7", "8", "case3"]
    edit(folder, groups={"case0": 7, "case2": 7, "case1": "case3"})
    with pytest.raises(InputError, match=r"fold 0 leaks: .* both of patient '7' \(2 such\)"):
        read_dataset(folder).folds("final")


def test_misnamed_image_and_doubled_case(folder):
    save(folder / "imagesTs" / "case0_0000.nii.gz", image(9))
    with pytest.raises(InputError, match="in imagesTr and in imagesTs: case0. A case must be in one"):
        read_dataset(folder)
    save(folder / "imagesTr" / "scan.nii.gz", image(9))
    save(folder / "imagesTr" / "anna_1.nii.gz", image(9))
    with pytest.raises(
        InputError,
        match=r"imagesTr: expected CASE_0000.nii.gz, .* got anna_1.nii.gz, scan.nii.gz. Rename "
        r"anna_1.nii.gz to anna_1_0000.nii.gz. .*: case0. A case",
    ):
        read_dataset(folder)


def test_a_patients_number_is_no_channel(folder):
    for number in (1, 12):
        save(folder / "imagesTr" / f"anna_{number:04d}.nii.gz", image(9))
    with pytest.raises(
        InputError,
        match="anna_0001.nii.gz, anna_0012.nii.gz: no such channel, .*the patient's, rename "
        "anna_0001.nii.gz to anna_0001_0000.nii.gz.$",
    ):
        read_dataset(folder)


def test_labels_that_do_not_fit(folder):
    dataset, path = read_dataset(folder), folder / "labelsTr" / "case0.nii.gz"

    def fails(words):
        with pytest.raises(InputError, match=words) as error:
            load_volume(dataset, dataset.case("case0"))
        assert "case0" in str(error.value)

    save(path, scribble()[:-1])
    fails("has another shape .11 × 10 × 4 and not 12 × 10 × 4. than its image")
    moved = OBLIQUE.copy()
    moved[0, 3] += 1
    save(path, scribble(), moved)
    fails(r"another affine \(largest difference 1\)")
    turned = nibabel.Nifti1Image(scribble(), OBLIQUE).as_reoriented(np.array([[2, 1], [1, -1], [0, -1]]))
    nibabel.save(turned, path)
    fails(
        r"has its axes in another order or direction, over the same voxels \(save it in the same "
        r"orientation, without resampling\), than its image"
    )
    odd = scribble()
    odd[0, 0, 0] = 7
    save(path, odd)
    fails("has value 7; expected 0-2 or 3")
    save(path, scribble().astype(np.int16) - 1)
    fails("has value -1")
    save(path, scribble())
    save(folder / "labelsTr_dense" / "case0.nii.gz", scribble())
    fails("has value 3; expected 0-2\\.")
    save(folder / "imagesTr" / "case0_0000.nii.gz", np.full(SHAPE, 4, np.int16))
    fails("constant image .every voxel is 4")


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(("train", "val", "test"), 2)))
def test_no_two_parts_of_a_fold_share_a_patient(folder, one, other):
    (folder / "splits").mkdir()
    row = {"train": [], "val": [], "test": []} | {one: ["case0"], other: ["case1"]}
    (folder / "splits" / "mine.json").write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(
        InputError, match=f"fold 0 leaks: 'case0' is in {one} and 'case1' in {other}, both of patient 'p0'"
    ):
        read_dataset(folder).folds("mine")


def test_splits_that_leak_or_do_not_exist(folder):
    dataset, path = read_dataset(folder), folder / "splits_final.json"
    path.write_text(json.dumps([{"train": ["case0", "case2"], "val": ["case3"]}]), encoding="utf-8")
    with pytest.raises(InputError, match="fold 0 leaks: 'case2' is in train and 'case3' in test, both of patient 'p1'"):
        dataset.folds("final")
    path.write_text(json.dumps([{"train": ["case0"], "val": ["case22"]}]), encoding="utf-8")
    with pytest.raises(InputError, match="'case22', which has no image. Did you mean 'case2'"):
        dataset.folds("final")
    with pytest.raises(InputError, match="no split 'cv5'"):
        dataset.folds("cv5")
    path.write_text(json.dumps([{"train": ["case0"], "val": ["case2"]}]), encoding="utf-8")
    with pytest.raises(InputError, match="folds 0 to 0; got 1"):
        dataset.fold("final", 1)
