"""Regularised loss: the gated CRF (Obukhov et al., 2019), neighbours of like intensity take like labels."""

from typing import Annotated

from torch import Tensor, nn

from ..data.voxels import Batch
from ..losses.regularizers import gated_crf
from ..losses.supervised import partial_cross_entropy
from .base import Method
from .options import above, at_least


class RLoss(Method):
    """L = pCE + w · gated CRF energy of softmax and image."""

    dims = (2, 3)

    def __init__(
        self,
        network: nn.Module,
        *,
        weight: Annotated[float, at_least(0), "w, weight of the energy"] = 0.1,
        radius: Annotated[int, at_least(0), "neighbours lie within so many pixels along each axis"] = 5,
        sigma_px: Annotated[float, above(0), "width of the kernel in space, in pixels"] = 6.0,
        sigma_intensity: Annotated[float, above(0), "width of the kernel in intensity, images in [0, 1]"] = 0.1,
    ):
        super().__init__(network)
        self.weight, self.radius, self.sigma_px, self.sigma_intensity = weight, radius, sigma_px, sigma_intensity

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        energy = gated_crf(logits.softmax(1), batch.image, self.radius, self.sigma_px, self.sigma_intensity)
        return {"pce": partial_cross_entropy(logits, batch.label), "crf": self.weight * energy}
