"""SCN, ScribbleCorrNet (2025): labels propagate along learned correlations, and agreeing regions grow the confident mask."""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.recipe import Recipe
from ..losses.correlation import (
    class_contrast,
    correlation_map,
    draw_rows,
    propagate,
    propagation_loss,
    region_refinement,
    update_threshold,
)
from ..losses.supervised import partial_cross_entropy
from .base import Method


class SCN(Method):
    """L = λ1 pCE + λ2 L_PAP + λ3 (L_PCL + L_region) + λ4 (L_scribble + L_unlabel).

    Table 3 of the paper: pap=False rsr=False cacl=False is pCE, cacl=False is +CALE (PAP, RSR and CGTM), the default is
    +CALE+CACL. cgtm=False keeps τ where it starts. Raises InputError for a network without `encode` and unknown options.
    """

    recipe = Recipe(
        optimizer="adam",
        lr=1e-3,
        schedule="step",
        weight_decay=0.0,
        batch=24,
        iterations=30_000,
        step_at=(0.5, 0.75),
        gamma=0.1,
    )

    def __init__(
        self,
        network: nn.Module,
        *,
        pap: bool = True,
        rsr: bool = True,
        cgtm: bool = True,
        cacl: bool = True,
        lambda1: float = 1.0,  # pCE
        lambda2: float = 0.3,  # L_PAP
        lambda3: float = 0.25,  # L_RSR
        lambda4: float = 0.1,  # L_CACL
        stride: int = 8,  # of the correlated encoder maps [ours]
        dim: int = 64,  # D [ours]
        scale: str = "inside",  # or "outside", the paper's print
        rows: int = 128,  # regions per image [CorrMatch]
        overlap: str = "region",  # [CorrMatch] or "mask", the paper's eq. 6
        threshold: float = 0.85,  # τ0
        momentum: float = 0.999,  # [CorrMatch]
        temperature: float = 0.1,  # T [ours]
    ):
        super().__init__(network)
        if not hasattr(network, "encode"):
            raise InputError(
                "scn correlates the encoder's maps, and this network has no `encode`. Use --network unet, or another method."
            )
        strides = {2**level: width for level, width in enumerate(network.widths)}
        if stride not in strides:
            raise InputError(
                f"stride is {stride}; the network's encoder has maps at strides {', '.join(map(str, strides))}."
            )
        if not 0 <= threshold <= 1:
            raise InputError(f"threshold is {threshold}; a confidence lies between 0 and 1.")
        for name, value in (("dim", dim), ("rows", rows)):
            if value < 1:
                raise InputError(f"scn: {name} is {value}; it is 1 or more.")
        for name, value in (("lambda1", lambda1), ("lambda2", lambda2), ("lambda3", lambda3), ("lambda4", lambda4)):
            if not value >= 0:
                raise InputError(f"scn: {name} is {value}; the weight of a term is 0 or more.")
        if not 0 <= momentum <= 1:
            raise InputError(
                f"scn: momentum is {momentum}; the share of the threshold that stays lies between 0 and 1."
            )
        if not temperature > 0:
            raise InputError(f"scn: temperature is {temperature}; it is above 0.")
        if scale not in ("inside", "outside"):
            raise InputError(
                f"scn: scale is '{scale}'; it is 'inside' (divide by √D before the softmax) or 'outside' (after it)."
            )
        if overlap not in ("region", "mask"):
            raise InputError(f"scn: overlap is '{overlap}'; it is 'region' (|ĉ∩M|/|ĉ|) or 'mask' (|ĉ∩M|/|M|).")
        self.pap, self.rsr, self.cgtm, self.cacl = pap, rsr, cgtm, cacl
        self.plain = not (pap or rsr or cacl)
        self.lambda1, self.lambda2, self.lambda3, self.lambda4 = lambda1, lambda2, lambda3, lambda4
        self.stride, self.scale, self.rows, self.overlap = stride, scale, rows, overlap
        self.momentum, self.temperature = momentum, temperature
        self.register_buffer("threshold", torch.tensor(float(threshold)))
        if pap or rsr:
            self.query = nn.Conv2d(strides[stride], dim, 1, bias=False)
            self.key = copy.deepcopy(self.query)  # alike at the start, so that f1_i · f2_j starts as a similarity

    def losses(self, batch, progress):
        maps = self.network.encode(batch.image)
        features = self.network.decode(maps)
        logits = self.network.head(features).float()
        terms = {"pce": self.lambda1 * partial_cross_entropy(logits, batch.label)}
        if self.plain:
            return terms

        probs = logits.detach().softmax(1)
        correlation = self.correlation(maps)
        pseudo_label, confident, accepted = self.refine(probs, correlation, batch.label)
        if self.pap or self.rsr:
            propagated = propagate(correlation, F.avg_pool2d(probs, self.stride))
            propagated = F.interpolate(propagated, scale_factor=self.stride, mode="bilinear")
        if self.pap:
            terms["pap"] = self.lambda2 * F.cross_entropy(
                logits, propagated.max(1).indices
            )  # 8 times faster than argmax on a CPU
        if self.rsr:
            terms["pcl"] = self.lambda3 * propagation_loss(propagated, pseudo_label)
            terms["region"] = self.lambda3 * partial_cross_entropy(logits, pseudo_label)
        if self.cacl:
            scribbled, unlabeled = class_contrast(
                features, batch.label, pseudo_label, logits.shape[1], self.temperature
            )
            terms["cacl_scribble"] = self.lambda4 * scribbled
            terms["cacl_unlabel"] = self.lambda4 * unlabeled

        self.next_threshold = update_threshold(self.threshold, probs, self.momentum) if self.cgtm else self.threshold
        self.latest = {
            "confident": confident,
            "pseudo_label": pseudo_label,
            "accepted": accepted,
            "scribble": batch.label,
            "truth": batch.truth,
        }
        return terms

    def correlation(self, maps):
        """C of the encoder's maps at `stride`, [N, S, S]; None where nothing uses it."""
        if not (self.pap or self.rsr):
            return None
        level = self.stride.bit_length() - 1
        return correlation_map(self.query(maps[level]), self.key(maps[level]), self.scale)

    def refine(self, probs, correlation, scribble):
        """The pseudo-label after RSR (int64 [N, H, W], UNLABELED outside M), M before it (bool), accepted regions (bool [N, R])."""
        confidence, label = probs.max(1)
        drawn = scribble != UNLABELED
        confident = mask = (confidence > self.threshold) | drawn
        label = torch.where(drawn, scribble, label)
        accepted = drawn.new_zeros(len(drawn), 1)
        if self.rsr:
            size = [side // self.stride for side in label.shape[1:]]
            rows = draw_rows(correlation.detach(), self.rows).unflatten(2, size)
            label, mask, accepted = region_refinement(rows, label, mask, self.threshold, probs.shape[1], self.overlap)
            label = torch.where(drawn, scribble, label)
        return torch.where(mask, label, UNLABELED), confident, accepted

    def after_step(self, progress):
        """τ moves once per optimiser step, and `losses` stays a function of weights, τ and batch: it may be compiled or repeated."""
        if not self.plain:
            self.threshold.copy_(self.next_threshold)

    def monitor(self):
        """τ; share of pixels in M before and after RSR; share of regions accepted; with dense masks, the share of right
        pseudo-labels inside M, scribbles aside, and among those of foreground (0 where there are none)."""
        if self.plain:
            return {}
        seen = self.latest
        known = seen["pseudo_label"] != UNLABELED
        values = {
            "threshold": self.threshold,
            "coverage": seen["confident"].float().mean(),
            "coverage_refined": known.float().mean(),
            "accepted": seen["accepted"].float().mean(),
        }
        if seen["truth"] is not None:
            judged = known & (seen["scribble"] == UNLABELED) & (seen["truth"] != UNLABELED)
            right = judged & (seen["pseudo_label"] == seen["truth"])
            foreground = judged & (seen["pseudo_label"] > 0)
            values["pseudo_accuracy"] = right.sum() / judged.sum().clamp(min=1)
            values["pseudo_accuracy_foreground"] = (right & foreground).sum() / foreground.sum().clamp(min=1)
        return values

    def pictures(self, batch):
        if self.plain:
            return {}
        maps = self.network.encode(batch.image)
        probs = self.network.head(self.network.decode(maps)).float().softmax(1)
        pseudo_label, confident, _ = self.refine(probs, self.correlation(maps), batch.label)
        return {
            "image": batch.image[:, 0],
            "scribble": batch.label,
            "confident": confident,
            "pseudo_label": pseudo_label,
        }
