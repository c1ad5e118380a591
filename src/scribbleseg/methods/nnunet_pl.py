"""nnU-Net's partial loss: what its `ignore` label trains with (Gotkowski et al., 2024)."""

from typing import Annotated

from torch import Tensor, nn

from ..data.voxels import Batch
from ..losses.supervised import dice_loss, partial_cross_entropy
from .base import Method
from .options import at_least


class NNUNetPartialLoss(Method):
    """L = pCE + v · partial Dice, both over labelled pixels only.

    Dice: foreground classes only, over the whole batch, with denominators Σp + Σt.
    """

    dims = (2, 3)
    learns_from_bare = False

    def __init__(
        self, network: nn.Module, *, dice_weight: Annotated[float, at_least(0), "v, weight of the partial Dice"] = 1.0
    ):
        super().__init__(network)
        self.dice_weight = dice_weight

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        dice = dice_loss(logits.softmax(1), batch.label, background=False, squared=False)
        return {"pce": partial_cross_entropy(logits, batch.label), "dice": self.dice_weight * dice}
