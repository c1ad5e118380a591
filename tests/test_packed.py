"""`scribbleseg pack`: one file that predicts as its run, says no place of the machine, and can run no code."""

import json
import re
import shutil
import stat
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load

from scribbleseg.cli import main
from scribbleseg.config import Export, Pack, Predict, Report, Train
from scribbleseg.core.errors import InputError
from scribbleseg.inference.packed import FILES, run_folder
from scribbleseg.inference.predict import predict
from scribbleseg.reporting.report import report
from scribbleseg.sharing.export import export
from scribbleseg.sharing.pack import half, pack
from scribbleseg.training.train import train


@pytest.fixture(scope="module")
def run(small, tmp_path_factory) -> Path:
    """Long enough that the masks have all classes."""
    folder = tmp_path_factory.mktemp("learnt") / "run"
    return train(
        Train(small, folder, "fullsup", iterations=40, size=32, batch=4, lr=0.05, precision="float32", device="cpu")
    )


@pytest.fixture(scope="module")
def model(run, tmp_path_factory) -> Path:
    return pack(Pack(run, tmp_path_factory.mktemp("packed") / "model.zip"))


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, files: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def masks(folder: Path) -> list[np.ndarray]:
    return [np.asarray(nibabel.load(path).dataobj) for path in sorted(folder.glob("*.nii.gz"))]


def test_a_packed_model_gives_the_masks_of_its_run(run, model, small, tmp_path):
    predict(Predict(run, small / "imagesTr", tmp_path / "run"))
    predict(Predict(model, small / "imagesTr", tmp_path / "model"))
    one, other = masks(tmp_path / "run"), masks(tmp_path / "model")
    assert len(one) == len(other) == 6 and {0, 1, 2} == set(np.unique(one))
    voxels = sum(mask.size for mask in one)
    differing = sum(int((a != b).sum()) for a, b in zip(one, other))
    assert differing <= 0.001 * voxels, f"{differing} of {voxels} voxels differ by half precision"
    note = json.loads((tmp_path / "model" / "made_by.json").read_text())
    assert note["runs"] == [str(model)] and note["iterations"] == [40]


def test_it_is_averaged_with_a_run(run, model, small, tmp_path):
    image = next((small / "imagesTr").iterdir())
    assert predict(Predict((run, model), image, tmp_path / "mask.nii.gz"))[0].is_file()


def test_it_says_no_place_and_no_case(run, model, small):
    files = contents(model)
    assert list(files) == list(FILES)
    everything = b"\n".join(files.values()).decode("latin-1")
    for private in (str(run), str(run.parent), str(small), str(Path.home()), "case.0 a"):
        assert private not in everything, private
    assert not re.search(r'"/[^"]*"', files["config.json"].decode())
    assert (run / "config.json").read_text(encoding="utf-8").count("case.0 a") == 1, "the test looks for a name"


def test_weights_are_halved_where_it_does_no_harm(model, run):
    kinds = {key: value.dtype for key, value in load(contents(model)["last.safetensors"]).items()}
    assert kinds["encoder.0.0.weight"] == torch.float16 and kinds["encoder.0.1.running_var"] == torch.float32
    assert model.stat().st_size < 0.55 * (run / "last.safetensors").stat().st_size
    large = torch.full((2, 2), 1e6)
    assert half(large) is large and half(torch.ones(2, 2, dtype=torch.int64)).dtype == torch.int64


def test_equal_runs_are_equal_files(run, model, tmp_path):
    assert pack(Pack(run, tmp_path / "again.zip")).read_bytes() == model.read_bytes()


def test_the_card_has_what_the_run_knows(run, model, small, tmp_path):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    data = Path(shutil.copytree(small, tmp_path / "data"))
    info = json.loads((data / "dataset.json").read_text()) | {"name": "Squares", "licence": "CC BY 4.0"}
    (data / "dataset.json").write_text(json.dumps(info))
    stored = json.loads((copy / "config.json").read_text())
    stored["train"]["dataset"] = str(data)
    (copy / "config.json").write_text(json.dumps(stored))
    report(Report(copy))
    page = (copy / "model_card.md").read_text(encoding="utf-8")
    head = dict(line.split(": ", 1) for line in page.split("---")[1].strip().splitlines())
    assert json.loads(head["license_name"]) == "CC BY 4.0" and json.loads(head["library_name"]) == "scribbleseg"
    result = json.loads(head["model-index"])[0]["results"][0]
    rows = [line.split("|") for line in page.splitlines() if line.startswith("| mean")]
    assert f"{result['metrics'][0]['value']:.4f}" == rows[0][2].split()[0]
    for part in ("# fullsup on Squares", "- licence: CC BY 4.0", "Not a medical device", "Of the held-out cases.",
                 "- square: lowest Dice ", "4 for training, 0 for validation, 2 held out"):  # fmt: skip
        assert part in page, part
    assert str(tmp_path) not in page and "case.4 a" not in page
    assert contents(pack(Pack(copy, tmp_path / "m.zip")))["README.md"].decode() == page
    assert "- licence: not named in dataset.json" in contents(model)["README.md"].decode()


def test_no_code_of_a_packed_model_runs(model, small, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    files = contents(model)
    stored = json.loads(files["config.json"])
    stored["plan"]["method"] = stored["train"]["method"] = "evil:Method"
    foreign = write(tmp_path / "foreign.zip", files | {"config.json": json.dumps(stored).encode()})
    image = next((small / "imagesTr").iterdir())
    assert predict(Predict(foreign, image, tmp_path / "mask.nii.gz"))[0].is_file()


@pytest.mark.parametrize("name", ["../last.safetensors", "/elsewhere/x", "a/b", "resume.pt", "code.py"])
def test_files_that_do_not_belong_are_refused(model, tmp_path, name):
    bad = write(tmp_path / "bad.zip", contents(model) | {name: b"x"})
    with pytest.raises(InputError, match=r"bad\.zip: holds .*a packed model has only"), run_folder(bad):
        pass


def test_links_bombs_and_damage_are_refused(model, small, tmp_path, capsys):
    files = contents(model)
    bomb = write(tmp_path / "bomb.zip", files | {"README.md": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    link = tmp_path / "link.zip"
    with zipfile.ZipFile(link, "w") as archive:
        for name in FILES:
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(entry, b"/etc/passwd")
    lying = tmp_path / "damaged.zip"
    whole = model.read_bytes()
    at = whole.index(files["last.safetensors"]) + 5000
    lying.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    (tmp_path / "text.zip").write_text("no zip")
    write(tmp_path / "empty.zip", {})
    before = set(Path(tmp_path).iterdir())
    for name, words in {
        bomb.name: "is compressed",
        link.name: "is a link",
        lying.name: "damaged one",
        "text.zip": "not a packed model",
        "empty.zip": "holds nothing",
    }.items():
        assert main(["predict", str(tmp_path / name), str(small), str(tmp_path / "out")]) == 2
        said = capsys.readouterr().err
        assert words in said and f"{tmp_path / name}: " in said, said
    assert set(Path(tmp_path).iterdir()) == before


def test_errors_name_the_packed_model(model, small, tmp_path, capsys):
    files = contents(model)
    stored = json.loads(files["config.json"])
    stored["plan"]["size"] = 0
    bad = write(tmp_path / "bad.zip", files | {"config.json": json.dumps(stored).encode()})
    with pytest.raises(InputError, match=f"^{re.escape(str(bad))}/config.json: not a run's settings"):
        predict(Predict(bad, small / "imagesTr", tmp_path / "out"))
    with pytest.raises(InputError, match="no case was held out in training"):
        predict(Predict(model, small, tmp_path / "out"))
    for verb in (
        lambda: report(Report(model)),
        lambda: pack(Pack(model, tmp_path / "again.zip")),
        lambda: export(Export(model, tmp_path / "exported")),
        lambda: export(Export(model, tmp_path / "exported", "monai")),
    ):
        capsys.readouterr()
        with pytest.raises(InputError, match="a packed model, not a run folder. pack, export and report need the run"):
            verb()
        assert not capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.zip"]


def test_what_cannot_be_packed(run, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.zip"):
        pack(Pack(run, tmp_path / "model"))
    (tmp_path / "mine.zip").write_text("mine")
    with pytest.raises(InputError, match="exists already and is no packed model"):
        pack(Pack(run, tmp_path / "mine.zip"))
    assert (tmp_path / "mine.zip").read_text() == "mine"
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "last.safetensors").unlink()
    with pytest.raises(InputError, match="no trained weights"):
        pack(Pack(copy, tmp_path / "model.zip"))
    assert not (tmp_path / "model.zip").exists()
