"""The term of pixels that are surely background because strokes enclose everything else."""

import torch
from torch import Tensor

from ..data.voxels import Batch, Slices, Voxels
from .supervised import partial_cross_entropy


def enclosure_term(logits: Tensor, batch: Batch, weight: float = 1.0) -> dict[str, Tensor]:
    """{"enclosure": weight · cross-entropy over the enclosed background of the batch}; {} where the run reads none.

    logits [N, K, *space]. The strokes are not in it: their term keeps its own weight, however many pixels these are.
    """
    if "enclosure" not in batch.maps:
        return {}
    return {"enclosure": weight * partial_cross_entropy(logits, batch.maps["enclosure"])}


def known(data: Batch | Slices | Voxels) -> Tensor:
    """The strokes, with the enclosed background as strokes where the run reads it; integer like `data.label`."""
    return torch.minimum(data.label, data.maps.get("enclosure", data.label))
