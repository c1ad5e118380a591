"""FDDSeg (JBHI 2024): two U-Nets, superpixel labels and decoupled distillation between side heads; from the paper's idea."""

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.recipe import Recipe
from ..data.cache import cached
from ..losses.supervised import dice_loss, partial_cross_entropy
from .base import Method


def spread(superpixels: np.ndarray, scribble: np.ndarray, classes: int, reach: int) -> np.ndarray:
    """Scribbles spread through the superpixels they touch, uint8 [H, W] with UNLABELED.

    A superpixel takes the class with most scribble pixels in it (the lowest on a tie), as far as `reach` pixels (rows and columns
    alike) from scribbles of that class. Scribbled pixels keep their own class. superpixels integer [H, W], from 0 on.
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
    """Target-class and non-target-class distance of two predictions (the split of DKD, CVPR 2022), each a mean over pixels.

    logits one, other [N, K, H, W], label [N, H, W] in 0..K−1. Target: ‖(p_t, 1−p_t) − (q_t, 1−q_t)‖², t = label. Non-target:
    ‖p̂ − q̂‖², p̂ the softmax over the K−1 other classes (0 for two classes).
    """
    target = label.unsqueeze(1)
    chosen = [logits.softmax(1).gather(1, target) for logits in (one, other)]
    others = [logits.scatter(1, target, -torch.inf).softmax(1) for logits in (one, other)]
    return 2 * F.mse_loss(*chosen), (others[0] - others[1]).square().sum(1).mean()


def side_heads(widths: tuple[int, ...], classes: int) -> nn.ModuleList:
    """Heads on the decoder's inner maps (32², 64², 128² for 256²): 3×3 convolutions that halve the width down to widths[1]."""
    heads = nn.ModuleList()
    for width in widths[-2:0:-1]:
        steps = [width]
        while steps[-1] > widths[1]:
            steps.append(steps[-1] // 2)
        heads.append(nn.Sequential(*(nn.Conv2d(i, o, 3, padding=1) for i, o in zip(steps, [*steps[1:], classes]))))
    return heads


class FDDSeg(Method):
    """L = ½(pCE₁ + pCE₂) + .5·pseudo + .35·Σ_s Dice(side₁ₛ, ŷ) + .15·Σ_s(.4·target + .6·non-target).

    ŷ = argmax(β p₁ + (1 − β) p₂); pseudo = ½ Σ_nets [γ Dice(p, ŷ) + (1 − γ) Dice(p, superpixel label)]; β, γ ~ U(0, 1) per step.
    The second U-Net sees its encoder's maps through dropout2d. The first is evaluated.
    """

    recipe = Recipe(batch=4)

    def __init__(
        self,
        network,
        *,
        pseudo_weight: float = 0.5,
        side_weight: float = 0.35,
        distill_weight: float = 0.15,
        target_share: float = 0.4,
        dropout: float = 0.5,
        reach: int = 7,
    ):
        super().__init__(network)
        if not hasattr(network, "decoder_maps"):
            raise InputError(
                f"fddseg needs the decoder's maps of a U-Net; got {type(network).__name__}. Use network unet."
            )
        self.second = copy.deepcopy(network)
        for module in self.second.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        classes = network.head.out_channels
        self.sides = side_heads(network.widths, classes)
        self.second_sides = side_heads(network.widths, classes)
        self.pseudo_weight = pseudo_weight
        self.side_weight = side_weight
        self.distill_weight = distill_weight
        self.target_share = target_share
        self.dropout = dropout
        self.reach = reach

    def targets(self, volume):
        import skimage
        from skimage.segmentation import felzenszwalb

        def solve():
            slices = [
                spread(
                    felzenszwalb(image, scale=50, sigma=0.5, min_size=30, channel_axis=0),
                    scribble,
                    volume.classes,
                    self.reach,
                )
                for image, scribble in zip(volume.image.swapaxes(0, 1), volume.scribble)
            ]
            return np.stack(slices)

        settings = {"classes": volume.classes, "reach": self.reach, "scikit-image": skimage.__version__}
        return {"label": volume.scribble, "superpixel": cached(volume, "fddseg", settings, solve)}

    def losses(self, batch, progress):
        maps = self.network.decoder_maps(self.network.encode(batch.image))
        dropped = [F.dropout2d(x, self.dropout, self.training) for x in self.second.encode(batch.image)]
        second_maps = self.second.decoder_maps(dropped)
        logits = [self.network.head(maps[-1]).float(), self.second.head(second_maps[-1]).float()]
        probs = [x.softmax(1) for x in logits]
        beta, gamma = torch.rand(2, device=batch.image.device)
        label = torch.lerp(*(p.detach() for p in probs), beta).argmax(1)

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
