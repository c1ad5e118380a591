"""Losses on labels: strokes or dense masks. Unlabelled pixels (UNLABELED) never receive a gradient."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.distributed import batch_sum
from ..core.errors import choose
from ..core.labels import UNLABELED


def as_float(x: Tensor) -> Tensor:
    """float32, or float64 if it was: sums over a batch in half precision lose what they add up."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def partial_cross_entropy(logits: Tensor, label: Tensor, over: str = "labelled") -> Tensor:
    """Cross-entropy over labelled pixels: −1/|Ω| Σ_{i∈Ω} log p_i[y_i].

    logits [N, K, *space], label [N, *space] integer with UNLABELED. `over="all"` divides by all N·|space| pixels in
    place of |Ω|. 0 (with zero gradients) when nothing is labelled. Raises InputError for another `over`.
    """
    labelled = choose("over", over, {"labelled": True, "all": False})
    total = F.cross_entropy(as_float(logits), label.long(), ignore_index=UNLABELED, reduction="sum")
    count = (label != UNLABELED).sum() if labelled else label.new_full((), label.numel(), dtype=torch.int64)
    return batch_sum(total) / batch_sum(count).clamp(min=1)


def certain_cross_entropy(logits: Tensor, target: Tensor, label: Tensor) -> Tensor:
    """−1/|U| Σ_{i∈U} c_i Σ_k q_ik log p_ik, c = 1 − H(q)/ln K: soft labels, weighted by how sure they are.

    logits [N, K, *space], target q like them, without gradient; U: the pixels that `label` [N, *space] leaves
    UNLABELED. 0 (with zero gradients) where it leaves none.
    """
    certainty = 1 - torch.special.entr(target).sum(1) / math.log(target.shape[1])
    each = F.cross_entropy(as_float(logits), target, reduction="none")
    unlabelled = label == UNLABELED
    return batch_sum((certainty * each * unlabelled).sum()) / batch_sum(unlabelled.sum()).clamp(min=1)


def dice_loss(
    probs: Tensor, label: Tensor, smooth: float = 1e-5, *, background: bool = True, squared: bool = True
) -> Tensor:
    """1 − mean over classes of (2 Σ p t + s) / (Σ p² + Σ t² + s), sums over the batch and labelled pixels.

    probs [N, K, *space], label [N, *space] integer with UNLABELED. By default background is a class like the others and
    the denominators are squared, as in WSL4MIS; `background=False` leaves class 0 out of the mean and `squared=False`
    has Σ p for Σ p², as in nnU-Net. 0 when nothing is labelled.
    """
    classes = torch.arange(probs.shape[1], device=probs.device).view(-1, *[1] * (probs.dim() - 2))
    target = label.unsqueeze(1) == classes
    probs = as_float(probs) * (label != UNLABELED).unsqueeze(1)
    space = [0, *range(2, probs.dim())]
    overlap = batch_sum((probs * target).sum(space))
    size = batch_sum((probs.square() if squared else probs).sum(space) + target.sum(space))
    dice = (2 * overlap + smooth) / (size + smooth)
    return 1 - (dice if background else dice[1:]).mean()
