"""Slices cut to where rings lie: the box, its training, and runs that count on it."""

import dataclasses
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small import plan_of, ringed, small_dataset
from test_export import segment_alone
from torch import Tensor, nn

import scribbleseg as ss
from scribbleseg.config import Export, Pack, Predict, Train
from scribbleseg.core.errors import InputError
from scribbleseg.data.case import load_volume
from scribbleseg.data.dataset import Fold
from scribbleseg.data.fitting import fit
from scribbleseg.data.layout import read_dataset
from scribbleseg.inference.models import load_models
from scribbleseg.inference.predict import predict
from scribbleseg.inference.scan import prepare_scan, read_scan
from scribbleseg.networks.locator import Locator, attach
from scribbleseg.sharing.export import export
from scribbleseg.sharing.pack import pack
from scribbleseg.training import locate
from scribbleseg.training.fit import fit_plan
from scribbleseg.training.machine import Machine
from scribbleseg.training.plan import read_plan
from scribbleseg.training.recipe import PRESETS
from scribbleseg.training.settings import make_plan, undecided
from scribbleseg.training.step import Step
from scribbleseg.training.train import resume, train
from scribbleseg.training.validation import read_validation

CPU = torch.device("cpu")


class Bright(nn.Module):
    """What is brighter than half is inside."""

    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))

    def forward(self, slices: Tensor) -> Tensor:
        return torch.cat([0.5 - slices, slices - 0.5], 1)


def bright_locator() -> Locator:
    locator = Locator(1)
    locator.network = Bright()
    return locator.eval()


def edged(folder: Path) -> Path:
    """The same with rings along the edges of the slices."""
    ringed(folder)
    for path in (folder / "labelsTr").iterdir():
        file = nibabel.load(path)
        voxels = np.asarray(file.dataobj).copy()
        voxels[voxels == 0] = 3
        voxels[[0, -1]], voxels[:, [0, -1]] = 0, 0
        nibabel.save(nibabel.Nifti1Image(voxels, file.affine), path)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return ringed(tmp_path_factory.mktemp("ringed") / "data")


def settings(data: Path, run: Path, **more) -> Train:
    given = {"iterations": 40, "size": 32, "batch": 4, "lr": 0.01, "precision": "float32", "device": "cpu"} | more
    return Train(data, run, preset="fast", **given)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory) -> Path:
    return train(settings(data, tmp_path_factory.mktemp("runs") / "run"))


def test_the_box_holds_what_is_found_and_a_margin():
    image = np.zeros((1, 3, 128, 256), np.float32)
    image[:, 1, 32:64, 128:192] = 1
    assert bright_locator().box(image) == (slice(24, 72), slice(112, 208))  # .06 of 128 and of 256 around it


def test_specks_do_not_count_and_the_box_ends_at_the_slice():
    image = np.zeros((1, 3, 128, 128), np.float32)
    image[:, :, 0:64, 40:80] = 1
    image[:, 0, 126:, 126:] = 1
    assert bright_locator().box(image) == (slice(0, 72), slice(32, 88))


def test_where_nothing_is_found_nothing_is_cut_off():
    assert bright_locator().box(np.zeros((1, 2, 50, 70), np.float32)) == (slice(0, 50), slice(0, 70))


def test_it_learns_where_the_rings_of_other_cases_lie(data, run):
    dataset, [model] = read_dataset(data), load_models([run], "last", CPU)
    assert len(model.plan.fold.test) == 2
    for name in model.plan.fold.test:
        volume = load_volume(dataset, dataset.case(name), model.plan.fitted)
        rows, columns = model.locator.box(volume.image)
        assert volume.truth[:, rows, columns].sum() == volume.truth.sum() > 0
        assert (rows.stop - rows.start) * (columns.stop - columns.start) < 0.5 * volume.truth[0].size


def test_what_is_cut_keeps_every_foreground_stroke(data):
    dataset = read_dataset(data)
    case = dataset.case(min(dataset.cases))
    whole = load_volume(dataset, case)
    cut = load_volume(dataset, case, locate=lambda image: (slice(0, 3), slice(0, 3)))
    assert cut.scribble.size < whole.scribble.size / 2
    for value in (1, 2):
        assert (cut.scribble == value).sum() == (whole.scribble == value).sum() > 0
    assert cut.image.shape[1:] == cut.scribble.shape == cut.truth.shape


def test_the_preset_cuts_slices_to_rings_and_predicts_background_outside(data, run, tmp_path):
    _, plan = read_plan(run)
    assert plan.fitted.locate and not plan.fitted.crop and plan.preparation == "slices"
    masks = predict(Predict(run, data / "imagesTr", tmp_path / "masks"))
    models = load_models([run], "last", CPU)
    for path in masks:
        scan = read_scan([data / "imagesTr" / path.name.replace(".nii", "_0000.nii")], models)
        rows, columns = scan.box
        assert (rows.stop - rows.start) * (columns.stop - columns.start) < 96 * 96
        mask = np.asarray(nibabel.load(path).dataobj).transpose(scan.grid.order)
        assert mask.any() and mask.sum() == mask[:, rows, columns].sum()


def test_where_little_is_saved_slices_stay_whole_unless_it_is_wished(data, tmp_path):
    dataset = read_dataset(edged(tmp_path / "edged"))
    given = {"cases": sorted(dataset.cases), "enclosure": "auto", "by_data": True}
    assert not fit(dataset, locate="auto", **given).locate and fit(dataset, locate="on", **given).locate
    wide = read_dataset(data)
    assert fit(wide, locate="auto", **given).locate and not fit(wide, locate="off", **given).locate
    assert not fit(wide, locate="on", **given | {"enclosure": "off"}).locate


def test_without_rings_or_with_other_wishes_slices_stay_whole(data, tmp_path):
    for name, given in (("off", {"enclosure": "off"}), ("slices", {"preparation": "slices"})):
        _, plan = read_plan(train(settings(data, tmp_path / name, iterations=1, **given)))
        assert not plan.fitted.locate
    small = small_dataset(tmp_path / "small")
    _, plan = read_plan(train(settings(small, tmp_path / "open", iterations=1)))
    assert not plan.fitted.locate and plan.size == 32


def test_the_best_preset_cuts_to_rings_too_and_has_a_recipe_of_its_own(data):
    config = Train(data, Path(), preset="best")
    plan = fit_plan(make_plan(config, read_dataset(data)), read_dataset(data), undecided(config))
    assert plan.fitted.locate and plan.fitted.enclosure == "hull" and plan.fitted.bare is not None
    assert (plan.size, plan.recipe.iterations, plan.options) == (80, 6000, {"taught": 1.0})
    assert (plan.recipe.lr, plan.recipe.augmentation, plan.recipe.ema) == (0.003, "papers", 0.99)


def test_a_training_says_what_was_decided(data, tmp_path, capfd):
    train(settings(data, tmp_path / "run", iterations=1, batch=2, size=32))
    words = (
        "corral: 1 iteration of 2 slices of 32 × 32 pixels, cut to where rings lie; outside of the background strokes"
    )
    assert f"\n{words} is background\n" in capfd.readouterr().err


def test_size_and_length_of_the_preset_follow(data, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS["fast"].rings, "iterations", 2)
    _, plan = read_plan(train(settings(data, tmp_path / "run", iterations=None, size=None)))
    assert (plan.size, plan.recipe.iterations) == (80, 2)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"preparation": "rings", "enclosure": "off"}, "Leave one of the two out"),
        ({"preparation": "rings", "method": "ustm"}, "--preparation rings: ustm has no term"),
    ],
)
def test_rings_need_the_enclosure(data, tmp_path, given, words):
    with pytest.raises(InputError, match=words):
        train(settings(data, tmp_path / "run", **given))
    assert not (tmp_path / "run").exists()


def test_a_run_that_was_cut_off_keeps_its_locator(data, tmp_path, monkeypatch):
    whole = train(settings(data, tmp_path / "whole", iterations=4))
    steps = []

    def stop_in_third(*given):
        steps.append(0)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return once(*given)

    once = Step.__call__
    monkeypatch.setattr(Step, "__call__", stop_in_third)
    with pytest.raises(KeyboardInterrupt):
        train(settings(data, tmp_path / "cut", iterations=4, checkpoint_every=0))
    monkeypatch.undo()
    resume(tmp_path / "cut")
    assert (tmp_path / "cut" / "last.safetensors").read_bytes() == (whole / "last.safetensors").read_bytes()


def test_a_checkpoint_without_it_is_refused(data, tmp_path):
    cut = train(settings(data, tmp_path / "run", iterations=2, enclosure="off"))
    path = cut / "config.json"
    stored = json.loads(path.read_text())
    stored["plan"]["fitted"] |= {"locate": True, "enclosure": "ring"}
    stored["plan"]["recipe"]["iterations"] = 3
    path.write_text(json.dumps(stored))
    with pytest.raises(InputError, match="finds where rings lie"):
        resume(cut)


def test_a_warm_start_trains_that_of_the_other_run_for_a_quarter(data, run, tmp_path, monkeypatch):
    began = {}

    def note(locator, *given):
        began[given[-2]] = {key: value.clone() for key, value in locator.state_dict().items()}

    monkeypatch.setattr(locate, "fit_locator", note)
    train(settings(data, tmp_path / "next", iterations=4, init=run))
    weights = load_file(run / "last.safetensors")
    key = "network.head.weight"
    assert list(began) == [1] and torch.equal(began[1][key], weights[f"locator.{key}"])
    whole = train(settings(data, tmp_path / "whole", iterations=1, preparation="slices"))
    train(settings(data, tmp_path / "last", iterations=4, init=whole))
    assert list(began) == [1, 4]


def test_rings_along_the_edges_cut_nothing_off(tmp_path):
    folder = edged(tmp_path / "data")
    run = train(settings(folder, tmp_path / "run", iterations=1, preparation="rings"))
    assert read_plan(run)[1].fitted.locate
    image = next((folder / "imagesTr").iterdir())
    assert read_scan([image], load_models([run], "last", CPU)).box == (slice(0, 96), slice(0, 96))


def test_what_the_box_cuts_off_is_missed_in_validation(data):
    dataset = read_dataset(data)
    names = tuple(sorted(dataset.cases))
    fold = Fold("one", names[1:], names[:1], ())
    plan = dataclasses.replace(plan_of(Train(data, Path(), preset="fast", size=96)), fold=fold)
    [case] = fold.val
    truth = load_volume(dataset, dataset.case(case)).truth
    rows = np.nonzero(truth.any((0, 2)))[0]
    half = slice(0, int(rows.mean()))

    class Right(nn.Module):
        """Knows the validation case by heart."""

        def forward(self, image):
            [(_, label)] = validation.cases
            return torch.nn.functional.one_hot(label.long(), 3).movedim(-1, 1).float()

    for box, least, most in (
        ((slice(0, 96), slice(0, 96)), 1.0, 1.0),
        ((half, slice(0, 96)), 0.5, 0.85),
        ((slice(60, 96), slice(60, 96)), 0.0, 0.0),
    ):
        validation = read_validation(dataset, plan, lambda image, box=box: box)
        dices = validation.dice(Right(), Machine(CPU, torch.float32, False, False, False))
        assert all(least <= value <= most for value in dices.values()), (box, dices)


def test_a_network_that_has_such_a_name_is_refused(data):
    network = nn.Module()
    network.locator = nn.Linear(1, 1)
    with pytest.raises(InputError, match="has an attribute 'locator'"):
        attach(network, 1)


def test_a_packed_model_and_an_array_are_cut_alike(data, run, tmp_path):
    packed = pack(Pack(run, tmp_path / "model.zip"))
    (one,), (other,) = load_models([run], "last", CPU), load_models([packed], "last", CPU)
    case = read_dataset(data).case(min(read_dataset(data).cases))
    boxes = {str(read_scan(case.images, [model]).box) for model in (one, other)}
    assert len(boxes) == 1
    volume = load_volume(read_dataset(data), case)
    channels = [np.asarray(nibabel.load(case.images[0]).dataobj, np.float32).transpose(volume.grid.order)]
    assert str(prepare_scan("array", channels, volume.grid, [one]).box) in boxes
    mask = predict(Predict(run, case.images[0], tmp_path / "mask.nii.gz"))[0]
    found = ss.load(run).predict(channels[0])
    assert np.array_equal(found, np.asarray(nibabel.load(mask).dataobj).transpose(volume.grid.order))


def test_runs_that_are_averaged_see_what_each_of_them_finds(data, run):
    class Fixed(Locator):
        def __init__(self, rows, columns):
            super().__init__(1)
            self.fixed = slice(*rows), slice(*columns)

        def box(self, image):
            return self.fixed

    [model] = load_models([run], "last", CPU)
    locators = [Fixed((10, 50), (30, 60)), Fixed((20, 70), (25, 40))]
    models = [dataclasses.replace(model, locator=locator) for locator in locators]
    case = read_dataset(data).case(min(read_dataset(data).cases))
    scan = read_scan(case.images, models)
    assert scan.box == (slice(10, 70), slice(25, 60))
    assert {image.shape for image in scan.images} == {(1, 3, 60, 35)}


@pytest.mark.slow
def test_the_exported_script_cuts_alike(data, run, tmp_path):
    pytest.importorskip("onnx"), pytest.importorskip("onnxruntime"), pytest.importorskip("onnxscript")
    folder = export(Export(run, tmp_path / "model"))
    for path in predict(Predict(run, data / "imagesTr", tmp_path / "ours"))[:3]:
        segment_alone(folder, [data / "imagesTr" / path.name.replace(".nii", "_0000.nii")], tmp_path / path.name)
        one, other = (np.asarray(nibabel.load(file).dataobj) for file in (path, tmp_path / path.name))
        assert one.any() and np.array_equal(one, other)
