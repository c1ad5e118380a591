"""Mumford-Shah loss (Kim & Ye, IEEE TIP 2020): regions of even intensity with short outlines."""

from typing import Annotated

from torch import Tensor, nn

from ..data.voxels import Batch
from ..losses.regularizers import mumford_shah
from ..losses.supervised import partial_cross_entropy
from .base import Method
from .options import at_least, one_of


class MLoss(Method):
    """L = pCE + w · Σ [(I − μ_c)² p_c + |∇p_c|], summed over classes, pixels and batch.

    swapped=True length=image is WSL4MIS from before 2022-12-26, which EFFDNet's comparison has.
    """

    later = ("length",)

    dims = (2, 3)

    def __init__(
        self,
        network: nn.Module,
        *,
        weight: Annotated[float, at_least(0), "w, weight of the energy, a sum over pixels"] = 1e-6,
        swapped: Annotated[bool, "exchange image and prediction in the first term [WSL4MIS]"] = False,
        length: Annotated[
            str,
            one_of("prediction", "image"),
            "of whose outlines; the image's have no gradient [WSL4MIS until 2022]",
        ] = "prediction",
    ):
        super().__init__(network)
        self.weight, self.swapped, self.length = weight, swapped, length

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        energy = mumford_shah(logits.softmax(1), batch.image, self.swapped, self.length)
        return {"pce": partial_cross_entropy(logits, batch.label), "mumford_shah": self.weight * energy}
