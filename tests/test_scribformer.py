import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch
from scribbleseg.losses.supervised import dice_loss
from scribbleseg.methods.scribformer import ScribFormer, cam_consistency
from scribbleseg.networks import build_network
from scribbleseg.networks.scribformer import Modulation, TransformerBlock, density

U = UNLABELED


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network("scribformer", 1, 4)


def test_parameters_are_those_of_the_public_code(network):
    assert sum(p.numel() for p in network.parameters()) == 50_427_912


def test_start_is_that_of_the_public_code(network):
    def deviation(module):
        return module.weight.std().item()

    encoder, cam = network.encoder, network.cam
    by_pytorch = [(head, head.in_channels) for head in network.head.convolutions]
    by_pytorch += [(network.decoder[0][0], 128 * 9), (cam.down[0][0], 4 * 49)]
    for module, inputs in by_pytorch:  # uniform between ± 1/√inputs
        assert deviation(module) == pytest.approx((3 * inputs) ** -0.5, rel=0.3)
    for module, outputs in (
        (encoder.stem[2].middle[0], 64 * 9),
        (cam.heads[4], 4),
        (cam.modulations[0].spatial[0], 49),
    ):
        assert deviation(module) == pytest.approx((2 / outputs) ** 0.5, rel=0.3)
    for module in (
        encoder.blocks[0].transformer.mlp[0],
        encoder.blocks[0].transformer.attention.out_proj,
        cam.modulations[4].channel[0],
    ):
        assert deviation(module) == pytest.approx(0.02, rel=0.3) and not module.bias.any()


def test_shapes_of_all_branches(network):
    network.eval()
    with torch.no_grad():
        maps, tokens = network.encoder(torch.rand(2, 1, 64, 48))
        cnn, transformer, cams = network.branches(torch.rand(2, 1, 64, 48))
    assert [tuple(x.shape[1:]) for x in maps] == [(64, 64, 48), (128, 32, 24), (256, 16, 12), (512, 8, 6), (1024, 4, 3)]
    assert tokens.shape == (2, 384, 4, 3)
    assert cnn.shape == transformer.shape == (2, 4, 64, 48)
    assert [tuple(cam.shape) for cam in cams] == [(2, 4, 4, 3)] * 5


def test_output_is_the_mean_of_both_softmaxes(network):
    network.eval()
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        cnn, transformer, _ = network.branches(x)
        torch.testing.assert_close(network(x).exp(), (cnn.softmax(1) + transformer.softmax(1)) / 2)
        features, logits = network.features_and_logits(x)
        assert (
            torch.equal(logits, network(x))
            and torch.equal(logits, network.head(features))
            and features.shape == (1, 96, 32, 32)
        )
    assert (cnn.softmax(1) - transformer.softmax(1)).abs().max() > 0.01


def test_the_stem_pools_3x3_and_the_decoder_joins_skip_and_up(network):
    network.eval()
    x = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        maps, _ = network.encoder(x)
        stem = network.encoder.stem
        first = stem[0](x)[0]
        assert torch.equal(maps[0], first) and torch.equal(maps[1], stem[1](F.max_pool2d(first, 3, 2, 1))[0])
        decoded = maps[4]
        for level in (3, 2, 1, 0):
            decoded = network.decoder[level](torch.cat([maps[level], network.up[level](decoded)], 1))
        assert torch.equal(network.features_and_logits(x)[0][:, :64], decoded)


def test_features_are_coupled_both_ways(network):
    network.train()
    cnn, transformer, _ = network.branches(torch.rand(2, 1, 32, 32))
    from_tokens = torch.autograd.grad(
        cnn.square().sum(), [block.up[0].weight for block in network.encoder.blocks], retain_graph=True
    )
    from_maps = torch.autograd.grad(transformer.square().sum(), [block.down.weight for block in network.encoder.blocks])
    assert all(gradient.any() for gradient in (*from_tokens, *from_maps))


def test_every_parameter_gets_a_finite_gradient(network):
    method = ScribFormer(network).train()
    label = torch.full((2, 64, 64), U)
    label[:, 10:20, 10:20], label[:, 40:50, 40:50] = 1, 0
    terms = method.losses(Batch(torch.rand(2, 1, 64, 64), label), torch.tensor(0.5))
    network.zero_grad()
    sum(terms.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    missing = [name for name, parameter in network.named_parameters() if not parameter.grad.any()]
    assert not missing


def test_stochastic_depth_drops_whole_samples():
    block = TransformerBlock(64, 0.25).train()
    kept = block.keep(torch.ones(4000, 2, 3))
    torch.testing.assert_close(kept.unique(), torch.tensor([0, 4 / 3]))
    assert (kept == kept[:, :1, :1]).all() and abs(kept.mean() - 1) < 0.05
    assert torch.equal(block.eval().keep(torch.ones(5, 2, 3)), torch.ones(5, 2, 3))


def test_depth_rates_rise_to_a_tenth(network):
    rates = [network.encoder.first.drop, *(block.transformer.drop for block in network.encoder.blocks)]
    assert rates == pytest.approx([0.1 * i / 11 for i in range(12)])


def test_density_by_hand():
    peak = 1 / math.sqrt(2 * math.pi)
    found = density(torch.tensor([[-1.0, 1.0], [-20.0, 20.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0, 1.0], [0.05, 0.05]]) * peak * math.exp(-0.5))
    assert density(torch.zeros(1, 5)).isfinite().all()


def test_modulation_by_hand():
    modulation = Modulation(16).eval()
    x = torch.rand(2, 16, 5, 6)
    with torch.no_grad():
        channel = x * density(modulation.channel(x.mean((2, 3)))).reshape(2, 16, 1, 1)
        both = torch.stack([channel.amax(1), channel.mean(1)], 1)
        torch.testing.assert_close(modulation(x), channel * density(modulation.spatial(both)))


def test_each_level_goes_down_from_its_own_stride(network):
    network.eval()
    with torch.no_grad():
        maps = [torch.rand(1, 64 * 2**level, 64 >> level, 64 >> level) for level in range(5)]
        cams = network.cam(maps)
        for level, (x, modulation, head) in enumerate(zip(maps, network.cam.modulations, network.cam.heads)):
            cam = head(modulation(x)).relu()
            for down in range(level, 4):
                cam = network.cam.down[down](cam)
            torch.testing.assert_close(cams[level], cam)


def test_cam_consistency_by_hand():
    zero = torch.zeros(1, 2, 1, 2)
    skewed = torch.tensor(
        [[[[math.log(3), 0.0]], [[-math.log(3), 0.0]]]]
    )  # sigmoid (.75, .25) at the first pixel, (.5, .5) at the other
    # deep (.5, .5): −Σ .5·log softmax = ln 2 for an even map; log-softmax of (.75, .25) is −log(1 + e^∓.5)
    skew = 0.5 * (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(0.5)))
    expected = (0.25 * (skew + math.log(2)) / 2 + (0.5 + 0.75 + 1) * math.log(2)) / 4
    torch.testing.assert_close(cam_consistency([skewed, zero, zero, zero, zero]), torch.tensor(expected))
    deep = 0.75 * math.log(2) + 0.25 * math.log(2)
    torch.testing.assert_close(cam_consistency([zero] * 4 + [skewed]), torch.tensor(2.5 / 4 * deep))


class Stub(nn.Module):
    def __init__(self, cnn, transformer):
        super().__init__()
        self.logits = cnn.log(), transformer.log()

    def branches(self, image):
        return *self.logits, [torch.zeros(1, 2, 1, 1)] * 5


@pytest.mark.parametrize("beta", [0.1, 0.9])
def test_losses_by_hand(beta, monkeypatch):
    cnn = torch.tensor([[[[0.6, 0.2]], [[0.4, 0.8]]]])
    transformer = torch.tensor([[[[0.1, 0.3]], [[0.9, 0.7]]]])
    monkeypatch.setattr(torch, "rand", lambda *args, **kwargs: torch.tensor(beta))
    terms = ScribFormer(Stub(cnn, transformer)).losses(
        Batch(torch.zeros(1, 1, 1, 2), torch.tensor([[[0, U]]])), torch.tensor(0.0)
    )
    torch.testing.assert_close(terms["pce"], torch.tensor(-(math.log(0.6) + math.log(0.1)) / 2))
    first = (1 - beta) * 0.6 + beta * 0.1  # class 0 at the first pixel
    pseudo = torch.tensor([[[int(first < 0.5), 1]]])
    assert pseudo[0, 0, 0] == (beta == 0.9)
    torch.testing.assert_close(terms["pseudo"], 0.25 * (dice_loss(cnn, pseudo) + dice_loss(transformer, pseudo)))
    torch.testing.assert_close(terms["cam"], torch.tensor(0.1 * 2.5 / 4 * math.log(2)))
