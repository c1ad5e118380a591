import dataclasses
import math

import numpy as np
import pytest
import torch
from small import small_dataset
from torch import nn

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import Volume
from scribbleseg.data.dataset import Case
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.reading import build_slices
from scribbleseg.data.voxels import Batch
from scribbleseg.methods import rw
from scribbleseg.methods.rw import RandomWalker
from scribbleseg.methods.targets import kept_targets
from scribbleseg.networks.unet import UNet

U = UNLABELED


def dense_solution(image, scribble, beta):
    """Grady's Dirichlet problem on the 4-neighbour graph, one dense linear system, pixel by pixel."""
    rescaled = 2 * (image - -0.35) / (1.35 - -0.35) - 1
    height, width = scribble.shape
    count = height * width
    laplacian = np.zeros((count, count))
    for r in range(height):
        for c in range(width):
            for i, j in ((r + 1, c), (r, c + 1)):
                if i < height and j < width:
                    squares = ((rescaled[:, r, c] - rescaled[:, i, j]) ** 2).sum()
                    weight = math.exp(-beta * squares / (10 * rescaled.std() * math.sqrt(len(image))))
                    for a, b in ((r * width + c, i * width + j), (i * width + j, r * width + c)):
                        laplacian[a, b] -= weight
                        laplacian[a, a] += weight
    free = np.flatnonzero(scribble == U)
    seeds = np.flatnonzero(scribble != U)
    drawn = np.unique(scribble[scribble != U])
    ends = scribble.ravel()[seeds][:, None] == drawn
    probs = np.linalg.solve(laplacian[np.ix_(free, free)], -laplacian[np.ix_(free, seeds)] @ ends)
    found = scribble.ravel().copy()
    found[free] = drawn[probs.argmax(1)]
    return found.reshape(scribble.shape)


@pytest.mark.parametrize("channels", [1, 2])
def test_walk_solves_gradys_problem_for_classes_with_a_gap(channels):
    rng = np.random.default_rng(3)
    image = rng.random((channels, 9, 11)).astype(np.float32)
    scribble = np.full((9, 11), U, np.uint8)
    scribble[0, :3], scribble[8, 8:], scribble[4, 5] = 0, 3, 1
    found = rw.walk(image, scribble, 4)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, dense_solution(image, scribble, 100))
    assert (dense_solution(image, scribble, 100) != dense_solution(image, scribble, 1)).any()  # the case tells β apart
    np.testing.assert_array_equal(rw.walk(image, scribble, 4, beta=1), dense_solution(image, scribble, 1))


def test_walk_stops_at_an_edge():
    image = np.array([[[0, 0, 0, 0, 1, 1]]], np.float32)
    scribble = np.array([[1, U, U, U, U, 0]], np.uint8)
    np.testing.assert_array_equal(rw.walk(image, scribble, 2), [[1, 1, 1, 1, 0, 0]])


@pytest.mark.parametrize(
    "drawn, present, background",
    [
        ((), [U, U, U, U], [0, 0, 0, 0]),  # nothing to go by
        ((0,), [0, 0, 0, 0], [0, 0, 0, 0]),  # no structure in the slice
        ((2,), [2, U, U, U], [0, 0, 0, 0]),  # one foreground class: no rival to stop it
        ((0, 2), [0, 0, 2, 2], [0, 0, 0, 0]),  # class 1 is missing
        ((1, 2), [1, 1, 2, 2], [1, 1, 2, 2]),  # background is missing: still every structure
    ],
)
def test_slices_that_lack_a_class(drawn, present, background):
    image = np.array([[[0, 0, 1, 1]]], np.float32)
    scribble = np.full((1, 4), U, np.uint8)
    scribble[0, [0, 3][: len(drawn)]] = drawn
    np.testing.assert_array_equal(rw.walk(image, scribble, 3)[0], present)
    np.testing.assert_array_equal(rw.walk(image, scribble, 3, missing="background")[0], background)


def test_a_slice_that_is_drawn_completely_is_kept():
    scribble = np.array([[0, 1], [1, 1]], np.uint8)
    np.testing.assert_array_equal(rw.walk(np.zeros((1, 2, 2), np.float32), scribble, 2), scribble)


@pytest.fixture
def volume():
    image = np.tile(np.array([0, 0, 1, 1], np.float32), (1, 5, 1, 1))
    scribble = np.full((5, 1, 4), U, np.uint8)
    for slice_, (at, values) in zip(
        scribble, [([0, 1, 3], (0, 1, 2)), ([0, 3], (0, 2)), ([0], (0,)), ([0], (2,)), ([], ())]
    ):
        slice_[0, at] = values
    return Volume(Case("case", (), None, None), image, scribble, None, None, 3)


def test_targets_and_their_key_follow_the_options(volume, monkeypatch):
    found = rw.RandomWalker(nn.Identity()).targets(volume)["label"]
    np.testing.assert_array_equal(found[:, 0], [[0, 1, 2, 2], [0, 0, 2, 2], [0, 0, 0, 0], [2, U, U, U], [U, U, U, U]])
    assert not rw.RandomWalker(nn.Identity(), missing="background").targets(volume)["label"][1:].any()
    used = []
    monkeypatch.setattr(rw, "walk", lambda *args: used.append(args[2:]) or args[1])
    rw.RandomWalker(nn.Identity(), beta=10.0).targets(volume)
    assert used == [(3, 10.0, "present")] * 5
    options = ({}, {"beta": 10.0}, {"missing": "background"})
    keys = [rw.RandomWalker(nn.Identity(), **given).target_key(volume) for given in options]
    assert keys[0] == rw.RandomWalker(nn.Identity()).target_key(volume)
    more = rw.RandomWalker(nn.Identity()).target_key(dataclasses.replace(volume, classes=4))
    assert len({str(key) for key in [*keys, more]}) == 4


def test_notes_count_the_kinds_of_slices(volume):
    assert rw.RandomWalker(nn.Identity()).notes(volume) == {
        "slices with every class": 1,
        "slices that lack a class": 1,
        "slices with background only": 1,
        "slices with one foreground class only": 1,
        "slices without scribble": 1,
    }


def test_losses_by_hand():
    label = torch.tensor([[[0, 1]]])
    terms = rw.RandomWalker(nn.Identity()).losses(Batch(torch.zeros(1, 2, 1, 2), label), torch.tensor(0.0))
    torch.testing.assert_close(terms["ce"], torch.tensor(math.log(2) / 2))
    torch.testing.assert_close(terms["dice"], torch.tensor(0.5 * (1 - 2 * 0.5 / 1.5)), atol=1e-5, rtol=0)


def test_real_slice_comes_close_to_the_dense_mask(shared_data):
    h5py = pytest.importorskip("h5py")
    with h5py.File(sorted((shared_data / "ACDC" / "ACDC_training_volumes").glob("*.h5"))[0]) as file:
        middle = len(file["image"]) // 2
        image, scribble, truth = (file[name][middle] for name in ("image", "scribble", "label"))
    found = rw.walk(image[None], np.where(scribble == 4, U, scribble).astype(np.uint8), 4)
    dice = [2 * ((found == c) & (truth == c)).sum() / ((found == c).sum() + (truth == c).sum()) for c in (1, 2, 3)]
    assert min(dice) > 0.6 and dice[2] > 0.85


class Spread(RandomWalker):
    """Derived from rw, with targets of its own."""

    def targets(self, volume):
        return {"label": np.zeros_like(volume.scribble)}


def test_kept_targets_belong_to_the_class_that_made_them(tmp_path):
    dataset = read_dataset(small_dataset(tmp_path / "small", cases=3))
    network = UNet(1, 3, (4, 8), (0.0, 0.0))
    first, _ = build_slices(dataset, tuple(dataset.cases), kept_targets(RandomWalker(network), tmp_path / "cache"), 16)
    second, _ = build_slices(dataset, tuple(dataset.cases), kept_targets(Spread(network), tmp_path / "cache"), 16)
    assert first.label.any() and not second.label.any()
