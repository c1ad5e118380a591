"""Regularised loss: the gated CRF (Obukhov et al., 2019), neighbours of like intensity take like labels."""

from ..losses.regularizers import gated_crf
from ..losses.supervised import partial_cross_entropy
from .base import Method


class RLoss(Method):
    """L = pCE + w · gated CRF energy of softmax and image."""

    def __init__(
        self, network, *, weight: float = 0.1, radius: int = 5, sigma_px: float = 6.0, sigma_intensity: float = 0.1
    ):
        super().__init__(network)
        self.weight, self.radius, self.sigma_px, self.sigma_intensity = weight, radius, sigma_px, sigma_intensity

    def losses(self, batch, progress):
        logits = self.network(batch.image)
        energy = gated_crf(logits.softmax(1), batch.image, self.radius, self.sigma_px, self.sigma_intensity)
        return {"pce": partial_cross_entropy(logits, batch.label), "crf": self.weight * energy}
