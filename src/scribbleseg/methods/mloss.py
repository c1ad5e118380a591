"""Mumford-Shah loss (Kim & Ye, IEEE TIP 2020): regions of even intensity with short outlines."""

from typing import Annotated

from torch import Tensor, nn

from ..data.voxels import Batch
from ..losses.regularizers import mumford_shah
from ..losses.supervised import partial_cross_entropy
from .base import Method
from .options import at_least


class MLoss(Method):
    """L = pCE + w · Σ [(I − μ_c)² p_c + |∇p_c|], summed over classes, pixels and batch."""

    dims = (2, 3)

    def __init__(
        self,
        network: nn.Module,
        *,
        weight: Annotated[float, at_least(0), "w, weight of the energy, a sum over pixels"] = 1e-6,
        swapped: Annotated[bool, "exchange image and prediction, as released re-implementations do"] = False,
    ):
        super().__init__(network)
        self.weight, self.swapped = weight, swapped

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        return {
            "pce": partial_cross_entropy(logits, batch.label),
            "mumford_shah": self.weight * mumford_shah(logits.softmax(1), batch.image, self.swapped),
        }
