"""Networks and augmentations of a user's own, by name: they train and predict, and none runs that was not named."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small import plan_of, small_dataset

import scribbleseg as ss
from scribbleseg.cli import main
from scribbleseg.config import Train
from scribbleseg.core.errors import InputError
from scribbleseg.data.voxels import Slices
from scribbleseg.networks import build_network
from scribbleseg.training.augment import own_augmentation
from scribbleseg.training.batches import augmented
from scribbleseg.training.train import resume, train

PACKAGE = """
from pathlib import Path

import torch
from torch import nn

Path(__file__).with_suffix(".ran").touch()
dense = torch.sin


class Net(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, image):
        return self.features_and_logits(image)[1]

    def features_and_logits(self, image):
        features = self.body(image)
        return features, self.head(features).float()


class Net3D(nn.Conv3d):
    dims = 3

    def __init__(self, channels, classes):
        super().__init__(channels, classes, 3, padding=1)


class Half(Net):
    def forward(self, image):
        return super().forward(image)[..., ::2]


class Odd(Net):
    def forward(self, image):
        raise IndexError("no such level")


class Needy(Net):
    def __init__(self, channels, classes, width):
        super().__init__(channels, classes)


def mirror(image, labels):
    return image.flip(3), labels.flip(3)


def short(image, labels):
    return image[:1], labels


def alone(image, labels):
    return image
"""
NET, MIRROR = "somebodys.parts:Net", "somebodys.parts:mirror"


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    """A package `somebodys` with a module `parts`, which leaves parts.ran where it was imported."""
    folder = tmp_path / "code" / "somebodys"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "parts.py").write_text(PACKAGE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    forget(folder)
    return folder


def forget(package: Path) -> None:
    """As in a new process: nothing of the package is imported."""
    for name in ("somebodys", "somebodys.parts"):
        sys.modules.pop(name, None)
    (package / "parts.ran").unlink(missing_ok=True)


@pytest.fixture
def foreign(package, small, tmp_path) -> Path:
    """A run of that network and augmentation, made by somebody else."""
    given = {"network": NET, "augmentation": MIRROR, "device": "cpu"}
    run = train(Train(small, tmp_path / "run", method="effdnet", iterations=2, size=32, batch=4, **given))
    forget(package)
    return run


def test_a_network_is_only_imported_to_predict_if_it_is_named(foreign, package, small, tmp_path, capsys):
    scans = small / "imagesTr"
    for words in (
        ["predict", foreign, scans, tmp_path / "a"],
        ["export", foreign, tmp_path / "a"],
        ["report", foreign],
    ):
        assert main([*map(str, words)]) == 2
        said = capsys.readouterr().err
        assert f"its network, {NET}, is not one of scribbleseg's" in said and f"--network {NET}" in said
    with pytest.raises(
        InputError, match="--network somebodys.parts:Half: no run has it; they have somebodys.parts:Net"
    ):
        ss.predict(foreign, scans, tmp_path / "a", networks=("somebodys.parts:Half",))
    with pytest.raises(InputError, match="is not one of scribbleseg's"):
        ss.load(foreign)
    assert not (package / "parts.ran").exists() and not (tmp_path / "a").exists()
    assert main(["predict", str(foreign), str(scans), str(tmp_path / "a"), "--network", NET]) == 0
    assert (package / "parts.ran").exists() and len(list((tmp_path / "a").glob("*.nii.gz"))) == 6
    model = ss.load(foreign, networks=[NET])
    assert model.predict(np.zeros((3, 36, 40))).shape == (3, 36, 40)
    kinds = {type(module).__name__ for module in model.models[0].network.modules()}
    assert "BatchNorm2d" in kinds, "how layers of another network belong together is not known: none is folded"
    assert main(["report", str(foreign), "--network", NET]) == 0 and (foreign / "metrics.csv").is_file()


def test_a_packed_model_imports_its_network_by_name(foreign, package, small, tmp_path):
    ss.pack(foreign, tmp_path / "model.zip")
    with pytest.raises(InputError, match=r"model.zip: its network, somebodys.parts:Net, is not one of"):
        ss.predict(tmp_path / "model.zip", small / "imagesTr", tmp_path / "a")
    assert not (package / "parts.ran").exists()
    ss.predict(tmp_path / "model.zip", small / "imagesTr", tmp_path / "a", networks=(NET,))
    ss.export(foreign, tmp_path / "bundle", format="monai", network=NET)
    config = json.loads((tmp_path / "bundle" / "configs" / "inference.json").read_text(encoding="utf-8"))
    assert config["networks"] == [NET] and "networks=tuple(@networks)" in config["run"][0]


def test_a_run_is_carried_on_by_the_names_of_all_its_code(foreign, package, capsys):
    stored = torch.load(foreign / "resume.pt", weights_only=True)
    torch.save(stored | {"iteration": 1}, foreign / "resume.pt")
    words = ["train", str(foreign), "--resume"]
    for named in ([], ["--network", NET], ["--augmentation", MIRROR], ["--network", NET, "--augmentation", "x:y"]):
        assert main([*words, *named]) == 2
    assert "is a run of somebodys.parts:mirror, not of x:y" in capsys.readouterr().err
    assert main(words) == 2
    assert f"{foreign} --resume --network {NET} --augmentation {MIRROR}" in capsys.readouterr().err
    assert not (package / "parts.ran").exists()
    assert main([*words, "--network", NET, "--augmentation", MIRROR]) == 0
    assert f"INPUT OUTPUT --network {NET}, or scribbleseg report {foreign} --network {NET}" in capsys.readouterr().err


def test_nothing_is_imported_from_a_run_folder(foreign, package, small, tmp_path, monkeypatch):
    shutil.move(package, foreign / "somebodys")
    monkeypatch.syspath_prepend(str(foreign))
    with pytest.raises(InputError, match="network 'somebodys.parts:Net' cannot be imported"):
        ss.predict(foreign, small / "imagesTr", tmp_path / "a", networks=(NET,))


def test_nothing_is_imported_from_a_run_folder_by_a_path_above_it(foreign, package, small, tmp_path, monkeypatch):
    code = foreign / "parts.py"
    shutil.copyfile(package / "parts.py", code)
    path = foreign / "config.json"
    name = f"{foreign.name}.parts:Net"
    path.write_text(path.read_text(encoding="utf-8").replace(NET, name), encoding="utf-8")
    monkeypatch.syspath_prepend(str(foreign.parent))
    with pytest.raises(InputError, match="nothing is imported from a run folder"):
        ss.predict(foreign, small / "imagesTr", tmp_path / "a", networks=(name,))
    assert not code.with_suffix(".ran").exists()


def test_a_run_is_not_carried_on_with_changed_code(foreign, package):
    with open(package / "parts.py", "a", encoding="utf-8") as file:
        file.write("# changed\n")
    with pytest.raises(InputError, match="has changed since it began"):
        resume(foreign, network=NET, augmentation=MIRROR)


@pytest.mark.parametrize(
    ("name", "dims", "words"),
    [
        ("somebodys.parts:Nets", 2, "cannot be imported .*and Nets in it?"),
        ("somebodys.parts:mirror", 2, "mirror is no network. Derive the class from torch.nn.Module"),
        ("somebodys.parts:Needy", 2, "cannot be built .*width.*called with the numbers of channels and classes"),
        ("somebodys.parts:Odd", 2, "does not run on a slice of 128 × 128 .IndexError: no such level"),
        ("somebodys.parts:Net", 3, "is 2-D, as its `dims` says, and not 3-D"),
        ("somebodys.parts:Half", 2, r"maps a slice to \(1, 3, 128, 64\), not to \(1, 3, 128, 128\)"),
        ("somebodys.parts.Net", 2, "no network 'somebodys.parts.Net'"),
        ("..parts:Net", 2, "expected package.module:Name"),
    ],
)
def test_what_is_no_network(package, name, dims, words):
    with pytest.raises(InputError, match=words):
        build_network(name, 1, 3, dims)


def test_a_network_of_volumes(package):
    network = build_network("somebodys.parts:Net3D", 2, 3, dims=3)
    assert network.training and network(torch.zeros(1, 2, 8, 8, 8)).shape == (1, 3, 8, 8, 8)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("upside", "--augmentation upside: expected papers or upright, or package.module:function"),
        ("somebodys.parts:dense", "dense is no function"),
        ("somebodys.parts:none", "cannot be imported"),
    ],
)
def test_what_is_no_augmentation_leaves_no_folder(package, small, tmp_path, name, words):
    with pytest.raises(InputError, match=words):
        train(Train(small, tmp_path / "run", method="pce", augmentation=name))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["short", "alone"])
def test_an_augmentation_returns_what_came(package, small, tmp_path, name):
    given = {"iterations": 1, "size": 32, "batch": 2, "device": "cpu", "augmentation": f"somebodys.parts:{name}"}
    with pytest.raises(InputError, match=f"parts:{name}' returned .*; expected image and labels as they came"):
        train(Train(small, tmp_path / "run", method="pce", **given))
    assert not (tmp_path / "run").exists()


def test_image_and_all_labels_are_augmented_together(package):
    image, label, other, truth = torch.rand(2, 1, 4, 6), *torch.randint(0, 3, (3, 2, 4, 6), dtype=torch.uint8)
    slices = Slices(image, label, {"other": other}, truth)
    batch = augmented(slices, own_augmentation(MIRROR), torch.channels_last)
    assert torch.equal(batch.image, image.flip(3)) and torch.equal(batch.label, label.flip(2).long())
    assert torch.equal(batch.maps["other"], other.flip(2).long()) and torch.equal(batch.truth, truth.flip(2).long())


def test_the_augmentation_is_used_for_slices_and_patches(package, small, tmp_path, monkeypatch):
    import somebodys.parts as parts

    seen = []
    monkeypatch.setattr(parts, "mirror", lambda image, labels: seen.append(image.shape) or (image, labels))
    for preparation in ("slices", "patches"):
        given = {"preparation": preparation, "augmentation": MIRROR, "size": 32, "batch": 2, "device": "cpu"}
        train(Train(small, tmp_path / preparation, method="pce", iterations=2, **given))
    assert seen == [(2, 1, 32, 32)] * 4


def test_augmentations_of_slices_are_not_for_patches(small, tmp_path):
    with pytest.raises(InputError, match="--augmentation upright: is for whole slices"):
        plan_of(Train(small, tmp_path, method="pce", preparation="patches", augmentation="upright"))
    plan = plan_of(Train(small, tmp_path, preset="fast", augmentation="papers"))
    assert plan.recipe.augmentation == "papers"


def test_the_code_that_a_run_began_with_is_recorded(package, small, tmp_path):
    def code(**given) -> str | None:
        return plan_of(Train(small, tmp_path, method="pce", **given)).own_code

    assert code() is None and code(network=NET) == code(augmentation=MIRROR) is not None
    before = code(network=NET)
    (package / "parts.py").write_text(PACKAGE + "\n", encoding="utf-8")
    assert code(network=NET) != before


def test_the_example_trains_and_predicts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))
    data, part = small_dataset(tmp_path / "data", cases=3), "examples.own_network"
    given = {"network": f"{part}:Dilated", "augmentation": f"{part}:mirror", "device": "cpu"}
    run = train(Train(data, tmp_path / "run", method="effdnet", iterations=2, size=32, batch=2, **given))
    assert ss.predict(run, data, tmp_path / "out", networks=(f"{part}:Dilated",))
