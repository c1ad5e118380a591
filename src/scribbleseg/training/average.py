"""The exponential mean of a network in training, for evaluation (`Recipe.ema`)."""

import torch
from torch import Tensor, nn

from ..methods.teacher import ema_update, make_teacher


class Average(nn.Module):
    """θ' ← α θ' + (1 − α) θ over weights and batch-norm statistics, α = min((1 + t) / (10 + t), decay) after t updates.

    The mean covers about the last ninth of the run so far, and later the last 1 / (1 − decay) steps, so that the random
    start is soon forgotten. The averaged network is in eval mode.
    """

    def __init__(self, network: nn.Module, decay: float):
        super().__init__()
        self.network, self.decay = make_teacher(network).eval(), decay
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), device=next(network.parameters()).device))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        alpha = ((1 + self.steps) / (10 + self.steps)).clamp(max=self.decay)
        ema_update(self.network, network, alpha)
        for slow, fast in zip(self.network.buffers(), network.buffers()):
            slow.copy_(alpha * slow + (1 - alpha) * fast if slow.is_floating_point() else fast)
        self.steps += 1
