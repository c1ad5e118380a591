import math

import pytest
import torch
from torch import nn

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch
from scribbleseg.losses.separation import foreground_augmentation, foreground_background_separation
from scribbleseg.losses.supervised import partial_cross_entropy
from scribbleseg.methods.effdnet import EFFDNet
from scribbleseg.networks.dropout import Dropout
from scribbleseg.networks.unet import UNet


def make(**options):
    torch.manual_seed(0)
    return EFFDNet(UNet(1, 3, (4, 8), (0.5, 0.5)), **options).train()


def batch():
    torch.manual_seed(1)
    label = torch.full((3, 16, 16), UNLABELED)
    label[:, 2:5, 3:9], label[:, 9:12, 4:7], label[1:, 13, 1:15] = 1, 2, 0
    return Batch(torch.rand(3, 1, 16, 16), label)


def test_terms_are_the_papers_with_its_weights():
    method, drawn = make(fadc=False, lam=0.5, delta=0.25, blocks=4, noise=0.0), batch()
    for module in method.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    terms = method.losses(drawn, torch.tensor(0.0))
    features, logits = method.network.features_and_logits(drawn.image)
    pseudo = method.teacher(drawn.image).argmax(1)
    torch.testing.assert_close(terms["pce"], partial_cross_entropy(logits, drawn.label))
    torch.testing.assert_close(terms["pseudo"], 0.5 * torch.nn.functional.cross_entropy(logits, pseudo))
    torch.testing.assert_close(terms["fbsl"], 0.5 * 0.25 * foreground_background_separation(features, drawn.label, 4))
    assert set(terms) == {"pce", "pseudo", "fbsl"}


@pytest.mark.parametrize("fbsl", [True, False])
@pytest.mark.parametrize("fadc", [True, False])
def test_the_four_ablation_rows(fbsl, fadc):
    names = {"pce", "pseudo"} | ({"fbsl"} if fbsl else set()) | ({"pce_fadc", "pseudo_fadc"} if fadc else set())
    assert set(make(fbsl=fbsl, fadc=fadc).losses(batch(), torch.tensor(0.0))) == names


def test_fadc_samples_are_not_the_originals():
    torch.manual_seed(3)
    terms = make().losses(batch(), torch.tensor(0.0))
    assert terms["pce_fadc"] != terms["pce"] and terms["pseudo_fadc"] != terms["pseudo"]


def test_the_teacher_is_noisy_in_image_and_dropout_unless_told():
    image = batch().image

    def two(**options):
        method = make(**options)
        return [method.pseudo_label(image) for _ in range(2)]

    assert not torch.equal(*two(noise=0.0)), "dropout is on"
    assert torch.equal(*two(noise=0.0, teacher_dropout=False))
    assert not torch.equal(*two(noise=5.0, teacher_dropout=False))
    method = make(teacher_dropout=False)
    assert method.teacher.training and {m.p for m in method.network.modules() if isinstance(m, Dropout)} == {0.0, 0.5}


def test_a_teacher_without_dropout_has_none_of_any_kind():
    network = nn.Sequential(Dropout(0.5), nn.Dropout2d(0.5), nn.Dropout3d(0.5))
    network.features_and_logits = None  # EFFDNet asks for it
    method = EFFDNet(network, teacher_dropout=False)
    assert [module.p for module in method.teacher] == [0.0] * 3 and [module.p for module in network] == [0.5] * 3


def test_the_noise_is_clipped_at_half_its_deviation():
    method, seen = make(teacher_dropout=False), []
    method.teacher.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = batch().image
    method.pseudo_label(image)
    noise = seen[0] - image
    assert noise.abs().max() <= 0.05 + 1e-6 and (noise.abs() > 0.0499).float().mean() > 0.5


def test_the_teacher_follows_by_the_given_rate():
    method = make(alpha=0.99)
    with torch.no_grad():
        for p in method.network.parameters():
            p.fill_(1.0)
    method.after_step(torch.tensor(0.0))
    assert all((p == 1).all() for p in method.teacher.parameters()), "the first update copies the student"
    with torch.no_grad():
        for p in method.network.parameters():
            p.fill_(3.0)
    method.after_step(torch.tensor(0.0))
    torch.testing.assert_close(next(method.teacher.parameters()).flatten()[0], torch.tensor(0.5 * 1 + 0.5 * 3))
    for _ in range(300):
        method.after_step(torch.tensor(0.0))
    before = next(method.teacher.parameters()).clone()
    with torch.no_grad():
        for p in method.network.parameters():
            p.fill_(0.0)
    method.after_step(torch.tensor(0.0))
    torch.testing.assert_close(next(method.teacher.parameters()), 0.99 * before)


@pytest.mark.parametrize("box", ["annotated", "foreground"])
def test_terms_of_batch_and_fadc_samples_under_known_donors(box):
    """L = L_S + λ(L_P + δ FBSL) on the batch + L_S' + λ L_P' on the FADC samples, both in one forward pass."""
    method, drawn = make(lam=0.5, delta=0.25, blocks=4, temperature=0.5, box=box, noise=0.0), batch()
    for module in method.modules():
        if isinstance(module, Dropout):
            module.p = 0.0
    drawn.label[1, 6, 11], drawn.label[2, 1, 12] = 1, 2  # boxes of three sizes, of foreground too
    cross_entropy = torch.nn.functional.cross_entropy
    torch.manual_seed(11)
    terms = method.losses(drawn, torch.tensor(0.0))

    pseudo = method.teacher(drawn.image).argmax(1)
    torch.manual_seed(11)
    torch.randn_like(drawn.image)  # the teacher's noise
    image, label, pasted = foreground_augmentation(drawn.image, drawn.label, pseudo, box)
    assert not torch.equal(pasted, pseudo) and not torch.equal(label, drawn.label)
    features, logits = method.network.features_and_logits(torch.cat([drawn.image, image]))
    expected = {
        "pce": cross_entropy(logits[:3], drawn.label, ignore_index=UNLABELED),
        "pseudo": 0.5 * cross_entropy(logits[:3], pseudo),
        "fbsl": 0.5 * 0.25 * foreground_background_separation(features[:3], drawn.label, 4, 0.5),
        "pce_fadc": cross_entropy(logits[3:], label, ignore_index=UNLABELED),
        "pseudo_fadc": 0.5 * cross_entropy(logits[3:], pasted),
    }
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, msg=name)


class Echo(nn.Module):
    """Its logits are the image."""

    def forward(self, image):
        return image

    def features_and_logits(self, image):
        return image, image


def test_the_enclosed_background_is_that_of_the_images_not_of_their_fadc_samples():
    """One enclosed pixel, in the second slice, where p_0 is 3/4; a paste from the first slice makes it 1/2."""
    label, outside = torch.full((2, 4, 4), UNLABELED), torch.full((2, 4, 4), UNLABELED)
    label[:, 0, 0], label[:, 3, 3], outside[1, 0, 3] = 0, 1, 0  # each box is the whole slice
    image = torch.zeros(2, 2, 4, 4)
    image[1, 0] = math.log(3)
    method, pasted = EFFDNet(Echo(), fbsl=False), set()
    torch.manual_seed(0)
    for _ in range(8):
        terms = method.losses(Batch(image, label, {"enclosure": outside}), torch.tensor(0.0))
        assert float(terms["enclosure"]) == pytest.approx(math.log(4 / 3), abs=1e-6)
        pasted.add(round(float(terms["pce_fadc"]), 4))
    assert len(pasted) > 1, "donors differ"


def test_literal_forms_of_single_equations():
    """1/(N·C·H·W) of both cross-entropies, blocks of a slice, all anchors, bilinear boxes, a constant α."""
    drawn, now = batch(), torch.tensor(0.0)
    alike = {"noise": 0.0, "teacher_dropout": False, "blocks": 4, "lam": 0.5, "delta": 1.0}
    methods = [make(**alike), make(**alike, averages="printed", pool="slice", anchors="all", resize="bilinear")]
    found = []
    for method in methods:
        for module in method.modules():
            if isinstance(module, Dropout):
                module.p = 0.0
        torch.manual_seed(3)
        found.append(method.losses(drawn, now))
    usual, printed = found
    share = (drawn.label != UNLABELED).float().mean()
    image, _, pseudo = foreground_augmentation(
        drawn.image,
        drawn.label,
        methods[1].pseudo_label(drawn.image),
        donor=donors_of(drawn),
        resize="bilinear",
    )
    features, logits = methods[1].network.features_and_logits(torch.cat([drawn.image, image]))
    torch.testing.assert_close(printed["pce"], partial_cross_entropy(logits[:3], drawn.label) * share / 3)
    torch.testing.assert_close(printed["pseudo_fadc"], 0.5 * partial_cross_entropy(logits[3:], pseudo) / 3)
    expected = foreground_background_separation(features[:3], drawn.label, 4, pool="slice", anchors="all")
    torch.testing.assert_close(printed["fbsl"], 0.5 * expected)
    assert all(printed[name] != usual[name] for name in usual)


def donors_of(drawn):
    """The donors that FADC draws after seed 3 and the teacher's noise."""
    torch.manual_seed(3)
    torch.randn_like(drawn.image)
    found = (drawn.label != UNLABELED).flatten(1).any(1)
    return (torch.rand(3, 3) + found).argmax(1)


def test_alpha_is_constant_without_warm_up():
    method = make(alpha=0.75, warm_up=False)
    with torch.no_grad():
        for p in method.teacher.parameters():
            p.fill_(1.0)
        for p in method.network.parameters():
            p.fill_(3.0)
    method.after_step(torch.tensor(0.0))
    assert all((p == 1.5).all() for p in method.teacher.parameters())


def test_pictures_show_blocks_samples_and_the_teachers_label():
    method, drawn = make(blocks=4).eval(), batch()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    torch.manual_seed(5)
    with torch.no_grad():
        shown = method.pictures(drawn)
    assert list(shown) == ["foreground_block", "teacher_label", "fadc_image", "fadc_scribble", "fadc_label"]
    assert {value.shape for value in shown.values()} == {drawn.label.shape}
    blocks = shown["foreground_block"]
    assert blocks.dtype == torch.bool and blocks[:, :8, :8].all() and not blocks[:, 12:].any(), "strokes of 0 are none"
    assert (
        blocks[0].int().tolist() == blocks[0, ::4, ::4].repeat_interleave(4, 0).repeat_interleave(4, 1).int().tolist()
    )
    pseudo = method.teacher(drawn.image).argmax(1)
    assert torch.equal(shown["teacher_label"], pseudo)
    torch.manual_seed(5)
    expected = foreground_augmentation(drawn.image, drawn.label, pseudo)
    for name, value in zip(("fadc_image", "fadc_scribble", "fadc_label"), (expected[0][:, 0], *expected[1:])):
        assert torch.equal(shown[name], value)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    assert list(make(fbsl=False, fadc=False).eval().pictures(drawn)) == ["teacher_label"]
