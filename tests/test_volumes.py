"""Runs on volumes: trained, resumed, validated, predicted, reported; and what is refused."""

import json

import nibabel
import numpy as np
import pytest
import torch
from small import small_dataset
from test_train import same_weights
from tiny import edit

from scribbleseg.config import Predict, Train
from scribbleseg.core.errors import InputError
from scribbleseg.inference.predict import predict
from scribbleseg.networks import build_network
from scribbleseg.networks.unet3d import UNet3D, depth_strides
from scribbleseg.reporting.report import write_report
from scribbleseg.training import loop
from scribbleseg.training.plan import read_plan
from scribbleseg.training.train import resume, train

pytest.importorskip("monai")

SHORT = {"preparation": "patches", "dims": "3", "iterations": 4, "size": 32, "method": "pce"}


@pytest.fixture(scope="module")
def thick(tmp_path_factory):
    """Volumes of 40 × 36 × 6 voxels, whose slices are 6.8 times as far apart as their pixels."""
    return small_dataset(tmp_path_factory.mktemp("thick") / "data", shape=(40, 36, 6))


@pytest.fixture(scope="module")
def run(thick, tmp_path_factory):
    return train(Train(thick, tmp_path_factory.mktemp("run") / "run", val_share=0.3, **SHORT))


def log(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_on_volumes_is_validated_predicted_and_reported(thick, run, tmp_path):
    plan = read_plan(run)[1]
    assert plan.dims == 3 and plan.network == "unet3d" and plan.recipe.batch == 2
    assert plan.patch == (6, 32, 32) and 6 < plan.anisotropy < 7
    assert "val_mean_dice" in log(run)[-1]
    files = predict(Predict((run,), thick, tmp_path / "masks", probabilities=True))
    masks = [path for path in files if "_prob_" not in path.name]
    assert len(masks) == 2 and len(files) == 8
    image = nibabel.load(thick / "imagesTr" / f"{masks[0].name[:-7]}_0000.nii.gz")
    found = nibabel.load(masks[0])
    assert found.shape == image.shape and np.allclose(found.affine, image.affine)
    probs = [nibabel.load(path).get_fdata() for path in files[1:4]]
    assert np.allclose(sum(probs), 1, atol=1e-4) and np.array_equal(np.argmax(probs, 0), found.get_fdata())
    page = write_report(run, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "unet3d on patches of 6 × 32 × 32 voxels" in page and "of 2 patches" in page


def test_a_run_on_volumes_is_carried_on_to_the_same_weights(thick, run, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    real = loop.learning_rate

    def until_two(recipe, progress):
        if progress >= 0.5:
            raise Stop
        return real(recipe, progress)

    monkeypatch.setattr(loop, "learning_rate", until_two)
    with pytest.raises(Stop):
        train(Train(thick, tmp_path / "cut", val_share=0.3, checkpoint_every=0, **SHORT))
    monkeypatch.undo()
    resume(tmp_path / "cut")
    assert same_weights(run, tmp_path / "cut")


@pytest.mark.parametrize(
    ("method", "options", "term", "dims"),
    [
        ("s2l", ("confidence=0.2", "start=0"), "ensemble", "2"),
        pytest.param("s2l", ("confidence=0.2", "start=0"), "ensemble", "3", marks=pytest.mark.slow),
        pytest.param("corral", ("taught=1",), "told", "2", marks=pytest.mark.slow),
        ("corral", ("taught=1",), "told", "3"),
    ],
)
def test_methods_label_patches_and_volumes_anew(thick, tmp_path, dims, method, options, term, monkeypatch):
    monkeypatch.setattr("scribbleseg.training.calendar.SWEEP_DISTANCE", 2)
    changes = {"method": method, "set": options, "dims": dims, "batch": 2}
    run = train(Train(thick, tmp_path / "run", **SHORT | changes))
    assert log(run)[-1]["losses"][term] > 0, "the sweep has left labels"


def test_auto_decides_by_the_volumes(small, thick, tmp_path):
    few = SHORT | {"iterations": 1, "dims": "auto"}
    assert read_plan(train(Train(thick, tmp_path / "flat", **few)))[1].dims == 2, "slices 6.8 times as far apart"
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    cubes = small_dataset(tmp_path / "cubes", cases=3, shape=(32, 32, 16))
    for path in cubes.rglob("*.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(np.asanyarray(nibabel.load(path).dataobj), affine), path)
    edit(cubes, plane="spacing")
    plan = read_plan(train(Train(cubes, tmp_path / "deep", **few)))[1]
    assert plan.dims == 3 and plan.between == pytest.approx(2.0)
    assert read_plan(train(Train(cubes, tmp_path / "slices", **few | {"preparation": "slices"})))[1].dims == 2


def test_refusals(thick, tmp_path):
    for changes, said in (
        ({"preparation": "slices"}, "--dims 3: whole slices.*Add --preparation patches"),
        ({"method": "scribformer"}, "--dims 3: scribformer sees slices alone.*pce, fullsup"),
        ({"size": 16}, "--size 16: 3-D patches need 32 pixels or more"),
        ({"network": "unet"}, "network 'unet' is not 3-D.*unet3d"),
    ):
        with pytest.raises(InputError, match=said):
            train(Train(thick, tmp_path / "run", **SHORT | changes))
    with pytest.raises(InputError, match="network 'unet3d' is not 2-D"):
        build_network("unet3d", 1, 2)
    assert not (tmp_path / "run").exists()


def test_slices_are_halved_once_pixels_are_as_large():
    assert depth_strides(1.0) == (2, 2, 2, 2) and depth_strides(3.5) == (1, 1, 2, 2) and depth_strides(40) == (1,) * 4
    network = UNet3D(2, 3, 3.5, (2, 4, 4, 4, 4))
    maps = network.encode(torch.rand(1, 2, 8, 32, 32))
    assert [tuple(m.shape[2:]) for m in maps] == [(8, 32, 32), (8, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)]
    assert network.strides[8] == (2, 8, 8) and network(torch.rand(1, 2, 8, 32, 32)).shape == (1, 3, 8, 32, 32)
    assert build_network("monai:BasicUNet", 1, 2, 3).dims == 3
