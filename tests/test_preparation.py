"""Intensity by name, padding, the slicing plane, cropping, strokes that survive, slices without strokes."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch
from small import save, small_dataset

from scribbleseg.config import Check, Predict, Train
from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import drawn_cases, load_volume
from scribbleseg.data.fitting import BARE_SHARE, fit
from scribbleseg.data.importers.write import write_blanks
from scribbleseg.data.intensity import Intensity, fit_ct, kind_of, normalise, prepare, robust_range, unit_range
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.plane import choose_plane, flat_axis
from scribbleseg.data.preparation import (
    PAPERS,
    content_box,
    enclosing_box,
    lost_strokes,
    resample_label,
    resample_strokes,
)
from scribbleseg.data.reading import build_slices
from scribbleseg.data.volume import Grid, read_image, read_label
from scribbleseg.data.voxels import Slices
from scribbleseg.inference.predict import predict
from scribbleseg.methods import METHODS, method_class
from scribbleseg.training.augment import random_intensity
from scribbleseg.training.fit import fit_plan
from scribbleseg.training.outlook import check
from scribbleseg.training.plan import Plan, read_plan
from scribbleseg.training.sampling import bare_slices, make_sampler, rare_slices
from scribbleseg.training.settings import make_plan, undecided
from scribbleseg.training.train import train


def scan(low: float = 0.0, high: float = 100.0) -> np.ndarray:
    return np.random.default_rng(0).uniform(low, high, (5, 40, 40)).astype(np.float32)


def test_the_name_of_a_channel_decides():
    names = ["CT", "ct", "noNorm", "rescale_to_0_1", "rgb_to_0_1", "MR", "LGE"]
    assert [kind_of(name) for name in names] == [
        *("ct", "ct", "nonorm", "rescale_to_0_1", "rgb_to_0_1", "robust", "robust")
    ]
    image = scan(-5, 250)
    assert prepare(image, Intensity("nonorm")) is image
    assert np.allclose(prepare(image, Intensity("rgb_to_0_1")), image / 255)
    scaled = prepare(image, Intensity("rescale_to_0_1"))
    assert scaled.min() == 0 and scaled.max() == 1
    assert np.array_equal(prepare(image, Intensity()), normalise(image)), "the papers'"


def test_ct_is_clipped_to_what_the_strokes_cover():
    values = np.arange(1000, dtype=np.float32)
    how = fit_ct([values[:500], values[500:]], "CT")
    assert (how.low, how.high) == (pytest.approx(4.995), pytest.approx(994.005))
    found = prepare(np.array([[[-1024.0, 499.5, 3000.0]]], np.float32), how)
    assert found.dtype == np.float32 and found[0, 0].tolist() == [0, 0.5, 1]
    with pytest.raises(InputError, match="none. Draw some"):
        fit_ct([], "CT")
    with pytest.raises(ValueError, match="not known"):
        Intensity("ct", 3.0, 3.0)


@pytest.mark.parametrize("padding", [-32768.0, -2000.0, 60.0, 150.0, 32767.0])
def test_padding_does_not_move_the_intensities(padding):
    image = scan(100, 200)
    expected = robust_range(image)
    padded = np.pad(image, ((0, 0), (20, 20), (20, 20)), constant_values=padding)
    assert robust_range(padded) == pytest.approx(expected, abs=0.01)
    found = prepare(padded, Intensity("robust"))
    assert found.min() == 0 and found.max() == 1
    assert np.allclose(found[:, 20:-20, 20:-20], prepare(image, Intensity("robust")), atol=1e-3)


@pytest.mark.parametrize("value", [-32768.0, 32767.0])
@pytest.mark.parametrize("share", [0.0001, 0.05])
def test_a_sentinel_in_the_middle_does_not_move_the_intensities(value, share):
    image = scan(0, 400)
    expected = prepare(image, Intensity("robust"))
    broken = image.copy()
    where = np.random.default_rng(1).random(image.shape) < share
    where[2, 20, 20] = True
    broken[where] = value
    assert np.abs(prepare(broken, Intensity("robust")) - expected)[~where].max() < 0.02
    assert normalise(broken)[~where].std() < 0.05 or value > 0, "the papers' range follows the sentinel"


def test_images_with_few_values_keep_their_contrast():
    assert robust_range(np.where(scan() > 50, 255.0, 0.0)) == (0, 255)
    image = np.zeros((1, 20, 20), np.float32)
    image[0, 10, 10] = 7
    assert robust_range(image) == (0, 7) and prepare(image, Intensity("robust"))[0, 10, 10] == 1
    assert (prepare(np.full((1, 4, 4), 3, np.float32), Intensity("robust")) == 0).all(), "a constant colour channel"
    assert unit_range(np.stack([scan(-3, 5)]))[0].max() == 1


def strokes(axis: int, shape=(30, 32, 34)) -> np.ndarray:
    """Curves in every second slice across an axis of the file."""
    label = np.full(shape, UNLABELED, np.uint8)
    view = np.moveaxis(label, axis, 0)
    for index in range(2, len(view) - 2, 2):
        view[index, 5 + index % 7, 4:25] = index % 3
        view[index, 5:20, 27] = 1
    return label


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_strokes_are_flat_across_the_axis_they_were_drawn_on(axis):
    assert flat_axis(strokes(axis)) == axis
    assert flat_axis(np.full((9, 9, 9), UNLABELED, np.uint8)) is None, "nothing drawn"
    assert flat_axis(np.ones((9, 9, 9), np.uint8)) is None, "a mask has no plane"


def test_the_plane_is_that_of_most_strokes():
    body = Grid((30, 32, 34), np.diag([0.8, 0.8, 0.7, 1]), None)
    thick = Grid((30, 32, 34), np.diag([0.8, 0.8, 5, 1]), None)
    turned = Grid((34, 30, 32), np.array([[0, 0.8, 0, 0], [0, 0, 0.8, 0], [0.7, 0, 0, 0], [0, 0, 0, 1.0]]), None)
    assert body.order[0] == 1, "by spacing alone it would be cut coronally"
    assert choose_plane([(body, 2), (body, 2), (body, None)]) == "axial"
    assert choose_plane([(body, 2), (turned, 0)]) == "axial" and Grid(*vars(turned).values()).across("axial") == 0
    assert choose_plane([(thick, 2), (thick, 2)]) == "spacing" == choose_plane([])
    assert choose_plane([(thick, 0), (thick, 0)]) == "spacing", "thick slices are cut as they were made"
    assert choose_plane([(body, 2), (body, None)]) == "spacing", "no majority"
    assert Grid(body.shape, body.affine, None, "axial").order == (2, 1, 0)
    assert Grid(body.shape, body.affine, None, "first").order == (0, 2, 1)


def ct_dataset(folder, axis: int = 2, channel: str = "CT", cases: int = 4):
    """Scans of 0.8 × 0.8 × 0.7 mm with a body in air, a sentinel around it, and strokes in slices across `axis`."""
    rng = np.random.default_rng(0)
    for number in range(cases):
        truth = np.zeros((40, 40, 12), np.uint8)
        truth[14:20, 15:26, 2:10] = 1
        image = np.full(truth.shape, -1000.0)
        image[12:26, 12:28] = 40
        image[truth == 1] = 120
        image += rng.normal(0, 4, image.shape)
        image[:, :3] = -32768
        drawn = np.full(truth.shape, 2, np.uint8)
        drawn[15:19, 20, 3:9:2] = 1
        drawn[16, 16:25, 3:9:2] = 1
        drawn[22, 14:26, 3:9:2] = 0
        if axis != 2:
            image, truth, drawn = (np.moveaxis(array, 2, axis) for array in (image, truth, drawn))
        affine = np.diag([0.7 if each == axis else 0.8 for each in range(3)] + [1.0])
        name = f"ct{number}"
        save(folder / "imagesTr" / f"{name}_0000.nii.gz", image.astype(np.int16), affine)
        save(folder / "labelsTr" / f"{name}.nii.gz", drawn, affine)
        save(folder / "labelsTr_dense" / f"{name}.nii.gz", truth, affine)
    info = {
        "channel_names": {"0": channel},
        "labels": {"background": 0, "organ": 1, "ignore": 2},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(info), encoding="utf-8")
    splits = [{"train": ["ct0", "ct1", "ct2"], "val": ["ct3"]}]
    (folder / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")
    return folder


def test_a_ct_is_cut_and_normalised_by_its_strokes(tmp_path):
    dataset = read_dataset(ct_dataset(tmp_path / "ct"))
    fitted = fit(dataset, tuple(dataset.cases), by_data=True)
    assert fitted.plane == "axial" and fitted.crop and fitted.keep_strokes and fitted.bare == BARE_SHARE
    (how,) = fitted.intensity
    assert how.kind == "ct" and how.low == pytest.approx(109, abs=5) and how.high == pytest.approx(131, abs=5)
    volume = load_volume(dataset, dataset.case("ct0"), fitted)
    assert volume.image.shape == (1, 12, 24, 22) == (1, *volume.scribble.shape), "body and a margin of four pixels"
    assert (volume.scribble == 1).sum() == 3 * 12 and volume.truth.sum() == 6 * 11 * 8
    papers = fit(dataset, tuple(dataset.cases))
    assert papers.plane == "axial" and not papers.intensity and not papers.crop and papers.bare is None


def test_dataset_json_overrides_the_plane(tmp_path):
    folder = ct_dataset(tmp_path / "ct")
    info = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    (folder / "dataset.json").write_text(json.dumps(info | {"plane": "sagittal"}), encoding="utf-8")
    dataset = read_dataset(folder)
    assert fit(dataset, tuple(dataset.cases)).plane == "sagittal"
    assert load_volume(dataset, dataset.case("ct0")).image.shape == (1, 40, 12, 40)


@pytest.fixture(scope="module")
def with_and_without_blanks(tmp_path_factory):
    """Twelve cases in one fold, four of them drawn; the eight others, whose slices are thicker, with labels or not."""
    folder = tmp_path_factory.mktemp("blanks")
    bare, blank = ct_dataset(folder / "bare", axis=0, cases=12), folder / "blank"
    (bare / "splits_final.json").unlink()
    shutil.rmtree(bare / "labelsTr_dense")
    for number in {*range(12)} - {1, 4, 6, 10}:
        (bare / "labelsTr" / f"ct{number}.nii.gz").unlink()
        image = bare / "imagesTr" / f"ct{number}_0000.nii.gz"
        save(image, np.asarray(nibabel.load(image).dataobj), np.diag([2.1, 0.8, 0.8, 1]))
    shutil.copytree(bare, blank)
    assert len(write_blanks(blank, 2)) == 8 and len([*(blank / "labelsTr").iterdir()]) == 12
    return bare, blank


@pytest.mark.parametrize("seed", [0, 1])
def test_labels_without_strokes_decide_nothing(with_and_without_blanks, tmp_path, seed):
    def planned(folder, **more) -> Plan:
        config = Train(folder, tmp_path / "run", preset="fast", val_share=0.25, seed=seed, **more)
        dataset = read_dataset(folder)
        return fit_plan(make_plan(config, dataset), dataset, undecided(config))

    bare, blank = with_and_without_blanks
    plan = planned(blank)
    assert (plan.size, plan.recipe.iterations, plan.fitted.plane) == (80, 2300, "sagittal")
    assert len(plan.fold.val) == 1 and plan.fold.val[0] in ("ct1", "ct4", "ct6", "ct10")
    assert plan == planned(bare)
    volumes = {"preparation": "patches", "dims": "3", "method": "pce"}
    assert planned(blank, **volumes) == planned(bare, **volumes) and planned(blank, **volumes).between < 1


def test_labels_without_strokes_are_named_at_the_start(with_and_without_blanks, tmp_path, capfd):
    _, blank = with_and_without_blanks
    train(Train(blank, tmp_path / "run", method="pce", iterations=1, size=80, batch=1))
    assert "without a scribble: 8 of 12 training cases (first: ct0)" in capfd.readouterr().err


def test_check_looks_at_drawn_cases(with_and_without_blanks, monkeypatch, capsys):
    monkeypatch.setattr("scribbleseg.training.outlook.LOOKED_AT", 2)
    monkeypatch.setattr("scribbleseg.training.outlook.time_step", lambda *_: 1.0)
    monkeypatch.setattr("scribbleseg.training.outlook.seconds_of", lambda *_: 1.0)
    said = []
    for folder in with_and_without_blanks:
        assert check(Check(folder))
        said.append(capsys.readouterr().out.replace(str(folder), "").splitlines()[1:])
    assert said[0] == said[1] and "plane     sagittal: the strokes are flat there" in said[1]
    assert any("0 of 12 drawn classes" in line for line in said[1])


def test_validation_needs_strokes_not_only_labels(with_and_without_blanks, tmp_path):
    _, blank = with_and_without_blanks
    dataset = read_dataset(blank)
    assert drawn_cases(dataset, ["ct0", "ct1", "ct2", "ct4"]) == ["ct1", "ct4"]
    for val, refused in ((["ct0", "ct2"], True), (["ct0", "ct4"], False)):
        split = shutil.copytree(blank, tmp_path / val[1]) / "splits" / "own.json"
        split.parent.mkdir()
        split.write_text(json.dumps([{"name": "one", "train": ["ct1"], "val": val, "test": []}]), encoding="utf-8")
        config = Train(tmp_path / val[1], tmp_path / "run", split="own")
        with pytest.raises(InputError, match="no validation case has") if refused else nullcontext():
            make_plan(config, read_dataset(config.dataset))


def test_a_label_that_gets_strokes_later_counts_from_then_on(tmp_path):
    folder = small_dataset(tmp_path / "data", cases=3)
    path = folder / "labelsTr" / "case.0 a.nii.gz"
    drawn = path.read_bytes()
    path.unlink()
    write_blanks(folder, 3)
    dataset = read_dataset(folder)
    assert drawn_cases(dataset, dataset.cases) == ["case.1 a", "case.2 a"]
    path.write_bytes(drawn)
    assert drawn_cases(dataset, dataset.cases) == ["case.0 a", "case.1 a", "case.2 a"]
    path.write_bytes(drawn[:40])
    with pytest.raises(InputError, match="case.0 a.nii.gz"):
        drawn_cases(dataset, dataset.cases)


@pytest.mark.parametrize("preparation", ["slices", "patches"])
@pytest.mark.parametrize("axis", [2, 0])
def test_prediction_obeys_the_run_and_undoes_the_cropping(tmp_path, axis, preparation):
    data = ct_dataset(tmp_path / "ct", axis)
    wanted = {"preset": "fast", "method": "pce", "iterations": 2, "size": 32, "batch": 4, "preparation": preparation}
    run = train(Train(data, tmp_path / "run", **wanted, val_share=0.0))
    fitted = read_plan(run)[1].fitted
    assert fitted.crop and fitted.bare == 0 and fitted.plane == ("axial" if axis == 2 else "sagittal")
    made = predict(Predict((run,), data, tmp_path / "masks", probabilities=True, uncertainty=True))
    label, grid = read_label(tmp_path / "masks" / "ct3.nii.gz", (0, 1, 2))
    image, other = read_image(data / "imagesTr" / "ct3_0000.nii.gz", (0, 1, 2))
    assert len(made) == 4 and label.shape == image.shape and grid.same_place(other)
    air = np.moveaxis(label, axis, 2)[:7]
    background = np.moveaxis(read_image(tmp_path / "masks" / "ct3_prob_background.nii.gz", (0, 1, 2))[0], axis, 2)
    assert (air == 0).all() and (background[:7] == 1).all() and (background[16:20, 16:24] < 1).all()


@pytest.mark.parametrize(
    "cut, words", [("slices", "cropping of empty borders"), ("auto", "cutting of slices to where rings lie")]
)
def test_runs_that_cut_otherwise_cannot_be_averaged(tmp_path, cut, words):
    data = ct_dataset(tmp_path / "ct")
    common = {"method": "pce", "iterations": 1, "size": 48, "batch": 2}
    fast = train(Train(data, tmp_path / "fast", preset="fast", preparation=cut, **common))
    papers = train(Train(data, tmp_path / "papers", **common))
    with pytest.raises(InputError, match=words):
        predict(Predict((fast, papers), data, tmp_path / "masks"))
    assert not (tmp_path / "masks").exists()


def test_runs_with_other_intensities_are_averaged(tmp_path):
    data = small_dataset(tmp_path / "data")
    common = {"method": "pce", "iterations": 1, "size": 32, "batch": 2}
    runs = [train(Train(data, tmp_path / preset, preset=preset, **common)) for preset in ("fast", "paper")]
    assert [bool(read_plan(run)[1].fitted.intensity) for run in runs] == [True, False]
    assert len(predict(Predict(tuple(runs), data, tmp_path / "masks"))) == 2


def test_content_and_strokes_are_in_the_box():
    channel = np.zeros((3, 50, 60), np.float32)
    channel[:, 20:30, 30:50] = scan()[:3, :10, :20] + 50
    rows, columns = content_box([channel])
    assert (rows, columns) == (slice(16, 34), slice(26, 54))
    drawn = np.zeros(channel.shape, bool)
    drawn[1, 3, 59] = True
    assert enclosing_box((rows, columns), drawn) == (slice(3, 34), slice(26, 60))
    assert content_box([scan()]) == (slice(0, 40), slice(0, 40))


def test_every_drawn_class_of_a_slice_survives():
    rng = np.random.default_rng(0)
    label = np.full((20, 300, 300), UNLABELED, np.uint8)
    for plane in label:
        plane[rng.integers(300), :] = 0
        plane[:, rng.integers(300)] = 1
        plane[rng.integers(300), rng.integers(300)] = 2
        row, column = rng.integers(0, 296, 2)
        plane[row : row + 4, column : column + 4] = 0
        plane[row + 1, column + 1] = 3
    for size in (64, 33, 16):
        kept, nearest = (
            lost_strokes(label, shrink(label, (size, size)).numpy()) for shrink in (resample_strokes, resample_label)
        )
        assert kept == (0, 80) and nearest[0] > 10


def test_an_area_is_not_made_larger():
    label = np.zeros((1, 128, 128), np.uint8)
    label[0, 32:64, 32:64] = 1
    label[0, 66, 66] = 2
    found = resample_strokes(label, (32, 32)).numpy()
    assert (found == 1).sum() == 64 and (found == 2).sum() == 1 and (found == 0).sum() == 32 * 32 - 65


def slices(known: list[bool]) -> Slices:
    label = torch.full((len(known), 4, 4), UNLABELED, dtype=torch.uint8)
    label[torch.tensor(known), 0, 0] = 1
    return Slices(torch.zeros(len(known), 1, 4, 4), label, {}, None)


def test_slices_without_strokes_have_a_rate_of_their_own():
    data = slices([True, False] * 20)
    assert bare_slices(data).tolist() == [False, True] * 20
    drawn = make_sampler(data, 12, 0, bare=0.0)
    assert all((drawn(step) % 2 == 0).all() for step in range(10))
    mixed = make_sampler(data, 12, 0, bare=0.2)
    assert all((mixed(step) % 2).sum() == 2 and len(mixed(step)) == 12 for step in range(30))
    seen = torch.cat([mixed(step) for step in range(10)])
    assert set(seen.tolist()) == set(range(40)), "all of them in turn"
    assert torch.equal(make_sampler(data, 12, 0, bare=0.2)(7), mixed(7)), "a resumed run draws the same"
    few = make_sampler(slices([True] * 19 + [False]), 12, 0, bare=0.2)
    assert sum((few(step) == 19).sum() for step in range(5)) == 5, "one of twelve, not two"
    assert len(make_sampler(slices([True] * 3), 12, 0, bare=0.2)(0)) == 12
    data.maps["enclosure"] = torch.zeros(40, 4, 4, dtype=torch.uint8)
    assert not bare_slices(data).any(), "enclosed background is something to learn from"


def test_a_rare_class_has_a_place_in_every_batch():
    label = torch.full((100, 4, 4), UNLABELED, dtype=torch.uint8)
    label[:, 0], label[:90, 1, 1], label[[7, 50], 2, 2], label[[3], 3, 3] = 0, 1, 2, 4
    data = Slices(torch.zeros(100, 1, 4, 4), label, {}, None)
    assert [numbers.tolist() for numbers in rare_slices(data, 12)] == [[3], [7, 50]]
    sampler = make_sampler(data, 12, 0, bare=0.2)
    for iteration in range(20):
        batch = sampler(iteration).tolist()
        assert len(batch) == 12 and 3 in batch and {7, 50} & set(batch)
    assert len({*torch.cat([sampler(iteration) for iteration in range(40)]).tolist()}) == 100
    assert not {3, 7, 50} <= {*torch.cat([make_sampler(data, 12, 0)(iteration) for iteration in range(2)]).tolist()}
    assert len(make_sampler(data, 3, 0, bare=0.2)(0)) == 3


def test_which_methods_learn_from_slices_without_strokes():
    from scribbleseg.networks import build_network

    network = build_network("unet", 1, 3)
    made = [method_class(name)(network) for name in METHODS if name != "scribformer"]
    cannot = {type(method).__name__ for method in made if not method.learns_from_bare}
    assert cannot == {"PCE", "NNUNetPartialLoss", "RandomWalker", "Corral"}


@pytest.mark.parametrize("shape", [(6, 2, 24, 24), (6, 2, 8, 16, 16)])
def test_random_intensity_works_on_any_scale(shape):
    image = torch.rand(shape)
    torch.manual_seed(3)
    small = random_intensity(image)
    torch.manual_seed(3)
    large = random_intensity(image * 500 - 1000)
    assert torch.allclose((large + 1000) / 500, small, atol=1e-3)
    assert (small - image).abs().mean() > 0.02 and (small - image).abs().amax() < 1
    assert torch.equal(random_intensity(torch.full((2, 1, 4, 4), 5.0)), torch.full((2, 1, 4, 4), 5.0))


def test_strokes_keep_their_pixels_when_slices_shrink_and_masks_their_width(tmp_path):
    dataset = read_dataset(small_dataset(tmp_path / "data", cases=1, shape=(48, 48, 3)))
    volume = load_volume(dataset, dataset.case(next(iter(dataset.cases))))
    assert volume.truth is not None
    strokes, mask = resample_strokes(volume.scribble, (32, 32)), resample_label(volume.truth, (32, 32))
    assert not torch.equal(resample_strokes(volume.truth, (32, 32)), mask), "the two ways differ here"
    slices, _ = build_slices(
        dataset,
        tuple(dataset.cases),
        lambda read: ({"label": read.scribble, "mask": read.truth}, {}),
        32,
        replace(PAPERS, keep_strokes=True),
    )
    assert torch.equal(slices.label, strokes) and torch.equal(slices.maps["mask"], mask)
