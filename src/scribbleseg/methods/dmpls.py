"""DMPLS (Luo et al., MICCAI 2022): two decoders that supervise each other with mixed pseudo-labels."""

import copy

import torch
import torch.nn.functional as F

from ..core.errors import InputError
from ..losses.supervised import dice_loss, partial_cross_entropy
from .base import Method


class DMPLS(Method):
    """L = ½ (pCE₁ + pCE₂) + w · ½ (Dice₁ + Dice₂) against argmax(β p₁ + (1 − β) p₂), β ~ U(0, 1) drawn anew in every step.

    Decoder 1 is the network's; decoder 2 has its own weights and sees the encoder's maps through channel dropout (in training).
    Raises InputError for a network without `encode` and `decode`.
    """

    def __init__(self, network, *, weight: float = 0.5, dropout: float = 0.5):
        super().__init__(network)
        if not (hasattr(network, "encode") and hasattr(network, "decode")):
            raise InputError(
                f"dmpls needs a network with encode and decode; got {type(network).__name__}. Use network unet."
            )
        self.weight, self.dropout = weight, dropout
        self.auxiliary = copy.deepcopy(network)
        del self.auxiliary.encoder
        for module in self.auxiliary.modules():
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()

    def losses(self, batch, progress):
        maps = self.network.encode(batch.image)
        dropped = [F.dropout2d(x, self.dropout, self.training) for x in maps]
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
