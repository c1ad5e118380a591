"""Bad inputs at fixed seeds: every verb ends with 0, 1 or 2 and a message, and changes nothing that it was given.

The first fifth of the inputs are in the quick tests, the others in the slow ones.
SCRIBBLESEG_FUZZ=10 makes each of these ten times as long, SCRIBBLESEG_FUZZ=4:10 leaves out the first four times, which
were done before; docs/reliability.md has the figures of a long run.
"""

import json
import os
import re
import shutil
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from small import small_dataset
from test_folders import itk, write_series
from test_train import same_weights, settings
from tiny import image, save, scribble, truth

from scribbleseg.cli import main
from scribbleseg.core.errors import InputError
from scribbleseg.core.json_file import read_lines
from scribbleseg.data.volume import read_volume, write_volume
from scribbleseg.draw.draw import open_session
from scribbleseg.reporting.collect import collect, open_run
from scribbleseg.training.checkpoint import read_checkpoint
from scribbleseg.training.train import resume, train

pytestmark = pytest.mark.usefixtures("no_step_is_timed")
AFTER, TIMES = map(float, ("0:" + os.environ.get("SCRIBBLESEG_FUZZ", "1")).split(":")[-2:])
FIRST = 0.2  # of the inputs are in the quick tests
ODD = [None, True, -1, 0, 1, 2**70, 0.5, 1e308, float("nan"), "", "x", "<b>", "\0", "é", "../..", [], [None], [[1]], {}]
ODD += [{"a": 1}, {"": ""}, "a" * 300, "\ud800", "\x1b[2J"]
WORDS = [
    "",
    " ",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e999",
    "x",
    "9" * 30,
    "a\nb",
    "caf\udce9",
    "λ→",
    "../..",
    "--",
    "-",
]
WORDS += [".", "/", "/dev/null", "a=b", "=", "monai:x", "os:system", "cuda:99", "'", "$(x)", "0x10", "1_000", "٣"]
SHORT = ["--method", "pce", "--size", "32", "--iterations", "1", "--batch", "2", "--device", "cpu"]


@pytest.fixture(params=[(0.0, FIRST), pytest.param((FIRST, 1.0), marks=pytest.mark.slow)], ids=["first", "rest"])
def part(request) -> tuple[float, float]:
    """From where to where in the inputs this test goes."""
    return request.param


def inputs(count: int, part: tuple[float, float] = (0.0, 1.0)) -> Iterator[tuple[int, np.random.Generator]]:
    """The numbers of the inputs and a generator of random numbers for each, the same in every run of the tests."""
    start, stop = count * AFTER, max(count * AFTER + 1, count * TIMES)
    first, last = (round(start + share * (stop - start)) for share in part)
    for number in range(first, last):
        yield number, np.random.default_rng(number)


def tree(*folders: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


class Found:
    """Inputs that ended otherwise than with a message."""

    def __init__(self) -> None:
        self.count, self.wrong = 0, []

    def call(self, what: object, *words: object) -> int | None:
        return self.run(what, lambda: main([str(word) for word in words]))

    def run(self, what: object, function: Callable[[], object]) -> object:
        self.count += 1
        try:
            code = function()
        except InputError:
            return 2
        except BaseException:
            self.wrong.append(f"{what}: {traceback.format_exc(limit=-4)}")
            return None
        if isinstance(code, int) and code not in (0, 1, 2):
            self.wrong.append(f"{what}: exit code {code}")
        return code

    def check(self) -> None:
        print(f"{self.count} inputs, {len(self.wrong)} wrong")
        assert not self.wrong, f"{len(self.wrong)} of {self.count}\n" + "\n".join(self.wrong[:4])


def changed(content: object, rng: np.random.Generator) -> object:
    """The JSON content with another value, or without one, at a random place."""
    content = json.loads(json.dumps(content))
    places: list[tuple[object, object]] = []

    def visit(node: object) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            places.append((node, key))
            visit(node[key])

    visit(content)
    if not places or rng.random() < 0.03:
        return ODD[rng.integers(len(ODD))]
    node, key = places[rng.integers(len(places))]
    if rng.random() < 0.2:
        del node[key]
    elif rng.random() < 0.2 and isinstance(node, dict):
        node[str(ODD[rng.integers(len(ODD))])] = node.pop(key)
    else:
        node[key] = ODD[rng.integers(len(ODD))]
    return content


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with bits flipped, a part missing, doubled or replaced."""
    data, kind = bytearray(content), rng.integers(5)
    start, length = int(rng.integers(len(data))), int(rng.integers(1, 64))
    if kind == 0:
        for at in rng.integers(len(data), size=rng.integers(1, 4)):
            data[at] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        del data[start:]
    elif kind == 2:
        del data[start : start + length]
    elif kind == 3:
        data[start:start] = data[start : start + length]
    else:
        data[start : start + length] = rng.bytes(length)
    return bytes(data)


@pytest.fixture
def data(tmp_path) -> Path:
    folder = small_dataset(tmp_path / "data", cases=3, shape=(34, 32, 2))
    info = json.loads((folder / "dataset.json").read_text(encoding="utf-8")) | {"file_ending": ".nii"}
    (folder / "dataset.json").write_text(json.dumps(info | {"groups": {"case.0 a": "p"}}), encoding="utf-8")
    for part in ("imagesTr", "labelsTr", "labelsTr_dense"):
        for path in list((folder / part).iterdir()):
            nibabel.save(nibabel.load(path), path.with_suffix(""))
            path.unlink()
    return folder


@pytest.fixture
def run(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


FIELDS = [(0, "i"), (40, "h"), (42, "h"), (44, "h"), (46, "h"), (48, "h"), (70, "h"), (72, "h"), (76, "f"), (80, "f")]
FIELDS += [(84, "f"), (88, "f"), (108, "f"), (112, "f"), (116, "f"), (123, "b"), (252, "h"), (254, "h"), (256, "f")]
FIELDS += [(260, "f"), (264, "f"), (268, "f"), (272, "f"), (280, "f"), (292, "f"), (300, "f"), (320, "f"), (344, "i")]
NUMBERS = [0, 1, -1, 2, 3, 16, 64, 512, 32767, -32768, 1e-30, 1e30, float("nan"), float("inf"), 0.5, 4e-6]


def header(content: bytes, rng: np.random.Generator) -> bytes:
    """A NIfTI file with other values in up to three fields of its header, or with other bytes there."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.3:
            data[int(rng.integers(348))] = int(rng.integers(256))
            continue
        offset, kind = FIELDS[rng.integers(len(FIELDS))]
        value = NUMBERS[rng.integers(len(NUMBERS))]
        if kind != "f":
            value = int(np.clip(np.nan_to_num(value), -128 if kind == "b" else -32768, 127 if kind == "b" else 32767))
        struct.pack_into(f"<{kind}", data, offset, value)
    return bytes(data)


def test_headers(data, run, tmp_path, capsys, part):
    found = Found()
    paths = [data / "imagesTr" / "case.2 a_0000.nii", data / "labelsTr" / "case.0 a.nii"]
    paths += [data / "labelsTr_dense" / "case.2 a.nii"]
    before = tree(data, run)
    for number, rng in inputs(120, part):
        path = paths[number % 3]
        whole = path.read_bytes()
        path.write_bytes(header(whole, rng))
        found.call((number, path.name, "check"), "check", data)
        if number % 3 == 0:
            found.call(
                (number, "predict"), "predict", run, path, tmp_path / "out.nii", "--overwrite", "--device", "cpu"
            )
        elif number % 3 == 2:
            found.call((number, "evaluate"), "evaluate", data / "labelsTr_dense", data / "labelsTr_dense")
        if number % 20 == 0:
            found.call((number, "train"), "train", data, tmp_path / f"new{number}", *SHORT)
        path.write_bytes(whole)
    assert tree(data, run).keys() >= before.keys() and all(tree(data, run)[name] == before[name] for name in before)
    found.check()


@pytest.mark.parametrize("kind", [".nii.gz", ".nrrd", ".mha", ".png", ".tif", "deflate.tif"])
def test_bytes_of_volumes(data, run, tmp_path, capsys, kind, part):
    """What has a checksum is refused, or has the voxels that it had."""
    found, (voxels, grid) = Found(), read_volume(data / "labelsTr_dense" / "case.0 a.nii")
    path, truth = tmp_path / f"mask{kind}", tmp_path / f"truth{kind}"
    if kind.endswith((".png", ".tif")):
        packing = "tiff_adobe_deflate" if kind == "deflate.tif" else None
        Image.fromarray(voxels[0]).save(path, compression=packing)
    else:
        write_volume(path, voxels, grid)
    whole, true = path.read_bytes(), read_volume(path)[0]
    truth.write_bytes(whole)
    for number, rng in inputs(60, part):
        path.write_bytes(damaged(whole, rng))
        code = found.call((number, kind), "evaluate", path, truth)
        if code == 0 and not kind.endswith(".tif"):
            now = read_volume(path)[0]
            assert now.shape != true.shape or now.dtype != true.dtype or np.array_equal(now, true), number
    found.check()


@pytest.mark.parametrize("kind", ["series", "segments", "hdf5", "nci-isbi"])
def test_bytes_of_imports(tmp_path, capsys, kind, part):
    pytest.importorskip("SimpleITK")
    src, dst, voxels = tmp_path / "src", tmp_path / "dst", image(0)
    words = ["import", "folders", src / "images", src / "labels", dst, "--class", "a=1", "--class", "background=0"]
    if kind == "series":
        write_series(src / "images" / "anna", voxels, [10, 12.5, 15, 17.5])
        (src / "labels").mkdir()
        affine = np.array([[-0.8, 0, 0, -5], [0, -0.7, 0, -6], [0, 0, 2.5, 10], [0, 0, 0, 1]])
        save(src / "labels" / "anna.nii.gz", (scribble() == 1).astype(np.uint8), affine)
        path = src / "images" / "anna" / "7.dcm"
    elif kind == "segments":
        save(src / "images" / "anna.nii.gz", voxels, np.eye(4))
        (src / "labels").mkdir()
        path = src / "labels" / "anna.seg.nrrd"
        layer = itk.GetImageFromArray(np.ascontiguousarray((scribble() == 1).astype(np.uint8).T))
        layer.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
        for key, value in {"Name": "a", "LabelValue": "1", "Layer": "0", "ID": "Segment_1"}.items():
            layer.SetMetaData(f"Segment0_{key}", value)
        itk.WriteImage(layer, str(path), useCompression=True)
    elif kind == "hdf5":
        h5py = pytest.importorskip("h5py")
        src.mkdir()
        path = src / "patient007_frame01.h5"
        rng = np.random.default_rng(0)
        with h5py.File(path, "w") as file:
            for name, top in (("image", 99), ("label", 4), ("scribble", 5)):
                file.create_dataset(name, data=rng.integers(0, top, (3, 9, 7), np.uint8), compression="gzip")
        words = ["import", "wsl4mis", src, dst]
    else:
        write_series(
            src / "Prostate3T-01-0001", voxels, [10, 12.5, 15, 17.5], {"0010|0020": lambda _: "Prostate3T-01-0001"}
        )
        path = src / "Prostate3T-01-0001.nrrd"
        mask = itk.GetImageFromArray(np.ascontiguousarray(truth().T))
        mask.SetSpacing((0.8, 0.7, 2.5))
        mask.SetOrigin((5, 6, 10))
        itk.WriteImage(mask, str(path), useCompression=True)
        words = ["import", "nci-isbi", src, dst]
    found, whole = Found(), path.read_bytes()
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    shutil.rmtree(dst)
    for number, rng in inputs(15, part):
        path.write_bytes(damaged(whole, rng))
        code = found.call((number, kind), *words)
        assert dst.exists() == (code == 0) and not list(tmp_path.glob(".partial-*"))
        shutil.rmtree(dst, ignore_errors=True)
    found.check()


def test_bytes_of_a_packed_model(data, run, tmp_path, capsys, part):
    found, model = Found(), tmp_path / "model.zip"
    assert main(["pack", str(run), str(model)]) == 0
    whole, ends = model.read_bytes(), 6000
    for number, rng in inputs(40, part):
        head = rng.random() < 0.5  # else the settings and the list of files at the end
        end = damaged(whole[:ends] if head else whole[-ends:], rng)
        model.write_bytes(end + whole[ends:] if head else whole[:-ends] + end)
        source = data / "imagesTr" / "case.0 a_0000.nii"
        found.call((number, head), "predict", model, source, tmp_path / "x.nii", "--overwrite", "--device", "cpu")
    found.check()


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["plan.toml", "runs.csv", "folds.csv", "scores.csv", "curves.csv"])
def test_values_of_a_bench(tmp_path, capsys, name, part):
    pd = pytest.importorskip("pandas")
    plan, budget = tmp_path / "plans" / "plan.toml", tmp_path / "results" / "quick"
    for folder in (plan.parent, budget):
        folder.mkdir(parents=True)
    plan.write_text(
        '[[data]]\nfolder = "acdc"\nsplit = "cv5"\nfolds = [0]\n\n[[row]]\nmethod = "pce"\n\n[[row]]\nmethod = "scn"\n'
    )
    for table in ("runs", "folds", "scores", "curves"):
        rows = pd.read_csv(ROOT / "benchmarks" / "results" / "quick" / f"{table}.csv", dtype=str, keep_default_na=False)
        kept = rows["run"].isin(["acdc/cv5-0/pce-s0", "acdc/cv5-0/scn-s0"]) if "run" in rows else rows["id"] != ""
        rows[kept].to_csv(budget / f"{table}.csv", index=False)
    words = ["bench", plan, "--table-only", "--results", budget.parent, "--runs", tmp_path / "runs"]
    found, path = Found(), plan if name == "plan.toml" else budget / name
    assert found.call("whole", *words) == 0, capsys.readouterr().err
    whole = path.read_text(encoding="utf-8")
    for number, rng in inputs(6, part):
        content = whole.encode()
        if rng.random() < 0.6:  # another value in one cell
            parts = re.split(r"([,\n= ])", whole)
            at = 2 * int(rng.integers(len(parts) // 2 + 1))
            parts[at] = str(ODD[rng.integers(len(ODD))])
            content = "".join(parts).encode("utf-8", "replace")
        path.write_bytes(damaged(content, rng) if rng.random() < 0.5 else content)
        found.call((number, name), *words)
    found.check()


def test_values_of_a_session(data, capsys, part):
    """What the page that draws keeps."""
    path, found = data / ".scribbleseg" / "draw" / "session.json", Found()
    path.parent.mkdir(parents=True)
    whole = {"colours": {"background": "#000000", "square": "red"}, "reviewed": ["case.0 a"]}
    for number, rng in inputs(40, part):
        content = json.dumps(changed(whole, rng)).encode()
        path.write_bytes(damaged(content, rng) if rng.random() < 0.2 else content)
        found.run(number, lambda: json.dumps(open_session(data).describe()) and 0)
    found.check()


@pytest.mark.parametrize("name", ["dataset.json", "splits_final.json", "splits/mine.json"])
def test_values_of_a_data_set(data, run, tmp_path, capsys, name, part):
    found, path = Found(), data / name
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        mine = [{"name": "a", "train": ["case.0 a"], "val": ["case.1 a"], "test": ["case.2 a"]}]
        path.write_text(json.dumps(mine), encoding="utf-8")
    whole = path.read_text(encoding="utf-8")
    for number, rng in inputs(60, part):
        content = json.dumps(changed(json.loads(whole), rng))
        path.write_bytes(damaged(content.encode(), rng) if rng.random() < 0.2 else content.encode())
        found.call((number, name, "check"), "check", data)
        if number % 12 == 0:
            found.call((number, name, "train"), "train", data, tmp_path / f"new{number}", *SHORT)
            found.call((number, name, "predict"), "predict", run, data, tmp_path / "out", "--device", "cpu")
            found.call((number, name, "evaluate"), "evaluate", data / "labelsTr_dense", data / "labelsTr_dense")
    found.check()


@pytest.mark.parametrize("name", ["config.json", "environment.json", "log.jsonl", "predictions/made_by.json"])
def test_values_of_a_run(data, run, tmp_path, capsys, name, part):
    found, path = Found(), run / name
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        note = {"runs": [str(run)], "weights": "last", "iterations": [2], "tta": False, "sha256": {"a.nii": "0"}}
        path.write_text(json.dumps(note), encoding="utf-8")
    lines = path.read_text(encoding="utf-8").splitlines() if name == "log.jsonl" else [path.read_text(encoding="utf-8")]
    for number, rng in inputs(60, part):
        which = int(rng.integers(len(lines)))
        content = json.dumps(changed(json.loads(lines[which]), rng))
        text = ("\n".join([*lines[:which], content, *lines[which + 1 :]]) + "\n").encode()
        path.write_bytes(damaged(text, rng) if rng.random() < 0.2 else text)
        found.run((number, name, "report", content[:3000]), lambda: collect(open_run(run)) and 0)
        if number % 4 == 0:
            source, out = data / "imagesTr" / "case.0 a_0000.nii", run / "predictions" / "x.nii"
            found.call((number, name, "predict"), "predict", run, source, out, "--device", "cpu")
            found.call((number, name, "resume"), "train", run, "--resume")
        if number % 60 == 0:
            found.call((number, name, "page"), "report", run)
    found.check()


@pytest.mark.parametrize("name", ["resume.pt", "last.safetensors"])
def test_bytes_of_weights(data, run, tmp_path, capsys, name, part):
    found, path = Found(), run / name
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    config["plan"]["recipe"]["iterations"] = 3  # so that the checkpoint is used
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    kept = Path(shutil.copytree(run, tmp_path / "kept"))
    head = path.read_bytes()[:8] if name == "last.safetensors" else b""
    for number, rng in inputs(12 if name == "resume.pt" else 40, part):
        whole = (kept / name).read_bytes()
        near = 8 + int.from_bytes(head, "little") if head and rng.random() < 0.7 else len(whole)
        path.write_bytes(damaged(whole[:near], rng) + whole[near:])
        if name == "resume.pt":
            code = found.call((number, name, "resume"), "train", run, "--resume")
            if code != 0:
                assert (run / "last.safetensors").read_bytes() == (kept / "last.safetensors").read_bytes()
            else:
                shutil.rmtree(run)
                shutil.copytree(kept, run)
        else:
            source = data / "imagesTr" / "case.0 a_0000.nii"
            found.call((number, name), "predict", run, source, tmp_path / "x.nii", "--overwrite", "--device", "cpu")
    found.check()


VERBS = ["check", "train", "predict", "evaluate", "simulate", "report", "methods", "phantom"]
VERBS += ["import", "pack", "export", "bench"]


def test_arguments(data, run, tmp_path, capsys, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    found, before = Found(), tree(data, run)
    options = {
        "train": "method set split fold budget preset size batch optimizer lr schedule network val-share seed "
        "device precision checkpoint-every validations resume nothing",
        "predict": "weights batch device tta overwrite probabilities nothing",
        "evaluate": "out class-name nothing",
        "simulate": "coverage thickness seed nothing",
        "phantom": "seed nothing",
        "import": "class not-drawn channel same-voxels nothing",
        "export": "format nothing",
        "bench": "table-only budget fold datasets runs results jobs engine nothing",
    }
    for number, rng in inputs(150, part):
        verb = VERBS[rng.integers(len(VERBS))]
        words: list[object] = {
            "train": ["train", data, tmp_path / "new", *SHORT],
            "predict": ["predict", run, data / "imagesTr" / "case.0 a_0000.nii", tmp_path / "out.nii"],
            "evaluate": ["evaluate", data / "labelsTr_dense", data / "labelsTr_dense"],
            "phantom": ["phantom", tmp_path / "phantom", "--cases", "0"],
            "import": ["import", "folders", data / "imagesTr", data / "labelsTr_dense", tmp_path / "set"],
            "pack": ["pack", run, tmp_path / "model.zip"],
            "export": ["export", run, tmp_path / "exported"],
            "bench": ["bench", data / "splits_final.json"],
        }.get(verb, [verb, data if verb in ("check", "simulate") else WORDS[rng.integers(len(WORDS))]])
        for name in rng.choice(options.get(verb, "nothing").split(), rng.integers(1, 3)):
            words += [f"--{name}", WORDS[rng.integers(len(WORDS))]]
        if rng.random() < 0.3:
            words[int(rng.integers(1, len(words)))] = WORDS[rng.integers(len(WORDS))]
        if "--iterations" not in words and verb == "train":
            continue  # it may be a whole training
        found.call((number, words), *words)
        for made in ("new", "out.nii", "phantom", "set", "model.zip", "exported"):
            place = tmp_path / made
            shutil.rmtree(place, ignore_errors=True) if place.is_dir() else place.unlink(missing_ok=True)
    after = tree(data, run)
    assert all(after[name] == before[name] for name in before)
    found.check()


def test_file_names(data, run, tmp_path, capsys, part):
    found = Found()
    names = [
        "caf\udce9",
        "a\nb",
        "-x",
        "*",
        "x_0000_0000",
        "a",
        " ",
        "a b",
        "--help",
        "=cmd",
        "$x$",
        "é",
        "a\x1b[2J",
        "..a",
        "a" * 240,
        "[x]",
    ]
    names += ["_0000", "CON", "a'b", 'a"b', "a,b", "%s", "{}", "٣_0000", "λ→", "<b>"]
    image = (data / "imagesTr" / "case.0 a_0000.nii").read_bytes()
    label = (data / "labelsTr" / "case.0 a.nii").read_bytes()
    mask = (data / "labelsTr_dense" / "case.0 a.nii").read_bytes()
    first, last = (round(share * len(names)) for share in part)
    for name in names[first:last]:
        paths = [data / "imagesTr" / f"{name}_0000.nii", data / "labelsTr" / f"{name}.nii"]
        paths += [data / "labelsTr_dense" / f"{name}.nii"]
        for path, content in zip(paths, (image, label, mask), strict=True):
            path.write_bytes(content)
        found.call((name, "check"), "check", data)
        found.call((name, "predict"), "predict", run, paths[0], tmp_path / "out", "--device", "cpu", "--overwrite")
        found.call((name, "evaluate"), "evaluate", paths[2].parent, paths[2].parent, "--out", tmp_path / "scores.csv")
        paths[1].unlink()
        found.call((name, "simulate"), "simulate", data)
        for path in paths:
            path.unlink(missing_ok=True)
    found.check()


def test_kills(small, tmp_path, trainers):
    """A training that is killed at any moment ends, carried on, in the weights of one that was not."""
    same = {"iterations": 8, "size": 16, "batch": 2, "checkpoint_every": 0.0, "precision": "float32", "device": "cpu"}
    whole = train(settings(small, tmp_path / "whole", **same))
    words = ["train", str(small), "RUN", "--method", "pce", "--iterations", "8", "--size", "16", "--batch", "2"]
    words += ["--checkpoint-every", "0", "--precision", "float32", "--device", "cpu"]
    numbers = [signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
    reached = []
    for _, rng in inputs(1):
        number = int(rng.integers(len(numbers)))
        run = tmp_path / f"run{len(reached)}"
        words[2] = str(run)
        process = trainers.Process(target=main, args=(list(words),))
        process.start()
        saved, wanted, before, pace = 0, int(rng.integers(6)), None, 0.3  # checkpoints until the kill; 0: before any
        began = time.monotonic()
        while process.is_alive() and saved < wanted:
            time.sleep(0.001)
            now = (run / "resume.pt").stat().st_mtime_ns if (run / "resume.pt").exists() else None
            if now != before:
                saved, before, pace, began = saved + 1, now, time.monotonic() - began, time.monotonic()
        while process.is_alive() and wanted == 0 and not run.exists():
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0, pace)))
        if process.is_alive():
            os.kill(process.pid, numbers[number])
        process.join()
        if not (run / "config.json").exists():
            reached.append(f"{numbers[number].name} before it began")
            train(settings(small, run, **same))
        else:
            at = read_checkpoint(run)["iteration"] if (run / "resume.pt").exists() else "no checkpoint"
            reached.append(f"{numbers[number].name} {process.exitcode} at {at}")
            resume(run)
        assert same_weights(whole, run), reached[-1]
        assert read_lines(run / "log.jsonl")[-1][:16] == read_lines(whole / "log.jsonl")[-1][:16]
        assert not list(run.rglob(".partial-*"))
        shutil.rmtree(run)
    print(f"{len(reached)} kills: {'; '.join(reached)}")
