"""CACL against its equations (docs/methods/scn.md), pixel by pixel in float64."""

import pytest
import torch

from scribbleseg.core.labels import UNLABELED
from scribbleseg.losses.correlation import class_contrast

U = UNLABELED
# class 0 is drawn in both slices, 1 in the first, 3 in the second, 2 nowhere
SCRIBBLE = torch.tensor([[[0, 0, 1, 1], [1, U, U, U]], [[0, 3, 3, U], [3, U, U, U]]])
PSEUDO = torch.tensor(
    [[[0, 3, 1, 1], [1, 3, 2, 0]], [[0, 3, 3, 1], [3, 1, U, 0]]]
)  # one scribbled pixel is predicted otherwise


def contrast_by_loops(features, scribble, pseudo_label, classes, temperature):
    """μ_c: the normalised mean of the unit vectors with scribble c; −log softmax_c(F_i · μ_c / T), its mean over Ω and
    over M∖Ω.
    """
    slices, rows, columns = scribble.shape
    pixels = [(n, i, j) for n in range(slices) for i in range(rows) for j in range(columns)]
    unit = {(n, i, j): features[n, :, i, j] / features[n, :, i, j].square().sum().sqrt() for n, i, j in pixels}
    means = {}
    for c in range(classes):
        own = [unit[p] for p in pixels if scribble[p] == c]
        if own:
            mean = sum(own) / len(own)
            means[c] = mean / mean.square().sum().sqrt()

    def cost(pixel, c):
        total = sum(((unit[pixel] * mean).sum() / temperature).exp() for mean in means.values())
        return -(((unit[pixel] * means[c]).sum() / temperature).exp() / total).log()

    on_scribble = [cost(p, int(scribble[p])) for p in pixels if scribble[p] != U]
    on_unlabel = [cost(p, int(pseudo_label[p])) for p in pixels if scribble[p] == U and int(pseudo_label[p]) in means]
    return sum(on_scribble) / len(on_scribble), sum(on_unlabel) / len(on_unlabel)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_values_and_gradients_are_those_of_the_loops(temperature):
    g = torch.Generator().manual_seed(2)
    lengths = torch.tensor([0.2, 1.0, 5.0, 30.0]).repeat(2, 1, 2, 1)
    exact = (torch.randn(2, 3, 2, 4, generator=g, dtype=torch.float64) * lengths).requires_grad_()
    features = exact.detach().float().requires_grad_()
    found = class_contrast(
        features, SCRIBBLE, PSEUDO, 4, **({} if temperature == 0.1 else {"temperature": temperature})
    )
    expected = contrast_by_loops(exact, SCRIBBLE, PSEUDO, 4, temperature)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
        (gradient,) = torch.autograd.grad(ours, features, retain_graph=True)
        (slow,) = torch.autograd.grad(theirs, exact, retain_graph=True)
        torch.testing.assert_close(gradient.double(), slow, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["two pixels", "a class", "all", "short", "opposite"])
def test_degenerate_features_have_finite_values_and_bounded_gradients(kind):
    features = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(0)).movedim(1, -1)
    if kind == "two pixels":
        features[0, 0, 0] = features[0, 1, 3] = 0  # one scribbled, one with a pseudo-label only
    elif kind == "opposite":  # the unit vectors of class 1 add up to nothing
        features[0, 0, 3], features[0, 1, 0] = -features[0, 0, 2], 0
    else:
        features[torch.ones_like(SCRIBBLE, dtype=torch.bool) if kind == "all" else SCRIBBLE == 1] *= (
            1e-7 if kind == "short" else 0
        )
    features = features.movedim(-1, 1).requires_grad_()
    for term in class_contrast(features, SCRIBBLE, PSEUDO, 4):
        assert term.isfinite()
        (gradient,) = torch.autograd.grad(term, features, retain_graph=True)
        assert gradient.isfinite().all() and gradient.abs().max() <= 1e6
