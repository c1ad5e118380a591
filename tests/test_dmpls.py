import torch

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch
from scribbleseg.losses.supervised import dice_loss, partial_cross_entropy
from scribbleseg.methods.dmpls import DMPLS
from scribbleseg.networks.unet import UNet


def make(**options):
    return DMPLS(UNet(1, 3, (4, 8), (0.0, 0.0)), **options)


def batch():
    label = torch.full((2, 8, 8), UNLABELED)
    label[:, 2:4, 2:6] = torch.tensor([0, 1, 2, 1])
    return Batch(torch.rand(2, 1, 8, 8), label)


def heads(method, image):
    maps = method.network.encode(image)
    return method.network.head(method.network.decode(maps)), method.auxiliary.head(method.auxiliary.decode(maps))


def test_terms_are_the_equation():
    method, data = make(dropout=0.0, weight=0.7), batch()
    with torch.no_grad():
        torch.manual_seed(3)
        terms = method.losses(data, torch.tensor(0.5))
        torch.manual_seed(3)
        beta = torch.rand(())
        main, auxiliary = heads(method, data.image)
        pseudo = (beta * main.softmax(1) + (1 - beta) * auxiliary.softmax(1)).argmax(1)
        expected = {
            "pce": partial_cross_entropy(main, data.label) / 2,
            "pce_auxiliary": partial_cross_entropy(auxiliary, data.label) / 2,
            "dice": 0.35 * dice_loss(main.softmax(1), pseudo),
            "dice_auxiliary": 0.35 * dice_loss(auxiliary.softmax(1), pseudo),
        }
    torch.testing.assert_close(terms, expected)
    assert (
        (main.argmax(1) != auxiliary.argmax(1)).any()
        and (pseudo != main.argmax(1)).any()
        and (pseudo != auxiliary.argmax(1)).any()
    )


def test_beta_is_drawn_anew():
    method, data = make(dropout=0.0).eval(), batch()
    assert len({method.losses(data, torch.tensor(0.5))["dice"].item() for _ in range(20)}) > 5


def test_decoders_start_apart_and_share_the_encoder():
    method = make()
    main, auxiliary = heads(method, torch.rand(1, 1, 8, 8))
    assert (main - auxiliary).abs().max() > 1e-3
    names = dict(method.named_parameters())
    assert "network.encoder.0.0.weight" in names and not any(name.startswith("auxiliary.encoder") for name in names)
    shared = set(method.network.state_dict()) - set(method.auxiliary.state_dict())
    assert shared and all(name.startswith("encoder") for name in shared)


def test_channel_dropout_on_the_auxiliary_branch_in_training_only():
    data = batch()
    method = make().train()
    seen = []
    method.auxiliary.decode, decode = lambda maps: seen.append(maps) or decode(maps), method.auxiliary.decode
    method.losses(data, torch.tensor(0.5))
    with torch.no_grad():
        maps = method.network.encode(data.image)
    for dropped, full in zip(seen[0], maps):
        silent = dropped.flatten(2).abs().sum(2) == 0  # whole channels of a sample
        assert 0 < silent.float().mean() < 1
        torch.testing.assert_close(dropped[~silent], 2 * full[~silent])
    method.eval()
    method.losses(data, torch.tensor(0.5))
    with torch.no_grad():
        torch.testing.assert_close([m.detach() for m in seen[1]], method.network.encode(data.image))
