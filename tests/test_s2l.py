import math

import numpy as np
import pytest
import torch
from torch import nn

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch, Slices
from scribbleseg.methods.s2l import Scribble2Label

U = UNLABELED


class Given(nn.Module):
    """Gives p(class 1) = image · factor, and notes in which mode it was asked."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))
        self.modes = []

    def forward(self, image):
        self.modes.append((self.training, torch.is_grad_enabled()))
        one = image[:, 0] * self.factor
        return torch.stack([1 - one, one], 1).log()


def make_slices():
    image = torch.tensor([[1.0, 1.0, 0.5], [0.0, 1.0, 0.9], [0.85, 0.1, 0.15]])[:, None, None]
    label = torch.tensor([[U, 0, U], [U, U, U], [1, U, U]], dtype=torch.uint8)[:, None]
    return Slices(image, label, {"ensemble": torch.full_like(label, U)}, None)


def test_ensemble_by_hand():
    slices = make_slices()
    method = Scribble2Label(Given(), sweep_batch=2).train()
    method.sweep(slices, torch.tensor(0.1))
    torch.testing.assert_close(method.mean[:, 1].float(), slices.image[:, 0], atol=1e-3, rtol=0)
    assert slices.maps["ensemble"][:, 0].tolist() == [
        [1, U, U],
        [0, 1, 1],
        [U, 0, 0],
    ]  # scribbled pixels stay out, .5 is not sure
    with torch.no_grad():
        method.network.factor.fill_(0.5)
    method.sweep(slices, torch.tensor(0.2))
    torch.testing.assert_close(method.mean[:, 1].float(), slices.image[:, 0] * (0.2 * 0.5 + 0.8), atol=1e-3, rtol=0)
    assert slices.maps["ensemble"][:, 0].tolist() == [[1, U, U], [0, 1, 1], [U, 0, 0]]  # .9 · .9 = .81
    method.sweep(slices, torch.tensor(0.3))
    torch.testing.assert_close(
        method.mean[:, 1].float(), slices.image[:, 0] * (0.2 * 0.5 + 0.8 * 0.9), atol=1e-3, rtol=0
    )
    assert slices.maps["ensemble"][:, 0].tolist() == [[1, U, U], [0, 1, U], [U, 0, 0]]  # .9 · .82 = .738
    torch.testing.assert_close(method.mean.float().sum(1), torch.ones(3, 1, 3), atol=2e-3, rtol=0)


def test_sweeps_predict_in_eval_mode_without_gradients_and_go_back_to_training():
    method = Scribble2Label(Given(), sweep_batch=2).train()
    method.sweep(make_slices(), torch.tensor(0.1))
    assert method.network.modes == [(False, False)] * 2
    assert method.network.training and not method.mean.requires_grad
    method.eval().sweep(make_slices(), torch.tensor(0.1))
    assert not method.network.training


def test_memory_of_the_ensemble():
    method = Scribble2Label(Given())
    method.sweep(make_slices(), torch.tensor(0.1))
    assert method.mean.nbytes == 3 * 2 * 1 * 3 * 2  # slices · classes · pixels · 2 bytes


def test_a_resumed_run_goes_on_the_same():
    slices, again = make_slices(), make_slices()
    method, other = Scribble2Label(Given(), sweep_batch=2), Scribble2Label(Given(), sweep_batch=2)
    other.load_state_dict(method.state_dict())  # before the first sweep there is nothing
    other.resume(again)
    assert (again.maps["ensemble"] == U).all()
    for factor in (1.0, 0.5):
        with torch.no_grad():
            method.network.factor.fill_(factor)
        method.sweep(slices, torch.tensor(0.2))
    other.load_state_dict(method.state_dict())
    other.resume(again)
    assert torch.equal(again.maps["ensemble"], slices.maps["ensemble"]) and (again.maps["ensemble"] != U).any()
    for one, state in ((method, slices), (other, again)):
        one.sweep(state, torch.tensor(0.3))
    assert torch.equal(method.mean, other.mean)
    assert torch.equal(again.maps["ensemble"], slices.maps["ensemble"])


@pytest.mark.parametrize("progress, share", [(0.0, 0.0), (0.099, 0.0), (0.1, 1.0), (1.0, 1.0)])
def test_losses_by_hand(progress, share):
    label = torch.tensor([[[1, U, U]]])
    batch = Batch(torch.tensor([[[[0.25, 0.9, 0.4]]]]), label, {"ensemble": torch.tensor([[[U, 1, 0]]])})
    terms = Scribble2Label(Given()).losses(batch, torch.tensor(progress))
    torch.testing.assert_close(terms["pce"].detach(), torch.tensor(-math.log(0.25)))
    ensemble = -0.5 * (math.log(0.9) + math.log(0.6)) / 2
    torch.testing.assert_close(terms["ensemble"].detach(), torch.tensor(share * ensemble))


@pytest.mark.parametrize("progress, share", [(0.1, 0.0), (0.4, 0.0), (0.5, 0.25), (1.0, 0.25)])
def test_start_and_weight_are_options(progress, share):
    batch = Batch(torch.tensor([[[[0.25, 0.9]]]]), torch.tensor([[[1, U]]]), {"ensemble": torch.tensor([[[U, 1]]])})
    terms = Scribble2Label(Given(), start=0.5, weight=0.25).losses(batch, torch.tensor(progress))
    assert terms["ensemble"].item() == pytest.approx(-share * math.log(0.9))


def test_targets_start_without_ensemble_labels(tmp_path):
    from scribbleseg.data.case import Volume
    from scribbleseg.data.dataset import Case

    scribble = np.array([[[0, U]]], np.uint8)
    targets = Scribble2Label(Given()).targets(Volume(Case("case", (), None, None), None, scribble, None, None, 2))
    assert targets["label"] is scribble and targets["ensemble"].dtype == np.uint8 and (targets["ensemble"] == U).all()
