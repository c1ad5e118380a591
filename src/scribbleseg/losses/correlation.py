"""Pixel correlation and what SCN builds on it (ScribbleCorrNet, 2025): functions of tensors.

The equation numbers are that paper's.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.distributed import batch_cat, batch_sum
from ..core.errors import InputError, choose
from ..core.labels import UNLABELED
from .supervised import partial_cross_entropy


def correlation_map(f1: Tensor, f2: Tensor, scale: str = "inside") -> Tensor:
    """Eq. 2: C_ij = softmax_j(f1_i · f2_j / √D), float32 [N, S, S] with S the number of positions.

    f1, f2 [N, D, *space]. "inside" divides before the softmax (CorrMatch's order): every row sums to 1. "outside" is as
    the paper prints it, softmax(·)/√D: every row sums to 1/√D. Raises InputError for another `scale`.
    """
    inside = choose("scale", scale, {"inside": True, "outside": False})
    root = f1.shape[1] ** 0.5
    f1 = f1.flatten(2).transpose(1, 2)
    scores = ((f1 / root if inside else f1) @ f2.flatten(2)).float()  # f1 / √D: not another copy of [N, S, S]
    return scores.softmax(2) if inside else scores.softmax(2) / root


def propagate(correlation: Tensor, probs: Tensor) -> Tensor:
    """PAP, eq. 3: Y_corr = C P, at each position the C-weighted sum of the probabilities of all positions.

    correlation [N, S, S], probs [N, K, *space] with S positions. Returns [N, K, *space], float32; distributions over K
    where the rows of C sum to 1.
    """
    with torch.autocast(probs.device.type, enabled=False):
        # C Pᵀ, not P Cᵀ: the softmax before it gets its gradient in rows, and its backward is ten times faster
        return (correlation @ probs.float().flatten(2).transpose(1, 2)).transpose(1, 2).reshape(probs.shape)


def draw_rows(correlation: Tensor, rows: int) -> Tensor:
    """`rows` rows of each image's map, drawn without replacement: [N, S, S] → [N, min(rows, S), S]."""
    order = torch.rand(correlation.shape[:2], device=correlation.device).argsort(1)[:, :rows]
    return correlation.gather(1, order[:, :, None].expand(-1, -1, correlation.shape[2]))


def region_refinement(
    rows: Tensor, label: Tensor, mask: Tensor, threshold: Tensor | float, classes: int, overlap: str = "region"
) -> tuple[Tensor, Tensor, Tensor]:
    """RSR, eq. 4-8: grow the confident mask M by the regions that correlate, where they agree on a class.

    rows [N, R, *positions] of the correlation map, label [N, *space] integer 0..classes−1 (read inside M only), mask M
    [N, *space] bool, threshold t; the sides of the space are multiples of those of the positions, and a position stands
    for its block of pixels. Each row, min-max normalised, is > .5 on its region ĉ. A region is accepted if
    |ĉ∩M|/|ĉ| ≥ t ("region"; "mask": |ĉ∩M|/|M| ≥ t, eq. 6 as printed) and one class c* fills more than t of ĉ∩M. The
    label becomes c* on ĉ and M becomes M ∪ ĉ. Where accepted regions meet, the one with the larger share of its class
    wins, the earlier row among equals.

    Returns (label [N, *space] int64, mask [N, *space], accepted [N, R] bool). A constant row has no region. No host
    synchronisation. Raises InputError for another `overlap`, and for sizes that do not fit.
    """
    over_region = choose("overlap", overlap, {"region": True, "mask": False})
    n, coarse, fine = len(rows), tuple(rows.shape[2:]), tuple(label.shape[1:])
    blocks = [side // positions for side, positions in zip(fine, coarse)]
    if tuple(block * positions for block, positions in zip(blocks, coarse)) != fine:
        raise InputError(
            f"the labels have {fine} pixels and the rows {coarse} positions; the sides of the labels must be multiples "
            "of the rows'."
        )
    confident = (label[..., None] == torch.arange(classes, device=label.device)) & mask[..., None]
    # pixels of M per position and class
    split = [side for pair in zip(coarse, blocks) for side in pair]
    counts = confident.reshape(n, *split, classes).sum([2 + 2 * axis for axis in range(len(coarse))])
    counts = counts.flatten(1, -2).float()

    def enlarge(value: Tensor) -> Tensor:
        """[N, S] → [N, *space]"""
        value = value.view(n, *coarse)
        for axis, block in enumerate(blocks, 1):
            value = value.repeat_interleave(block, axis)
        return value

    rows = rows.detach().float().flatten(2)
    low, high = rows.amin(2, keepdim=True), rows.amax(2, keepdim=True)
    region = rows - low > 0.5 * (high - low)
    with torch.autocast(rows.device.type, enabled=False):
        inside = region.float() @ counts  # [N, R, K], exact: integers below 2^24
    covered = inside.sum(2)
    whole = region.sum(2) * math.prod(blocks) if over_region else mask.flatten(1).sum(1, keepdim=True)
    largest, winner = inside.max(2)
    share = largest / covered.clamp(min=1)
    accepted = (covered / whole.clamp(min=1) >= threshold) & (share > threshold)

    best, row = torch.where(region & accepted[:, :, None], share[:, :, None], 0.0).max(1)
    grown, value = enlarge(best > 0), enlarge(winner.gather(1, row))
    return torch.where(grown, value, label.long()), mask | grown, accepted


def update_threshold(
    threshold: Tensor, probs: Tensor, momentum: float = 0.999, towards: str = "class maximum"
) -> Tensor:
    """CGTM, eq. 12: τ ← m τ + (1 − m) · mean over the predicted classes of the class's confidence.

    threshold 0-d, probs [N, K, *space]; a class is predicted where it is the argmax of a pixel of the batch. `towards`:
    a class's confidence is its largest one ("class maximum", eq. 12), or the mean over its pixels ("class mean"). With
    "pixel mean" τ moves towards the mean confidence of all pixels, without classes (FreeMatch, ICLR 2023). Stays in
    [0, 1]. Raises KeyError for another `towards`.
    """
    confidence, prediction = (x.flatten() for x in probs.max(1))
    of = prediction[:, None] == torch.arange(probs.shape[1], device=probs.device)
    by_class = torch.where(of, confidence[:, None], 0.0)  # [pixels, K]
    count = batch_sum(of.sum(0))
    found = {
        "class maximum": lambda: batch_cat(by_class.amax(0, keepdim=True)).amax(0).sum() / (count > 0).sum(),
        "class mean": lambda: (batch_sum(by_class.sum(0)) / count.clamp(min=1)).sum() / (count > 0).sum(),
        "pixel mean": lambda: batch_sum(confidence.sum()) / count.sum(),
    }[towards]()
    return threshold.lerp(found.to(threshold.dtype), 1 - momentum)


def propagation_loss(propagated: Tensor, label: Tensor) -> Tensor:
    """L_PCL: −mean of log Y_corr[label] / Σ Y_corr over labelled pixels, Y_corr at least 1e-7.

    propagated [N, K, *space], label [N, *space] integer with UNLABELED. 0 (with zero gradients) when nothing is
    labelled.
    """
    return partial_cross_entropy(propagated.float().clamp(min=1e-7).log(), label)


def class_contrast(
    features: Tensor, scribble: Tensor, pseudo_label: Tensor, classes: int, temperature: float = 0.1
) -> tuple[Tensor, Tensor]:
    """CACL, eq. 13-17: (L_scribble, L_unlabel), each the mean of −log softmax_c(F_i · μ_c / T) at the pixel's class.

    features F [N, D, *space], scribble and pseudo_label [N, *space] integer 0..classes−1 with UNLABELED. F_i is
    L2-normalised (one shorter than 1e-4 counts as 0 and gets no gradient, so that gradients stay bounded). μ_c
    is the normalised mean of F_i over the batch's pixels with scribble c. L_scribble runs over scribbled
    pixels, L_unlabel over the others that have a pseudo-label. A class without scribble in the batch has no
    μ_c: it is left out of the softmax, and pixels pseudo-labelled with it are left out of L_unlabel. 0 (with
    zero gradients) where no pixel is left.
    """
    vectors = features.float().flatten(2)
    scribble, pseudo_label = scribble.flatten(1).long(), pseudo_label.flatten(1).long()
    drawn = scribble[:, None] == torch.arange(classes, device=scribble.device)[:, None]  # [N, K, S]
    present = batch_sum(drawn.any(2).sum(0)) > 0
    with torch.autocast(features.device.type, enabled=False):
        length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)  # [N, 1, S]: cheaper than dividing F by it
        length = length.masked_fill(length < 1e-4, torch.inf)
        means = F.normalize(batch_sum((vectors @ (drawn / length).transpose(1, 2)).sum(0)), dim=0, eps=1e-4)  # [D, K]
        # expanded: a faster gradient on a CPU
        logits = means.T.expand(len(vectors), -1, -1) @ vectors / (length * temperature)
    logits = logits.masked_fill(~present[:, None], float("-inf"))
    usable = (scribble == UNLABELED) & (pseudo_label != UNLABELED) & present[pseudo_label.clamp(max=classes - 1)]
    drawn = scribble != UNLABELED
    loss = F.cross_entropy(
        logits,
        torch.where(drawn, scribble, torch.where(usable, pseudo_label, UNLABELED)),
        ignore_index=UNLABELED,
        reduction="none",
    )
    scribbled, unlabeled = (
        batch_sum((loss * where).sum()) / batch_sum(where.sum()).clamp(min=1) for where in (drawn, usable)
    )
    return scribbled, unlabeled
