import dataclasses
import errno
import io

import numpy as np
import pytest
import torch

from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.cache import cached
from scribbleseg.data.case import Volume
from scribbleseg.data.dataset import Case
from scribbleseg.data.voxels import Stack


@pytest.fixture
def volume(tmp_path):
    image = np.linspace(0, 1, 2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    scribble = np.full((2, 3, 4), UNLABELED, np.uint8)
    return Volume(Case("case", (), None, None), image, scribble, None, None, 2, tmp_path / "cache")


def counting():
    calls = []

    def compute():
        calls.append(1)
        return np.full((2, 3), len(calls), np.uint8)

    return calls, compute


def test_second_call_reads_the_first_result(volume):
    calls, compute = counting()
    first = cached(volume, "kind", {"a": 1, "b": 2}, compute)
    second = cached(volume, "kind", {"b": 2, "a": 1}, compute)
    assert len(calls) == 1
    np.testing.assert_array_equal(first, second)
    assert second.dtype == np.uint8
    assert [path.name.startswith("case-kind-") for path in volume.cache.iterdir()] == [True]


def test_anything_the_result_depends_on_misses(volume):
    calls, compute = counting()
    image, scribble = volume.image.copy(), volume.scribble.copy()
    image[0, 0, 0, 0] += 1e-6
    scribble[0, 0, 0] = 1
    cached(volume, "kind", {"a": 1}, compute)
    cached(volume, "kind", {"a": 2}, compute)
    cached(volume, "other", {"a": 1}, compute)
    cached(dataclasses.replace(volume, image=image), "kind", {"a": 1}, compute)
    cached(dataclasses.replace(volume, scribble=scribble), "kind", {"a": 1}, compute)
    cached(dataclasses.replace(volume, image=volume.image.reshape(1, 2, 4, 3)), "kind", {"a": 1}, compute)
    assert len(calls) == 6


def test_without_a_folder_it_is_computed_every_time(volume):
    calls, compute = counting()
    for _ in range(2):
        cached(dataclasses.replace(volume, cache=None), "kind", {}, compute)
    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_is_said_once(volume, capsys):
    volume.cache.write_text("a file in its place", encoding="utf-8")
    calls, compute = counting()
    for _ in range(2):
        cached(volume, "kind", {}, compute)
    assert len(calls) == 2
    assert (
        capsys.readouterr().err
        == f"{volume.cache}: cannot be written, so the results of 'kind' are not kept for the next run\n"
    )


def test_a_failed_computation_leaves_nothing(volume):
    with pytest.raises(ZeroDivisionError):
        cached(volume, "kind", {}, lambda: 1 / 0)
    assert not volume.cache.exists() or not any(volume.cache.iterdir())


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
        match="cache: the slices do not fit into memory, nor onto this disk .*No space left.*Free some space",
    ):
        Stack(tmp_path / "cache", 10).append(torch.zeros(16, dtype=torch.uint8))
