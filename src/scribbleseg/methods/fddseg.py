"""FDDSeg (JBHI 2024): two U-Nets, superpixel labels, distillation between side heads; from the paper's idea."""

import copy
from importlib.metadata import version
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.labels import UNLABELED
from ..core.recipe import Recipe
from ..data.case import Volume
from ..data.voxels import Batch
from ..losses.supervised import dice_loss, partial_cross_entropy
from ..networks import start_anew
from .base import Method
from .options import at_least, between


def spread(superpixels: np.ndarray, scribble: np.ndarray, classes: int, reach: int) -> np.ndarray:
    """Scribbles spread through the superpixels they touch, uint8 [H, W] with UNLABELED.

    A superpixel takes the class with most scribble pixels in it (the lowest on a tie), as far as `reach` pixels (rows
    and columns alike) from scribbles of that class. Scribbled pixels keep their own class. superpixels integer [H, W],
    from 0 on.
    """
    from scipy.ndimage import maximum_filter

    drawn = scribble != UNLABELED
    counts = np.bincount(superpixels[drawn] * classes + scribble[drawn], minlength=(superpixels.max() + 1) * classes)
    counts = counts.reshape(-1, classes)
    winner = np.where(counts.any(1), counts.argmax(1), UNLABELED).astype(np.uint8)[superpixels]
    near = maximum_filter(scribble == np.arange(classes)[:, None, None], (1, 2 * reach + 1, 2 * reach + 1))
    near = np.take_along_axis(near, np.where(winner == UNLABELED, 0, winner)[None].astype(np.intp), 0)[0]
    return np.where(drawn, scribble, np.where(near, winner, UNLABELED)).astype(np.uint8)


def decoupled_distillation(one: Tensor, other: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Target-class and non-target-class distance of two predictions (split as in DKD, CVPR 2022), means over pixels.

    logits one, other [N, K, H, W], label [N, H, W] in 0..K−1. Target: ‖(p_t, 1−p_t) − (q_t, 1−q_t)‖², t = label.
    Non-target: ‖p̂ − q̂‖², p̂ the softmax over the K−1 other classes (0 for two classes).
    """
    target = label.unsqueeze(1)
    chosen = [logits.softmax(1).gather(1, target) for logits in (one, other)]
    others = [logits.scatter(1, target, -torch.inf).softmax(1) for logits in (one, other)]
    return 2 * F.mse_loss(chosen[0], chosen[1]), (others[0] - others[1]).square().sum(1).mean()


def side_heads(widths: tuple[int, ...], classes: int) -> nn.ModuleList:
    """Heads on the decoder's inner maps (32², 64², 128² for 256²): 3×3 convolutions, halving the width to widths[1]."""
    heads = nn.ModuleList()
    for width in widths[-2:0:-1]:
        steps = [width]
        while steps[-1] > widths[1]:
            steps.append(steps[-1] // 2)
        heads.append(nn.Sequential(*(nn.Conv2d(i, o, 3, padding=1) for i, o in zip(steps, [*steps[1:], classes]))))
    return heads


class FDDSeg(Method):
    """L = ½(pCE₁ + pCE₂) + .5·pseudo + .35·Σ_s Dice(side₁ₛ, ŷ) + .15·Σ_s(.4·target + .6·non-target).

    ŷ = argmax(β p₁ + (1 − β) p₂); pseudo = ½ Σ_nets [γ Dice(p, ŷ) + (1 − γ) Dice(p, superpixel label)];
    β, γ ~ U(0, 1) per step. The second U-Net sees its encoder's maps through dropout2d. The first is evaluated.
    """

    recipe = Recipe(batch=4)

    needs = ("encode", "decoder_maps", "head", "widths")

    def __init__(
        self,
        network: nn.Module,
        *,
        pseudo_weight: Annotated[float, at_least(0), "weight of the pseudo-labels' Dice"] = 0.5,
        side_weight: Annotated[float, at_least(0), "weight of the side heads' Dice"] = 0.35,
        distill_weight: Annotated[float, at_least(0), "weight of the distillation between side heads"] = 0.15,
        target_share: Annotated[float, between(0, 1), "share of the target class in the distillation"] = 0.4,
        dropout: Annotated[float, between(0, 1), "share of channels dropped in the second U-Net"] = 0.5,
        reach: Annotated[int, at_least(0), "pixels; how far a superpixel's label goes from its scribble"] = 7,
    ):
        super().__init__(network)
        self.second = copy.deepcopy(self.network)
        start_anew(self.second)
        classes = self.network.head.out_channels
        self.sides = side_heads(self.network.widths, classes)
        self.second_sides = side_heads(self.network.widths, classes)
        self.pseudo_weight, self.side_weight, self.distill_weight = pseudo_weight, side_weight, distill_weight
        self.target_share, self.dropout, self.reach = target_share, dropout, reach

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        from skimage.segmentation import felzenszwalb

        slices = []
        for image, scribble in zip(volume.image.swapaxes(0, 1), volume.scribble):
            superpixels = felzenszwalb(image, scale=50, sigma=0.5, min_size=30, channel_axis=0)
            slices.append(spread(superpixels, scribble, volume.classes, self.reach))
        return {"label": volume.scribble, "superpixel": np.stack(slices)}

    def target_key(self, volume: Volume) -> dict[str, object]:
        settings = {"classes": volume.classes, "reach": self.reach}
        return {"method": "fddseg", **settings, "scikit-image": version("scikit-image")}

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        maps = self.network.decoder_maps(self.network.encode(batch.image))
        dropped = [F.dropout2d(x, self.dropout, self.training) for x in self.second.encode(batch.image)]
        second_maps = self.second.decoder_maps(dropped)
        logits = [self.network.head(maps[-1]).float(), self.second.head(second_maps[-1]).float()]
        probs = [x.softmax(1) for x in logits]
        beta, gamma = torch.rand(2, device=batch.image.device)
        label = torch.lerp(probs[0].detach(), probs[1].detach(), beta).argmax(1)  # ŷ

        pseudo = [gamma * dice_loss(p, label) + (1 - gamma) * dice_loss(p, batch.maps["superpixel"]) for p in probs]
        side, distill = [], []
        for head, x, second_head, second_x in zip(self.sides, maps, self.second_sides, second_maps):
            stride = label.shape[1] // x.shape[2]
            small = label[:, ::stride, ::stride]
            one, other = head(x).float(), second_head(second_x).float()
            side.append(dice_loss(one.softmax(1), small))
            target, rest = decoupled_distillation(one, other, small)
            distill.append(self.target_share * target + (1 - self.target_share) * rest)
        return {
            "pce": 0.5 * sum(partial_cross_entropy(x, batch.label) for x in logits),
            "pseudo": self.pseudo_weight * 0.5 * sum(pseudo),
            "side": self.side_weight * sum(side),
            "distill": self.distill_weight * sum(distill),
        }
