"""ScribFormer (TMI 2024): CNN and Transformer teach each other; shallow activation maps follow the deepest."""

from typing import Annotated

import torch
from torch import Tensor, nn

from ..core.recipe import Recipe
from ..data.voxels import Batch
from ..losses.supervised import dice_loss, partial_cross_entropy
from .base import Method
from .options import at_least


def cam_consistency(cams: list[Tensor], weights: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)) -> Tensor:
    """¼ Σ_l w_l · mean over pixels of −Σ_k σ(cam_5)_k log softmax(σ(cam_l))_k, l = 1 … 4 from shallow to deep.

    cams: five maps [N, K, h, w] before the sigmoid.
    """
    *shallow, deep = (cam.float().sigmoid() for cam in cams)
    terms = [weight * (deep * cam.log_softmax(1)).sum(1).mean() for weight, cam in zip(weights, shallow, strict=True)]
    return -sum(terms, start=deep.new_zeros(())) / len(terms)


class ScribFormer(Method):
    """L = ½(pCE_cnn + pCE_trans) + .5·½(Dice_cnn + Dice_trans to ŷ) + .1·CAM consistency.

    ŷ = argmax(β p_cnn + (1 − β) p_trans), β ~ U(0, 1) per step, without gradient.
    """

    recipe = Recipe(optimizer="adamw", lr=1e-3, schedule="constant", weight_decay=5e-4, batch=8)
    network_name = "scribformer"

    needs = ("branches",)

    def __init__(
        self,
        network: nn.Module,
        *,
        pseudo_weight: Annotated[float, at_least(0), "weight of the pseudo-labels' Dice"] = 0.5,
        cam_weight: Annotated[float, at_least(0), "weight of the activation maps' consistency"] = 0.1,
    ):
        super().__init__(network)
        self.pseudo_weight = pseudo_weight
        self.cam_weight = cam_weight

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        cnn, transformer, cams = self.network.branches(batch.image)
        probs = cnn.softmax(1), transformer.softmax(1)
        beta = torch.rand((), device=cnn.device)
        pseudo = torch.lerp(probs[0].detach(), probs[1].detach(), beta).argmax(1)  # ŷ
        return {
            "pce": 0.5 * (partial_cross_entropy(cnn, batch.label) + partial_cross_entropy(transformer, batch.label)),
            "pseudo": self.pseudo_weight * 0.5 * (dice_loss(probs[0], pseudo) + dice_loss(probs[1], pseudo)),
            "cam": self.cam_weight * cam_consistency(cams),
        }
