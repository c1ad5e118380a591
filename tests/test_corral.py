"""Corral: the walker's probabilities, widths, and the labels of half-time, on slices that can be worked out by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch, Slices
from scribbleseg.methods.corral import Corral
from scribbleseg.methods.walker import half_widths, walk, walker_probs

U = UNLABELED


class Flat(nn.Module):
    """Finds every class equally likely, and notes in which mode it was asked."""

    def __init__(self, classes=3):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, classes, 1, 1))
        self.modes = []

    def forward(self, image):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.bias.expand(len(image), -1, *image.shape[2:])


def row(*values):
    return np.array([values], np.uint8)


def test_without_an_edge_the_walker_falls_linearly_between_two_strokes():
    found = walker_probs(np.zeros((1, 1, 5)), row(1, U, U, U, 2), 3, beta=200)
    np.testing.assert_allclose(found[1, 0], [1, 0.75, 0.5, 0.25, 0], atol=1e-3)
    np.testing.assert_allclose(found.sum(0), 1, atol=2e-3)
    assert not found[0].any()


def test_an_edge_stops_the_walker():
    image = np.array([[[0.0, 0, 0, 0, 0, 1, 1]]])
    found = walker_probs(image, row(1, U, U, U, U, U, 2), 3, beta=200)
    assert (found[1, 0, :5] > 0.95).all() and (found[2, 0, 5:] > 0.95).all()


def test_what_the_walker_cannot_decide():
    assert not walker_probs(np.zeros((1, 2, 3)), np.full((2, 3), U, np.uint8), 3, 200).any(), "no strokes"
    found = walker_probs(np.zeros((1, 1, 4)), row(U, 2, U, U), 3, 200)
    assert (found[2] == 1).all() and not found[:2].any(), "one class only"
    found = walker_probs(np.zeros((1, 1, 3)), row(0, 2, 1), 3, 200)
    assert found[:, 0].argmax(0).tolist() == [0, 2, 1], "nothing is open"


def test_half_widths_are_medians_over_the_slices_that_have_a_class():
    labels = np.zeros((3, 9, 9), np.uint8)
    labels[0, 2:7, 2:7] = 1  # from the middle of 5 pixels it is 3 to the next label
    labels[1, 4, 4] = 1
    labels[2, :, 3:6] = 2
    assert half_widths(labels, 4).tolist() == [2.0, 2.0, 2.0, 0.0]


def told(method, images, labels, enclosure=None):
    maps = {"told": torch.full(labels.shape, U, dtype=torch.uint8)}
    if enclosure is not None:
        maps["enclosure"] = enclosure
    slices = Slices(images, labels, maps, None)
    method.sweep(slices, torch.tensor(0.5))
    return slices


def strip():
    """A thin and a wide structure side by side, their strokes in the middle: columns 0-2 and 3-13."""
    label = torch.full((1, 16, 14), U, dtype=torch.uint8)
    label[:, :, 1], label[:, :, 8] = 1, 2
    return torch.zeros(1, 1, 16, 14), label


def test_thin_structures_give_way():
    images, label = strip()
    slices = told(Corral(Flat(), taught=1.0, narrow=1.0), images, label)
    assert slices.maps["told"][0, 0].tolist() == [1, U, 1, 1, 1, 2, 2, 2, U, 2, 2, 2, 2, 2], (
        "half-way between the strokes"
    )
    slices = told(Corral(Flat(), taught=1.0, narrow=0.01), images, label)
    assert slices.maps["told"][0, 0].tolist() == [1, U, 1, 1, 2, 2, 2, 2, U, 2, 2, 2, 2, 2], (
        "a_1 > 1 / .6 ^ (1 / .7) a_2 up to column 3"
    )


def test_network_and_walker_agree_by_their_product():
    images, label = strip()
    method = Corral(Flat(), taught=1.0, narrow=1.0, gamma=1.0)
    with torch.no_grad():
        method.network.bias[:, 1] = np.log(3.0)  # 3 times as likely: wins where a_2 < 3 a_1
    slices = told(method, images, label)
    assert slices.maps["told"][0, 0].tolist() == [1, U, 1, 1, 1, 1, 1, 2, U, 2, 2, 2, 2, 2]
    assert method.network.modes == [(False, False)] and method.network.training


def test_widths_are_the_walkers_whatever_the_network_says():
    """Of the walker 1 has columns 0-4 and 2 has 5-13; by the product with this p it would be 0-6 and 7-13."""
    images, label = strip()
    slices = Slices(images, label, {}, None)
    p = torch.tensor([0.0, 0.75, 0.25]).view(1, 3, 1, 1).expand(1, 3, 16, 14)
    found, widths = walk(slices, label.numpy(), torch.full_like(label, U), lambda image: p, 200.0, 1.0)
    assert found[0][2].argmax(0)[0].tolist() == [1] * 7 + [2] * 7
    assert widths.tolist() == [0.0, 3.0, 5.0]


@pytest.mark.parametrize(("beta", "last"), [(1e-6, 4), (200.0, 5)])
def test_beta_decides_whether_the_border_is_half_way_or_at_the_edge(beta, last):
    images, label = strip()
    images[..., 6:] = 1
    slices = told(Corral(Flat(), taught=1.0, narrow=1.0, beta=beta), images, label)
    found = slices.maps["told"][0, 0, 2:8]
    assert found.tolist() == [1 if column <= last else 2 for column in range(2, 8)]


@pytest.mark.parametrize("low, span", [(-3.0, 8.0), (0.0, 1000.0), (-0.9, 1.8)])
def test_the_walker_sees_the_same_edges_whatever_the_scale_of_the_grey_values(low, span):
    images, label = strip()
    images[..., 6:], images[..., 10:] = 0.1, 1
    kinds = images, low + span * images
    plain, scaled = (told(Corral(Flat(), taught=1.0, narrow=1.0), grey, label) for grey in kinds)
    assert torch.equal(plain.maps["told"], scaled.maps["told"])
    raw = walker_probs(kinds[1][0].numpy(), label[0].numpy(), 3, 200.0)
    assert not np.array_equal(raw, walker_probs(images[0].numpy(), label[0].numpy(), 3, 200.0)), "β alone is not free"


@pytest.mark.parametrize("high", [0.5, 1 + 1e-6])
def test_grey_values_from_0_to_1_are_seen_as_they_are(monkeypatch, high):
    images, label = strip()
    images[..., 6:] = high
    seen = []
    monkeypatch.setattr(
        "scribbleseg.methods.walker.walker_probs", lambda *args: seen.append(args[0]) or walker_probs(*args)
    )
    told(Corral(Flat(), taught=1.0), images, label)
    assert np.array_equal(seen[0], images[0].numpy())


def test_r_is_a_share_of_the_widest_foreground_however_wide_the_background_is():
    """Half-way between the strokes: 1 has columns 0-4, 2 has 5-11, and the background 12-31, in 16 rows."""
    label = torch.full((1, 16, 32), U, dtype=torch.uint8)
    label[:, :, 1], label[:, :, 8], label[:, :, 15:] = 1, 2, 0
    method = Corral(Flat(), taught=1.0)
    told(method, torch.zeros(1, 1, 16, 32), label)
    assert method.log_ratio[:3].exp().tolist() == pytest.approx([1, 3 / 4, 1], abs=1e-6), "half widths 8, 3, 4"


def test_the_enclosed_background_is_a_stroke_for_the_walker_and_bare_slices_say_nothing():
    images, label = strip()
    outside = torch.full_like(label, U)
    outside[:, :, 12:] = 0
    both = torch.cat([label, torch.full_like(label, U)]), torch.cat([outside, torch.full_like(outside, U)])
    slices = told(Corral(Flat(), taught=1.0, narrow=1.0), images.repeat(2, 1, 1, 1), *both)
    assert slices.maps["told"][0, 0, 9:].tolist() == [2, 0, 0, U, U]
    assert (slices.maps["told"][1] == U).all()


def test_the_labels_of_half_time_count_and_survive_a_checkpoint():
    images, label = strip()
    method = Corral(Flat(), taught=1.0)
    slices = told(method, images, label)
    batch = Batch(images, label.long(), {"told": slices.maps["told"].long()})
    terms = method.losses(batch, torch.tensor(0.6))
    assert set(terms) == {"pce", "told"}
    # r is 1, .6, 1, as in test_thin_structures_give_way; what is fitted is p / r: 1, 1 / .6, 1, over their sum
    fitted = np.array([1, 1 / 0.6, 1]) / (2 + 1 / 0.6)
    assert float(terms["pce"].detach()) == pytest.approx(-np.log(fitted[1:]).mean(), abs=1e-6)
    expected = -(3 * np.log(fitted[1]) + 9 * np.log(fitted[2])) / 12
    assert float(terms["told"].detach()) == pytest.approx(expected, abs=1e-6)
    maps = batch.maps | {"enclosure": torch.where(label.long() == U, 0, U)}
    enclosed = method.losses(Batch(images, batch.label, maps), torch.tensor(0.6))["enclosure"]
    assert float(enclosed.detach()) == pytest.approx(-np.log(fitted[0]), abs=1e-6)
    before = Corral(Flat(), taught=1.0).losses(batch, torch.tensor(0.4))
    assert float(before["pce"].detach()) == pytest.approx(np.log(3), abs=1e-6)
    assert set(Corral(Flat(), taught=0.0).losses(batch, torch.tensor(0.6))) == {"pce"}

    other, empty = Corral(Flat(), taught=1.0), Slices(images, label, {"told": torch.full_like(label, U)}, None)
    other.load_state_dict(method.state_dict())
    other.resume(empty)
    assert torch.equal(empty.maps["told"], slices.maps["told"])


def test_the_weights_are_factors_of_their_own_terms():
    images, label = strip()
    maps = {"told": torch.where(label.long() == U, 2, U), "enclosure": torch.where(label.long() == U, 0, U)}
    method = Corral(Flat(), enclosed=3.0, taught=0.5)
    terms = method.losses(Batch(images, label.long(), maps), torch.tensor(0.6))
    found = {name: float(term.detach()) / np.log(3) for name, term in terms.items()}  # of 3 equally likely classes
    assert found == pytest.approx({"pce": 1.0, "enclosure": 3.0, "told": 0.5}, abs=1e-6)


def test_the_teachers_soft_labels_count_on_what_is_neither_drawn_nor_enclosed_by_certainty_and_ramp():
    images, label = strip()
    drawn = label.long()
    enclosed = torch.full_like(drawn, U)
    enclosed[:, :, 12:] = 0
    method = Corral(Flat(), soft=2.0)
    q = torch.tensor([0.5, 0.25, 0.25])
    with torch.no_grad():
        method.teacher.bias = nn.Parameter(q.log().view(1, 3, 1, 1).repeat(1, 1, 16, 14), requires_grad=False)
        method.teacher.bias[..., 12:] = (
            0.0  # nothing is certain where the background is enclosed, and it does not count
        )
    certainty = 1 + float((q * q.log()).sum()) / np.log(3)
    for progress in (0.5, 1.0):
        terms = method.losses(Batch(images, drawn, {"enclosure": enclosed}), torch.tensor(progress))
        expected = 2 * np.exp(-5 * (1 - progress) ** 2) * certainty * np.log(3)  # every open pixel has the same q and p
        assert float(terms["soft"].detach()) == pytest.approx(expected, abs=1e-6)
    terms["soft"].backward()
    assert method.teacher.bias.grad is None
    # of the mean of c CE(q, p) by the logits of Flat, which are the same everywhere: c (p − q), p = 1/3
    expected = 2 * certainty * (1 / 3 - q.numpy())
    np.testing.assert_allclose(method.network.bias.grad.flatten(), expected, atol=1e-6)
    everywhere = torch.zeros_like(drawn)
    assert method.losses(Batch(images, everywhere, {}), torch.tensor(1.0))["soft"] == 0, "nothing is open"
    assert "soft" not in Corral(Flat()).losses(Batch(images, drawn, {}), torch.tensor(1.0))


def test_the_teacher_drops_nothing():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Dropout(0.5))
    assert Corral(network, soft=1.0).teacher[1].p == 0 and network[1].p == 0.5


def test_the_teacher_follows_the_student_and_both_count_r():
    images, label = strip()
    method = Corral(Flat(), soft=1.0, taught=1.0)
    with torch.no_grad():
        method.network.bias[:, 1] = 1.0
    method.after_step(torch.tensor(0.1))
    assert method.teacher.bias.flatten().tolist() == pytest.approx([0, 0.01, 0])
    with torch.no_grad():
        method.teacher.bias.copy_(method.network.bias)
        method.log_ratio[1] = 1.0  # undoes what the bias says: q and p are uniform, so nothing is certain
    maps = {"told": torch.full_like(label, U).long()}
    soft = method.losses(Batch(images, label.long(), maps), torch.tensor(1.0))["soft"]
    assert float(soft.detach()) == pytest.approx(0, abs=1e-6)


def test_a_network_that_is_sure_outvotes_the_walker():
    """Class 0 has no stroke, so the walker never meets one: FAINT is what is left of it."""
    images, label = strip()
    method = Corral(Flat(), taught=1.0)
    with torch.no_grad():
        method.network.bias[:, 0] = 20.0
    found = told(method, images, label).maps["told"]
    assert (found[label == U] == 0).all()


def test_r_is_kept_where_it_is_and_is_finite_without_a_floor():
    images, label = strip()
    method = Corral(Flat(classes=4), taught=1.0, narrow=0.0)  # class 3 is nowhere: width 0
    place = method.log_ratio.data_ptr()
    told(method, images, label)
    assert method.log_ratio.data_ptr() == place, "where a recorded step looks for it"
    ratio = method.log_ratio[:4].exp().tolist()
    assert ratio == pytest.approx([1, 0.6, 1, 1e-3], abs=1e-6)


def test_a_checkpoint_from_before_r_was_kept_goes_on_without_it():
    images, label = strip()
    method, other = Corral(Flat(), taught=1.0), Corral(Flat(), taught=1.0)
    told(method, images, label)
    state = {name: value for name, value in method.state_dict().items() if name != "log_ratio"}
    other.load_state_dict(state)
    assert len(other.told) and not other.log_ratio.any()
    assert "log_ratio" not in Corral(Flat()).state_dict(), "runs without ŷ have the state that they had"
