"""DMPLS (Luo et al., MICCAI 2022): two decoders that supervise each other with mixed pseudo-labels."""

import copy
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.voxels import Batch
from ..losses.supervised import dice_loss, partial_cross_entropy
from ..networks import start_anew
from .base import Method
from .options import at_least, between


class DMPLS(Method):
    """L = ½ (pCE₁ + pCE₂) + w · ½ (Dice₁ + Dice₂) against argmax(β p₁ + (1 − β) p₂), β ~ U(0, 1) in every step.

    Decoder 1 is the network's; decoder 2 has its own weights and sees the encoder's maps through channel dropout (in
    training).
    """

    dims = (2, 3)
    needs = ("encoder", "encode", "decode", "head")

    def __init__(
        self,
        network: nn.Module,
        *,
        weight: Annotated[float, at_least(0), "w, weight of the Dice terms"] = 0.5,
        dropout: Annotated[float, between(0, 1), "share of channels dropped before the second decoder"] = 0.5,
    ):
        super().__init__(network)
        self.weight, self.dropout = weight, dropout
        self.auxiliary = copy.deepcopy(self.network)
        del self.auxiliary.encoder
        start_anew(self.auxiliary)

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        maps = self.network.encode(batch.image)
        drop = F.dropout2d if batch.image.dim() == 4 else F.dropout3d
        dropped = [drop(x, self.dropout, self.training) for x in maps]
        logits = self.network.head(self.network.decode(maps)).float()
        auxiliary = self.auxiliary.head(self.auxiliary.decode(dropped)).float()
        probs, probs_auxiliary = logits.softmax(1), auxiliary.softmax(1)
        beta = torch.rand((), device=logits.device)
        pseudo = (beta * probs + (1 - beta) * probs_auxiliary).argmax(1)
        return {
            "pce": 0.5 * partial_cross_entropy(logits, batch.label),
            "pce_auxiliary": 0.5 * partial_cross_entropy(auxiliary, batch.label),
            "dice": self.weight * 0.5 * dice_loss(probs, pseudo),
            "dice_auxiliary": self.weight * 0.5 * dice_loss(probs_auxiliary, pseudo),
        }
