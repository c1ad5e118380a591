"""The mean teacher: a frozen copy whose weights follow the student's by an exponential moving average (Tarvainen & Valpola, NeurIPS 2017)."""

import copy

import torch
from torch import Tensor, nn


def make_teacher(network: nn.Module) -> nn.Module:
    """A copy of `network` without gradients. Call it under `torch.no_grad()`; it stays in train mode (dropout on, batch statistics)."""
    return copy.deepcopy(network).requires_grad_(False)


def ema_decay(step: Tensor, limit: float = 0.99) -> Tensor:
    """α = min(1 − 1/(t+1), limit). `step`: 0-d tensor t, the updates made so far: the first update copies the student."""
    return (1 - 1 / (step + 1)).clamp(max=limit)


@torch.no_grad()
def ema_update(teacher: nn.Module, network: nn.Module, alpha: Tensor) -> None:
    """θ_teacher ← α θ_teacher + (1 − α) θ_student, parameters only: batch-norm statistics are the teacher's own. `alpha`: 0-d tensor."""
    slow, fast = list(teacher.parameters()), list(network.parameters())
    torch._foreach_mul_(slow, alpha)
    torch._foreach_add_(slow, torch._foreach_mul(fast, 1 - alpha))
