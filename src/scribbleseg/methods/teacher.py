"""The mean teacher: a copy whose weights follow the student's by an exponential moving average (NeurIPS 2017)."""

import copy

import torch
from torch import Tensor, nn

from ..networks.dropout import without_dropout


def make_teacher(network: nn.Module, dropout: bool = True) -> nn.Module:
    """A copy of `network` without gradients. It stays in train mode: statistics are the batch's.

    dropout: whether it drops what the network drops. Call the copy under `torch.no_grad()`.
    """
    teacher = copy.deepcopy(network).requires_grad_(False)
    if not dropout:
        without_dropout(teacher)
    return teacher


def ema_decay(step: Tensor, limit: float = 0.99) -> Tensor:
    """α = min(1 − 1/(t+1), limit), t = `step`: the updates made so far, 0-d. The first update copies the student."""
    return (1 - 1 / (step + 1)).clamp(max=limit)


@torch.no_grad()
def ema_update(teacher: nn.Module, network: nn.Module, alpha: Tensor) -> None:
    """θ_teacher ← α θ_teacher + (1 − α) θ_student (Tarvainen & Valpola, NeurIPS 2017). `alpha`: 0-d tensor.

    Parameters only: batch-norm statistics are the teacher's own.
    """
    slow: list[Tensor] = list(teacher.parameters())
    fast: list[Tensor] = list(network.parameters())
    torch._foreach_mul_(slow, alpha)
    torch._foreach_add_(slow, torch._foreach_mul(fast, 1 - alpha))
