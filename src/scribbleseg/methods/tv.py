"""Total variation (Javanmardi et al., 2016): short outlines."""

from typing import Annotated

from torch import Tensor, nn

from ..data.voxels import Batch
from ..losses.regularizers import total_variation
from ..losses.supervised import partial_cross_entropy
from .base import Method
from .options import at_least


class TV(Method):
    """L = pCE + w · total variation of the softmax."""

    dims = (2, 3)

    def __init__(
        self,
        network: nn.Module,
        *,
        weight: Annotated[float, at_least(0), "w, weight of the total variation [released code]"] = 0.01,
    ):
        super().__init__(network)
        self.weight = weight

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        return {
            "pce": partial_cross_entropy(logits, batch.label),
            "tv": self.weight * total_variation(logits.softmax(1)),
        }
