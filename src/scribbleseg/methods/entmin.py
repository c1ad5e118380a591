"""Entropy minimisation (Grandvalet & Bengio, NeurIPS 2004): confident predictions on unlabelled pixels."""

import math
from typing import Annotated

from torch import Tensor, nn

from ..data.voxels import Batch
from ..losses.regularizers import entropy
from ..losses.supervised import partial_cross_entropy
from .base import Method
from .options import at_least


class EntMin(Method):
    """L = pCE + w · mean entropy of the softmax / ln K, over all pixels; K classes, background included."""

    dims = (2, 3)

    def __init__(self, network: nn.Module, *, weight: Annotated[float, at_least(0), "w, weight of the entropy"] = 0.1):
        super().__init__(network)
        self.weight = weight

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        return {
            "pce": partial_cross_entropy(logits, batch.label),
            "entropy": self.weight * entropy(logits).mean() / math.log(logits.shape[1]),
        }
