"""Scribble2Label (MICCAI 2020): confident means of the predictions over time become labels."""

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.labels import UNLABELED
from ..data.case import Volume
from ..data.voxels import Batch, Slices, Voxels
from ..losses.supervised import partial_cross_entropy
from ..networks.windows import read
from .base import Method
from .options import at_least, between

VOXELS = 2**22  # that are labelled at a time


class Scribble2Label(Method):
    """L = pCE + .5·CE on unlabelled pixels whose mean prediction exceeds .8, from a tenth of the run on.

    At every sweep all training slices are predicted, w ← .2p + .8w; the first sweep sets w = p. `sweeps`: the paper's
    60 000 iterations have one every 100. The mean is kept in half precision on the training device and in the state:
    N·K·H·W·2 bytes, of patches and volumes 2 bytes per voxel and class.
    """

    dims = (2, 3)
    mean: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        sweeps: Annotated[int, at_least(0), "most sweeps in the run, evenly spread"] = 600,
        alpha: Annotated[float, between(0, 1), "weight of the newest prediction"] = 0.2,
        confidence: Annotated[float, between(0, 1), "a larger mean probability makes a label"] = 0.8,
        weight: Annotated[float, at_least(0), "weight of the second term"] = 0.5,
        start: Annotated[float, between(0, 1), "share of the run before the second term begins"] = 0.1,
        sweep_batch: Annotated[int, at_least(1), "slices per forward pass of a sweep"] = 64,
    ):
        super().__init__(network)
        self.sweeps, self.alpha, self.confidence = sweeps, alpha, confidence
        self.weight, self.start, self.sweep_batch = weight, start, sweep_batch
        self.register_buffer(
            "mean", torch.empty(0, dtype=torch.float16)
        )  # [N, K, H, W], or [voxels, K], from the first sweep on

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        return {"label": volume.scribble, "ensemble": np.full_like(volume.scribble, UNLABELED)}

    @torch.no_grad()
    def sweep(self, slices: Slices | Voxels, progress: Tensor) -> None:
        training = self.network.training
        self.network.eval()
        first = not len(self.mean)
        for part, probs in self.predicted(slices):
            if not len(self.mean):
                self.mean = self.mean.new_empty((len(slices.label), *probs.shape[1:]))
            self.mean[part] = probs if first else self.alpha * probs + (1 - self.alpha) * self.mean[part]
        self.network.train(training)
        self.resume(slices)

    def predicted(self, slices: Slices | Voxels) -> Iterator[tuple[slice, Tensor]]:
        """Which slices, and their probabilities [n, K, H, W]; of Voxels which of them, and [n, K]."""
        if isinstance(slices, Voxels):
            for part, image in slices.items():
                yield part, torch.cat(list(read(self.probs, image, slices.size)), 2)[0].flatten(1).T
            return
        for at in range(0, len(slices.image), self.sweep_batch):
            part = slice(at, at + self.sweep_batch)
            yield part, self.probs(slices.image[part])

    def probs(self, image: Tensor) -> Tensor:
        return self.network(image.to(self.mean.device)).softmax(1)

    @torch.no_grad()
    def resume(self, slices: Slices | Voxels) -> None:
        many = self.sweep_batch if isinstance(slices, Slices) else VOXELS
        for at in range(0, len(self.mean), many):
            part = slice(at, at + many)
            weight, best = self.mean[part].max(1)
            chosen = (weight > self.confidence) & (slices.label[part] == UNLABELED).to(weight.device)
            slices.maps["ensemble"][part] = torch.where(chosen, best, UNLABELED).to(torch.uint8)

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        begun = (progress >= self.start).to(logits.dtype)
        return {
            "pce": partial_cross_entropy(logits, batch.label),
            "ensemble": begun * self.weight * partial_cross_entropy(logits, batch.maps["ensemble"]),
        }

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        self.mean = self.mean.new_empty(state_dict[prefix + "mean"].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
