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
    rows: Tensor,
    label: Tensor,
    mask: Tensor,
    threshold: Tensor | float,
    classes: int,
    overlap: str = "region",
    cut: Tensor | float = 0.5,
    growth: str = "at once",
) -> tuple[Tensor, Tensor, Tensor]:
    """RSR, eq. 4-8: grow the confident mask M by the regions that correlate, where they agree on a class.

    rows [N, R, *positions] of the correlation map, label [N, *space] integer 0..classes−1 (read inside M only), mask M
    [N, *space] bool, threshold t; the sides of the space are multiples of those of the positions, and a position stands
    for its block of pixels. Each row, min-max normalised, is > `cut` on its region ĉ. A region is accepted if
    |ĉ∩M|/|ĉ| ≥ t ("region"; "mask": |ĉ∩M|/|M| ≥ t, eq. 6 as printed) and one class c* fills more than t of ĉ∩M. The
    label becomes c* on ĉ and M becomes M ∪ ĉ. "at once": all regions are judged by the given M; where accepted ones
    meet, the one with the larger share of its class wins, the earlier row among equals. "one by one": each is
    judged by M and labels as the rows before have left them, and a later one overwrites.

    Returns (label [N, *space] int64, mask [N, *space], accepted [N, R] bool). A constant row has no region. No host
    synchronisation. Raises InputError for another `overlap` or `growth`, and for sizes that do not fit.
    """
    over_region = choose("overlap", overlap, {"region": True, "mask": False})
    grow = choose("growth", growth, {"at once": _grow_at_once, "one by one": _grow_one_by_one})
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
    region = rows - low > cut * (high - low)
    with torch.autocast(rows.device.type, enabled=False):
        grown, value, accepted = grow(region, counts, math.prod(blocks), threshold, over_region)
    grown, value = enlarge(grown), enlarge(value)
    return torch.where(grown, value, label.long()), mask | grown, accepted


def _judge(inside: Tensor, whole: Tensor, threshold: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """c*, its share of ĉ∩M, and whether ĉ is accepted: pixels `inside` ĉ∩M by class [..., K], in `whole` [...]."""
    covered = inside.sum(-1)
    largest, winner = inside.max(-1)
    share = largest / covered.clamp(min=1)
    return winner, share, (covered / whole.clamp(min=1) >= threshold) & (share > threshold)


def _grow_at_once(
    region: Tensor, counts: Tensor, pixels: int, threshold: Tensor | float, over_region: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Positions that grow [N, S], their class [N, S], accepted rows [N, R]; region [N, R, S], counts [N, S, K]."""
    inside = region.float() @ counts  # [N, R, K], exact: integers below 2^24
    whole = region.sum(2) * pixels if over_region else counts.sum((1, 2))[:, None]
    winner, share, accepted = _judge(inside, whole, threshold)
    best, row = torch.where(region & accepted[:, :, None], share[:, :, None], 0.0).max(1)
    return best > 0, winner.gather(1, row), accepted


def _grow_one_by_one(
    region: Tensor, counts: Tensor, pixels: int, threshold: Tensor | float, over_region: bool
) -> tuple[Tensor, Tensor, Tensor]:
    value, accepted = torch.full_like(region[:, 0], -1, dtype=torch.long), []
    for row in region.unbind(1):
        whole = row.sum(1) * pixels if over_region else counts.sum((1, 2))
        winner, _, able = _judge((row[:, :, None] * counts).sum(1), whole, threshold)
        taken = row & able[:, None]
        own = pixels * F.one_hot(winner, counts.shape[2]).float()
        counts = torch.where(taken[:, :, None], own[:, None], counts)
        value = torch.where(taken, winner[:, None], value)
        accepted.append(able)
    return value >= 0, value, torch.stack(accepted, 1)


def update_threshold(
    threshold: Tensor, probs: Tensor, momentum: float = 0.999, towards: str = "class maximum"
) -> Tensor:
    """CGTM, eq. 12: τ ← m τ + (1 − m) · mean over the predicted classes of the class's confidence.

    threshold 0-d, probs [N, K, *space]; a class is predicted where it is the argmax of a pixel of the batch. `towards`:
    a class's confidence is its largest one ("class maximum", eq. 12), or the mean over its pixels ("class mean"). With
    "pixel mean" τ moves towards the mean confidence of all pixels, without classes (FreeMatch, ICLR 2023). With
    "increment" eq. 12's mean is a step, τ ← min(1, τ + (1 − m) · mean). Stays in [0, 1]. Raises KeyError for another
    `towards`.
    """
    confidence, prediction = (x.flatten() for x in probs.max(1))
    of = prediction[:, None] == torch.arange(probs.shape[1], device=probs.device)
    by_class = torch.where(of, confidence[:, None], 0.0)  # [pixels, K]
    count = batch_sum(of.sum(0))

    def largest() -> Tensor:
        return batch_cat(by_class.amax(0, keepdim=True)).amax(0).sum() / (count > 0).sum()

    found = {
        "class maximum": largest,
        "increment": largest,
        "class mean": lambda: (batch_sum(by_class.sum(0)) / count.clamp(min=1)).sum() / (count > 0).sum(),
        "pixel mean": lambda: batch_sum(confidence.sum()) / count.sum(),
    }[towards]()
    if towards == "increment":
        return (threshold + (1 - momentum) * found.to(threshold.dtype)).clamp(max=1)
    return threshold.lerp(found.to(threshold.dtype), 1 - momentum)


def propagation_loss(propagated: Tensor, label: Tensor, over: str = "labelled") -> Tensor:
    """L_PCL: −mean of log Y_corr[label] / Σ Y_corr over labelled pixels, Y_corr at least 1e-7.

    propagated [N, K, *space], label [N, *space] integer with UNLABELED. `over`: see `partial_cross_entropy`. 0 (with
    zero gradients) when nothing is labelled.
    """
    return partial_cross_entropy(propagated.float().clamp(min=1e-7).log(), label, over)


def class_contrast(
    features: Tensor,
    scribble: Tensor,
    pseudo_label: Tensor,
    classes: int,
    temperature: float = 0.1,
    *,
    cosine: bool = True,
    by_class: bool = False,
) -> tuple[Tensor, Tensor]:
    """CACL, eq. 13-17: (L_scribble, L_unlabel), each the mean of −log softmax_c(F_i · μ_c / T) at the pixel's class.

    features F [N, D, *space], scribble and pseudo_label [N, *space] integer 0..classes−1 with UNLABELED. F_i is
    L2-normalised (one shorter than 1e-4 counts as 0 and gets no gradient, so that gradients stay bounded). μ_c
    is the normalised mean of F_i over the batch's pixels with scribble c. `cosine=False`: F_i and μ_c as they are.
    L_scribble runs over scribbled pixels, L_unlabel over the others that have a pseudo-label; `by_class=True` takes
    the mean of each class's pixels, then of the classes that have any. A class without scribble in the batch has no
    μ_c: it is left out of the softmax, and pixels pseudo-labelled with it are left out of L_unlabel. 0 (with
    zero gradients) where no pixel is left.
    """
    vectors = features.float().flatten(2)
    scribble, pseudo_label = scribble.flatten(1).long(), pseudo_label.flatten(1).long()
    kinds = torch.arange(classes, device=scribble.device)[:, None]
    scribbled = scribble[:, None] == kinds  # [N, K, S]
    count = batch_sum(scribbled.sum((0, 2)))
    present = count > 0
    with torch.autocast(features.device.type, enabled=False):
        if cosine:
            length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)  # [N, 1, S]: cheaper than dividing F by it
            length = length.masked_fill(length < 1e-4, torch.inf)
        else:
            length = torch.ones_like(vectors[:, :1])
        sums = batch_sum((vectors @ (scribbled / length).transpose(1, 2)).sum(0))  # [D, K]
        means = F.normalize(sums, dim=0, eps=1e-4) if cosine else sums / count.clamp(min=1)
        # expanded: a faster gradient on a CPU
        logits = means.T.expand(len(vectors), -1, -1) @ vectors / (length * temperature)
    logits = logits.masked_fill(~present[:, None], float("-inf"))
    usable = (scribble == UNLABELED) & (pseudo_label != UNLABELED) & present[pseudo_label.clamp(max=classes - 1)]
    drawn = scribble != UNLABELED
    target = torch.where(drawn, scribble, torch.where(usable, pseudo_label, UNLABELED))
    loss = F.cross_entropy(logits, target, ignore_index=UNLABELED, reduction="none")

    def mean(where: Tensor) -> Tensor:
        if not by_class:
            return batch_sum((loss * where).sum()) / batch_sum(where.sum()).clamp(min=1)
        own = (target[:, None] == kinds) & where[:, None]
        sizes = batch_sum(own.sum((0, 2)))
        means = batch_sum((loss[:, None] * own).sum((0, 2))) / sizes.clamp(min=1)
        return means.sum() / (sizes > 0).sum().clamp(min=1)

    return mean(drawn), mean(usable)
