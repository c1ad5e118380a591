"""pce, fullsup, rw, entmin, tv, rloss, mloss, nnunet-pl: each term's value by hand, on a network that says what it is
told to.
"""

import math

import pytest
import torch
from torch import nn

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Batch
from scribbleseg.methods import method_class

# one slice of 1 × 2 pixels: the left one is scribbled as class 1; intensities .1 apart
PROBS = torch.tensor([[[[0.8, 0.3]], [[0.2, 0.7]]]])
BATCH = Batch(torch.tensor([[[[0.5, 0.6]]]]), torch.tensor([[[1, UNLABELED]]]))
PCE = -math.log(0.2)
H = -0.8 * math.log(0.8) - 0.2 * math.log(0.2), -0.3 * math.log(0.3) - 0.7 * math.log(0.7)
MU = (0.5 * 0.8 + 0.6 * 0.3) / 1.1, (0.5 * 0.2 + 0.6 * 0.7) / 0.9
NU = (0.8 * 0.5 + 0.3 * 0.6) / 1.1, (0.2 * 0.5 + 0.7 * 0.6) / 1.1
AREA = 0.8 * (0.5 - MU[0]) ** 2 + 0.3 * (0.6 - MU[0]) ** 2 + 0.2 * (0.5 - MU[1]) ** 2 + 0.7 * (0.6 - MU[1]) ** 2
SWAPPED = sum(0.5 * (p - nu) ** 2 + 0.6 * (q - nu) ** 2 for p, q, nu in ((0.8, 0.3, NU[0]), (0.2, 0.7, NU[1])))
KERNEL = math.exp(-0.5 / 36 - 0.5)
DICE = (
    1 - (1e-5 / (0.64 + 1e-5) + (0.4 + 1e-5) / (0.04 + 1 + 1e-5)) / 2
)  # of both classes, squared, on the scribbled pixel


class Told(nn.Module):
    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(PROBS.log())

    def forward(self, x):
        return self.logits


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("pce", {}, {"pce": PCE}),
        ("fullsup", {}, {"ce": PCE / 2, "dice": DICE / 2}),
        ("rw", {}, {"ce": PCE / 2, "dice": DICE / 2}),
        ("entmin", {}, {"pce": PCE, "entropy": 0.1 * (H[0] + H[1]) / 2 / math.log(2)}),
        ("tv", {}, {"pce": PCE, "tv": 0.01 * (0.5 + 0.5) / 4}),
        ("rloss", {}, {"pce": PCE, "crf": 0.1 * 2 * KERNEL * (1 - 0.8 * 0.3 - 0.2 * 0.7) / 2}),
        (
            "rloss",
            {"sigma_px": 1.0, "sigma_intensity": 0.05, "weight": 1.0},
            {"pce": PCE, "crf": math.exp(-0.5 - 2) * 0.62},
        ),
        ("rloss", {"radius": 0}, {"pce": PCE, "crf": 0.0}),
        ("mloss", {}, {"pce": PCE, "mumford_shah": 1e-6 * (AREA + 1)}),
        ("mloss", {"swapped": True, "weight": 1.0}, {"pce": PCE, "mumford_shah": SWAPPED + 1}),
        ("mloss", {"swapped": True, "length": "image", "weight": 1.0}, {"pce": PCE, "mumford_shah": SWAPPED + 0.1}),
        # Dice of class 1 on the scribbled pixel alone: (2·.2 + s) / (.2 + 1 + s)
        ("nnunet-pl", {}, {"pce": PCE, "dice": 1 - 0.40001 / 1.20001}),
        ("nnunet-pl", {"dice_weight": 0.5}, {"pce": PCE, "dice": 0.5 * (1 - 0.40001 / 1.20001)}),
    ],
)
def test_terms_by_hand(name, options, expected):
    terms = method_class(name)(Told(), **options).losses(BATCH, torch.tensor(0.5))
    assert {key: term.item() for key, term in terms.items()} == pytest.approx(expected, rel=1e-4)
