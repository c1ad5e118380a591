"""EFFDNet (MICCAI 2025): mean teacher, foreground-background separation (FBSL), foreground augmentation (FADC)."""

from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.voxels import Batch
from ..losses.enclosure import enclosure_term
from ..losses.separation import foreground_augmentation, foreground_background_separation, foreground_blocks
from ..losses.supervised import partial_cross_entropy
from .base import Method
from .options import above, at_least, between, one_of
from .teacher import ema_decay, ema_update, make_teacher


class EFFDNet(Method):
    """L = L¹ + L², L¹ = L_S + λ(L_P + δ·FBSL) on the batch, L² = L_S + λL_P on its FADC samples.

    L_S = CE over scribbled pixels; L_P = CE over all pixels against ŷ = argmax teacher(x + noise). The teacher is the
    exponential mean of the student's weights and runs in train mode [released code].
    """

    dims = (2, 3)
    needs = ("features_and_logits",)
    reads_enclosure = True
    later = ("averages", "pool", "anchors", "resize", "warm_up")
    steps: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        lam: Annotated[float, at_least(0), "λ, weight of L_P and FBSL"] = 0.6,
        delta: Annotated[float, at_least(0), "δ, weight of FBSL"] = 0.3,
        fbsl: Annotated[bool, "foreground-background separation; false: an ablation row"] = True,
        fadc: Annotated[bool, "foreground augmentation; false: an ablation row"] = True,
        blocks: Annotated[int, at_least(1), "K, blocks of FBSL along each axis"] = 8,
        pool: Annotated[str, one_of("batch", "slice"), "blocks that FBSL compares [batch: released]"] = "batch",
        anchors: Annotated[
            str,
            one_of("with positives", "all"),
            "mean of FBSL: anchors that have one [ours], or all [released code]",
        ] = "with positives",
        temperature: Annotated[float, above(0), "τ of FBSL [released code; the paper gives none]"] = 0.07,
        box: Annotated[
            str, one_of("annotated", "foreground"), "FADC's box: of all scribble [released code], or of foreground only"
        ] = "annotated",
        resize: Annotated[str, one_of("nearest", "bilinear"), "of FADC's image [nearest: released code]"] = "nearest",
        averages: Annotated[
            str, one_of("labelled", "printed"), "of L_S: over scribbled pixels [released code], or 1/(N·C·H·W); L_P too"
        ] = "labelled",
        noise: Annotated[float, at_least(0), "standard deviation, clipped at half of it [released code]"] = 0.1,
        alpha: Annotated[float, between(0, 1), "upper limit of the teacher's decay"] = 0.99,
        warm_up: Annotated[bool, "α starts at 0 [released code]; false: it is `alpha` from the start"] = True,
        teacher_dropout: Annotated[bool, "dropout in the teacher [released code]"] = True,
    ):
        super().__init__(network)
        self.lam, self.delta, self.fbsl, self.fadc = lam, delta, fbsl, fadc
        self.blocks, self.temperature, self.box, self.noise, self.alpha = blocks, temperature, box, noise, alpha
        self.pool, self.anchors, self.resize, self.warm_up = pool, anchors, resize, warm_up
        self.over = "all" if averages == "printed" else "labelled"
        self.teacher = make_teacher(network, teacher_dropout)
        self.register_buffer("steps", torch.zeros(()))

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        samples = [(batch.image, batch.label, self.pseudo_label(batch.image))]
        if self.fadc:
            samples.append(foreground_augmentation(*samples[0], self.box, resize=self.resize))
        images, scribbles, pseudo_labels = zip(*samples)
        features, logits = self.network.features_and_logits(torch.cat(images))  # batch norm sees both
        terms = enclosure_term(logits[: len(batch.image)], batch)
        for name, logit, scribble, pseudo in zip(("", "_fadc"), logits.chunk(len(samples)), scribbles, pseudo_labels):
            share = 1 / logit.shape[1] if self.over == "all" else 1
            terms[f"pce{name}"] = share * partial_cross_entropy(logit, scribble, self.over)  # L_S
            terms[f"pseudo{name}"] = share * self.lam * partial_cross_entropy(logit, pseudo)  # λ L_P
        if self.fbsl:
            own = features[: len(batch.image)]
            how = self.blocks, self.temperature, self.pool, self.anchors
            separation = foreground_background_separation(own, batch.label, *how)
            terms["fbsl"] = self.lam * self.delta * separation
        return terms

    @torch.no_grad()
    def pseudo_label(self, image: Tensor) -> Tensor:
        """ŷ, int64 [N, H, W]."""
        self.teacher.train()
        limit = self.noise / 2
        noisy = image + (self.noise * torch.randn_like(image)).clamp(-limit, limit)
        return self.teacher(noisy).argmax(1)

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        """R, the teacher's label without noise and dropout, and a FADC sample."""
        shown, pseudo = {}, self.teacher(batch.image).argmax(1)
        if self.fbsl:
            blocks = foreground_blocks(batch.label, self.blocks).float()[:, None]
            shown["foreground_block"] = F.interpolate(blocks, batch.label.shape[1:])[:, 0] > 0
        shown["teacher_label"] = pseudo
        if self.fadc:
            image, scribble, pasted = foreground_augmentation(
                batch.image, batch.label, pseudo, self.box, resize=self.resize
            )
            shown |= {"fadc_image": image[:, 0], "fadc_scribble": scribble, "fadc_label": pasted}
        return shown

    def after_step(self, progress: Tensor) -> None:
        decay = ema_decay(self.steps, self.alpha) if self.warm_up else torch.full_like(self.steps, self.alpha)
        ema_update(self.teacher, self.network, decay)
        self.steps += 1
