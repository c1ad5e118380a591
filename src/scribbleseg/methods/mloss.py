"""Mumford-Shah loss (Kim & Ye, IEEE TIP 2020): regions of even intensity with short outlines."""

from ..losses.regularizers import mumford_shah
from ..losses.supervised import partial_cross_entropy
from .base import Method


class MLoss(Method):
    """L = pCE + w · Σ [(I − μ_c)² p_c + |∇p_c|], summed over classes, pixels and batch.

    `swapped=True` reproduces the released re-implementations, which take image and prediction for each other.
    """

    def __init__(self, network, *, weight: float = 1e-6, swapped: bool = False):
        super().__init__(network)
        self.weight, self.swapped = weight, swapped

    def losses(self, batch, progress):
        logits = self.network(batch.image)
        return {
            "pce": partial_cross_entropy(logits, batch.label),
            "mumford_shah": self.weight * mumford_shah(logits.softmax(1), batch.image, self.swapped),
        }
