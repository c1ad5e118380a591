"""Corral (ours): outside of the strokes' rings is background; at half-time network and random walker label the rest."""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from ..core.labels import UNLABELED
from ..core.recipe import Recipe
from ..data.case import Volume
from ..data.voxels import Batch, Slices, Voxels
from ..losses.enclosure import enclosure_term
from ..losses.supervised import as_float, partial_cross_entropy
from .base import Method
from .options import above, at_least, between
from .walker import FAINT, walk


class Corral(Method):
    """L = pCE(strokes) + w_e CE(enclosed background), and from half-time on + w_t CE(ŷ), of z − log r.

    ŷ = argmax_k p_k a_k^γ r_k of the pixels that are neither drawn nor enclosed, made once: p from the network, a_k
    the probability that a random walker meets a stroke of class k first, r_k = R_k / max R with R_k the half width of
    class k in the walker's labels. Both p and a part two strokes about half-way, which is inside the wider structure:
    without r thin structures come out too thick. The background has r = 1. From half-time on the losses are computed
    from z − log r, z the logits. They fit softmax(z − log r) to the labels, so the output softmax(z) is r times that.
    """

    dims = (2, 3)
    recipe = Recipe(optimizer="adamw", lr=1e-3, schedule="onecycle", weight_decay=0.01, iterations=6000, ema=0.99)
    reads_enclosure = True
    learns_from_bare = False
    told: Tensor
    log_ratio: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        enclosed: Annotated[float, at_least(0), "w_e, weight of the enclosed background"] = 1.0,
        taught: Annotated[float, at_least(0), "w_t, weight of ŷ; 0: neither ŷ nor r is made"] = 0.0,
        beta: Annotated[float, above(0), "β, how strongly an edge stops the walker"] = 200.0,
        gamma: Annotated[float, between(0, 1), "γ, how much the walker counts beside the network"] = 0.7,
        narrow: Annotated[float, between(0, 1), "the least r_k; 1: widths do not count"] = 0.5,
    ):
        super().__init__(network)
        self.enclosed, self.taught, self.beta, self.gamma, self.narrow = enclosed, taught, beta, gamma, narrow
        self.sweeps = 2 if taught else 0  # half-time; at the end nothing is left to do
        self.register_buffer("told", torch.empty(0, dtype=torch.uint8))  # ŷ [N, H, W] or [P] from half-time on
        self.register_buffer("log_ratio", torch.zeros(UNLABELED), persistent=taught > 0)  # log r_k, 0 until half-time

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        told = {"told": np.full_like(volume.scribble, UNLABELED)} if self.taught else {}
        return {"label": volume.scribble, **told}

    @torch.no_grad()
    def sweep(self, slices: Slices | Voxels, progress: Tensor) -> None:
        training, told = self.network.training, torch.full_like(slices.label, UNLABELED, device="cpu")
        self.network.eval()
        walked, widths = walk(slices, self.seeds(slices), told, self.probs, self.beta, self.gamma)
        self.network.train(training)
        if walked:
            ratio = torch.from_numpy(widths / max(widths[1:].max(), 1)).clamp(max(self.narrow, FAINT), 1).view(-1, 1, 1)
            ratio[0] = 1
            self.log_ratio[: len(ratio)] = ratio.flatten().log()
            for open_, drawn, score in walked:
                label = (score * ratio).argmax(0).to(torch.uint8)
                open_.copy_(torch.where(torch.from_numpy(drawn == UNLABELED), label, UNLABELED))
        self.told = told.to(self.told.device)
        self.resume(slices)

    def seeds(self, slices: Slices | Voxels) -> np.ndarray:
        """The walker's strokes, uint8 like the label: with the enclosed background."""
        known = [slices.label, *(slices.maps[name] for name in ("enclosure",) if name in slices.maps)]
        return np.minimum.reduce([label.cpu().numpy() for label in known])

    def probs(self, image: Tensor) -> Tensor:
        return self.network(image.to(self.told.device)).softmax(1).cpu()

    def resume(self, slices: Slices | Voxels) -> None:
        if len(self.told):
            slices.maps["told"].copy_(self.told)

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = as_float(self.network(batch.image))
        if self.taught:
            logits = logits - self.log_ratio[: logits.shape[1]].view(-1, *[1] * (logits.ndim - 2))
        terms = {"pce": partial_cross_entropy(logits, batch.label)} | enclosure_term(logits, batch, self.enclosed)
        if self.taught:
            terms["told"] = self.taught * partial_cross_entropy(logits, batch.maps["told"])
        return terms

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        self.told = self.told.new_empty(state_dict[prefix + "told"].shape)
        if self.taught:  # runs from before it was kept went on without it
            state_dict.setdefault(prefix + "log_ratio", self.log_ratio)
        super()._load_from_state_dict(state_dict, prefix, *args)
