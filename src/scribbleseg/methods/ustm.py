"""USTM (Liu et al., Pattern Recognition 2022): a mean teacher that is believed where it is certain."""

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.distributed import batch_sum
from ..data.voxels import Batch
from ..losses.supervised import partial_cross_entropy
from .base import Method
from .options import at_least, between, one_of
from .teacher import ema_decay, ema_update, make_teacher


class USTM(Method):
    """L = pCE + w·r · Σ_i [H_i < h] |f_i − f'_i|² / Σ_i [H_i < h], r = exp(−5(1 − t)²), t = progress.

    f: softmax of the student. f': softmax of the teacher on the image turned by a random multiple of 90° and made
    noisy, turned back. H: entropy of the mean softmax of `passes` further noisy teacher passes.
    h = (.75 + .25 r) ln K. Slices are square; volumes are turned in their plane. Where no pixel is certain the second
    term is 0.
    """

    dims = (2, 3)
    steps: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        weight: Annotated[
            float, at_least(0), "w; the released code has 0.5: it divides by twice the certain pixels"
        ] = 1.0,
        passes: Annotated[int, at_least(1), "T, noisy passes of the teacher"] = 8,
        noise: Annotated[float, at_least(0), "standard deviation of the noise, clipped at twice itself"] = 0.1,
        alpha: Annotated[float, between(0, 1), "upper limit of the teacher's decay"] = 0.99,
        entropy_base: Annotated[
            str, one_of("classes", "two"), "h with ln K; two: with ln 2 [released code]"
        ] = "classes",
    ):
        super().__init__(network)
        self.weight, self.passes, self.noise, self.alpha, self.entropy_base = weight, passes, noise, alpha, entropy_base
        self.teacher = make_teacher(network)
        self.register_buffer("steps", torch.zeros(()))

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        target, uncertainty = self.teach(batch.image)
        ramp = torch.exp(-5 * (1 - progress) ** 2)
        most = math.log(2 if self.entropy_base == "two" else logits.shape[1])
        certain = uncertainty < (0.75 + 0.25 * ramp) * most
        distance = (logits.softmax(1) - target).square().sum(1)
        consistency = batch_sum((distance * certain).sum()) / batch_sum(certain.sum()).clamp(min=1)
        return {"pce": partial_cross_entropy(logits, batch.label), "consistency": self.weight * ramp * consistency}

    @torch.no_grad()
    def teach(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """f' [N, K, *space] and H [N, *space], in nats: the image's pass and the noisy passes are one forward pass."""
        count, space, (height, width) = len(image), image.shape[2:], image.shape[-2:]
        place = torch.arange(height * width, device=image.device).view(height, width)
        turns = torch.stack([place.rot90(k).flatten() for k in range(4)])
        turn = torch.randint(4, (1,), device=image.device)
        there, back = turns.index_select(0, turn)[0], turns.index_select(0, -turn % 4)[0]
        turned = (
            image.flatten(-2).index_select(-1, there).view_as(image).repeat(1 + self.passes, *[1] * (1 + len(space)))
        )
        noise = (self.noise * torch.randn_like(turned)).clamp(-2 * self.noise, 2 * self.noise)
        probs = F.softmax(self.teacher(turned + noise), 1).unflatten(0, (1 + self.passes, count))
        mean = probs[1:].mean(0)
        seen = torch.cat([probs[0], torch.special.entr(mean).sum(1, keepdim=True)], 1)
        seen = seen.flatten(-2).index_select(-1, back).view(count, -1, *space)
        return seen[:, :-1], seen[:, -1]

    def after_step(self, progress: Tensor) -> None:
        ema_update(self.teacher, self.network, ema_decay(self.steps, self.alpha))
        self.steps += 1
