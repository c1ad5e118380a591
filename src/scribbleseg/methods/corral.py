"""Corral (ours): outside of the strokes' rings is background; at half-time network and random walker label the rest."""

from collections.abc import Iterable
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
from ..networks.windows import read
from .base import Method
from .options import above, at_least, between
from .walker import half_widths, walker_probs

FAINT = 1e-3  # least probability of the walker, so that the network can outvote it
TOGETHER = 16  # slices per forward pass


class Corral(Method):
    """L = pCE(strokes) + w_e CE(enclosed background), and from half-time on + w_t CE(ŷ).

    ŷ = argmax_k p_k a_k^γ r_k of the pixels that are neither drawn nor enclosed, made once: p from the network, a_k
    the probability that a random walker meets a stroke of class k first, r_k = R_k / max R with R_k the half width of
    class k in the walker's labels. Both p and a part two strokes about half-way, which is inside the wider structure:
    without r thin structures come out too thick. The background has r = 1.
    """

    dims = (2, 3)
    recipe = Recipe(optimizer="adamw", lr=1e-3, schedule="onecycle", weight_decay=0.01, iterations=6000, ema=0.99)
    reads_enclosure = True
    learns_from_bare = False
    told: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        enclosed: Annotated[float, at_least(0), "w_e, weight of the enclosed background"] = 1.0,
        taught: Annotated[float, at_least(0), "w_t, weight of ŷ; 0: it is not made"] = 1.0,
        beta: Annotated[float, above(0), "β, how strongly an edge stops the walker"] = 200.0,
        gamma: Annotated[float, between(0, 1), "γ, how much the walker counts beside the network"] = 0.7,
        narrow: Annotated[float, between(0, 1), "the least r_k; 1: widths do not count"] = 0.25,
    ):
        super().__init__(network)
        self.enclosed, self.taught, self.beta, self.gamma, self.narrow = enclosed, taught, beta, gamma, narrow
        self.sweeps = 2 if taught else 0  # half-time; at the end nothing is left to do
        self.register_buffer("told", torch.empty(0, dtype=torch.uint8))  # ŷ [N, H, W] or [P] from half-time on

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        return {"label": volume.scribble, "told": np.full_like(volume.scribble, UNLABELED)}

    @torch.no_grad()
    def sweep(self, slices: Slices | Voxels, progress: Tensor) -> None:
        training = self.network.training
        self.network.eval()
        if isinstance(slices, Voxels):
            self.told = self.told_of(slices).to(self.told.device)
            self.network.train(training)
            self.resume(slices)
            return
        parts = (part.contiguous(memory_format=torch.channels_last) for part in slices.image.split(TOGETHER))
        probs = torch.cat([self.network(part.to(self.told.device)).softmax(1).cpu() for part in parts])
        self.network.train(training)
        seeds = slices.label
        if "enclosure" in slices.maps:
            seeds = torch.minimum(seeds, slices.maps["enclosure"])
        images = slices.image.cpu().numpy()
        walked = [walker_probs(*pair, probs.shape[1], self.beta) for pair in zip(images, seeds.cpu().numpy())]
        told = self.agreed(probs, torch.from_numpy(np.stack(walked))).to(seeds.device)
        self.told = torch.where(seeds == UNLABELED, told, UNLABELED).to(self.told.device)
        self.resume(slices)

    def agreed(self, probs: Tensor, walked: Tensor) -> Tensor:
        """ŷ, uint8 [N, H, W], of network and walker [N, K, H, W]; UNLABELED in slices without strokes."""
        drawn = walked.amax((1, 2, 3)) > 0
        ratio = self.ratio(walked[drawn].argmax(1).numpy(), walked.shape[1])
        score = probs * walked.clamp(min=FAINT) ** self.gamma * ratio
        return torch.where(drawn[:, None, None], score.argmax(1), UNLABELED).to(torch.uint8)

    def ratio(self, labels: Iterable[np.ndarray], classes: int) -> Tensor:
        """r of the walker's labels of some slices, float64 [K, 1, 1]."""
        widths = half_widths(labels, classes)
        ratio = torch.from_numpy(widths / max(widths[1:].max(), 1)).clamp(self.narrow, 1)
        ratio[0] = 1
        return ratio.view(-1, 1, 1)

    def told_of(self, voxels: Voxels) -> Tensor:
        """ŷ of what patches are cut from, uint8 [P]. In volumes too the walker stays in its slice."""
        seeds = (
            voxels.label if "enclosure" not in voxels.maps else torch.minimum(voxels.label, voxels.maps["enclosure"])
        )
        told = torch.full(seeds.shape, UNLABELED, dtype=torch.uint8)
        found: list[tuple[slice, Tensor]] = []  # where a slice with strokes lies, and p a^γ
        labels: list[np.ndarray] = []
        classes = voxels.count.shape[1]
        for part, shape in voxels.items():
            image, plane = voxels.image[:, part].float().view(1, -1, *shape), shape[-2:]
            probs = torch.cat(list(read(self.probs, image, voxels.size)), 2).view(classes, -1, *plane)
            pixels, drawn = (
                image.view(image.shape[1], -1, *plane).cpu().numpy(),
                seeds[part].view(-1, *plane).cpu().numpy(),
            )
            for number in (drawn != UNLABELED).any((1, 2)).nonzero()[0].tolist():
                walked = walker_probs(pixels[:, number], drawn[number], classes, self.beta)
                start = part.start + number * plane[0] * plane[1]
                weighed = probs[:, number] * torch.from_numpy(walked).clamp(min=FAINT) ** self.gamma
                found.append((slice(start, start + plane[0] * plane[1]), weighed))
                labels.append(walked.argmax(0))
        ratio = self.ratio(labels, classes)
        for place, weighed in found:
            told[place] = (weighed * ratio).argmax(0).flatten().to(torch.uint8)
        return torch.where(seeds.cpu() == UNLABELED, told, UNLABELED)

    def probs(self, image: Tensor) -> Tensor:
        return self.network(image.to(self.told.device)).softmax(1).cpu()

    def resume(self, slices: Slices | Voxels) -> None:
        if len(self.told):
            slices.maps["told"].copy_(self.told)

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = as_float(self.network(batch.image))
        terms = {"pce": partial_cross_entropy(logits, batch.label)} | enclosure_term(logits, batch, self.enclosed)
        if self.taught:
            terms["told"] = self.taught * partial_cross_entropy(logits, batch.maps["told"])
        return terms

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: object) -> None:
        self.told = self.told.new_empty(state_dict[prefix + "told"].shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
