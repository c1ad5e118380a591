import pytest
import torch
import torch.nn.functional as F

from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch
from scribbleseg.methods.effdnet import EFFDNet
from scribbleseg.methods.scn import SCN
from scribbleseg.networks import build_network
from scribbleseg.networks.dropout import Dropout
from scribbleseg.networks.unet import UNet, _Joined


def test_unet_has_the_published_shape():
    network = UNet(1, 4)
    maps = network.encode(torch.zeros(2, 1, 64, 48))
    assert [tuple(m.shape[1:]) for m in maps] == [(16, 64, 48), (32, 32, 24), (64, 16, 12), (128, 8, 6), (256, 4, 3)]
    assert network.decode(maps).shape == (2, 16, 64, 48) and network(torch.zeros(2, 1, 64, 48)).shape == (2, 4, 64, 48)
    # weights and biases of nine 3×3 blocks, four 1×1 convolutions and the head, and two numbers per norm channel
    blocks = [(1, 16), (16, 32), (32, 64), (64, 128), (128, 256), (256, 128), (128, 64), (64, 32), (32, 16)]
    counted = (
        sum(9 * a * b + 9 * b * b + 6 * b for a, b in blocks)
        + sum(2 * b * b + b for b in (16, 32, 64, 128))
        + 16 * 4 * 9
        + 4
    )
    assert sum(p.numel() for p in network.parameters()) == counted
    assert [block[3].p for block in network.encoder] == [0.05, 0.1, 0.2, 0.3, 0.5] and all(
        block[3].p == 0 for block in network.decoder
    )


def test_unet_computes_what_is_published():
    """Against the same weights in a U-Net written down here: 3×3 convolutions, batch norm, LeakyReLU .01, max-pool,
    bilinear ×2, [skip, up].
    """
    network = UNet(2, 3, (4, 6, 8), (0.1, 0.2, 0.3))
    network(torch.rand(4, 2, 16, 16))  # moves the running statistics
    weights, x = network.eval().state_dict(), torch.rand(2, 2, 16, 12)

    def convolve(x, name, padding=1):
        return F.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=padding)

    def block(x, name):
        for convolution, norm in (("0", f"{name}.1"), ("4", f"{name}.5")):
            mean, var, scale, shift = (
                weights[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
            )
            x = F.leaky_relu(F.batch_norm(convolve(x, f"{name}.{convolution}"), mean, var, scale, shift), 0.01)
        return x

    first = block(x, "encoder.0")
    second = block(F.max_pool2d(first, 2), "encoder.1")
    third = block(F.max_pool2d(second, 2), "encoder.2")
    up = F.interpolate(convolve(third, "reduce.1", 0), scale_factor=2, mode="bilinear", align_corners=True)
    decoded = block(torch.cat([second, up], 1), "decoder.1")
    up = F.interpolate(convolve(decoded, "reduce.0", 0), scale_factor=2, mode="bilinear", align_corners=True)
    decoded = block(torch.cat([first, up], 1), "decoder.0")
    with torch.no_grad():
        torch.testing.assert_close(network(x), convolve(decoded, "head"))


def test_features_are_the_heads_input():
    network, x = UNet(1, 3).eval(), torch.rand(1, 1, 32, 32)
    features, logits = network.features_and_logits(x)
    assert torch.equal(network(x), logits) and torch.equal(logits, network.head(features))


def test_logits_are_float_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        assert UNet(1, 2)(torch.zeros(1, 1, 32, 32)).dtype == torch.float32


@pytest.mark.parametrize("p", [0.05, 0.5])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_dropout_drops_its_share_everywhere(p, memory_format):
    torch.manual_seed(0)
    x = torch.ones(7, 5, 53, 41).contiguous(memory_format=memory_format).requires_grad_()
    out = Dropout(p)(x)
    out.sum().backward()
    dropped = out == 0
    assert dropped.float().mean() == pytest.approx(p, abs=0.005)
    assert all(dropped.flatten()[k::4].float().mean() == pytest.approx(p, abs=0.01) for k in range(4)), (
        "each 16 bits of a draw alike"
    )
    assert torch.allclose(out[~dropped], torch.tensor(1 / (1 - p))) and torch.equal(x.grad, out.detach())
    assert not torch.equal(dropped, Dropout(p)(x) == 0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_dropout_keeps_values_or_zeroes_them_in_every_type(dtype):
    for p in (1e-7, 0.3, 1 - 1e-7):
        x = torch.full((64, 1001), 3.0, dtype=dtype)
        found = Dropout(p)(x)
        kept = found != 0
        assert found.dtype == dtype and (found[kept] == 3 * torch.tensor(1 / (1 - p), dtype=dtype)).all()
        assert abs(float(kept.double().mean()) - (1 - p)) < 0.01


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gradients_of_the_skip_connections_are_those_of_cat(memory_format):
    skip, up, gradient = (
        torch.randn(2, channels, 4, 6, dtype=torch.float64).contiguous(memory_format=memory_format)
        for channels in (3, 5, 8)
    )
    found = []
    for join in (lambda one, other: torch.cat([one, other], 1), _Joined.apply):
        leaves = skip.clone().requires_grad_(), up.clone().requires_grad_()
        joined = join(*leaves)
        found.append((joined, *torch.autograd.grad(joined, leaves, gradient)))
    assert all(torch.equal(one, other) for one, other in zip(*found))
    assert all(part.is_contiguous(memory_format=memory_format) for part in found[1][1:])


def test_dropout_is_off_in_eval_mode():
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(Dropout(0.5).eval()(x), x) and torch.equal(Dropout(0.0)(x), x)


def test_unknown_network():
    with pytest.raises(InputError, match="Did you mean 'unet'"):
        build_network("unett", 1, 4)


def test_a_monai_network_by_name():
    pytest.importorskip("monai")
    network, x = build_network("monai:BasicUNet", 2, 4).eval(), torch.rand(1, 2, 32, 32)
    features, logits = network.features_and_logits(x)
    assert logits.shape == (1, 4, 32, 32) and features.shape[2:] == (32, 32)
    assert torch.allclose(network.net.get_submodule(network.at.features)(features), logits, atol=1e-6)
    with pytest.raises(InputError, match="Did you mean 'BasicUNet'"):
        build_network("monai:BasicUNett", 1, 4)
    with pytest.raises(InputError, match="cannot be built"):
        build_network("monai:UNETR", 1, 4)
    with pytest.raises(InputError, match="SegResNetVAE cannot be built"):
        build_network("monai:SegResNetVAE", 1, 4)
    with pytest.raises(InputError, match=r"DenseNet121 maps a slice to \(1, 4\)"):
        build_network("monai:DenseNet121", 1, 4)


def test_a_network_is_tried_out_at_the_size_of_the_training():
    pytest.importorskip("monai")
    build_network("monai:UNet", 1, 4, size=(32, 48))
    with pytest.raises(InputError, match="UNet does not run on a slice of 40 × 40"):
        build_network("monai:UNet", 1, 4, size=(40, 40))
    with pytest.raises(InputError, match="UNet does not run on a volume of 16 × 40 × 32"):
        build_network("monai:UNet", 1, 4, dims=3, size=(16, 40, 32))


@pytest.mark.parametrize("where", ["__init__", "forward"])
def test_a_monai_network_that_needs_another_package_says_which(monkeypatch, where):
    def needy(self, *args, **kwargs):
        torch.nn.Module.__init__(self)
        raise ImportError(
            "from einops import rearrange (No module named 'einops').\n\nFor details, please visit:\n    somewhere"
        )

    nets = pytest.importorskip("monai.networks.nets")
    monkeypatch.setattr(nets.BasicUNet, where, needy)
    with pytest.raises(InputError) as raised:
        build_network("monai:BasicUNet", 1, 4)
    said = "It says: from einops import rearrange (No module named 'einops'). Install it, or try"
    assert said in str(raised.value) and "\n" not in str(raised.value)


def test_trying_a_monai_network_out_leaves_no_trace():
    nets = pytest.importorskip("monai.networks.nets")
    states = []
    for build in (
        lambda: build_network("monai:VNet", 1, 4).net,
        lambda: nets.VNet(spatial_dims=2, in_channels=1, out_channels=4),
    ):
        torch.manual_seed(0)
        states.append((build(), torch.rand(())))
    (ours, drawn), (bare, drawn_bare) = states
    assert drawn == drawn_bare and all(module.training for module in ours.modules())
    assert all(torch.equal(*pair) for pair in zip(ours.state_dict().values(), bare.state_dict().values(), strict=True))


STATED = {  # what docs/guide.md says of each network's features
    "AttentionUnet": (16, "full"),
    "BasicUNet": (32, "full"),
    "BasicUNetPlusPlus": (32, "full"),
    "DynUNet": (16, "full"),
    "HighResNet": (80, "full"),
    "SegResNet": (8, "full"),
    "UNet": (32, "1/2"),
    "VNet": (32, "full"),
    "AHNet": (128, "1/2"),
    "FlexibleUNet": (16, "full"),
    "MedNeXt": (32, "full"),
    "SegResNetDS": (32, "full"),
}
LARGE = ("AHNet", "FlexibleUNet", "MedNeXt", "SegResNetDS")  # seconds each


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in STATED]
)
def test_effdnet_and_scn_train_on_a_monai_network(name):
    """Both methods take a step on the map that is declared, and the teacher reads its own network's."""
    pytest.importorskip("monai")
    torch.manual_seed(0)
    network = build_network(f"monai:{name}", 1, 3)
    channels, part = STATED[name]
    side = 128 if name == "AHNet" else 32
    assert network.described.endswith(f": {channels} channels at {part} resolution")
    image, label = torch.rand(2, 1, side, side), torch.full((2, side, side), UNLABELED)
    label[:, 4:8, 4:8], label[:, 20:24, 20:24] = 1, 0
    features, logits = network.features_and_logits(image)
    assert features.shape == (2, channels, side, side) and logits.shape == (2, 3, side, side)
    methods = [EFFDNet(network, blocks=4)]
    if 8 in network.map_widths:
        methods.append(SCN(network, rows=4, threshold=0.2, region_threshold=0.0))
        maps, *_ = network.maps_features_and_logits(image)
        expected = {stride: (2, width, side // stride, side // stride) for stride, width in network.map_widths.items()}
        assert {stride: tuple(value.shape) for stride, value in maps.items()} == expected
    else:
        with pytest.raises(InputError, match="SCN: stride is 8; the encoder of this network has maps at strides that"):
            SCN(network)
    for method in methods:
        terms = method.losses(Batch(image, label), torch.tensor(0.0))
        for key, term in terms.items():
            gradients = torch.autograd.grad(term, list(network.parameters()), retain_graph=True, allow_unused=True)
            assert term.isfinite() and any(g is not None and g.any() for g in gradients), (type(method), key)
        method.after_step(torch.tensor(0.0))


def test_a_monai_network_without_a_declared_map_is_refused_by_methods_that_need_one():
    pytest.importorskip("monai")
    network = build_network("monai:HighResBlock", 1, 3)
    with pytest.raises(InputError, match=r"EFFDNet needs a network with features_and_logits; MonaiNetwork has no"):
        EFFDNet(network)
