"""Corral (ours): outside of the strokes' rings is background; a teacher, network and walker say what lies inside."""

from typing import Annotated

import numpy as np
import torch
from torch import Tensor, nn

from ..core.labels import UNLABELED
from ..core.recipe import Recipe
from ..data.case import Volume
from ..data.voxels import Batch, Slices, Voxels
from ..losses.enclosure import enclosure_term, known
from ..losses.supervised import as_float, certain_cross_entropy, partial_cross_entropy
from .base import Method
from .options import above, at_least, between
from .teacher import ema_update, make_teacher
from .walker import label_slices


class Corral(Method):
    """L = pCE(strokes) + w_e CE(enclosed background) + w_s e^(−5(1−t)²) mean_U c CE(q) + w_t CE(ŷ), of z − log r.

    z: the logits. U: pixels neither drawn nor enclosed. q: the mean teacher's probabilities, c = 1 − H(q)/ln K.
    ŷ = argmax_k p_k a_k^γ r_k on U, made once, at half-time: p from the network, a_k the probability that a random
    walker meets a stroke of class k first, r_k = R_k / max R with R_k the half width of class k in the walker's labels,
    and 1 for the background; before that r is 1 and ŷ empty. The losses fit softmax(z − log r) to the labels, so the
    output softmax(z) is r times that: p and a part two strokes half-way, which is inside the wider structure.
    """

    dims = (2, 3)
    recipe = Recipe(optimizer="adamw", lr=1e-3, schedule="onecycle", weight_decay=0.01, iterations=6000, ema=0.99)
    reads_enclosure = True
    learns_from_bare = False
    later = ("soft",)
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
        soft: Annotated[float, at_least(0), "w_s, weight of the teacher's soft labels"] = 0.0,
    ):
        super().__init__(network)
        self.enclosed, self.soft, self.taught, self.walker = enclosed, soft, taught, (beta, gamma, narrow)
        if soft:
            self.teacher = make_teacher(network, dropout=False)
        self.sweeps = 2 if taught else 0  # half-time; at the end nothing is left to do
        self.register_buffer("told", torch.empty(0, dtype=torch.uint8))  # ŷ [N, H, W] or [P] from half-time on
        self.register_buffer("log_ratio", torch.zeros(UNLABELED), persistent=taught > 0)  # log r_k, 0 until half-time

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        told = {"told": np.full_like(volume.scribble, UNLABELED)} if self.taught else {}
        return {"label": volume.scribble, **told}

    @torch.no_grad()
    def sweep(self, slices: Slices | Voxels, progress: Tensor) -> None:
        network, device, training = self.network, self.told.device, self.network.training
        network.eval()
        told, log_ratio = label_slices(slices, lambda image: network(image.to(device)).softmax(1).cpu(), *self.walker)
        network.train(training)
        self.told, self.log_ratio[: len(log_ratio)] = told.to(device), log_ratio
        self.resume(slices)

    def resume(self, slices: Slices | Voxels) -> None:
        if len(self.told):
            slices.maps["told"].copy_(self.told)

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.over_ratio(self.network(batch.image))
        terms = {"pce": partial_cross_entropy(logits, batch.label)} | enclosure_term(logits, batch, self.enclosed)
        if self.taught:
            terms["told"] = self.taught * partial_cross_entropy(logits, batch.maps["told"])
        if self.soft:
            with torch.no_grad():
                q = self.over_ratio(self.teacher(batch.image)).softmax(1)
            ramp = torch.exp(-5 * (1 - progress) ** 2)
            terms["soft"] = self.soft * ramp * certain_cross_entropy(logits, q, known(batch))
        return terms

    def over_ratio(self, logits: Tensor) -> Tensor:
        """z − log r."""
        return as_float(logits) - self.log_ratio[: logits.shape[1]].view(-1, *[1] * (logits.ndim - 2))

    def after_step(self, progress: Tensor) -> None:
        if self.soft:
            ema_update(self.teacher, self.network, torch.full_like(progress, 0.99))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        self.told = self.told.new_empty(state_dict[prefix + "told"].shape)
        if self.taught:  # runs from before it was kept went on without it
            state_dict.setdefault(prefix + "log_ratio", self.log_ratio)
        super()._load_from_state_dict(state_dict, prefix, *args)
