"""Total variation (Javanmardi et al., 2016): short outlines."""

from ..losses.regularizers import total_variation
from ..losses.supervised import partial_cross_entropy
from .base import Method


class TV(Method):
    """L = pCE + w · total variation of the softmax. Weight .01 [released code]."""

    def __init__(self, network, *, weight: float = 0.01):
        super().__init__(network)
        self.weight = weight

    def losses(self, batch, progress):
        logits = self.network(batch.image)
        return {
            "pce": partial_cross_entropy(logits, batch.label),
            "tv": self.weight * total_variation(logits.softmax(1)),
        }
