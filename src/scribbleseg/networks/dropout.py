"""Dropout that is fast on a CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Zero each element with probability p, scale the rest by 1/(1 − p).

    On a CPU, torch's generator is most of nn.Dropout's cost; here one 64-bit draw serves four elements, so that p is met to 2⁻¹⁶.
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
        keep = (draws[: x.numel()] >= round(self.p * 2**16) - 2**15).to(x.dtype).mul_(1 / (1 - self.p))
        return x * keep.as_strided(x.size(), x.stride())

    def extra_repr(self) -> str:
        return f"p={self.p}"
