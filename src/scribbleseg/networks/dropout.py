"""Dropout that is fast on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd


class Dropout(nn.Module):
    """Zero each element with probability p, scale the rest by 1/(1 − p).

    On a CPU, torch's generator is most of nn.Dropout's cost; here one 64-bit draw serves four elements, so that
    p is met to 2⁻¹⁶.
    """

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return F.dropout(x, self.p)
        draws = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        first = min(max(round(self.p * 2**16), 1), 2**16 - 1) - 2**15  # of those that are kept
        # 0 or 1: comparing and converting takes twice as long
        keep = draws[: x.numel()].clamp_(first - 1, first).sub_(first - 1)
        scale = torch.tensor(1 / (1 - self.p), dtype=x.dtype)
        keep = (
            keep.mul_(scale.view(torch.int16)).view(x.dtype) if x.element_size() == 2 else keep.to(x.dtype).mul_(scale)
        )
        return x * keep.as_strided(x.size(), x.stride())

    def extra_repr(self) -> str:
        return f"p={self.p}"


def without_dropout(network: nn.Module) -> None:
    """Set the probability of every dropout in `network`, PyTorch's own ones included, to 0."""
    for module in network.modules():
        if isinstance(module, (Dropout, _DropoutNd)):
            module.p = 0.0
