"""ScribFormer (TMI 2024): CNN and Transformer branches that teach each other, and shallow activation maps that follow the deepest."""

import torch

from ..core.errors import InputError
from ..core.recipe import Recipe
from ..losses.supervised import dice_loss, partial_cross_entropy
from .base import Method


def cam_consistency(cams: list[torch.Tensor], weights: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)) -> torch.Tensor:
    """¼ Σ_l w_l · mean over pixels of −Σ_k σ(cam_5)_k log softmax(σ(cam_l))_k, l = 1 … 4 from shallow to deep.

    cams: five maps [N, K, h, w] before the sigmoid.
    """
    *shallow, deep = (cam.float().sigmoid() for cam in cams)
    terms = [weight * (deep * cam.log_softmax(1)).sum(1).mean() for weight, cam in zip(weights, shallow, strict=True)]
    return -sum(terms) / len(terms)


class ScribFormer(Method):
    """L = ½(pCE_cnn + pCE_trans) + .5·½(Dice_cnn + Dice_trans to ŷ) + .1·CAM consistency.

    ŷ = argmax(β p_cnn + (1 − β) p_trans), β ~ U(0, 1) per step, without gradient.
    """

    recipe = Recipe(optimizer="adamw", lr=1e-3, schedule="constant", weight_decay=5e-4, batch=8)
    network_name = "scribformer"

    def __init__(self, network, *, pseudo_weight: float = 0.5, cam_weight: float = 0.1):
        super().__init__(network)
        if not hasattr(network, "branches"):
            raise InputError(
                f"scribformer needs its own network; got {type(network).__name__}. Use network scribformer."
            )
        self.pseudo_weight = pseudo_weight
        self.cam_weight = cam_weight

    def losses(self, batch, progress):
        cnn, transformer, cams = self.network.branches(batch.image)
        probs = [cnn.softmax(1), transformer.softmax(1)]
        pseudo = torch.lerp(*(p.detach() for p in probs), torch.rand((), device=cnn.device)).argmax(1)
        return {
            "pce": 0.5 * (partial_cross_entropy(cnn, batch.label) + partial_cross_entropy(transformer, batch.label)),
            "pseudo": self.pseudo_weight * 0.5 * sum(dice_loss(p, pseudo) for p in probs),
            "cam": self.cam_weight * cam_consistency(cams),
        }
