"""Corral (ours): what strokes enclose is left to a teacher, what lies outside is background."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.distributed import batch_sum
from ..core.labels import UNLABELED
from ..core.recipe import Recipe
from ..data.voxels import Batch
from ..losses.enclosure import enclosure_term
from ..losses.supervised import as_float, partial_cross_entropy
from .base import Method
from .options import at_least, between
from .teacher import ema_decay, ema_update, make_teacher


class Corral(Method):
    """L = pCE(strokes) + w_e CE(enclosed background) + r w_t Σ_i c_i CE(p_i, q_i) / Σ_i c_i over what is left.

    q = softmax(teacher(x)), c = max q: the teacher counts where it is certain. r = t / ramp, at most 1, with t the
    progress of the run. The teacher is the exponential mean of the network's weights.
    """

    dims = (2, 3)
    recipe = Recipe(optimizer="adamw", lr=1e-3, schedule="onecycle", weight_decay=0.01, iterations=6000, ema=0.99)
    reads_enclosure = True
    steps: Tensor

    @property
    def learns_from_bare(self) -> bool:  # type: ignore[override]  # the teacher alone has something to say there
        return bool(self.taught)

    def __init__(
        self,
        network: nn.Module,
        *,
        enclosed: Annotated[float, at_least(0), "w_e, weight of the enclosed background"] = 1.0,
        taught: Annotated[float, at_least(0), "w_t, weight of the teacher's labels; 0: no teacher"] = 0.0,
        ramp: Annotated[float, between(0, 1), "share of the run after which the teacher counts fully"] = 0.5,
        alpha: Annotated[float, between(0, 1), "upper limit of the teacher's decay"] = 0.99,
    ):
        super().__init__(network)
        self.enclosed, self.taught, self.ramp, self.alpha = enclosed, taught, ramp, alpha
        if taught:
            self.teacher = make_teacher(network)
        self.register_buffer("steps", torch.zeros(()))

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = as_float(self.network(batch.image))
        terms = {"pce": partial_cross_entropy(logits, batch.label)} | enclosure_term(logits, batch, self.enclosed)
        if self.taught:
            with torch.no_grad():
                soft = as_float(self.teacher(batch.image)).softmax(1)
            known = batch.label != UNLABELED
            if "enclosure" in batch.maps:
                known = known | (batch.maps["enclosure"] != UNLABELED)
            certainty = soft.amax(1) * ~known
            distance = F.cross_entropy(logits, soft, reduction="none")
            mean = batch_sum((certainty * distance).sum()) / batch_sum(certainty.sum()).clamp(min=1)
            terms["taught"] = self.taught * (progress / max(self.ramp, 1e-6)).clamp(max=1) * mean
        return terms

    def after_step(self, progress: Tensor) -> None:
        if self.taught:
            ema_update(self.teacher, self.network, ema_decay(self.steps, self.alpha))
            self.steps += 1
