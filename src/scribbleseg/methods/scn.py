"""SCN, ScribbleCorrNet (2025): labels propagate along learned correlations; regions that agree grow the mask M."""

import copy
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.distributed import batch_sum
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.recipe import Recipe
from ..data.voxels import Batch
from ..losses.correlation import (
    class_contrast,
    correlation_map,
    draw_rows,
    propagate,
    propagation_loss,
    region_refinement,
    update_threshold,
)
from ..losses.enclosure import enclosure_term
from ..losses.supervised import partial_cross_entropy
from .base import Method
from .options import above, at_least, between, one_of


class SCN(Method):
    """L = λ1 pCE + λ2 L_PAP + λ3 (L_PCL + L_region) + λ4 (L_scribble + L_unlabel).

    Table 3 of the paper: pap=False rsr=False cacl=False is pCE, cacl=False is +CALE (PAP, RSR and CGTM), the default is
    +CALE+CACL. M, the confident mask: {max p > τ} and the scribbles.
    """

    dims = (2, 3)
    recipe = Recipe(
        optimizer="adam",
        lr=1e-3,
        schedule="step",
        weight_decay=0.0,
        batch=24,
        iterations=30_000,
        step_at=(0.25, 0.5, 0.75),
        gamma=0.5,
    )
    needs = ("maps_features_and_logits", "map_widths")
    later = ("towards", "projections", "region_cut", "growth", "cosine", "averages")
    reads_enclosure = True
    threshold: Tensor
    latest: dict[str, Any]

    def __init__(
        self,
        network: nn.Module,
        *,
        pap: Annotated[bool, "PAP, labels propagated along correlations"] = True,
        rsr: Annotated[bool, "RSR, the confident mask grown by regions"] = True,
        cgtm: Annotated[bool, "CGTM, τ follows the confidence; false: τ stays where it starts"] = True,
        cacl: Annotated[bool, "CACL, contrast between pixels and class means"] = True,
        lambda1: Annotated[float, at_least(0), "λ1, weight of pCE"] = 1.0,
        lambda2: Annotated[float, at_least(0), "λ2, weight of L_PAP"] = 0.3,
        lambda3: Annotated[float, at_least(0), "λ3, weight of L_PCL and L_region"] = 0.25,
        lambda4: Annotated[float, at_least(0), "λ4, weight of CACL's two terms"] = 0.1,
        stride: Annotated[int, one_of(1, 2, 4, 8, 16), "of the correlated encoder map [ours]"] = 8,
        dim: Annotated[int, at_least(1), "D, channels of the projections [ours]"] = 64,
        projections: Annotated[bool, "two, learned, 1×1 [CorrMatch]; false: one map, eq. 1 as printed"] = True,
        scale: Annotated[str, one_of("inside", "outside"), "√D before the softmax, or after it as printed"] = "inside",
        rows: Annotated[int, at_least(1), "regions per image [CorrMatch]"] = 128,
        overlap: Annotated[
            str, one_of("region", "mask"), "accept by |ĉ∩M|/|ĉ| [CorrMatch], or by |ĉ∩M|/|M|, the paper's eq. 6"
        ] = "region",
        threshold: Annotated[float, between(0, 1), "τ at the start"] = 0.85,
        momentum: Annotated[float, between(0, 1), "m, share of τ that stays in a step [CorrMatch]"] = 0.999,
        towards: Annotated[
            str,
            one_of("class maximum", "class mean", "pixel mean", "increment"),
            "what τ follows: eq. 12, or other readings [ours]",
        ] = "class maximum",
        region_threshold: Annotated[
            float, between(0, 1), "t of RSR, share of ĉ in M and of its class that accepts ĉ [ours]; 0: τ, as printed"
        ] = 0.85,
        region_cut: Annotated[
            float, between(0, 1), "normalised value above which a position is in ĉ [CorrMatch]; 0: τ, eq. 4 as printed"
        ] = 0.5,
        growth: Annotated[
            str, one_of("at once", "one by one"), "regions grow M together [ours], or in turn, eq. 8 as printed"
        ] = "at once",
        temperature: Annotated[float, above(0), "T of CACL [ours]"] = 0.1,
        cosine: Annotated[bool, "CACL compares unit vectors [ours]; false: dot products, eq. 13-14 as printed"] = True,
        averages: Annotated[
            str, one_of("labelled", "printed"), "over the pixels that a term judges [ours], or eq. 9-10, 15-16 and 19"
        ] = "labelled",
    ):
        super().__init__(network)
        self.pap, self.rsr, self.cgtm, self.cacl = pap, rsr, cgtm, cacl
        self.plain = not (pap or rsr or cacl)
        self.lambda1, self.lambda2, self.lambda3, self.lambda4 = lambda1, lambda2, lambda3, lambda4
        self.stride = stride
        self.scale, self.rows, self.overlap = scale, rows, overlap
        self.momentum, self.towards, self.region_threshold = momentum, towards, region_threshold
        self.region_cut, self.growth = region_cut, growth
        self.temperature, self.cosine = temperature, cosine
        self.printed = averages == "printed"
        self.over = "all" if self.printed else "labelled"
        self.register_buffer("threshold", torch.tensor(float(threshold)))
        if stride not in self.network.map_widths:
            strides = ", ".join(map(str, self.network.map_widths)) or "that SCN does not know"
            raise InputError(f"SCN: stride is {stride}; the encoder of this network has maps at strides {strides}.")
        volumes = getattr(self.network, "dims", 2) == 3
        self.blocks = self.network.strides[stride] if volumes else (stride, stride)
        if pap or rsr:
            width = self.network.map_widths[stride]
            convolution = nn.Conv2d if len(self.blocks) == 2 else nn.Conv3d
            self.query = convolution(width, dim, 1, bias=False) if projections else nn.Identity()
            self.key = copy.deepcopy(self.query)  # alike at the start, so that f1_i · f2_j starts as a similarity

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        maps, features, logits = self.network.maps_features_and_logits(batch.image)
        pce = partial_cross_entropy(logits, batch.label)
        if self.printed:
            pce = pce * batch_sum((batch.label != UNLABELED).sum())  # eq. 19
        terms = {"pce": self.lambda1 * pce} | enclosure_term(logits, batch)
        if self.plain:
            return terms
        probs = logits.detach().softmax(1)
        correlation = self.correlation(maps)  # eq. 2
        if correlation is not None:
            propagated = self.propagate(correlation, probs)  # eq. 3
        if self.pap:
            # max is 8 times faster than argmax on a CPU
            terms["pap"] = self.lambda2 * F.cross_entropy(logits, propagated.max(1).indices)
        pseudo_label, before, accepted = self.refine(probs, correlation, batch.label)  # eq. 4-8
        if self.rsr:
            terms["pcl"] = self.lambda3 * propagation_loss(propagated, pseudo_label, self.over)  # eq. 9
            terms["region"] = self.lambda3 * partial_cross_entropy(logits, pseudo_label, self.over)  # eq. 10
        if self.cgtm:
            self.next_threshold = update_threshold(self.threshold, probs, self.momentum, self.towards)  # eq. 12
        if self.cacl:
            pixels = features, batch.label, pseudo_label, logits.shape[1], self.temperature
            contrast = class_contrast(*pixels, cosine=self.cosine, by_class=self.printed)
            terms["cacl_scribble"], terms["cacl_unlabel"] = (self.lambda4 * term for term in contrast)  # eq. 13-17
        self.latest = {"before": before, "pseudo_label": pseudo_label, "accepted": accepted}
        self.latest |= {"scribble": batch.label, "truth": batch.truth}
        return terms

    def correlation(self, maps: dict[int, Tensor]) -> Tensor | None:
        """C of the encoder's maps at `stride`, [N, S, S]; None where nothing uses it."""
        if not (self.pap or self.rsr):
            return None
        return correlation_map(self.query(maps[self.stride]), self.key(maps[self.stride]), self.scale)

    def propagate(self, correlation: Tensor, probs: Tensor) -> Tensor:
        """Y_corr at the image's size, [N, K, *space]."""
        pool, mode = (F.avg_pool2d, "bilinear") if len(self.blocks) == 2 else (F.avg_pool3d, "trilinear")
        coarse = propagate(correlation, pool(probs, self.blocks))
        return F.interpolate(coarse, scale_factor=tuple(map(float, self.blocks)), mode=mode)

    def refine(self, probs: Tensor, correlation: Tensor | None, scribble: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The pseudo-label after RSR and before it, and which regions were accepted.

        int64 [N, *space] with UNLABELED outside M, twice, and bool [N, R].
        """
        confidence, label = probs.max(1)
        drawn = scribble != UNLABELED
        mask = (confidence > self.threshold) | drawn
        label = torch.where(drawn, scribble, label)
        before = torch.where(mask, label, UNLABELED)
        accepted = drawn.new_zeros(len(drawn), 1)
        if self.rsr and correlation is not None:
            size = [side // block for side, block in zip(label.shape[1:], self.blocks)]
            rows = draw_rows(correlation.detach(), self.rows).unflatten(2, size)
            least, cut = self.region_threshold or self.threshold, self.region_cut or self.threshold
            how = probs.shape[1], self.overlap, cut, self.growth
            label, mask, accepted = region_refinement(rows, label, mask, least, *how)
            label = torch.where(drawn, scribble, label)
        return torch.where(mask, label, UNLABELED), before, accepted

    def after_step(self, progress: Tensor) -> None:
        """τ moves here, once per optimiser step: `losses` depends on weights, τ and batch only, and can be repeated."""
        if self.cgtm and not self.plain:
            self.threshold.copy_(self.next_threshold)

    def monitor(self) -> dict[str, Tensor]:
        """τ, and the state of M and its pseudo-labels in the latest batch.

        coverage, coverage_refined: share of pixels in M before and after RSR. changed: share of pixels whose
        pseudo-label RSR adds or changes. accepted: share of regions. With dense
        masks, pseudo_accuracy: share of right pseudo-labels inside M, scribbles aside, and the same among those of
        foreground (0 where there are none).
        """
        if self.plain:
            return {}
        seen = self.latest
        known = seen["pseudo_label"] != UNLABELED
        values = {
            "threshold": self.threshold,
            "coverage": (seen["before"] != UNLABELED).float().mean(),
            "coverage_refined": known.float().mean(),
            "changed": (seen["pseudo_label"] != seen["before"]).float().mean(),
            "accepted": seen["accepted"].float().mean(),
        }
        if seen["truth"] is not None:
            judged = known & (seen["scribble"] == UNLABELED) & (seen["truth"] != UNLABELED)
            right = judged & (seen["pseudo_label"] == seen["truth"])
            foreground = judged & (seen["pseudo_label"] > 0)
            values["pseudo_accuracy"] = right.sum() / judged.sum().clamp(min=1)
            values["pseudo_accuracy_foreground"] = (right & foreground).sum() / foreground.sum().clamp(min=1)
        return values

    def pictures(self, batch: Batch) -> dict[str, Tensor]:
        if self.plain:
            return {}
        maps, _, logits = self.network.maps_features_and_logits(batch.image)
        probs = logits.softmax(1)
        pseudo_label, before, _ = self.refine(probs, self.correlation(maps), batch.label)
        return {
            "image": batch.image[:, 0],
            "scribble": batch.label,
            "confident": before != UNLABELED,
            "pseudo_label": pseudo_label,
        }
