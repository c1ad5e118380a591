import math

import pytest
import torch
from torch import nn

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch
from scribbleseg.methods.teacher import ema_decay, ema_update, make_teacher
from scribbleseg.methods.ustm import USTM


class Scaled(nn.Module):
    """Two classes whose logit difference is `scale` × intensity: pixelwise, so it commutes with rotations."""

    def __init__(self, scale):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(float(scale)))

    def forward(self, x):
        return torch.cat([self.scale * x, torch.zeros_like(x)], 1)


def batch(image):
    return Batch(image, torch.full((len(image), *image.shape[2:]), UNLABELED))


def consistency(method, image, progress):
    return method.losses(batch(image), torch.tensor(progress))["consistency"].item()


def test_consistency_by_hand():
    # intensities 1 and 3; student σ(2x), teacher σ(x), no noise. Entropy in nats: of σ(1) .5822, of σ(3) .1909
    method = USTM(Scaled(1.0), noise=0.0)
    method.network.scale.data.fill_(2.0)
    image = torch.tensor([[[[1.0, 3.0], [3.0, 3.0]]]])

    def sigmoid(v):
        return 1 / (1 + math.exp(-v))

    far, near = 2 * (sigmoid(2) - sigmoid(1)) ** 2, 2 * (sigmoid(6) - sigmoid(3)) ** 2  # both classes differ alike
    assert consistency(method, image, 1.0) == pytest.approx(
        (far + 3 * near) / 4, rel=1e-5
    )  # threshold ln 2: all are certain
    start = math.exp(-5)  # threshold (.75 + .25 e⁻⁵) ln 2 = .521: the first pixel is not
    assert consistency(method, image, 0.0) == pytest.approx(start * near, rel=1e-5)


def test_threshold_is_of_the_number_of_classes_or_of_two():
    class Four(Scaled):
        def forward(self, x):
            return torch.cat([self.scale * x, *[torch.zeros_like(x)] * 3], 1)

    image = torch.full(
        (1, 1, 4, 4), 1.0
    )  # entropy of softmax(1, 0, 0, 0) = 1.268: below ln 4 = 1.386, above ln 2 = .693
    for base, passed in (("classes", True), ("two", False)):
        method = USTM(Four(1.0), noise=0.0, entropy_base=base)
        method.network.scale.data.fill_(2.0)
        assert (consistency(method, image, 1.0) > 0) == passed


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("progress", [0.0, 0.5, 0.9])
def test_ramps_of_weight_and_threshold_by_value(classes, progress):
    """Weight exp(−5(1−t)²); an entropy .5 % below (.75 + .25 · ramp) ln(C+1) is certain, one .5 % above is not."""

    class Rivals(Scaled):
        def forward(self, x):
            return torch.cat([self.scale * x, *[torch.zeros_like(x)] * (classes - 1)], 1)

    def entropy(value):
        probs = [math.exp(v) / (math.exp(value) + classes - 1) for v in (value, *[0] * (classes - 1))]
        return -sum(p * math.log(p) for p in probs)

    def intensity(wanted):  # by bisection: the entropy falls from ln(C+1) at 0
        low, high = 0.0, 20.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if entropy(middle) > wanted else (low, middle)
        return low

    ramp = math.exp(-5 * (1 - progress) ** 2)
    threshold = (0.75 + 0.25 * ramp) * math.log(classes)
    method = USTM(Rivals(1.0), noise=0.0, weight=3.0)
    method.network.scale.data.fill_(2.0)
    below, above = (torch.full((1, 1, 2, 2), intensity(threshold * share)) for share in (0.995, 1.005))
    probs = [(scale * below[0, 0, 0, 0] * torch.eye(classes)[0]).softmax(0) for scale in (1.0, 2.0)]
    distance = (probs[0] - probs[1]).square().sum().item()
    assert consistency(method, below, progress) == pytest.approx(3 * ramp * distance, rel=1e-4)
    assert consistency(method, above, progress) == 0


def test_teacher_answers_in_the_students_orientation():
    method = USTM(Scaled(1.0), noise=0.0)
    image = torch.rand(3, 1, 6, 6)
    expected = method.network(image).softmax(1)
    for _ in range(8):
        target, uncertainty = method.teach(image)
        torch.testing.assert_close(target, expected.detach())
        torch.testing.assert_close(uncertainty, torch.special.entr(expected).sum(1).detach())


def test_teacher_sees_every_rotation_of_one_clipped_noisy_batch():
    seen = []

    class Watching(Scaled):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    method = USTM(Watching(1.0))
    image = torch.arange(16.0).view(1, 1, 4, 4) * 10
    for _ in range(24):
        method.teach(image)
    turns = set()
    for x in seen:
        assert x.shape == (9, 1, 4, 4)  # the target's pass and T = 8 others, in one forward
        (turn,) = [k for k in range(4) if (x - image.rot90(k, (2, 3))).abs().max() <= 0.2 + 1e-4]
        noise = x - image.rot90(turn, (2, 3))
        assert (noise[0] != noise[1]).any() and 0.05 < noise.std() < 0.15 and noise.abs().max() > 0.15
        turns.add(turn)
    assert turns == {0, 1, 2, 3}


def test_entropy_is_of_the_mean_of_the_noisy_passes():
    # passes that contradict each other, each sure of itself, are uncertain together
    class Coin(Scaled):
        def forward(self, x):
            sign = torch.arange(len(x)).remainder(2).mul(2).sub(1).view(-1, 1, 1, 1)
            return super().forward(sign * torch.ones_like(x))

    target, uncertainty = USTM(Coin(50.0)).teach(torch.zeros(1, 1, 2, 2))
    torch.testing.assert_close(uncertainty, torch.full((1, 2, 2), math.log(2)))
    assert target.amax(1).min() > 0.99


def test_teacher_follows_with_the_growing_average():
    method = USTM(Scaled(1.0))
    for value, expected in ((3.0, 3.0), (5.0, 4.0), (7.0, 5.0)):  # α = 0, ½, ⅔: the plain mean of the weights so far
        method.network.scale.data.fill_(value)
        method.after_step(torch.tensor(0.5))
        assert method.teacher.scale.item() == pytest.approx(expected)
    assert ema_decay(torch.tensor(49.0)).item() == pytest.approx(0.98)
    assert ema_decay(torch.tensor(5000.0)).item() == pytest.approx(0.99)


def test_teacher_is_a_frozen_copy_with_batch_statistics_of_its_own():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    teacher = make_teacher(network)
    assert not any(p.requires_grad for p in teacher.parameters()) and all(p.requires_grad for p in network.parameters())
    network(torch.rand(2, 1, 4, 4))
    with torch.no_grad():
        network[0].weight += 1
    ema_update(teacher, network, torch.tensor(0.75))
    torch.testing.assert_close(teacher[0].weight, network[0].weight - 0.75)
    assert not teacher[1].running_mean.any() and network[1].running_mean.any()
