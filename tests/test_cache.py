import dataclasses
import errno
import io
import sys

import numpy as np
import pytest
import torch
from small import small_dataset

from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.cache import cached
from scribbleseg.data.case import Volume, read_scribble
from scribbleseg.data.dataset import Case
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.preparation import Fitted
from scribbleseg.data.raster import Raster
from scribbleseg.data.reading import build_slices, build_voxels
from scribbleseg.data.voxels import Stack
from scribbleseg.methods import method_class
from scribbleseg.methods.targets import kept_targets
from scribbleseg.networks import build_network


@pytest.fixture
def volume():
    image = np.linspace(0, 1, 2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    scribble = np.full((2, 3, 4), UNLABELED, np.uint8)
    return Volume(Case("case", (), None, None), image, scribble, None, None, 2)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


def counting():
    calls = []

    def compute():
        calls.append(1)
        return {"label": np.full((2, 3), len(calls), np.uint8), "other": np.arange(len(calls))}

    return calls, compute


def test_second_call_reads_the_first_result(folder, volume):
    calls, compute = counting()
    first = cached(folder, volume, {"a": 1, "b": 2}, compute)
    second = cached(folder, volume, {"b": 2, "a": 1}, compute)
    assert len(calls) == 1
    assert list(first) == list(second) == ["label", "other"]
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
        assert second[name].dtype == first[name].dtype
    assert [path.name.startswith("case-") for path in folder.iterdir()] == [True]


def test_anything_the_result_depends_on_misses(folder, volume):
    calls, compute = counting()
    image, scribble = volume.image.copy(), volume.scribble.copy()
    image[0, 0, 0, 0] += 1e-6
    scribble[0, 0, 0] = 1
    cached(folder, volume, {"a": 1}, compute)
    cached(folder, volume, {"a": 2}, compute)
    cached(folder, volume, {"a": 1, "b": 1}, compute)
    cached(folder, dataclasses.replace(volume, image=image), {"a": 1}, compute)
    cached(folder, dataclasses.replace(volume, scribble=scribble), {"a": 1}, compute)
    cached(folder, dataclasses.replace(volume, image=volume.image.reshape(1, 2, 4, 3)), {"a": 1}, compute)
    assert len(calls) == 6


def test_without_a_key_it_is_computed_every_time(folder, volume):
    calls, compute = counting()
    for _ in range(2):
        cached(folder, volume, None, compute)
    assert len(calls) == 2 and not folder.exists()


def test_a_folder_that_cannot_be_written_is_said_once(folder, volume, capsys):
    folder.write_text("a file in its place", encoding="utf-8")
    calls, compute = counting()
    for _ in range(2):
        cached(folder, volume, {}, compute)
    assert len(calls) == 2
    said = f"{folder}: cannot be written, so the next run must compute its targets again\n"
    assert capsys.readouterr().err == said


def test_a_failed_computation_leaves_nothing(folder, volume):
    with pytest.raises(ZeroDivisionError):
        cached(folder, volume, {}, lambda: 1 / 0)
    assert not folder.exists() or not any(folder.iterdir())


@pytest.mark.parametrize("name, counted", [("rw", "walk"), ("fddseg", "spread")])
def test_the_loop_solves_the_targets_of_a_case_once_per_key(tmp_path, monkeypatch, name, counted):
    data = read_dataset(small_dataset(tmp_path / "data", cases=3))
    kind, calls = method_class(name), []
    module = sys.modules[kind.__module__]
    solve = getattr(module, counted)
    monkeypatch.setattr(module, counted, lambda *args: calls.append(1) or solve(*args))
    network, cache = build_network("unet", 1, len(data.classes)), data.folder / ".scribbleseg"
    first, _ = build_slices(data, tuple(data.cases), kept_targets(kind(network), cache), 32)
    slices = len(first.label)
    again, _ = build_slices(data, tuple(data.cases), kept_targets(kind(network), cache), 32)
    assert len(calls) == slices == 9
    for one, other in zip(first.layers(), again.layers(), strict=True):
        assert torch.equal(one, other)
    assert len(list((data.folder / ".scribbleseg").glob("case.0 a-*.npz"))) == 1
    changed = kind(network, **({"beta": 10.0} if name == "rw" else {"reach": 2}))
    build_slices(data, tuple(data.cases), kept_targets(changed, cache), 32)
    assert len(calls) == 2 * slices


def test_kept_targets_give_the_same_patches(tmp_path):
    """fddseg's label is the scribble, of which no stroke is lost, whether it was kept on disk or not."""
    data = read_dataset(small_dataset(tmp_path / "data", cases=3))
    targets = kept_targets(method_class("fddseg")(build_network("unet", 1, 3)), data.folder / ".scribbleseg")
    grid = Raster(pixel=1.7)  # twice as wide as the voxels
    made = [build_voxels(data, tuple(data.cases), targets, grid, Fitted(pixel=1.7)) for _ in range(2)]
    assert torch.equal(made[0].label, made[1].label) and len(list((data.folder / ".scribbleseg").iterdir())) == 3
    drawn = (read_scribble(data, data.case("case.0 a"))[0] != UNLABELED).sum()
    first = slice(0, int(made[0].shape[:3].prod(1).sum()))
    assert (made[0].label[first] != UNLABELED).sum() > 0.35 * drawn, "as an area a stroke would keep a quarter"


def test_cheap_targets_are_not_kept(tmp_path):
    data = read_dataset(small_dataset(tmp_path / "data", cases=3))
    cache = data.folder / ".scribbleseg"
    build_slices(data, tuple(data.cases), kept_targets(method_class("pce")(build_network("unet", 1, 3)), cache), 32)
    assert not cache.exists()


# --- slices that do not fit into memory


def test_a_stack_that_finds_no_place_names_the_folder_and_a_way_out(tmp_path):
    (tmp_path / "file").touch()
    stack = Stack(tmp_path / "file" / "cache", 10)
    stack.append(torch.zeros(8, dtype=torch.uint8))
    with pytest.raises(
        InputError,
        match=r"cache: the slices do not fit into memory, and no file can be made here \(Not a directory\).*--size",
    ):
        stack.append(torch.zeros(8, dtype=torch.uint8))


def test_a_stack_on_a_full_disk_names_the_folder_and_a_way_out(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: Full())
    with pytest.raises(
        InputError,
        match="cache: the slices do not fit into memory, nor on this disk .*No space left.*Free some space",
    ):
        Stack(tmp_path / "cache", 10).append(torch.zeros(16, dtype=torch.uint8))
