"""`scribbleseg export`: masks of the ONNX file and of the MONAI bundle are those of `predict`."""

import gzip
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

import nibabel
import numpy as np
import pytest
from small import AFFINE, save, small_dataset

import scribbleseg as ss
from scribbleseg.cli import main
from scribbleseg.config import Export, Pack, Predict, Train
from scribbleseg.core.errors import InputError
from scribbleseg.data import preparation
from scribbleseg.data.intensity import KINDS, Intensity, prepare, robust_range
from scribbleseg.data.volume import PLANES, Grid, read_volume
from scribbleseg.inference.predict import predict
from scribbleseg.sharing import standalone
from scribbleseg.sharing.export import export
from scribbleseg.sharing.pack import pack
from scribbleseg.training.train import train

slow = pytest.mark.slow  # the exporter alone takes ten seconds
TURNED = np.array([[0, 0.9, 0.1, -3.0], [3.1, 0, 0.2, 8.0], [0.4, 0.1, 0.8, 5.0], [0, 0, 0, 1]])  # slices lie across x


def trained(folder: Path, channels: int = 1, **more) -> Path:
    data = small_dataset(folder / "data", channels=channels)
    settings = {"iterations": 30, "size": 32, "batch": 4, "lr": 0.05} | more
    return train(Train(data, folder / "run", "fullsup", precision="float32", device="cpu", **settings))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module")
def export_and_words(run, tmp_path_factory) -> tuple[Path, io.StringIO]:
    pytest.importorskip("onnx"), pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    with redirect_stderr(io.StringIO()) as said:
        return export(Export(run, tmp_path_factory.mktemp("exported") / "model")), said


@pytest.fixture(scope="module")
def exported(export_and_words) -> Path:
    return export_and_words[0]


@pytest.fixture(scope="module")
def said(export_and_words) -> io.StringIO:
    return export_and_words[1]


def write_scans(folder: Path, channels: int = 1) -> None:
    """Volumes of other sizes, number types and affines than those of the training."""
    rng = np.random.default_rng(1)
    for index, (shape, affine) in enumerate(
        (((40, 36, 3), AFFINE), ((5, 61, 70), TURNED), ((23, 19, 20), np.diag([2.0, 2, 8, 1])), ((50, 64, 1), AFFINE))
    ):
        for channel in range(channels):
            image = rng.normal(100, 12, shape)
            image[shape[0] // 4 : -2, 6:15] += 70
            image[shape[0] // 3 : -4, 8:12] += 70
            kinds = (np.int16, np.float32, np.uint8, np.int16)
            save(folder / f"scan{index}_{channel:04d}.nii.gz", image.clip(0, 255).astype(kinds[index]), affine)


def segment_alone(exported: Path, images: list[Path], mask: Path) -> None:
    """predict.py in a process that can import neither scribbleseg nor PyTorch."""
    code = (
        "import sys, runpy\n"
        "sys.modules |= dict.fromkeys(('torch', 'scribbleseg', 'scipy'))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    words = [sys.executable, "-c", code, exported / "predict.py", *images, mask]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def same_files(one: Path, other: Path) -> None:
    first, second = nibabel.load(one), nibabel.load(other)
    assert first.shape == second.shape and np.array_equal(first.affine, second.affine)
    assert first.get_data_dtype() == second.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(first.dataobj), np.asarray(second.dataobj)), one.name


@slow
def test_the_script_gives_the_masks_of_predict(run, exported, tmp_path):
    write_scans(tmp_path / "scans")
    masks = predict(Predict(run, tmp_path / "scans", tmp_path / "ours"))
    assert len(masks) == 4 and all(np.asarray(nibabel.load(path).dataobj).any() for path in masks)
    for path in masks:
        scan = tmp_path / "scans" / path.name.replace(".nii", "_0000.nii")
        segment_alone(exported, [scan], tmp_path / path.name)
        same_files(path, tmp_path / path.name)


@slow
def test_what_the_data_decided_is_exported_too(tmp_path):
    """Two channels, robust intensities, cropping, another plane."""
    pytest.importorskip("onnxruntime")
    run = trained(tmp_path, channels=2)
    path = run / "config.json"
    stored = json.loads(path.read_text())
    kinds = [{"kind": "robust", "low": 0, "high": 0}, {"kind": "ct", "low": 60.0, "high": 200.0}]
    stored["plan"]["fitted"] |= {"intensity": kinds, "crop": True, "plane": "coronal"}
    path.write_text(json.dumps(stored))
    folder = export(Export(run, tmp_path / "model"))
    write_scans(tmp_path / "scans", channels=2)
    for path in predict(Predict(run, tmp_path / "scans", tmp_path / "ours"))[:3]:
        scans = [tmp_path / "scans" / path.name.replace(".nii", f"_000{channel}.nii") for channel in (0, 1)]
        segment_alone(folder, scans, tmp_path / path.name)
        same_files(path, tmp_path / path.name)


@slow
def test_an_exported_folder_says_no_place_of_the_machine(run, exported):
    assert sorted(path.name for path in exported.iterdir()) == ["README.md", "model.json", "model.onnx", "predict.py"]
    for path in exported.iterdir():
        content = path.read_bytes().decode("latin-1")
        for private in (str(run.parent), str(Path.home()), str(Path(standalone.__file__).parents[2]), "case.0 a"):
            assert private not in content, (path.name, private)
    import onnx

    model = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(model)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [bool(dim.dim_param) for dim in dims] == [True, False, True, True]
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]


@slow
def test_export_and_pack_say_what_they_do(run, said, tmp_path, capsys):
    pack(Pack(run, tmp_path / "model.zip"))
    packed = [line.partition(": ")[2].partition(" ")[0] for line in capsys.readouterr().err.splitlines()]
    assert packed == ["packing", "writing"]
    lines = said.getvalue().splitlines()
    stages = ("reading the network", "writing its onnx files", "translating the network", "comparing its values")
    found = [stage for line in lines for stage in stages if line.partition(": ")[2].startswith(stage)]
    assert found == list(stages), lines


def test_the_script_is_short():
    text = Path(standalone.__file__).read_text(encoding="utf-8").split('"""', 2)[2]
    assert sum(bool(line.strip()) for line in text.splitlines()) < 95


def test_the_script_reads_files_to_their_end_and_replaces_none(tmp_path, monkeypatch):
    scan, mask = tmp_path / "a.nii.gz", tmp_path / "mask.nii.gz"
    stored = np.random.default_rng(0).integers(0, 256, (64, 64, 20), np.uint8)
    save(scan, stored, AFFINE)
    assert np.array_equal(standalone.load(str(scan))[1], stored)
    content = bytearray(scan.read_bytes())
    content[-6] ^= 1  # in the checksum, which nibabel does not read
    nibabel.load(scan).get_fdata()
    scan.write_bytes(content)
    with pytest.raises(SystemExit, match="a.nii.gz: cannot be read .CRC check failed"):
        standalone.load(str(scan))
    (tmp_path / "model.json").write_text('{"channels": ["MR"]}')
    mask.touch()
    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    with pytest.raises(SystemExit, match="mask.nii.gz: exists already"):
        standalone.predict([str(scan)], str(mask), tmp_path)


@pytest.fixture
def segmented(tmp_path, monkeypatch):
    """What the script does with channels and the name of a mask; a brightness over 100 is its model."""

    class Session:
        def __init__(self, path: Path):
            pass

        def run(self, names, given: dict) -> list[np.ndarray]:
            bright = given["image"][:, :1] > 100
            return [np.concatenate((~bright, bright), 1).astype(np.float32)]

    def segment(scans: list[Path], mask: object) -> None:
        about = {"channels": ["MR"] * len(scans), "plane": "spacing", "crop": False, "locate": False}
        about["intensity"] = [{"kind": "nonorm", "low": 0, "high": 0}] * len(scans)
        (tmp_path / "model.json").write_text(json.dumps(about), encoding="utf-8")
        standalone.predict([str(path) for path in scans], str(mask), tmp_path)

    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    monkeypatch.setattr(sys.modules["onnxruntime"], "InferenceSession", Session, raising=False)
    return segment


def test_the_script_refuses_channels_on_other_grids(segmented, tmp_path):
    image = np.random.default_rng(0).integers(0, 200, (8, 6, 4)).astype(np.uint8)
    one, other, mask = tmp_path / "one.nii.gz", tmp_path / "other.nii.gz", tmp_path / "mask.nii.gz"
    save(one, image, AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] += 50
    for voxels, affine, words in (
        (image, moved, r"other.nii.gz: has \(8, 6, 4\) voxels, up to 50 mm from those of .*one.nii.gz; expected"),
        (image.transpose(1, 0, 2), AFFINE, r"other.nii.gz: has \(6, 8, 4\) voxels, .* expected \(8, 6, 4\) in the"),
    ):
        save(other, voxels, affine)
        with pytest.raises(SystemExit, match=words):
            segmented([one, other], mask)
        assert not mask.exists()
    save(other, image, AFFINE + 1e-5)  # rounded otherwise
    segmented([one, other], mask)
    assert np.array_equal(np.asarray(nibabel.load(mask).dataobj), image > 100)


def test_the_script_says_what_is_wrong_with_a_scan_or_a_mask(segmented, tmp_path, monkeypatch):
    good, mask = tmp_path / "good.nii.gz", tmp_path / "mask.nii.gz"
    save(good, np.full((8, 6, 4), 7, np.int16), AFFINE)
    save(tmp_path / "four.nii.gz", np.zeros((8, 6, 4, 2), np.int16), AFFINE)
    (tmp_path / "cut.nii.gz").write_bytes(good.read_bytes()[:-30])
    (tmp_path / "cut.nii").write_bytes(gzip.decompress(good.read_bytes())[:-30])
    (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress(good.read_bytes()))
    (tmp_path / "folder.nii.gz").mkdir()
    before = sorted(tmp_path.iterdir())
    for name in ("none.nii.gz", "cut.nii.gz", "cut.nii", "plain.nii.gz", "folder.nii.gz", "four.nii.gz"):
        with pytest.raises(SystemExit, match=f"{name}: cannot be read .*Expected a 3-D volume in NIfTI"):
            segmented([tmp_path / name], mask)
    monkeypatch.setattr(standalone, "load", lambda path: pytest.fail("a scan was read"))
    for name in ("o2", "o2.png"):
        with pytest.raises(SystemExit, match=f"{name}: expected a name for the mask that ends in .nii.gz"):
            segmented([good], tmp_path / name)
    with pytest.raises(SystemExit, match="there: is no folder that can be written to"):
        segmented([good], tmp_path / "there" / "mask.nii.gz")
    monkeypatch.undo()
    assert sorted(path for path in tmp_path.iterdir() if path.name != "model.json") == before


def test_the_script_leaves_no_partial_mask(segmented, tmp_path, monkeypatch):
    save(tmp_path / "good.nii.gz", np.full((8, 6, 4), 7, np.int16), AFFINE)

    def full(image, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(nibabel, "save", full)
    with pytest.raises(OSError, match="No space"):
        segmented([tmp_path / "good.nii.gz"], tmp_path / "mask.nii.gz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.nii.gz", "model.json"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_scripts_intensities_are_ours(kind):
    rng = np.random.default_rng(2)
    images = [rng.normal(100, 30, (3, 20, 30)), np.zeros((2, 9, 9)), rng.normal(0, 1, (3, 20, 30))]
    images[1][0, 0, 0] = 5  # almost empty
    images[2][0, 2, 3], images[2][:, :5] = -32768, -9  # a sentinel, and padding
    for image in (array.astype(np.float32) for array in images):
        wanted = prepare(image, Intensity(kind, 20, 90) if kind == "ct" else Intensity(kind))
        assert np.array_equal(standalone.normalised(image, kind, 20, 90), wanted)
        assert standalone.robust_range(image) == robust_range(image)
        box = standalone.content_box([image])
        assert np.array_equal(image[:, *box], image[:, *preparation.content_box([image])])


@pytest.mark.parametrize("plane", PLANES)
def test_the_scripts_slice_axis_is_ours(plane):
    for affine in (AFFINE, TURNED, np.eye(4), np.diag([1, 1, 0.9995, 1])):
        for shape in ((5, 6, 7), (5, 1, 7), (5, 6)):
            grid = Grid(shape, affine, None, plane)
            assert standalone.slice_axis(affine, grid.sizes, plane) == grid.order[0]


def change_plan(run: Path, **changes) -> None:
    path = run / "config.json"
    stored = json.loads(path.read_text())
    stored["plan"] |= changes
    path.write_text(json.dumps(stored))


def test_patches_are_refused_and_nothing_is_written(tmp_path, capsys):
    run = trained(tmp_path, iterations=1)
    stored = json.loads((run / "config.json").read_text())
    change_plan(run, preparation="patches", fitted=stored["plan"]["fitted"] | {"pixel": 1.0})
    before = set(tmp_path.iterdir())
    with pytest.raises(InputError, match="was trained on patches, .*Use `scribbleseg pack`, or --format monai"):
        export(Export(run, tmp_path / "model"))
    assert set(tmp_path.iterdir()) == before
    assert main(["export", str(run), str(run), str(tmp_path / "model")]) == 2  # an ensemble
    assert "Got unexpected extra argument" in capsys.readouterr().err


def test_a_run_on_volumes_is_packed_and_bundled_but_is_no_onnx(tmp_path, capsys):
    pytest.importorskip("monai")
    run = trained(tmp_path, iterations=2, preparation="patches", dims="3")
    with pytest.raises(InputError, match="was trained on volumes"):
        export(Export(run, tmp_path / "model"))
    capsys.readouterr()
    folder = export(Export(run, tmp_path / "bundle", "monai"))
    assert ".partial" not in capsys.readouterr().err
    scan = sorted((tmp_path / "data" / "imagesTr").iterdir())[0]
    voxels, grid = read_volume(scan)
    one, other = (ss.load(model).probabilities(voxels, grid.spacing_mm) for model in (run, folder / "models/model.zip"))
    assert one.shape == (3, *voxels.shape) and np.abs(one - other).max() < 0.01


def test_without_the_packages_the_message_names_them(trained, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(InputError, match=r"needs onnx. Run: pip install 'scribbleseg\[export\]'"):
        export(Export(trained, tmp_path / "model"))
    assert not list(tmp_path.iterdir())


@slow
def test_the_bundle_runs_under_monai(run, tmp_path):
    pytest.importorskip("monai")
    folder = export(Export(run, tmp_path / "bundle", "monai"))
    write_scans(tmp_path / "scans")
    predict(Predict(folder / "models" / "model.zip", tmp_path / "scans", tmp_path / "ours"))
    words = ["--config_file", "configs/inference.json", "--images", "../scans", "--masks", "../theirs"]
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for path in (tmp_path / "ours").glob("*.nii.gz"):
        same_files(path, tmp_path / "theirs" / path.name)
    from monai.bundle import ConfigParser

    metadata = ConfigParser.load_config_file(folder / "configs" / "metadata.json")
    needed = {"version", "monai_version", "pytorch_version", "numpy_version", "task", "network_data_format"}
    assert needed <= metadata.keys() and str(tmp_path) not in json.dumps(metadata)
