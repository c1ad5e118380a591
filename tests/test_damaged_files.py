"""Volumes and descriptions that are damaged, or say other things than one expects: named, or read as they are meant."""

import gzip
import json
import shutil
import struct
import time
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from small import AFFINE, save
from tiny import edit, image, scribble, tiny_set, truth

from scribbleseg.cli import main
from scribbleseg.config import Check, Predict
from scribbleseg.core.errors import InputError
from scribbleseg.data import cache
from scribbleseg.data.case import load_volume
from scribbleseg.data.check import check
from scribbleseg.data.layout import read_dataset, survey
from scribbleseg.data.reading import build_slices
from scribbleseg.data.volume import Grid, read_image, read_label, read_volume, write_volume
from scribbleseg.evaluation.scores import score_files
from scribbleseg.inference.predict import predict
from scribbleseg.training.checkpoint import read_checkpoint

SHAPE = (12, 10, 4)
STRAIGHT = np.diag([0.8, 0.9, 5.0, 1.0])


@pytest.fixture
def folder(tmp_path) -> Path:
    return tiny_set(tmp_path / "set")


@pytest.fixture
def said(capsys):
    def run(folder: Path) -> tuple[bool, str]:
        return check(Check(folder)), capsys.readouterr().out

    return run


def itk(array: np.ndarray, path: Path, compressed: bool = True, spacing=(0.8, 0.9, 5.0)) -> Path:
    sitk = pytest.importorskip("SimpleITK")
    file = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    file.SetSpacing(spacing)
    sitk.WriteImage(file, str(path), useCompression=compressed)
    return path


def two_placed(path: Path) -> None:
    """Move the sform of a file away from its qform."""
    file = nibabel.load(path)
    own = nibabel.Nifti1Image(np.asanyarray(file.dataobj).copy(), None)
    moved = file.affine.copy()
    moved[:3, 3] += 30
    own.header.set_qform(file.affine, 1)
    own.header.set_sform(moved, 2)
    path.unlink()
    nibabel.save(own, path)


def patched(path: Path, *changes: tuple[int, str, object]) -> Path:
    """A .nii whose header has other values at these offsets."""
    content = bytearray(path.read_bytes())
    for offset, kind, value in changes:
        struct.pack_into(f"<{kind}", content, offset, value)
    path.write_bytes(content)
    return path


def with_qform(path: Path, affine: np.ndarray, codes: tuple[int, int] = (1, 0)) -> Path:
    """A volume whose place is in its quaternion; codes of qform and sform."""
    file = nibabel.Nifti1Image(image(0), affine)
    file.set_qform(affine, codes[0])
    file.set_sform(None if codes[1] == 0 else affine, codes[1])
    nibabel.save(file, path)
    return path


# --- checksums and lengths


@pytest.mark.parametrize("kind", [".nii.gz", ".nrrd", ".mha"])
def test_a_flipped_bit_never_gives_another_image(tmp_path, kind):
    stored = np.repeat(np.arange(4, dtype=np.uint8), 120).reshape(SHAPE)
    path = tmp_path / f"a{kind}"
    save(path, stored, STRAIGHT) if kind == ".nii.gz" else itk(stored, path)
    whole, (true, _) = path.read_bytes(), read_volume(path)
    start = 0 if kind == ".nii.gz" else whole.index(b"LOCAL\n") + 6 if kind == ".mha" else whole.index(b"\x1f\x8b")
    refused = 0
    for bit in np.random.default_rng(0).choice(np.arange(start * 8, len(whole) * 8), 80, replace=False):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(content)
        try:
            assert np.array_equal(read_volume(path)[0], true), f"bit {bit}"
        except InputError as error:
            refused += 1
            assert str(path) in str(error) and "damaged" in str(error)
    assert refused > 60  # the others lie in entries without meaning, such as the time in gzip's header


def test_the_checksum_at_the_end_of_a_large_file_is_read(tmp_path):
    stored = np.random.default_rng(0).integers(0, 256, (128, 128, 40), np.uint8)
    path = tmp_path / "a.nii.gz"
    save(path, stored)
    whole = path.read_bytes()
    for at in (-8, -4):  # the checksum, the length
        content = bytearray(whole)
        content[at] ^= 1
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read as NIfTI"):
            read_volume(path)


@pytest.mark.parametrize("kind", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("change", ["shorter", "longer"])
def test_a_length_that_is_not_the_headers(tmp_path, kind, change):
    path = tmp_path / f"a{kind}"
    save(path, image(0)) if "nii" in kind else itk(image(0), path, compressed=False)
    content = gzip.decompress(path.read_bytes()) if kind == ".nii.gz" else path.read_bytes()
    content = content[:-7] if change == "shorter" else content + b"rest of another file"
    path.write_bytes(gzip.compress(content) if kind == ".nii.gz" else content)
    with pytest.raises(InputError, match=r"its header promises \d+ bytes.*(has|can hold)"):
        read_volume(path)


def test_zeros_after_the_voxels_do_no_harm(tmp_path):
    save(tmp_path / "a.nii", image(0))
    (tmp_path / "a.nii").write_bytes((tmp_path / "a.nii").read_bytes() + bytes(700))
    assert np.array_equal(read_volume(tmp_path / "a.nii")[0].T, image(0))


def test_a_small_file_that_claims_gigabytes_is_refused_before_they_are_taken(tmp_path):
    save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.uint8))
    header = patched(tmp_path / "a.nii", (42, "h", 1500), (44, "h", 1500), (46, "h", 1500)).read_bytes()
    (tmp_path / "bomb.nii.gz").write_bytes(gzip.compress(header))
    pytest.importorskip("SimpleITK")
    head = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 1500 1500 1500\nencoding: gzip\n\n"
    )
    (tmp_path / "bomb.nrrd").write_bytes(head.encode() + gzip.compress(bytes(100)))
    head = (
        "NDims = 3\nCompressedData = True\nDimSize = 1500 1500 1500\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    (tmp_path / "bomb.mha").write_bytes(head.encode() + zlib.compress(bytes(100)))
    for name in ("bomb.nii.gz", "bomb.nrrd", "bomb.mha"):
        with pytest.raises(InputError, match=rf"{name}: .*promises 33750\d+ bytes.*can hold \d+ at most"):
            read_volume(tmp_path / name)


def test_a_header_that_does_not_fit_its_voxels(tmp_path):
    """MetaIO prints "Uncompress failed" and goes on with voxels of its own."""
    packed, plain = (itk(image(0), tmp_path / f"{name}.mha", name == "a").read_bytes() for name in "ab")
    size = packed[packed.index(b"CompressedDataSize") : packed.index(b"TransformMatrix")]
    changes = [packed.replace(size, new) for new in (b"", b"CompressedDataSize = 10\n", b"CompressedDataSize = 0\n")]
    changes.append(plain.replace(b"ElementDataFile", b"HeaderSize = 5\nElementDataFile"))
    for content in changes:
        (tmp_path / "a.mha").write_bytes(content)
        with pytest.raises(InputError, match="its header does not fit its voxels"):
            read_volume(tmp_path / "a.mha")
    (tmp_path / "a.mha").write_bytes(packed)
    assert np.array_equal(read_volume(tmp_path / "a.mha")[0].T, image(0))


def test_voxels_that_are_text_have_no_length_and_are_refused(tmp_path):
    words = " ".join(map(str, image(0).T.ravel())).encode()
    head = itk(image(0), tmp_path / "a.nrrd", False).read_bytes().split(b"\n\n")[0].replace(b"raw", b"ascii")
    (tmp_path / "a.nrrd").write_bytes(head + b"\n\n" + words + b" 1 2 3")
    content = itk(image(0), tmp_path / "a.mha", False).read_bytes()
    head = content[: content.index(b"LOCAL\n") + 6].replace(b"BinaryData = True", b"BinaryData = False")
    (tmp_path / "a.mha").write_bytes(head + words + b" 1 2 3")
    with pytest.raises(InputError, match="its encoding is 'ascii'; convert it to raw or gzip"):
        read_volume(tmp_path / "a.nrrd")
    with pytest.raises(InputError, match="its voxels are text; convert it to binary"):
        read_volume(tmp_path / "a.mha")


def test_voxels_in_another_file_are_not_followed(tmp_path):
    pytest.importorskip("SimpleITK")
    (tmp_path / "secret").write_bytes(bytes(480))
    head = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 12 10 4\nencoding: raw\ndata file: secret\n\n"
    (tmp_path / "a.nrrd").write_text(head)
    (tmp_path / "a.mha").write_text("NDims = 3\nDimSize = 12 10 4\nElementType = MET_UCHAR\nElementDataFile = secret\n")
    for name in ("a.nrrd", "a.mha"):
        with pytest.raises(InputError, match="its voxels are in another file; convert it to one file"):
            read_volume(tmp_path / name)


def test_a_damaged_checkpoint_is_named(trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    content = bytearray((run / "resume.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "resume.pt").write_bytes(content)
    torch.load(run / "resume.pt", weights_only=True)  # torch itself does not look at the checksums
    with pytest.raises(InputError, match="resume.pt: not a checkpoint"):
        read_checkpoint(run)


def test_a_damaged_cache_is_computed_again(folder, tmp_path):
    dataset = read_dataset(folder)
    volume = load_volume(dataset, dataset.case("case0"))
    for _ in range(2):
        found = cache.cached(tmp_path / "cache", volume, {"a": 1}, lambda: {"x": np.arange(3)})
        assert found["x"].tolist() == [0, 1, 2]
        (file,) = (tmp_path / "cache").iterdir()
        file.write_bytes(file.read_bytes()[:40])


# --- lengths


@pytest.mark.parametrize(("unit", "mm"), [("micron", 0.001), ("meter", 1000.0), ("mm", 1.0), ("unknown", 1.0)])
def test_lengths_are_millimetres_whatever_the_header_counts_in(tmp_path, unit, mm):
    affine = np.diag([0.8 / mm, 0.9 / mm, 5.0 / mm, 1])
    affine[:3, 3] = np.array([10, 20, 30]) / mm
    file = nibabel.Nifti1Image(image(0), affine)
    file.header.set_xyzt_units(unit)
    nibabel.save(file, tmp_path / "a.nii.gz")
    voxels, grid = read_volume(tmp_path / "a.nii.gz")
    assert grid.spacing_mm == pytest.approx((5, 0.9, 0.8)) and grid.affine[:3, 3] == pytest.approx((10, 20, 30))
    write_volume(tmp_path / "b.nii.gz", voxels, grid)
    copy = nibabel.load(tmp_path / "b.nii.gz")
    assert copy.header.get_xyzt_units()[0] == unit and np.allclose(copy.affine, affine, rtol=1e-6)
    pytest.importorskip("SimpleITK")
    write_volume(tmp_path / "c.nrrd", voxels, grid)
    assert read_volume(tmp_path / "c.nrrd")[1].same_place(grid)


def test_distances_are_millimetres_too(tmp_path):
    for part, moved in (("a", 0), ("b", 3)):
        mask = np.zeros((20, 20, 3), np.uint8)
        mask[5 + moved : 10 + moved, 5:10] = 1
        mask[12:15, 12:15] = 2
        file = nibabel.Nifti1Image(mask, np.diag([1000, 1000, 5000, 1]))
        file.header.set_xyzt_units("micron")
        (tmp_path / part).mkdir()
        nibabel.save(file, tmp_path / part / "x.nii.gz")
    rows = score_files(tmp_path / "a", tmp_path / "b", ("one", "two"))[0]
    assert rows[0]["hd95"] == pytest.approx(3) and rows[0]["unit"] == "mm"


def test_a_value_that_no_class_has_makes_no_classes(tmp_path):
    mask = truth().astype(np.int32)
    for part in "ab":
        save(tmp_path / part / "x.nii.gz", mask)
    save(tmp_path / "b" / "x.nii.gz", np.where(mask == 2, 2**30, mask))
    with pytest.raises(InputError, match="has the value 1073741824; expected classes up to 254"):
        score_files(tmp_path / "a", tmp_path / "b")


def test_every_verb_names_a_file_with_two_places(folder, trained, tmp_path, capsys):
    for path in [*(folder / "imagesTr").iterdir(), *(folder / "labelsTr").iterdir()]:
        two_placed(path)
    for path in (folder / "labelsTr_dense").iterdir():
        two_placed(path)
    words = "the header has two places that differ"
    assert check(Check(folder)) and f"case2, case3: {words}" in capsys.readouterr().out
    dataset = read_dataset(folder)
    build_slices(dataset, ("case1", "case0"), lambda volume: ({"label": volume.scribble}, {}), 16)
    assert f"case0, case1: {words}" in capsys.readouterr().err
    assert main(["evaluate", str(folder / "labelsTr_dense"), str(folder / "labelsTr_dense")]) == 0
    assert f"case2, case3: {words}" in capsys.readouterr().err
    image = folder / "imagesTr" / "case0_0000.nii.gz"
    assert main(["predict", str(trained), str(image), str(tmp_path / "mask.nii.gz"), "--device", "cpu"]) == 0
    assert f"case0_0000.nii.gz: {words}" in capsys.readouterr().err
    assert read_volume(tmp_path / "mask.nii.gz")[1].same_place(read_volume(image)[1])


@pytest.mark.parametrize("kind", [".nrrd", ".mha"])
def test_units_of_other_formats(tmp_path, kind):
    path = itk(image(0), tmp_path / f"a{kind}", compressed=False, spacing=(800, 900, 5000))
    content = path.read_bytes()
    if kind == ".nrrd":
        content = content.replace(b"\nendian", b'\nspace units: "um" "um" "um"\nendian', 1)
    else:
        content = content.replace(b"ElementDataFile", b"DistanceUnits = um\nElementDataFile", 1)
    path.write_bytes(content)
    _, grid = read_volume(path)
    assert grid.spacing_mm == pytest.approx((5, 0.9, 0.8))
    write_volume(tmp_path / f"b{kind}", read_volume(path)[0], grid)
    assert read_volume(tmp_path / f"b{kind}")[1].same_place(grid)


def test_spacings_of_nrrd_without_a_space(tmp_path):
    """`spacings` and `units` of each axis, as files without a patient have them."""
    head = "NRRD0004\ntype: short\nendian: little\ndimension: 3\nsizes: 12 10 4\nencoding: raw\n"
    voxels, path = image(0).T.tobytes(), tmp_path / "a.nrrd"
    path.write_bytes(f'{head}spacings: 800 900 5000\nunits: "um" "um" "um"\n\n'.encode() + voxels)
    assert read_volume(path)[1].spacing_mm == pytest.approx((5, 0.9, 0.8))
    path.write_bytes(f"{head}spacings: nan 0.9 5\n\n".encode() + voxels)
    with pytest.raises(InputError, match="its spacings are nan 0.9 5"):
        read_volume(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Offset", "nan 0 0"),
        ("Offset", "0 inf 0"),
        ("Offset", "0 zero 0"),
        ("ElementSpacing", "-1 1 5"),
        ("ElementSpacing", "nan 1 5"),
        ("TransformMatrix", "nan 0 0 0 1 0 0 0 1"),
    ],
)
def test_places_that_are_no_numbers_in_metaimage(tmp_path, key, value):
    """MetaIO reads nan and words as 0, and -1 as 1."""
    path = itk(image(0), tmp_path / "a.mha", False)
    content = path.read_bytes()
    line = next(line for line in content.split(b"\n") if line.startswith(key.encode()))
    path.write_bytes(content.replace(line, f"{key} = {value}".encode()))
    with pytest.raises(InputError, match=f"its {key} is {value}"):
        read_volume(path)


def test_an_axis_without_a_direction_in_nrrd(tmp_path):
    path = itk(image(0), tmp_path / "a.nrrd", False)
    content = path.read_bytes()
    line = next(line for line in content.split(b"\n") if line.startswith(b"space directions"))
    path.write_bytes(content.replace(line, b"space directions: none (0,1,0) (0,0,5)"))
    with pytest.raises(InputError, match="its space directions are none"):
        read_volume(path)


def test_a_spacing_that_is_no_unit_is_refused(folder):
    edit(folder, spacing="voxel")
    with pytest.raises(InputError, match="'spacing' is 'voxel': invalid enum value 'voxel'"):
        read_dataset(folder)


# --- geometry


GEOMETRY = {
    "a row of nan": [(280, "f", np.nan)],
    "a row of 0": [(280, "f", 0), (296, "f", 0), (312, "f", 0)],
    "a row of 1e30": [(280, "f", 1e30)],
    "an infinite place": [(292, "f", np.inf)],
    "a place at 1e30": [(292, "f", 1e30)],
    "two axes of one direction": [
        (280, "f", 0.8),
        (284, "f", 0.8),
        (296, "f", 0),
        (300, "f", 0),
        (312, "f", 0),
        (316, "f", 0),
    ],
}
QUATERNION = {
    "a quaternion of nan": [(256, "f", np.nan)],
    "a quaternion of 1e30": [(260, "f", 1e30)],
    "a spacing of 0": [(88, "f", 0)],
    "a spacing of nan": [(80, "f", np.nan)],
    "a spacing below 0": [(84, "f", -2)],
}


@pytest.mark.parametrize("name", [*GEOMETRY, *QUATERNION])
def test_geometry_that_is_none_is_named_by_every_verb(folder, trained, tmp_path, capsys, said, name):
    edit(folder, file_ending=".nii")
    for part in ("imagesTr", "labelsTr", "labelsTr_dense"):
        for path in list((folder / part).iterdir()):
            (folder / part / path.name.removesuffix(".gz")).write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    broken = folder / "imagesTr" / "case0_0000.nii"
    if name in QUATERNION:
        with_qform(broken, STRAIGHT)
    patched(broken, *(GEOMETRY | QUATERNION)[name])
    usable, text = said(folder)
    assert not usable and f"problem: {broken}: " in text
    commands = [
        ["train", str(folder), str(tmp_path / "run"), "--method", "pce", "--size", "32", "--iterations", "1"],
        ["predict", str(trained), str(broken), str(tmp_path / "out.nii")],
        ["evaluate", str(broken), str(broken)],
    ]
    for words in commands:
        capsys.readouterr()
        assert main(words) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"scribbleseg: {broken}: ") and ("geometry" in last or "cannot be read" in last), last


def test_harmless_differences_pass(tmp_path):
    turned = np.eye(4)
    turned[:3, :3] = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]) * (0.8, 0.8, 5.0)
    path = with_qform(tmp_path / "a.nii", turned)
    true = read_volume(path)[1]
    for length in (1 + 4e-6, 1.0):  # as if the first of its four numbers were 0
        parts = np.array([0, 0, 1.0]) * length
        place = patched(path, *((256 + 4 * i, "f", value) for i, value in enumerate(parts)))
        assert np.isfinite(read_volume(place)[1].affine).all()
    moved = turned.copy()
    moved[0, 3] += 0.8 / 50
    assert true.same_place(Grid(SHAPE, moved, None)) and true.same_place(Grid((*SHAPE, 1), turned, None))
    scaled = nibabel.Nifti1Image(scribble(), STRAIGHT)
    scaled.header.set_slope_inter(1, 0)
    nibabel.save(scaled, tmp_path / "label.nii")
    content = bytearray((tmp_path / "label.nii").read_bytes())
    content[352:] = bytes(value * 51 for value in content[352:])  # 3 = 153 / 51
    (tmp_path / "label.nii").write_bytes(content)
    patched(tmp_path / "label.nii", (112, "f", 1 / 51), (116, "f", 0))
    assert np.array_equal(read_label(tmp_path / "label.nii")[0].T, scribble())


@pytest.mark.parametrize(("slope", "shift"), [(np.inf, 0), (-np.inf, 5), (1, np.inf), (2, np.nan)])
def test_an_infinite_scale_is_refused(tmp_path, slope, shift):
    path = tmp_path / "scan.nii"
    nibabel.save(nibabel.Nifti1Image(scribble(), STRAIGHT), path)
    patched(path, (112, "f", slope), (116, "f", shift))
    words = (
        rf"multiplied by {slope:g}, plus {shift:g} \(scl_slope, scl_inter\); expected finite numbers.*Copy or convert"
    )
    for read in (read_image, read_label):
        with pytest.raises(InputError, match=words):
            read(path)


@pytest.mark.parametrize(("slope", "shift"), [(0, 0), (0, np.inf), (np.nan, np.nan), (1, 0)])
def test_no_scale_is_no_scale(tmp_path, slope, shift):
    path = tmp_path / "scan.nii"
    nibabel.save(nibabel.Nifti1Image(scribble(), STRAIGHT), path)
    patched(path, (112, "f", slope), (116, "f", shift))
    assert np.array_equal(read_label(path)[0].T, scribble())


def test_a_scale_that_makes_one_value_of_all_labels_is_refused(tmp_path):
    path = tmp_path / "label.nii"
    nibabel.save(nibabel.Nifti1Image(scribble(), STRAIGHT), path)
    patched(path, (112, "f", 1e-30), (116, "f", 0))
    with pytest.raises(InputError, match="different label values, .* that all round to 0. Is the scale"):
        read_label(path)


def test_no_advice_loses_strokes_without_saying_so(folder):
    dataset, path = read_dataset(folder), folder / "labelsTr" / "case0.nii.gz"

    def message() -> str:
        with pytest.raises(InputError) as error:
            load_volume(dataset, dataset.case("case0"))
        return str(error.value)

    file = nibabel.Nifti1Image(scribble(), None)
    nibabel.save(file, path)
    file.header["pixdim"][1:4] = (0.75, 0.74, 5)
    content = bytearray(file.to_bytes())
    struct.pack_into("<hh", content, 252, 0, 0)
    path.write_bytes(gzip.compress(content))
    text = message()
    assert "its header says no place of its voxels" in text
    assert "give it the header of case0_0000.nii.gz" in text and "Do not resample it" in text
    # as told: the header of the image, the label's own voxels
    source = nibabel.load(folder / "imagesTr" / "case0_0000.nii.gz")
    told = nibabel.Nifti1Image(np.asarray(nibabel.load(path).dataobj), source.affine, source.header)
    told.set_data_dtype(np.uint8)
    nibabel.save(told, path)
    kept = load_volume(dataset, dataset.case("case0")).scribble
    assert (kept != 255).sum() == (scribble() != 3).sum()
    save(path, scribble()[:-1])
    assert "Resampling can lose strokes" in message()


# --- every file is used or named


@pytest.mark.parametrize("part", ["labelsTr", "labelsTr_dense"])
def test_a_label_that_is_there_and_not_matched_is_a_problem(folder, said, part):
    path = folder / part / "case0.nii.gz"
    for change in ("link", "folder", "case0_0000.nii.gz", "Case0.nii.gz", "case0.seg.nii.gz"):
        kept = path.read_bytes()
        path.unlink()
        if change == "link":
            path.symlink_to("gone")
        elif change == "folder":
            path.mkdir()
        else:
            path.with_name(change).write_bytes(kept)
        faults = survey(folder)[1]
        assert len(faults) == 1 and (
            f"{path}: links to gone, which is gone. Put the label there." in faults[0]
            or f"{path}: is not a file" in faults[0]
            or f"{change}: is not read; the label" in faults[0]
        )
        usable, text = said(folder)
        assert not usable and faults[0] in text
        with pytest.raises(InputError, match="is not a file|which is gone|is not read"):
            read_dataset(folder)
        for found in (path, path.with_name(change)):
            if found.is_dir():
                found.rmdir()
            else:
                found.unlink(missing_ok=True)
        path.write_bytes(kept)
    assert survey(folder)[1] == []


@pytest.mark.parametrize("name", ["imagesTr", "imagesTs", "labelsTr", "labelsTr_dense", "labelsTs", "splits"])
@pytest.mark.parametrize("what", ["link", "file", "case"])
def test_a_part_of_a_data_set_that_is_there_and_not_read_is_a_problem(folder, said, name, what):
    place = folder / name
    if place.exists():
        place.rename(folder / ".kept")
    if what == "link":
        place.symlink_to("nowhere")
    elif what == "file":
        place.touch()
    else:
        (folder / name.upper()).mkdir()
    words = {
        "case": f"{folder / name.upper()}: is not read; expected {name}",
        "file": f"{place}: is no folder",
        "link": f"{place}: links to nowhere, which is gone. Put the folder there",
    }[what]
    assert any(words in fault for fault in survey_faults(folder))
    usable, text = said(folder)
    assert not usable and words in text


def survey_faults(folder: Path) -> list[str]:
    try:
        return survey(folder)[1]
    except InputError as error:
        return [str(error)]


@pytest.mark.parametrize("what", ["link", "folder", "case", "in splits"])
def test_splits_that_cannot_be_read_never_mean_all_cases(folder, tmp_path, what):
    path = folder / "splits_final.json"
    content = path.read_bytes()
    path.unlink()
    if what == "link":
        path.symlink_to("nowhere")
    elif what == "folder":
        path.mkdir()
    elif what == "case":
        (folder / "Splits_Final.json").write_bytes(content)
    else:
        (folder / "splits").mkdir()
        (folder / "splits" / "mine.JSON").write_bytes(content)
    words = ["train", str(folder), str(tmp_path / "run"), "--method", "pce", "--size", "32", "--iterations", "1"]
    assert main(words) == 2 and not (tmp_path / "run").exists()
    with pytest.raises(InputError, match="is no file|which is gone|is not read; expected"):
        read_dataset(folder)


LOOKALIKES = [
    "splits_final.json.txt",
    "splits_final (1).json",
    "split_final.json",
    "splits_final.pkl",
    "splits_final",
    "split/mine.json",
]
LOOKALIKES += ["imagesTr/splits_final.json", "splits/mine.json.txt", "splits/mine.txt", "splits/mine.json~"]
LOOKALIKES += ["splits/acdc/mine.json", "labelsTr/Splits.json"]


@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_looks_like_a_split_and_is_not_read_never_means_all_cases(folder, tmp_path, said, name):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "splits_final.json").rename(folder / name)
    words = ["train", str(folder), str(tmp_path / "run"), "--method", "pce", "--size", "16", "--iterations", "1"]
    assert main(words) == 2 and not (tmp_path / "run").exists()
    usable, text = said(folder)
    assert not usable and "is not read; expected" in text
    shutil.rmtree(folder / name.split("/")[0]) if name.startswith("split") and "/" in name else (folder / name).unlink()
    assert read_dataset(folder).default_split() == "all"


@pytest.mark.parametrize(
    "name", ["splits_final.json.txt", "splits_final (1).json", "splits/final.json.bak", "my_split"]
)
def test_what_looks_like_a_split_beside_one_is_named(folder, said, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("[]", encoding="utf-8")
    (folder / "splits").mkdir(exist_ok=True)
    (folder / "splits" / "final.json").write_bytes((folder / "splits_final.json").read_bytes())
    assert f"{Path(name).name}: not read as a split" in said(folder)[1] and survey(folder)[1] == []


@pytest.mark.parametrize("names", [["a", "b"], ["tuning"], ["a", "b", "tuning"]])
def test_auto_never_means_all_cases_where_there_are_splits(folder, tmp_path, capsys, names):
    (folder / "splits_final.json").unlink()
    (folder / "splits").mkdir()
    for name in names:
        rows = [{"train": ["case0", "case1"], "test": ["case2", "case3"]}]
        (folder / "splits" / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    words = ["train", str(folder), str(tmp_path / "run"), "--method", "pce", "--size", "16", "--iterations", "1"]
    assert main(words) == 2 and not (tmp_path / "run").exists()
    assert f"has the splits {', '.join(names)}, and nothing says which is meant" in capsys.readouterr().err
    assert main([*words, "--split", names[0], "--device", "cpu"]) == 0


def test_a_training_on_all_cases_says_so(folder, tmp_path, capsys):
    (folder / "splits_final.json").unlink()
    words = ["train", str(folder), str(tmp_path / "run"), "--method", "pce", "--size", "16", "--iterations", "1"]
    words += ["--batch", "2"]
    assert main([*words, "--device", "cpu"]) == 0
    err = capsys.readouterr().err
    assert "has no split; training: 4 of 4 cases of imagesTr. --val-share 0.2 sets some aside.\n" in err
    words[2] = str(tmp_path / "held")
    assert main([*words, "--device", "cpu", "--val-share", "0.2"]) == 0
    assert "has no split; training: 2 of 4 cases of imagesTr; validation: 2 (" in capsys.readouterr().err


def test_a_training_says_what_the_split_that_was_found_holds_out(folder, tmp_path, capsys):
    words = ["train", str(folder), str(tmp_path / "run"), "--method", "pce", "--size", "16", "--iterations", "1"]
    words += ["--batch", "2", "--device", "cpu"]
    assert main(words) == 0
    held = "test, never seen: 2 (case2, case3)"
    expected = (
        f"{folder}: split final, fold 0 of 2 (from 0); training: 2 (case0, case1); {held}. --fold chooses another"
    )
    assert expected in capsys.readouterr().err
    (folder / "splits").mkdir()
    rows = [{"train": ["case0", "case1"], "test": []}, {"train": ["case2", "case3"], "val": ["case0"], "test": []}]
    (folder / "splits" / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    words[2] = str(tmp_path / "other")
    assert main([*words, "--fold", "1"]) == 0
    expected = "split a, fold 1 of 2 (from 0); training: 2 (case2, case3); validation: 1 (case0). --fold"
    assert expected in capsys.readouterr().err
    words[2] = str(tmp_path / "named")
    assert main([*words, "--split", "a"]) == 0 and "training: 2" not in capsys.readouterr().err


def test_a_description_of_another_name_is_named(folder):
    (folder / "dataset.json").rename(folder / "dataset.json.txt")
    with pytest.raises(InputError, match=r"has no dataset.json \(it has dataset.json.txt; rename it\?\)"):
        read_dataset(folder)


def test_files_without_a_use_are_named(folder, said):
    for name in ("notes.txt", "who.nii.gz", "case0.nrrd", ".DS_Store"):
        (folder / "labelsTr" / name).touch()
    (folder / "imagesTr" / "case9").mkdir()
    (folder / "splits_final.json.txt").touch()
    text = " ".join(read_dataset(folder).left_out())
    assert "imagesTr: case9: not a volume" in text and "splits_final.json.txt: not read as a split" in text
    assert "notes.txt" in text and "who.nii.gz" in text and "1 .nrrd" in text and ".DS" not in text


# --- dataset.json and splits


def test_nnunets_list_of_files_is_held_against_the_folders(folder):
    listed = {
        f"case{i}": {"images": [f"imagesTr/case{i}_0000.nii.gz"], "label": f"labelsTr/case{i}.nii.gz"} for i in range(4)
    }
    edit(folder, dataset=listed)
    assert len(read_dataset(folder).cases) == 4
    edit(folder, dataset={name: value for name, value in listed.items() if name != "case3"})
    with pytest.raises(InputError, match="'dataset' lists other files than imagesTr and labelsTr hold: case3"):
        read_dataset(folder)
    edit(folder, dataset=listed | {"case3": {"images": ["../elsewhere.nii.gz"]}})
    with pytest.raises(InputError, match="'dataset' lists other files"):
        read_dataset(folder)


def test_keys_that_change_the_meaning_are_refused_and_others_named(folder, said):
    edit(folder, modality={"0": "MR"}, licence="CC", tensorImageSize="3D")
    assert read_dataset(folder).left_out() == []
    edit(folder, colour="red")
    assert "unknown keys are not read: colour" in said(folder)[1]
    edit(folder, channel_names=None)
    with pytest.raises(InputError, match="'modality' is nnU-Net v1's word. Rename it to channel_names"):
        read_dataset(folder)
    edit(folder, channel_names={"0": "MR"}, regions_class_order=[1, 2])
    with pytest.raises(InputError, match="region-based labels are not supported"):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("liver", "Liver"), "the labels 'liver' and 'Liver' have almost one name"),
        (("Background", "liver"), "the labels 'background' and 'Background' have almost one name"),
        (("L\u00e9sion", "le\u0301sion"), "have almost one name"),
        (("liver", "ignore "), "the labels 'ignore ' and 'ignore' have almost one name"),
        (("liver ", "spleen"), "label 'liver ' has blanks around its name"),
        (("liver", "liver left"), ""),
    ],
)
def test_classes_that_people_take_for_one_are_named_and_read(folder, said, names, words):
    edit(folder, labels={"background": 0, names[0]: 1, names[1]: 2, "ignore": 3})
    assert read_dataset(folder).classes == ("background", *names)
    text = said(folder)[1]
    assert words in text and (bool(words) or ("almost one name" not in text and "blanks" not in text))


def test_a_data_set_without_an_ignore_label_has_none_to_confuse(folder, said):
    edit(folder, labels={"background": 0, "liver": 1, "Ignore ": 2})
    assert "almost one name" not in said(folder)[1]


def test_a_byte_order_mark_is_skipped(folder):
    for name in ("dataset.json", "splits_final.json"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    assert len(read_dataset(folder).folds("final")) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"train": [1], "val": ["case1"]}]', r"'\[0\].train\[0\]' is 1: expected text; got a whole number"),
        ('[{"train": null, "val": []}]', r"'\[0\].train' is None: expected a list; got null"),
        ('[{"train": "case0", "val": []}]', r"'\[0\].train' is 'case0': expected a list; got text"),
        ('{"train": []}', "expected a list; got an object"),
        ("[]", "has no fold"),
        ('[{"train": ["case0", "case0"], "val": []}]', "fold 0 names case0 twice"),
        ('[{"train": ["case0"], "train": ["case1"], "val": []}]', "'train' is named twice"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
    ],
)
def test_splits_of_other_types(folder, text, words):
    (folder / "splits_final.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=words) as error:
        read_dataset(folder).folds("final")
    assert "splits_final.json" in str(error.value)


def test_an_oblique_prediction_keeps_its_place_in_micrometres(trained, small, tmp_path):
    scan = nibabel.load(small / "imagesTr" / "case.0 a_0000.nii.gz")
    thousand = np.diag([1000, 1000, 1000, 1])
    file = nibabel.Nifti1Image(np.asarray(scan.dataobj), thousand @ AFFINE)
    file.header.set_xyzt_units("micron")
    nibabel.save(file, tmp_path / "scan.nii.gz")
    (path,) = predict(Predict((trained,), tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", device="cpu"))
    assert np.allclose(nibabel.load(path).affine, thousand @ AFFINE, rtol=1e-5, atol=1e-3)
    pytest.importorskip("SimpleITK")
    (path,) = predict(Predict((trained,), tmp_path / "scan.nii.gz", tmp_path / "mask.nrrd", device="cpu"))
    assert read_image(path)[1].spacing_mm == pytest.approx(read_image(tmp_path / "scan.nii.gz")[1].spacing_mm, rel=1e-3)


def without_size(path: Path) -> Path:
    """Take the voxel size out of the header of an NRRD or MetaImage file."""
    lines = path.read_bytes().split(b"\n")
    keys = (b"space", b"ElementSpacing", b"Offset", b"TransformMatrix", b"AnatomicalOrientation", b"CenterOfRotation")
    kept = [line for line in lines[:20] if not line.startswith(keys)]
    path.write_bytes(b"\n".join([*kept, *lines[20:]]))
    return path


def reformatted(folder: Path, kind: str) -> Path:
    """The data set in another format, with voxels of .8 × .9 × 5 mm."""
    for path in folder.rglob("*.nii.gz"):
        itk(np.asarray(nibabel.load(path).dataobj), path.with_name(path.name.replace(".nii.gz", kind)), False)
        path.unlink()
    edit(folder, file_ending=kind)
    return folder


@pytest.mark.parametrize("kind", [".nrrd", ".mha"])
def test_a_volume_without_a_voxel_size_never_counts_in_mm(folder, tmp_path, capsys, said, kind):
    words = "does not say how large its voxels are; expected lengths in mm"
    short = ["--method", "pce", "--size", "16", "--iterations", "1", "--device", "cpu"]
    run, bare_run = tmp_path / "run", tmp_path / "bare"
    assert main(["train", str(reformatted(folder, kind)), str(run), *short]) == 0
    for path in folder.rglob(f"*{kind}"):
        without_size(path)
    scan, out = folder / "imagesTr" / f"case0_0000{kind}", tmp_path / f"out{kind}"
    assert read_volume(scan)[1].unit == "voxels" and np.array_equal(read_volume(scan)[0].T, image(0))
    usable, text = said(folder)
    assert not usable and f"case0_0000{kind}: {words}" in text and "spacing   none in the files of 4 of 4" in text
    for verb in (
        ["train", folder, tmp_path / "new", *short],
        ["predict", run, scan, out, "--device", "cpu"],
        ["simulate", folder, "--overwrite"],
        ["import", "folders", scan.parent, folder / "labelsTr", tmp_path / "imported", "--class", "outer=1"],
    ):
        capsys.readouterr()
        assert main([str(word) for word in verb]) == 2
        told = capsys.readouterr().err
        assert words in told and ("lay the folders out as docs/data.md says" in told) == (verb[0] == "import"), told
    assert not out.exists() and not (tmp_path / "new").exists() and not (tmp_path / "imported").exists()
    assert main(["evaluate", str(folder / "labelsTr_dense"), str(folder / "labelsTr_dense")]) == 0
    assert "voxel" in capsys.readouterr().out
    edit(folder, spacing="voxels")
    assert said(folder)[0] and main(["train", str(folder), str(bare_run), *short]) == 0
    assert main(["predict", str(bare_run), str(scan), str(out), "--device", "cpu"]) == 0


def test_time_is_no_axis_of_a_volume(tmp_path):
    head = "NRRD0004\ntype: short\nendian: little\ndimension: 3\nsizes: 12 10 4\nencoding: raw\nspacings: 1 1 1\n"
    (tmp_path / "a.nrrd").write_bytes(f"{head}kinds: domain domain time\n\n".encode() + image(0).T.tobytes())
    with pytest.raises(InputError, match="one of its axes is time; split it"):
        read_volume(tmp_path / "a.nrrd")


def test_a_size_that_is_negative_is_no_size(tmp_path):
    """SimpleITK takes the sign away."""
    head = "NRRD0004\ntype: short\nendian: little\ndimension: 3\nsizes: 12 10 4\nencoding: raw\n"
    (tmp_path / "a.nrrd").write_bytes(f"{head}spacings: -2 0.9 5\n\n".encode() + image(0).T.tobytes())
    head = "ObjectType = Image\nNDims = 3\nDimSize = 12 10 4\nElementType = MET_SHORT\n"
    (tmp_path / "a.mha").write_bytes(
        f"{head}ElementSize = -2 0.9 5\nElementDataFile = LOCAL\n".encode() + image(0).T.tobytes()
    )
    for name, words in (("a.nrrd", "spacings are -2"), ("a.mha", "ElementSize is -2")):
        with pytest.raises(InputError, match=words):
            read_volume(tmp_path / name)
    content = (tmp_path / "a.mha").read_bytes()
    (tmp_path / "a.mha").write_bytes(content.replace(b"-2", b"0.8"))
    assert read_volume(tmp_path / "a.mha")[1].spacing_mm == pytest.approx((5, 0.9, 0.8))


def test_voxels_of_masks_that_lost_their_place_have_the_size_of_the_truth(tmp_path, capsys):
    for part, moved, affine in (("a", 0, np.eye(4)), ("b", 3, STRAIGHT)):
        mask = np.zeros((20, 20, 3), np.uint8)
        mask[5 + moved : 10 + moved, 5:10] = 1
        save(tmp_path / part / "x.nii.gz", mask, affine)
    rows = score_files(tmp_path / "a", tmp_path / "b", ("one",), same_voxels=True)[0]
    assert rows[0]["hd95"] == pytest.approx(3 * 0.8) and rows[0]["unit"] == "mm"
    assert "with voxels of 5 × 0.9 × 0.8 mm as in the second" in capsys.readouterr().err


# --- what is nearly right


@pytest.mark.parametrize(
    "name",
    ["labelsTr/sub/case0.nii.gz", "labelsTr/case0.nii", "labelsTr/case0 .nii.gz"]
    + [
        "labelsTr/case0 (1).nii.gz",
        "labelsTr/copy of case0.nii.gz",
        "labelsTr/case0.nii.gz.part",
        "labelsTr/case0",
        "labelsTr/case0-scribbles-v2.nii.gz",
        "labelsTr/case0.seg.nrrd",
    ],
)
def test_a_label_of_nearly_the_right_name_is_a_problem(folder, said, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / "labelsTr" / "case0.nii.gz").rename(folder / name)
    usable, text = said(folder)
    assert not usable and f"{folder / name}: is not read; the label of case0 is labelsTr/case0.nii.gz" in text
    shutil.copy(folder / name, folder / "labelsTr" / "case0.nii.gz")
    assert said(folder)[0], "beside the label it does no harm"


def test_many_labels_without_images_are_read_in_seconds(folder):
    for number in range(3000):
        (folder / "imagesTr" / f"case{number}_0000.nii.gz").touch()
        (folder / "labelsTr" / f"other {number}.nii.gz").touch()
    (folder / "labelsTr" / "copy of case12 (2).nii.gz").touch()
    began = time.process_time()
    (fault,) = survey(folder)[1]
    assert time.process_time() - began < 5 and "the label of case12 is labelsTr/case12.nii.gz" in fault


def test_accents_that_look_alike_are_a_problem(folder, said):
    names = {"imagesTr/case0_0000": "caf\u00e9_0000", "labelsTr/case0": "cafe\u0301"}
    for old, new in names.items():
        path = folder / f"{old}.nii.gz"
        path.rename(path.with_name(f"{new}.nii.gz"))
    assert any("cafe\u0301.nii.gz: is not read; the label of caf\u00e9" in fault for fault in survey_faults(folder))


@pytest.mark.parametrize("name", ["labelTr", "labels_Tr", "labelsTr ", "labels"])
def test_a_folder_of_nearly_the_right_name_is_a_problem(folder, said, name):
    shutil.copytree(folder / "labelsTr", folder / name)
    usable, text = said(folder)
    assert usable and f"{name}: no folder of a data set, and not read" in text
    shutil.rmtree(folder / "labelsTr")
    usable, text = said(folder)
    assert not usable and f"{folder / name}: is not read; is labelsTr meant?" in text


@pytest.mark.parametrize("name", ["labelsTr_dens", "labelTr_dense"])
def test_masks_in_a_misspelt_folder_are_a_problem(folder, said, name):
    (folder / "labelsTr_dense").rename(folder / name)
    usable, text = said(folder)
    assert not usable and f"{folder / name}: is not read; is labelsTr_dense meant?" in text


def test_folders_of_other_names_do_no_harm(folder, said):
    shutil.rmtree(folder / "labelsTr_dense")
    for part in ("labelsTr_seg", "labelsTr_test", "labelsTr_done", "labelsTr_new", "labelsTr_dense_old", "split"):
        (folder / part).mkdir()
    usable, text = said(folder)
    assert usable and "split: not read as a split" in text


def test_files_about_splits_do_no_harm(folder):
    (folder / "splits_final.json").unlink()
    for name in ("make_splits.py", "split_notes.md", "train_test_split.csv", "split.py"):
        (folder / name).touch()
    assert read_dataset(folder).default_split() == "all"


@pytest.mark.parametrize(
    ("key", "meant"),
    [("group", "groups"), ("Plane", "plane"), ("channel_name", "channel_names"), ("Spacing", "spacing")],
)
def test_a_key_of_nearly_the_right_name_is_refused(folder, key, meant):
    value = {"Plane": "axial", "Spacing": "voxels"}.get(key, {"0": "MR"})
    edit(folder, **{meant: None, key: value})
    with pytest.raises(InputError, match=f"'{key}' is no key that is read; is {meant} meant"):
        read_dataset(folder)


def test_folds_in_the_description_are_refused_where_there_is_no_split(folder):
    edit(folder, splits=[{"train": ["case0"], "val": ["case1"]}])
    assert "splits" in read_dataset(folder).unknown_keys
    (folder / "splits_final.json").unlink()
    with pytest.raises(InputError, match="'splits' is no key that is read; expected splits_final.json"):
        read_dataset(folder)


def test_keys_that_change_no_meaning_are_named(folder, said):
    edit(folder, numTraining=None, name=None, num_training=4, names=["a"], spacings=[1, 1, 5], datasets=[], split="a")
    usable, text = said(folder)
    named = "datasets (is dataset meant?), names (is name meant?), num_training (is numTraining meant?), "
    assert usable and f"unknown keys are not read: {named}spacings (is spacing meant?), split." in text


def test_channels_come_by_their_number(folder):
    for path in list((folder / "imagesTr").iterdir()):
        shutil.copy(path, path.with_name(path.name.replace("_0000", "_0001")))
    edit(folder, channel_names={"1": "CT", "0": "MR"})
    assert read_dataset(folder).channels == ("MR", "CT")


def test_one_patient_is_one_patient_however_it_is_written(folder):
    edit(folder, groups={"case0": "p0", "case1": " p0 ", "case2": 1, "case3": 1.0})
    dataset = read_dataset(folder)
    assert dataset.patient("case0") == dataset.patient("case1") and dataset.patient("case2") == dataset.patient("case3")


def test_what_a_split_says_beyond_what_is_read_is_refused(folder, said):
    path = folder / "splits_final.json"
    path.write_text('[{"train": ["case0"], "val": ["case2"], "test": ["case3"]}]', encoding="utf-8")
    with pytest.raises(InputError, match="unknown field `test`"):
        read_dataset(folder).folds("final")
    path.write_text('[{"train": ["case0", "case1"], "val": ["case2"]}]', encoding="utf-8")
    assert "split final: case3: in no fold, neither trained on nor tested" in said(folder)[1]
    (folder / "imagesTs").mkdir()
    shutil.copy(folder / "imagesTr" / "case0_0000.nii.gz", folder / "imagesTs" / "held_0000.nii.gz")
    path.write_text('[{"train": ["case0", "held"], "val": ["case2"]}]', encoding="utf-8")
    with pytest.raises(InputError, match="fold 0 trains on held, and cases of imagesTs have no scribbles"):
        read_dataset(folder).folds("final")


@pytest.mark.parametrize("part", ["imagesTr/case0_0000", "labelsTr/case0", "labelsTr_dense/case0"])
def test_the_import_of_a_data_set_copies_no_damaged_file(folder, tmp_path, capsys, part):
    path = folder / f"{part}.nii.gz"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert main(["import", "dataset", str(folder), str(tmp_path / "copy")]) == 2 and not (tmp_path / "copy").exists()
    assert f"{path}: cannot be read as NIfTI (CRC check failed" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["ElementSpacing = 2 2 2", "Position = 9 0 0", "Rotation = 0 1 0 1 0 0 0 0 1"])
def test_a_metaimage_header_that_says_two_things(tmp_path, line):
    path = itk(image(0), tmp_path / "a.mha", False)
    path.write_bytes(path.read_bytes().replace(b"ElementDataFile", line.encode() + b"\nElementDataFile", 1))
    with pytest.raises(InputError, match="two things of ElementSpacing|and .* differ"):
        read_volume(path)
