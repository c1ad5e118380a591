import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss, DiceLoss

from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.losses.regularizers import entropy, gated_crf, mumford_shah, total_variation
from scribbleseg.losses.separation import foreground_background_separation, foreground_blocks
from scribbleseg.losses.supervised import certain_cross_entropy, dice_loss, partial_cross_entropy

U = UNLABELED


def softmaxed(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype).softmax(1)


def scribble(*shape, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, shape, generator=generator)
    return label.masked_fill(torch.rand(shape, generator=generator) < 0.6, U)


def gradient(function, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


# partial cross-entropy


def test_partial_cross_entropy_by_hand():
    # two pixels scribbled, with p = ¾ and p = ½ of their class: −½ (ln ¾ + ln ½); the third is not drawn
    logits = torch.tensor([[[math.log(3), 0.0, 5.0], [0.0, 0.0, -5.0]]])
    label = torch.tensor([[0, 1, U]])
    assert partial_cross_entropy(logits, label).item() == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)
    assert partial_cross_entropy(logits, label, "all").item() == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 3)
    with pytest.raises(InputError, match="over is 'none'; expected 'labelled' or 'all'"):
        partial_cross_entropy(logits, label, "none")


@pytest.mark.parametrize("space", [(4, 5), (3, 4, 5)])
def test_partial_cross_entropy_leaves_unlabelled_pixels_alone(space):
    label = scribble(2, *space)
    found = gradient(lambda x: partial_cross_entropy(x, label), torch.randn(2, 3, *space))
    unlabelled = (label == U).unsqueeze(1).expand_as(found)
    assert (found[unlabelled] == 0).all() and (found[~unlabelled] != 0).all()


def test_partial_cross_entropy_of_nothing_is_zero_with_zero_gradient():
    label = torch.full((1, 4, 4), U)
    assert partial_cross_entropy(torch.randn(1, 3, 4, 4), label) == 0
    assert not gradient(lambda x: partial_cross_entropy(x, label), torch.randn(1, 3, 4, 4)).any()


def test_partial_cross_entropy_of_a_full_label_is_cross_entropy():
    logits, label = torch.randn(2, 3, 4, 4), scribble(2, 4, 4) % 3
    torch.testing.assert_close(partial_cross_entropy(logits, label), F.cross_entropy(logits, label))


def test_partial_cross_entropy_gradcheck():
    label = scribble(2, 3, 3)
    assert torch.autograd.gradcheck(
        lambda x: partial_cross_entropy(x, label), torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    )


# Dice


def test_dice_loss_by_hand():
    # class 0: p = .8 .6 | .5 undrawn, t = 1 0: 2·.8 / (.64 + .36 + 1) = .8; class 1: p = .2 .4, t = 0 1: 2·.4 /
    # (.04 + .16 + 1) = ⅔
    probs = torch.tensor([[[0.8, 0.6, 0.5], [0.2, 0.4, 0.5]]])
    label = torch.tensor([[0, 1, U]])
    assert dice_loss(probs, label, smooth=0.0).item() == pytest.approx(1 - (0.8 + 2 / 3) / 2)
    # foreground alone, denominators not squared: 2·.4 / (.2 + .4 + 1) = ½
    assert dice_loss(probs, label, smooth=0.0, background=False, squared=False).item() == pytest.approx(0.5)


def test_dice_loss_smooth_counts_above_and_below():
    probs = torch.tensor([[[0.5], [0.5]]])
    label = torch.tensor([[0]])  # class 0: (2·.5 + 1) / (.25 + 1 + 1); class 1: (0 + 1) / (.25 + 0 + 1)
    assert dice_loss(probs, label, smooth=1.0).item() == pytest.approx(1 - (2 / 2.25 + 1 / 1.25) / 2)


def test_dice_loss_limits():
    label = torch.tensor([[[0, 1], [2, U]]])
    exact = F.one_hot(label % U, 3).movedim(-1, 1).float()
    assert dice_loss(exact, label).item() == pytest.approx(0, abs=1e-6)
    assert dice_loss(exact.roll(1, 1), label).item() == pytest.approx(1, abs=1e-4)
    assert dice_loss(softmaxed(1, 3, 2, 2), torch.full((1, 2, 2), U)).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("options", [{}, {"background": False, "squared": False}])
@pytest.mark.parametrize("space", [(4, 5), (3, 4, 5)])
def test_dice_loss_agrees_with_monai(space, options):
    probs, label = softmaxed(2, 3, *space), scribble(2, *space) % 3
    theirs = {"include_background": options.get("background", True), "squared_pred": options.get("squared", True)}
    judge = DiceLoss(**theirs, batch=True, to_onehot_y=True, smooth_nr=1e-5, smooth_dr=1e-5)
    torch.testing.assert_close(dice_loss(probs, label, **options), judge(probs, label.unsqueeze(1)))


def test_half_cross_entropy_half_dice_agrees_with_monai():
    logits, label = torch.randn(2, 3, 6, 6), scribble(2, 6, 6) % 3
    judge = DiceCELoss(softmax=True, squared_pred=True, batch=True, to_onehot_y=True, lambda_dice=0.5, lambda_ce=0.5)
    ours = 0.5 * partial_cross_entropy(logits, label) + 0.5 * dice_loss(logits.softmax(1), label)
    torch.testing.assert_close(ours, judge(logits, label.unsqueeze(1)))


@pytest.mark.parametrize("options", [{}, {"background": False, "squared": False}])
def test_dice_loss_leaves_unlabelled_pixels_alone(options):
    label = scribble(2, 5, 5)
    found = gradient(lambda x: dice_loss(x, label, **options), softmaxed(2, 3, 5, 5))
    assert not found[(label == U).unsqueeze(1).expand_as(found)].any() and found.any()


def test_dice_loss_gradcheck():
    label = scribble(1, 3, 3)
    assert torch.autograd.gradcheck(lambda x: dice_loss(x, label), softmaxed(1, 3, 3, 3).requires_grad_())


# foreground-background separation


def separation_loop(features, label, blocks, temperature):
    """The equation of the docstring, one pair at a time; axes are multiples of `blocks`."""
    vectors, kinds = [], []
    space = label.shape[1:]
    for n in range(len(features)):
        for index in np.ndindex(*(blocks,) * len(space)):
            part = tuple(slice(i * s // blocks, (i + 1) * s // blocks) for i, s in zip(index, space))
            mean = features[(n, slice(None), *part)].flatten(1).mean(1)
            vectors.append(mean / mean.norm())
            drawn = label[(n, *part)]
            kinds.append(bool(((drawn > 0) & (drawn != U)).any()))
    total, anchors = 0.0, 0
    for a, kind in enumerate(kinds):
        positives = [b for b, other in enumerate(kinds) if other == kind and b != a]
        negatives = sum(
            math.exp(float(vectors[a] @ vectors[n]) / temperature) for n, other in enumerate(kinds) if other != kind
        )
        if positives:
            pairs = [math.exp(float(vectors[a] @ vectors[b]) / temperature) for b in positives]
            total += sum(-math.log(pair / (pair + negatives)) for pair in pairs) / len(pairs)
            anchors += 1
    return total / anchors


@pytest.mark.parametrize(("space", "blocks"), [((12, 8), 4), ((8, 4, 4), 2)])
def test_separation_equals_the_loop(space, blocks):
    features = torch.randn(2, 5, *space, dtype=torch.float64)
    label = scribble(2, *space, classes=3).masked_fill(torch.rand(2, *space) < 0.8, U)
    expected = separation_loop(features, label, blocks, 0.3)
    assert foreground_background_separation(features, label, blocks, 0.3).item() == pytest.approx(expected, rel=1e-9)


def test_separation_by_hand():
    # two blocks a side, τ = 1: the two foreground blocks are alike (s = 1), the two others as well, and s = 0
    # between the kinds:
    # each anchor has one positive and two negatives: ln(1 + 2 e^(0 − 1))
    features = torch.tensor([[[[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 1.0]]]])
    label = torch.tensor([[[1, 2], [0, U]]])
    found = foreground_background_separation(features, label, 2, 1.0)
    assert found.item() == pytest.approx(math.log(1 + 2 / math.e))


def lone_block():
    """32 blocks of one pixel in two slices; one is foreground, at the cosine .5 to the others (.25 among them)."""
    vectors = torch.eye(32)
    vectors[1:] *= 0.75**0.5
    vectors[1:, 0] = 0.5
    label = torch.full((32,), U)
    label[0] = 1
    return vectors.view(2, 4, 4, 32).movedim(3, 1), label.view(2, 4, 4)


def test_a_lone_foreground_block_is_an_anchor_without_a_positive():
    # each of the 31 others: ln(1 + e^((.5 − .25)/τ)); τ is chosen so that this is 4.2298, and 31/32 of it 4.0976
    temperature = 0.25 / math.log(math.exp(4.2298) - 1)
    ours, released = (
        foreground_background_separation(*lone_block(), 4, temperature, anchors=anchors).item()
        for anchors in ("with positives", "all")
    )
    assert (ours, released) == (pytest.approx(4.2298, abs=1e-4), pytest.approx(4.0976, abs=1e-4))


def test_separation_within_slices():
    features, label = lone_block()
    found = foreground_background_separation(features, label, 4, 0.25, pool="slice")
    # 15 others in the first slice; in the second there is nothing to separate
    assert found.item() == pytest.approx(math.log(1 + math.e) / 2)
    with pytest.raises(InputError, match="pool is 'pair'"):
        foreground_background_separation(features, label, 4, pool="pair")


def test_blocks_are_foreground_with_one_foreground_stroke_pixel():
    label = torch.full((1, 4, 4), U)
    label[0, 0, 1], label[0, 3, 3] = 2, 0
    assert foreground_blocks(label, 2).tolist() == [[[True, False], [False, False]]]


def test_separation_is_zero_for_one_kind_and_small_when_separated():
    features = torch.randn(1, 3, 8, 8)
    for label in (
        torch.full((1, 8, 8), U),
        torch.zeros(1, 8, 8, dtype=torch.long),
        torch.ones(1, 8, 8, dtype=torch.long),
    ):
        assert foreground_background_separation(features, label, 4) == 0
        assert not gradient(lambda x, label=label: foreground_background_separation(x, label, 4), features).any()
    label = torch.zeros(1, 8, 8, dtype=torch.long)
    label[:, :4] = 1
    apart = (label * 2.0 - 1).unsqueeze(1)
    assert (
        foreground_background_separation(apart, label, 4)
        < 1e-6
        < 1
        < foreground_background_separation(features, label, 4)
    )


def test_separation_gradcheck_and_odd_sizes():
    label = scribble(1, 5, 7)
    features = torch.randn(1, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: foreground_background_separation(x, label, 3, 0.5), features)


# entropy


def test_entropy_by_hand_and_limits():
    logits = torch.tensor([[[0.0, math.log(3), 200.0], [0.0, 0.0, -200.0]]])
    expected = [math.log(2), -0.75 * math.log(0.75) - 0.25 * math.log(0.25), 0.0]
    torch.testing.assert_close(entropy(logits)[0], torch.tensor(expected))
    assert gradient(lambda x: entropy(x).sum(), logits).isfinite().all()


def test_entropy_gradcheck():
    assert torch.autograd.gradcheck(entropy, torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True))


# total variation


def test_total_variation_by_hand():
    # class 0      steps down .5 + 0, right .3 + .2; class 1 alike: 2·1.0 over 8 values
    #   1.0 .7
    #    .5 .7
    first = torch.tensor([[1.0, 0.7], [0.5, 0.7]])
    probs = torch.stack([first, 1 - first]).unsqueeze(0)
    assert total_variation(probs).item() == pytest.approx(2 * (0.5 + 0.0 + 0.3 + 0.2) / 8)
    assert total_variation(torch.full((1, 2, 3, 3, 3), 0.5)) == 0


def test_total_variation_grows_with_the_outline_only():
    def disc(radius):
        rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(40.0), indexing="ij")
        inside = ((rows - 20).square() + (columns - 20).square() < radius**2).double()
        return torch.stack([inside, 1 - inside]).unsqueeze(0)

    assert (total_variation(disc(16)) / total_variation(disc(8))).item() == pytest.approx(2, rel=0.05)


def test_total_variation_gradcheck():
    assert torch.autograd.gradcheck(total_variation, softmaxed(1, 2, 3, 4).requires_grad_())


# Mumford-Shah


def test_mumford_shah_by_hand():
    # I = 0 1 4, p₀ = 1 1 0, p₁ = 0 0 1: μ₀ = ½, μ₁ = 4; (¼ + ¼) + 0; |∇p| = 1 for each class
    image = torch.tensor([[[[0.0, 1.0, 4.0]]]])
    probs = torch.tensor([[[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]])
    assert mumford_shah(probs, image).item() == pytest.approx(0.5 + 2)
    # swapped: ν₀ = (0 + 1 + 0)/5 = .2, ν₁ = .8; class 0: .8²·1 + .2²·4, class 1: .8²·1 + .2²·4
    assert mumford_shah(probs, image, swapped=True).item() == pytest.approx(2 * (0.64 + 0.16) + 2)


def test_mumford_shah_with_the_outlines_of_the_image_by_hand():
    # the steps of I = 0 1 4 are 1 and 3; swapped as above: 1.6. With one channel and two classes
    image = torch.tensor([[[[0.0, 1.0, 4.0]]]])
    probs = torch.tensor([[[[1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0]]]], requires_grad=True)
    found = mumford_shah(probs, image, swapped=True, length="image")
    assert found.item() == pytest.approx(1.6 + 4)
    region = mumford_shah(probs, image * 0 + 1, swapped=True, length="image")  # a flat image has no outline
    assert region.item() == pytest.approx(2 * (2 * (1 / 3) ** 2 + (2 / 3) ** 2))
    with pytest.raises(InputError, match="length is 'both'; expected 'prediction' or 'image'"):
        mumford_shah(probs, image, length="both")


@pytest.mark.parametrize("swapped", [False, True])
def test_mumford_shah_equals_the_loop(swapped):
    probs, image = softmaxed(2, 3, 4, 5), torch.rand(2, 2, 4, 5, dtype=torch.float64)
    expected = 0.0
    for p in probs:
        expected += p.diff(dim=1).abs().sum() + p.diff(dim=2).abs().sum()
    for n in range(2):
        for i in image[n]:
            for p in probs[n]:
                weight, value = (i, p) if swapped else (p, i)
                expected += (weight * (value - (weight * value).sum() / weight.sum()) ** 2).sum()
    torch.testing.assert_close(mumford_shah(probs, image, swapped), expected)


def test_mumford_shah_of_the_true_partition_is_only_its_outline():
    truth = torch.zeros(1, 1, 8, 8)
    truth[..., 2:6, 2:6] = 1
    probs = torch.cat([1 - truth, truth], 1)
    assert mumford_shah(probs, 0.2 + 0.5 * truth).item() == pytest.approx(2 * 16, rel=1e-5)
    assert mumford_shah(probs, torch.zeros(1, 1, 8, 8), swapped=True).item() == pytest.approx(2 * 16)


@pytest.mark.parametrize("swapped", [False, True])
def test_mumford_shah_gradcheck(swapped):
    image = torch.rand(1, 1, 3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: mumford_shah(p, image, swapped), softmaxed(1, 2, 3, 4).requires_grad_())


# gated CRF


def gated_crf_by_unfolding(probs, image, radius, sigma_px, sigma_intensity):
    """The definition on (2·radius + 1)² unfolded copies of everything, 2-D."""
    count, _, *space = probs.shape
    width = 2 * radius + 1

    def window(x):
        return F.unfold(x, width, padding=radius).view(count, x.shape[1], width**2, *space)

    place = torch.stack(torch.meshgrid(*(torch.arange(s, dtype=probs.dtype) for s in space), indexing="ij")).expand(
        count, 2, *space
    )
    seen = torch.cat([place / sigma_px, image / sigma_intensity], 1)
    kernel = (-0.5 * (window(seen) - seen.unsqueeze(2)).square().sum(1, keepdim=True)).exp() * window(
        torch.ones_like(image[:, :1])
    )
    kernel[:, :, width**2 // 2] = 0
    pairs = kernel * (1 - (window(probs) * probs.unsqueeze(2)).sum(1, keepdim=True))
    return pairs.sum() / (count * math.prod(space))


@pytest.mark.parametrize(("space", "channels"), [((13, 17), 1), ((4, 12), 2), ((3, 3), 1)])
def test_gated_crf_equals_the_unfolded_form(space, channels):
    probs = softmaxed(2, 3, *space).requires_grad_()
    image = torch.rand(2, channels, *space, dtype=torch.float64)
    ours, naive = gated_crf(probs, image, 5, 3.0, 0.3), gated_crf_by_unfolding(probs, image, 5, 3.0, 0.3)
    torch.testing.assert_close(ours, naive, rtol=1e-12, atol=0)
    torch.testing.assert_close(*(torch.autograd.grad(x, probs)[0] for x in (ours, naive)), rtol=1e-10, atol=1e-14)


def test_gated_crf_by_hand():
    # two pixels, one apart, intensities .2 apart, p₁·p₂ = .8·.3 + .2·.7; each pixel has the other as its only neighbour
    probs = torch.tensor([[[[0.8, 0.3]], [[0.2, 0.7]]]], dtype=torch.float64)
    image = torch.tensor([[[[0.1, 0.3]]]], dtype=torch.float64)
    kernel = math.exp(-0.5 / 6**2 - 0.5 * 0.2**2 / 0.1**2)
    assert gated_crf(probs, image).item() == pytest.approx(2 * kernel * (1 - 0.8 * 0.3 - 0.2 * 0.7) / 2)


def test_gated_crf_limits():
    image = torch.rand(1, 1, 6, 6)
    constant = torch.zeros(1, 3, 6, 6)
    constant[:, 1] = 1
    assert gated_crf(constant, image).item() == pytest.approx(0, abs=1e-5)
    edge = (torch.arange(6) >= 3).float().expand(1, 1, 6, 6)
    probs = torch.cat([edge, 1 - edge], 1)
    assert (
        gated_crf(probs, edge).item() < 1e-5 < gated_crf(probs, torch.zeros_like(edge)).item()
    )  # an outline is free along an edge


def test_gated_crf_in_3d_has_a_volume_of_one_slice_equal_to_the_slice():
    probs, image = softmaxed(1, 3, 5, 6), torch.rand(1, 1, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(gated_crf(probs.unsqueeze(2), image.unsqueeze(2), 2), gated_crf(probs, image, 2))


def test_gated_crf_gradcheck():
    image = torch.rand(1, 1, 4, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: gated_crf(p, image, 2), softmaxed(1, 2, 4, 4).requires_grad_())


# all


def test_half_precision_is_summed_in_float32():
    logits, label = torch.randn(2, 3, 64, 64), scribble(2, 64, 64)
    half, image = logits.bfloat16(), torch.rand(2, 1, 64, 64)
    for loss in (
        lambda x: partial_cross_entropy(x, label),
        lambda x: dice_loss(x.softmax(1), label),
        lambda x: entropy(x).mean(),
        lambda x: total_variation(x.softmax(1)),
        lambda x: mumford_shah(x.softmax(1), image),
        lambda x: gated_crf(x.softmax(1), image, 1),
        lambda x: foreground_background_separation(x, label.masked_fill(label.roll(1) != 1, U)),
    ):
        assert loss(half).dtype == torch.float32
        torch.testing.assert_close(loss(half), loss(logits), rtol=0.02, atol=0.01)


def test_certain_cross_entropy_is_a_mean_over_the_unlabelled_pixels_weighted_by_certainty():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64).softmax(1)
    target[0, :, 0, 0] = torch.tensor([1.0, 0, 0])  # c = 1
    target[0, :, 0, 1] = 1 / 3  # c = 0
    label = torch.full((2, 4, 5), UNLABELED)
    label[1, 2:] = 1
    terms = []
    for n, y, x in (label == UNLABELED).nonzero().tolist():
        q, p = target[n, :, y, x].numpy(), logits.detach()[n, :, y, x].softmax(0).numpy()
        entropy = -sum(value * np.log(value) for value in q if value)
        terms.append((1 - entropy / np.log(3)) * -(q * np.log(p)).sum())
    loss = certain_cross_entropy(logits, target, label)
    assert loss.item() == pytest.approx(np.mean(terms), abs=1e-9)
    loss.backward()
    assert not logits.grad[1, :, 2:].any() and logits.grad[0, :, 0, 0].abs().max() > 1e-3
    assert logits.grad[0, :, 0, 1].abs().max() < 1e-15, "nothing is certain there"
    assert certain_cross_entropy(logits, target, torch.ones_like(label)) == 0
