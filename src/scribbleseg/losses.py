"""Losses: functions of tensors. Unlabelled pixels (UNLABELED) never receive a gradient."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .distributed import batch_cat, batch_sum
from .labels import UNLABELED


def _float(x: Tensor) -> Tensor:
    """float32, or float64 if it was: sums over a batch in half precision lose what they add up."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def partial_cross_entropy(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy over labelled pixels: −1/|Ω| Σ_{i∈Ω} log p_i[y_i].

    logits [N, K, *space], label [N, *space] integer with UNLABELED. 0 (with zero gradients) when nothing is labelled.
    """
    total = F.cross_entropy(_float(logits), label.long(), ignore_index=UNLABELED, reduction="sum")
    return batch_sum(total) / batch_sum((label != UNLABELED).sum()).clamp(min=1)


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
    probs = _float(probs) * (label != UNLABELED).unsqueeze(1)
    space = [0, *range(2, probs.dim())]
    overlap = batch_sum((probs * target).sum(space))
    size = batch_sum((probs.square() if squared else probs).sum(space) + target.sum(space))
    dice = (2 * overlap + smooth) / (size + smooth)
    return 1 - (dice if background else dice[1:]).mean()


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax in each pixel, −Σ_c p_c ln p_c, in nats: 0 when certain, ln K when uniform.

    logits [N, K, *space] → [N, *space]. Written with log-softmax, so that the gradient is finite where p_c underflows to 0.
    """
    log_probs = _float(logits).log_softmax(1)
    return -(log_probs.exp() * log_probs).sum(1)


def total_variation(probs: Tensor) -> Tensor:
    """Σ over axes, classes and pixels of |p_c(i + e) − p_c(i)|, divided by N·K·|space|.

    probs [N, K, *space]. Anisotropic; no differences across the border. 0 for constant maps.
    """
    probs = _float(probs)
    return sum(probs.diff(dim=axis).abs().sum() for axis in range(2, probs.dim())) / probs.numel()


def mumford_shah(probs: Tensor, image: Tensor, swapped: bool = False) -> Tensor:
    """Mumford-Shah energy of a soft partition (Kim & Ye, IEEE TIP 2020): Σ_c Σ_i [(I_i − μ_c)² p_ic + |∇p_ic|].

    probs [N, K, *space], image [N, channels, *space]. μ_c = Σ I p_c / Σ p_c in each sample and image channel; ∇ as in
    `total_variation`. A sum over pixels and batch, not a mean. `swapped=True` has image and prediction change places in the
    first term, as in WSL4MIS: (p_ic − ν_c)² I_i with ν_c = Σ I p_c / Σ I. A class without mass (a black image) adds nothing.
    """
    length = total_variation(probs) * probs.numel()
    probs, image = _float(probs).flatten(2), _float(image).flatten(2)
    weight, value = (image, probs) if swapped else (probs, image)
    weight, value = weight.unsqueeze(2), value.unsqueeze(1)
    mean = (weight * value).sum(3, keepdim=True) / weight.sum(3, keepdim=True).clamp(min=1e-6)
    return batch_sum((weight * (value - mean).square()).sum() + length)


def gated_crf(
    probs: Tensor, image: Tensor, radius: int = 5, sigma_px: float = 6.0, sigma_intensity: float = 0.1
) -> Tensor:
    """Gated CRF energy (Obukhov et al., 2019, Potts): 1/(N·|space|) Σ_i Σ_j k_ij (1 − p_i·p_j).

    probs [N, K, *space], image [N, channels, *space]. j runs over the pixels within `radius` along every axis, j ≠ i, inside the
    image; k_ij = exp(−½ |x_i − x_j|² / σ_px² − ½ |I_i − I_j|² / σ_intensity²). 0 for constant one-hot maps. No gradient to `image`.

    One pass over half of the offsets (k is symmetric) accumulates q_i = Σ_j k_ij p_j, without a graph: the energy is Σ k − Σ p·q,
    and as it is quadratic its gradient is −2q. Memory is that of a few maps, not of (2·radius + 1)² of them.
    """
    probs, image = _float(probs).contiguous(), _float(image).contiguous()  # channels last is half as fast here
    space = probs.shape[2:]
    with torch.no_grad():
        message = torch.zeros_like(probs)
        total = probs.new_zeros(())
        for offset in itertools.product(range(-radius, radius + 1), repeat=len(space)):
            if offset <= (0,) * len(space):
                continue
            here = (..., *(slice(max(0, -step), max(0, size - max(0, step))) for step, size in zip(offset, space)))
            there = (..., *(slice(max(0, step), max(0, size - max(0, -step))) for step, size in zip(offset, space)))
            contrast = (image[here] - image[there]).square().sum(1, keepdim=True)
            distance = sum(step * step for step in offset) / sigma_px**2
            kernel = contrast.mul_(-0.5 / sigma_intensity**2).sub_(0.5 * distance).exp_()
            message[here].addcmul_(kernel, probs[there])
            message[there].addcmul_(kernel, probs[here])
            total += 2 * kernel.sum()
    twice = 2 * probs - probs.detach()  # the value of p, twice its gradient
    return (total - (twice * message).sum()) / (probs.shape[0] * math.prod(space))


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
    with torch.autocast(features.device.type, enabled=False):
        return _separation(features, scribble, blocks, temperature)


def _separation(features: Tensor, scribble: Tensor, blocks: int, temperature: float) -> Tensor:
    pool = {2: (F.adaptive_avg_pool2d, F.adaptive_max_pool2d), 3: (F.adaptive_avg_pool3d, F.adaptive_max_pool3d)}
    average, maximum = pool[features.dim() - 2]
    vectors = average(_float(features), blocks).flatten(2).transpose(1, 2).flatten(0, 1)
    vectors = batch_cat(F.normalize(vectors, dim=1))
    drawn = ((scribble != 0) & (scribble != UNLABELED)).float().unsqueeze(1)
    foreground = batch_cat(maximum(drawn, blocks).flatten()) > 0
    similarity = vectors @ vectors.T / temperature
    same = foreground[:, None] == foreground[None, :]
    positive = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    # a finite stand-in for −∞: the gradient of logsumexp over nothing but −∞ is NaN
    negatives = similarity.masked_fill(same, -1e4).logsumexp(1, keepdim=True)
    pairs = F.softplus(negatives - similarity) * positive  # −log[e^s / (e^s + e^negatives)]
    count = positive.sum(1)
    return (pairs.sum(1) / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)
