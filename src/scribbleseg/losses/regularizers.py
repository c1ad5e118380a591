"""Losses that need no label: functions of the prediction and the image."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from ..core.distributed import batch_sum
from ..core.errors import choose
from .supervised import as_float


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax in each pixel, −Σ_c p_c ln p_c, in nats: 0 when certain, ln K when uniform.

    logits [N, K, *space] → [N, *space]. Written with log-softmax, so that the gradient is finite where p_c
    underflows to 0.
    """
    log_probs = as_float(logits).log_softmax(1)
    return -(log_probs.exp() * log_probs).sum(1)


def total_variation(probs: Tensor) -> Tensor:
    """Σ over axes, classes and pixels of |p_c(i + e) − p_c(i)|, divided by N·K·|space|.

    probs [N, K, *space]. Anisotropic; no differences across the border. 0 for constant maps.
    """
    probs = as_float(probs)
    steps = (probs.diff(dim=axis).abs().sum() for axis in range(2, probs.dim()))
    return sum(steps, start=probs.new_zeros(())) / probs.numel()


def mumford_shah(probs: Tensor, image: Tensor, swapped: bool = False, length: str = "prediction") -> Tensor:
    """Mumford-Shah energy of a soft partition (Kim & Ye, IEEE TIP 2020): Σ_c Σ_i [(I_i − μ_c)² p_ic + |∇p_ic|].

    probs [N, K, *space], image [N, channels, *space]. μ_c = Σ I p_c / Σ p_c in each sample and image channel; ∇
    as in `total_variation`. A sum over pixels and batch, not a mean. `swapped=True` has image and prediction
    change places in the first term, as in WSL4MIS: (p_ic − ν_c)² I_i with ν_c = Σ I p_c / Σ I. `length="image"` has
    |∇I_i| in place of Σ_c |∇p_ic|: a constant. A class without mass (a black image) adds nothing. Raises InputError
    for another `length`.
    """
    outlined = choose("length", length, {"prediction": probs, "image": image})
    outline = total_variation(outlined) * outlined.numel()
    probs, image = as_float(probs).flatten(2), as_float(image).flatten(2)
    weight, value = (image, probs) if swapped else (probs, image)
    weight, value = weight.unsqueeze(2), value.unsqueeze(1)
    mean = (weight * value).sum(3, keepdim=True) / weight.sum(3, keepdim=True).clamp(min=1e-6)
    return batch_sum((weight * (value - mean).square()).sum() + outline)


def gated_crf(
    probs: Tensor, image: Tensor, radius: int = 5, sigma_px: float = 6.0, sigma_intensity: float = 0.1
) -> Tensor:
    """Gated CRF energy (Obukhov et al., 2019, Potts): 1/(N·|space|) Σ_i Σ_j k_ij (1 − p_i·p_j).

    probs [N, K, *space], image [N, channels, *space]. j runs over the pixels within `radius` along every axis, j ≠ i,
    inside the image; k_ij = exp(−½ |x_i − x_j|² / σ_px² − ½ |I_i − I_j|² / σ_intensity²). 0 for constant one-hot maps.
    No gradient to `image`.

    One pass over half of the offsets (k is symmetric) accumulates q_i = Σ_j k_ij p_j, without a graph: the
    energy is Σ k − Σ p·q, and as it is quadratic its gradient is −2q. Memory is that of a few maps, not of
    (2·radius + 1)² of them.
    """
    probs, image = as_float(probs).contiguous(), as_float(image).contiguous()  # channels last is half as fast here
    space = probs.shape[2:]
    with torch.no_grad():
        message = torch.zeros_like(probs)
        total = probs.new_zeros(())
        for offset in itertools.product(range(-radius, radius + 1), repeat=len(space)):
            if offset <= (0,) * len(space):
                continue
            here: tuple[Any, ...] = (
                ...,
                *(slice(max(0, -step), max(0, size - max(0, step))) for step, size in zip(offset, space)),
            )
            there: tuple[Any, ...] = (
                ...,
                *(slice(max(0, step), max(0, size - max(0, -step))) for step, size in zip(offset, space)),
            )
            contrast = (image[here] - image[there]).square().sum(1, keepdim=True)
            distance = sum(step * step for step in offset) / sigma_px**2
            kernel = contrast.mul_(-0.5 / sigma_intensity**2).sub_(0.5 * distance).exp_()
            message[here].addcmul_(kernel, probs[there])
            message[there].addcmul_(kernel, probs[here])
            total += 2 * kernel.sum()
    twice = 2 * probs - probs.detach()  # the value of p, twice its gradient
    return (total - (twice * message).sum()) / (probs.shape[0] * math.prod(space))
