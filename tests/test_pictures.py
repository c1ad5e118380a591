"""Data sets of 2-D images: PNG and TIFF, colours as channels, from check to evaluate; 2-D NIfTI."""

import json
import struct
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from scribbleseg import cli
from scribbleseg.config import Check, Evaluate, Predict, Train
from scribbleseg.core.errors import InputError
from scribbleseg.data.case import load_volume, read_channels
from scribbleseg.data.check import check
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import read_components, read_label, read_volume, write_volume
from scribbleseg.evaluation.scores import evaluate
from scribbleseg.inference.predict import predict
from scribbleseg.training.plan import read_plan
from scribbleseg.training.train import train

COLOURS = ("R", "G", "B")


def write(path: Path, pixels: np.ndarray) -> None:
    """[rows, columns] or [rows, columns, colours]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(pixels).save(path)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    else:
        nibabel.save(nibabel.Nifti1Image(pixels.T, np.diag([0.5, 0.5, 1, 1])), path)


def cells(folder: Path, end: str, colours: int) -> Path:
    """Bright cells on a dark ground, pictures of different sizes; classes: background, cell."""
    rng = np.random.default_rng(0)
    names = [f"well_{number:02d}" for number in range(5)]
    for number, name in enumerate(names):
        truth = np.zeros((60 + 4 * number, 50), np.uint8)
        truth[20:35, 15:33] = 1
        image = rng.integers(20, 60, (*truth.shape, max(colours, 1)), dtype=np.uint8)
        image[truth == 1] += 120
        drawn = np.full(truth.shape, 2, np.uint8)
        drawn[27, 17:31], drawn[10, 5:45] = 1, 0
        write(folder / "imagesTr" / f"{name}_0000{end}", image if colours > 1 else image[..., 0])
        write(folder / "labelsTr" / f"{name}{end}", drawn)
        write(folder / "labelsTr_dense" / f"{name}{end}", truth)
    info = {
        "channel_names": {str(number): name for number, name in enumerate(COLOURS[:colours])},
        "labels": {"background": 0, "cell": 1, "ignore": 2},
        "numTraining": 5,
        "file_ending": end,
        "overwrite_image_reader_writer": "NaturalImage2DIO",
    }
    (folder / "dataset.json").write_text(json.dumps(info), encoding="utf-8")
    splits = [{"train": names[:3], "val": names[3:]}]
    (folder / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    return folder


@pytest.mark.parametrize("end, colours", [(".png", 3), (".tif", 1), (".nii.gz", 1)])
def test_from_check_to_evaluate(tmp_path, capsys, end, colours):
    data = cells(tmp_path / "cells", end, colours)
    assert check(Check(data))
    said = capsys.readouterr().out
    assert "slices    5 in all, 1 a case, of 60 to 76 × 50 pixels" in said
    assert ("spacing   none in the files" in said) == (end != ".nii.gz")
    run = train(Train(data, tmp_path / "run", preset="fast", method="pce", iterations=3, size=32, batch=3))
    plan = read_plan(run)[1]
    assert len(plan.fitted.intensity) == colours and plan.fitted.plane == "spacing"
    made = predict(Predict((run,), data, tmp_path / "masks", uncertainty=True))
    maps = end if end != ".png" else ".tif"
    assert {path.name for path in made} == {
        f"well_0{number}{kind}" for number in (3, 4) for kind in (end, f"_entropy{maps}")
    }
    mask = read_label(tmp_path / "masks" / f"well_04{end}")[0]
    assert mask.shape == (1, 76, 50) and set(np.unique(mask)) <= {0, 1}
    rows = evaluate(Evaluate(tmp_path / "masks", data / "labelsTr_dense"))
    assert [row["case"] for row in rows] == ["well_03", "well_04"] and all(row["dice"] >= 0 for row in rows)
    assert rows[0]["unit"] == ("mm" if end == ".nii.gz" else "voxel")


@pytest.mark.parametrize("preparation, exit_code", [("slices", 0), ("patches", 2)])
def test_a_run_on_sized_slices_predicts_pictures_unless_it_counts_in_mm(tmp_path, capsys, preparation, exit_code):
    data, pictures = cells(tmp_path / "cells", ".nii.gz", 1), cells(tmp_path / "pictures", ".png", 1)
    how = {"method": "pce", "iterations": 1, "size": 32, "batch": 3, "preparation": preparation}
    run, scan = train(Train(data, tmp_path / "run", **how)), pictures / "imagesTr" / "well_00_0000.png"
    words = ["predict", str(run), str(scan), str(tmp_path / "mask.png"), "--device", "cpu"]
    assert cli.main(words) == exit_code
    assert ("does not say how large its voxels are" in capsys.readouterr().err) == bool(exit_code)
    if not exit_code:
        assert read_label(tmp_path / "mask.png")[0].shape == (1, 60, 50)


def test_a_mask_comes_back_as_the_picture_it_was_made_of(tmp_path):
    data = cells(tmp_path / "cells", ".png", 3)
    run = train(Train(data, tmp_path / "run", method="pce", iterations=1, size=32, batch=2))
    alone = tmp_path / "slide 12.png"
    alone.write_bytes((data / "imagesTr" / "well_04_0000.png").read_bytes())
    assert cli.main(["predict", str(run), str(alone), str(tmp_path / "mask.png")]) == 0
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.size == (50, 76) and mask.mode == "L"
    write(tmp_path / "grey.png", np.arange(400, dtype=np.uint8).reshape(20, 20))
    with pytest.raises(InputError, match="has 1 channel; expected 3"):
        predict(Predict((run,), tmp_path / "grey.png", tmp_path / "out.png"))


def test_kinds_of_pixels(tmp_path):
    label = np.random.default_rng(0).integers(0, 3, (9, 7)).astype(np.uint8)
    palette = Image.fromarray(label, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_label(tmp_path / "palette.png")[0][0], label), "numbers, not colours"
    Image.fromarray(np.stack([label] * 3, -1)).save(tmp_path / "grey.png")
    assert np.array_equal(read_label(tmp_path / "grey.png")[0][0], label), "three equal colours are grey"
    deep = (label.astype(np.uint16) + 1) * 20000
    for name in ("deep.png", "deep.tif"):
        write(tmp_path / name, deep)
        assert np.array_equal(read_volume(tmp_path / name)[0][0], deep)
    colours = np.random.default_rng(1).integers(0, 255, (9, 7, 4), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "alpha.png")
    parts, grid = read_components(tmp_path / "alpha.png")
    assert len(parts) == 3 and np.array_equal(parts[1][0], colours[..., 1]) and grid.shape == (7, 9)
    tifffile.imwrite(
        tmp_path / "planar.tif", colours[..., :3].transpose(2, 0, 1), photometric="rgb", planarconfig="separate"
    )
    assert np.array_equal(read_components(tmp_path / "planar.tif")[0][2][0], colours[..., 2])
    Image.fromarray(colours[..., :3]).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    assert np.array_equal(read_components(tmp_path / "lzw.tif")[0][0][0], colours[..., 0])
    write_volume(tmp_path / "out.tif", np.full((1, 9, 7), 0.25, np.float32), grid)
    assert tifffile.imread(tmp_path / "out.tif").dtype == np.float32


def test_what_is_no_picture_is_said(tmp_path):
    colours = np.random.default_rng(1).integers(0, 255, (9, 7, 3), dtype=np.uint8)
    write(tmp_path / "colours.png", colours)
    with pytest.raises(InputError, match="has 3 colours; expected one real number"):
        read_label(tmp_path / "colours.png")
    tifffile.imwrite(tmp_path / "pages.tif", np.zeros((5, 9, 7), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="has several pages"):
        read_volume(tmp_path / "pages.tif")
    for name in ("a.png", "a.tif"):
        (tmp_path / name).write_bytes(b"not this")
        with pytest.raises(InputError, match="cannot be read as a picture"):
            read_volume(tmp_path / name)
    whole = (tmp_path / "colours.png").read_bytes()
    (tmp_path / "colours.png").write_bytes(whole[:-40])
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_channels([tmp_path / "colours.png"])


@pytest.mark.parametrize("name", ["a.png", "deflate.tif", "lzw.tif", "raw.tif"])
def test_a_damaged_picture_is_refused(tmp_path, name):
    """Cut anywhere; a PNG and a TIFF with deflate also with one bit of its pixels flipped."""
    rng = np.random.default_rng(0)
    pixels = np.where(rng.random((64, 64)) < 0.2, rng.integers(0, 4, (64, 64)), 3).astype(np.uint8)
    path = tmp_path / name
    packing = {"lzw.tif": "tiff_lzw", "deflate.tif": "tiff_adobe_deflate"}.get(name)
    Image.fromarray(pixels).save(path, compression=packing)
    whole = path.read_bytes()
    read_volume(path)
    for cut in rng.integers(1, len(whole), 15):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="cannot be read as a picture"):
            read_volume(path)
    for bit in rng.integers(0, 8 * len(whole), 200) if name in ("a.png", "deflate.tif") else ():
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        try:
            found = read_volume(path)[0][0]
        except InputError:
            continue
        assert np.array_equal(found, pixels)


def test_a_picture_that_promises_more_than_it_can_hold(tmp_path):
    path = tmp_path / "bomb.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 12_000, 12_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(InputError, match="promises 18000000 bytes of pixels"):
        read_volume(path)
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((16, 16), np.uint8), photometric="minisblack", metadata=None)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    at = content.index(struct.pack("<H", 256)) + 8  # ImageWidth
    content[at : at + 4] = struct.pack("<I", 60_000)
    content[at + 12 : at + 16] = struct.pack("<I", 60_000)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as a picture"):
        read_volume(tmp_path / "a.tif")


def test_no_other_form_is_opened(tmp_path):
    """Pillow gives PostScript to Ghostscript, whatever the name of the file is."""
    Image.fromarray(np.eye(9, dtype=np.uint8)).convert("L").save(tmp_path / "a.eps", format="EPS")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match="cannot identify image file"):
        read_volume(tmp_path / "a.png")


def test_a_missing_colour_is_named(tmp_path, capsys):
    data = cells(tmp_path / "cells", ".png", 3)
    write(data / "imagesTr" / "well_01_0000.png", (np.arange(3200) % 251).astype(np.uint8).reshape(64, 50))
    assert not check(Check(data))
    assert "well_01_0000.png: has 1 channel; expected 3" in capsys.readouterr().out
    one_dark = np.zeros((64, 50, 3), np.uint8)
    one_dark[..., 1] = np.arange(3200).reshape(64, 50) % 251
    write(data / "imagesTr" / "well_01_0000.png", one_dark)
    dataset = read_dataset(data)
    assert load_volume(dataset, dataset.case("well_01")).image.max(axis=(1, 2, 3)).tolist() == [0, 1, 0]
