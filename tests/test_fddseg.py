import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.segmentation import felzenszwalb

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import Volume
from scribbleseg.data.dataset import Case
from scribbleseg.data.voxels import Batch
from scribbleseg.losses.supervised import dice_loss
from scribbleseg.methods import fddseg
from scribbleseg.methods.fddseg import FDDSeg, decoupled_distillation, spread
from scribbleseg.networks import build_network
from scribbleseg.networks.unet import UNet

U = UNLABELED


def slow_spread(superpixels, scribble, classes, reach):
    found = np.full(scribble.shape, U, np.uint8)
    for r in range(scribble.shape[0]):
        for c in range(scribble.shape[1]):
            if scribble[r, c] != U:
                found[r, c] = scribble[r, c]
                continue
            drawn = [v for v in scribble[superpixels == superpixels[r, c]] if v != U]
            if drawn:
                winner = max(range(classes), key=lambda k: (drawn.count(k), -k))
                window = scribble[max(r - reach, 0) : r + reach + 1, max(c - reach, 0) : c + reach + 1]
                if (window == winner).any():
                    found[r, c] = winner
    return found


@pytest.mark.parametrize("reach", [0, 2, 40])
def test_spread_is_what_a_loop_over_pixels_gives(reach):
    rng = np.random.default_rng(reach)
    superpixels = rng.integers(0, 12, (6, 7)).repeat(3, 0).repeat(3, 1)
    scribble = np.where(rng.random((18, 21)) < 0.06, rng.integers(0, 4, (18, 21)), U).astype(np.uint8)
    found = spread(superpixels, scribble, 4, reach)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, slow_spread(superpixels, scribble, 4, reach))


def test_spread_of_a_drawn_case():
    superpixels = np.array([[0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [2, 2, 2, 2, 2]])
    scribble = np.array([[1, U, U, U, U], [2, 1, 2, U, U], [U, U, U, U, U]], np.uint8)
    np.testing.assert_array_equal(
        spread(superpixels, scribble, 3, 2), [[1, 1, 1, 1, U], [2, 1, 2, 2, 2], [U, U, U, U, U]]
    )
    np.testing.assert_array_equal(spread(superpixels, np.full((3, 5), U, np.uint8), 3, 2), np.full((3, 5), U))


def test_decoupled_distillation_by_hand():
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.2, 0.6])
    one, other = (x.log().reshape(1, 3, 1, 1) for x in (p, q))
    target, rest = decoupled_distillation(one, other, torch.zeros(1, 1, 1, dtype=torch.long))
    torch.testing.assert_close(
        target, torch.tensor(2 * 0.3**2)
    )  # both of the two-class vectors (.5, .5) and (.2, .8) differ by .3
    torch.testing.assert_close(rest, torch.tensor(2 * (0.6 - 0.25) ** 2))  # (.6, .4) and (.25, .75)
    target, rest = decoupled_distillation(one, other, torch.full((1, 1, 1), 2))
    torch.testing.assert_close(target, torch.tensor(2 * 0.4**2))
    torch.testing.assert_close(rest, torch.tensor(2 * (0.625 - 0.5) ** 2))


def test_decoupled_distillation_reaches_both_sides_with_finite_gradients():
    one, other = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4, requires_grad=True)
    for term in decoupled_distillation(one, other, torch.randint(3, (2, 4, 4))):
        for gradient in torch.autograd.grad(term, (one, other), retain_graph=True):
            assert gradient.isfinite().all() and gradient.any()
    two = torch.randn(1, 2, 2, 2, requires_grad=True)
    rest = decoupled_distillation(two, two.detach().flip(0) + 1, torch.zeros(1, 2, 2, dtype=torch.long))[1]
    assert rest == 0 and not torch.autograd.grad(rest, two)[0].any()


@pytest.fixture
def method():
    return FDDSeg(UNet(1, 3, (8, 16, 16, 32), (0.1,) * 4))


def test_second_network_starts_elsewhere_and_alone_is_dropped(method):
    shared = {p.data_ptr() for p in method.network.parameters()} & {p.data_ptr() for p in method.second.parameters()}
    assert not shared
    assert not torch.equal(method.network.encoder[0][0].weight, method.second.encoder[0][0].weight)


def test_losses_by_hand(method, monkeypatch):
    method.eval()
    with torch.no_grad():
        for network in (method.network, method.second):
            network.head.weight.mul_(30)
            network.head.bias.zero_()
    image = 10 * torch.rand(2, 1, 32, 32)
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: torch.tensor([0.3, 0.8]))  # β, γ
    label, superpixel = torch.full((2, 32, 32), U), torch.full((2, 32, 32), U)
    label[:, 3:9, 3] = 1
    superpixel[0, :16] = 2
    with torch.no_grad():
        terms = method.losses(Batch(image, label, {"superpixel": superpixel}), torch.tensor(0.5))
        logits = method.network(image), method.second(image)
        one, two = (x.softmax(1) for x in logits)
        maps = [net.decoder_maps(net.encode(image)) for net in (method.network, method.second)]
        sides = [[head(x) for head, x in zip(heads, m)] for heads, m in zip((method.sides, method.second_sides), maps)]
    assert [x.shape[2] for x in sides[0]] == [8, 16]
    pseudo = (0.7 * one + 0.3 * two).argmax(1)
    assert pseudo.unique().numel() > 1
    pce = -sum(x.log_softmax(1)[:, 1, 3:9, 3].mean() for x in logits) / 2
    torch.testing.assert_close(terms["pce"], pce)
    mixed = sum(0.8 * dice_loss(p, pseudo) + 0.2 * dice_loss(p, superpixel) for p in (one, two))
    torch.testing.assert_close(terms["pseudo"], 0.25 * mixed)
    small = [pseudo[:, ::4, ::4], pseudo[:, ::2, ::2]]
    torch.testing.assert_close(terms["side"], 0.35 * sum(dice_loss(x.softmax(1), y) for x, y in zip(sides[0], small)))
    distances = [decoupled_distillation(*pair) for pair in zip(*sides, small)]
    torch.testing.assert_close(terms["distill"], 0.15 * sum(0.4 * target + 0.6 * rest for target, rest in distances))


def test_channel_dropout_of_the_second_network_in_training_only(method, monkeypatch):
    calls = []
    dropout2d = torch.nn.functional.dropout2d
    monkeypatch.setattr(
        fddseg.F, "dropout2d", lambda x, p, training: calls.append((x.dim(), p, training)) or dropout2d(x, p, training)
    )
    maps = {"superpixel": torch.full((2, 32, 32), U)}
    for mode in (True, False):
        method.train(mode).losses(Batch(torch.rand(2, 1, 32, 32), maps["superpixel"], maps), torch.tensor(0.5))
    assert calls == [(4, 0.5, True)] * 4 + [(4, 0.5, False)] * 4


def test_sizes_at_the_papers_network():
    method = FDDSeg(build_network("unet", 1, 4))
    assert sum(p.numel() for p in method.network.parameters()) == 1_813_764
    assert sum(p.numel() for p in method.parameters()) == 3_855_904
    assert [[layer.in_channels for layer in head] for head in method.sides] == [[128, 64, 32], [64, 32], [32]]


def test_superpixel_labels_follow_the_image_and_reach():
    rows, columns = np.mgrid[:40, :40]
    disc = np.hypot(rows - 20, columns - 20) < 8
    image = np.where(disc, 0.9, 0.1).astype(np.float32)[None, None]
    scribble = np.full((1, 40, 40), U, np.uint8)
    scribble[0, 20, 18:22], scribble[0, 2, 2:38] = 1, 0
    volume = Volume(Case("case", (), None, None), image, scribble, None, None, 2)
    network = UNet(1, 2, (8, 16, 16), (0.1,) * 3)
    far, near = FDDSeg(network, reach=20), FDDSeg(network, reach=5)
    found = far.targets(volume)
    assert found["label"] is scribble
    known = found["superpixel"][0] != U
    assert (found["superpixel"][0] == disc)[known].mean() > 0.97 and known[disc].mean() > 0.9
    assert (near.targets(volume)["superpixel"] != U).sum() < known.sum()
    assert far.target_key(volume) == FDDSeg(network, reach=20).target_key(volume) != near.target_key(volume)


def test_superpixels_are_felzenszwalbs_with_the_papers_parameters():
    g = np.random.default_rng(0)
    image = gaussian_filter(g.random((2, 2, 48, 48)), (0, 0, 1.5, 1.5)).astype(np.float32)  # two channels
    image = (image - image.min()) / (image.max() - image.min())
    scribble = np.where(g.random((2, 48, 48)) < 0.05, g.integers(0, 3, (2, 48, 48)), U).astype(np.uint8)
    volume = Volume(Case("case", (), None, None), image, scribble, None, None, 3)
    found = FDDSeg(UNet(1, 3, (8, 16, 16), (0.1,) * 3)).targets(volume)["superpixel"]
    for index in range(2):
        superpixels = felzenszwalb(image[:, index], scale=50, sigma=0.5, min_size=30, channel_axis=0)
        np.testing.assert_array_equal(found[index], spread(superpixels, scribble[index], 3, 7))
