"""Losses: functions of tensors. Unlabelled pixels (UNLABELED) never receive a gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .labels import UNLABELED


def partial_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy over labelled pixels: −1/|Ω| Σ_{i∈Ω} log p_i[y_i].

    logits [N, K, *space], label [N, *space] integer with UNLABELED. 0 (with zero gradients) when nothing is labelled.
    """
    total = F.cross_entropy(logits.float(), label.long(), ignore_index=UNLABELED, reduction="sum")
    return total / (label != UNLABELED).sum().clamp(min=1)


def dice_loss(probs: Tensor, label: Tensor, smooth: float = 1e-5) -> Tensor:
    """1 − mean over classes of (2 Σ p t + s) / (Σ p² + Σ t² + s), sums over the batch and labelled pixels.

    probs [N, K, *space], label [N, *space] integer with UNLABELED. Background is a class like the others; squared
    denominators as in WSL4MIS. 0 when nothing is labelled.
    """
    known = (label != UNLABELED).unsqueeze(1)
    target = F.one_hot(torch.where(known[:, 0], label, 0).long(), probs.shape[1]).movedim(-1, 1) * known
    probs = probs.float() * known
    space = [0, *range(2, probs.dim())]
    overlap = (probs * target).sum(space)
    size = probs.square().sum(space) + target.sum(space)
    return 1 - ((2 * overlap + smooth) / (size + smooth)).mean()


def foreground_background_separation(
    features: Tensor, scribble: Tensor, blocks: int = 8, temperature: float = 0.07
) -> Tensor:
    """FBSL: contrast between blocks with and without foreground scribble (EFFDNet, MICCAI 2025).

    features [N, C, *space] (2-D or 3-D), scribble [N, *space] integer with UNLABELED. Each map is averaged over
    `blocks` parts per axis and L2-normalised; a block is foreground when it holds any scribble pixel of a class > 0.
    For anchor a and positive b (same kind, b ≠ a), over all N·blocks^d blocks of the batch,
    ℓ_ab = −log[e^{s_ab/τ} / (e^{s_ab/τ} + Σ_{n of the other kind} e^{s_an/τ})], s = cosine; mean over positives, then over
    anchors that have one. 0 when all blocks are of one kind: there is nothing to separate. The axes' lengths need not be multiples
    of `blocks`.
    """
    pool = {2: (F.adaptive_avg_pool2d, F.adaptive_max_pool2d), 3: (F.adaptive_avg_pool3d, F.adaptive_max_pool3d)}
    average, maximum = pool[features.dim() - 2]
    vectors = average(features.float(), blocks).flatten(2).transpose(1, 2).flatten(0, 1)
    vectors = F.normalize(vectors, dim=1)
    drawn = ((scribble != 0) & (scribble != UNLABELED)).float().unsqueeze(1)
    foreground = maximum(drawn, blocks).flatten() > 0
    similarity = vectors @ vectors.T / temperature
    same = foreground[:, None] == foreground[None, :]
    positive = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    # a finite stand-in for −∞: the gradient of logsumexp over nothing but −∞ is NaN
    negatives = similarity.masked_fill(same, -1e4).logsumexp(1, keepdim=True)
    pairs = F.softplus(negatives - similarity) * positive  # −log[e^s / (e^s + e^negatives)]
    count = positive.sum(1)
    return (pairs.sum(1) / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)
