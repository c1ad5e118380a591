"""nnU-Net's partial loss: what its `ignore` label trains with (Gotkowski et al., 2024)."""

from ..losses.supervised import dice_loss, partial_cross_entropy
from .base import Method


class NNUNetPartialLoss(Method):
    """L = pCE + partial Dice: both over labelled pixels only; Dice over foreground classes and the whole batch, denominators Σp + Σt."""

    def __init__(self, network, *, dice_weight: float = 1.0):
        super().__init__(network)
        self.dice_weight = dice_weight

    def losses(self, batch, progress):
        logits = self.network(batch.image)
        dice = dice_loss(logits.softmax(1), batch.label, background=False, squared=False)
        return {"pce": partial_cross_entropy(logits, batch.label), "dice": self.dice_weight * dice}
