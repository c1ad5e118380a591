"""What EFFDNet (MICCAI 2025) adds to the mean teacher: FBSL and FADC, functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.distributed import batch_cat
from ..core.errors import choose
from ..core.labels import UNLABELED
from .supervised import as_float


def foreground_background_separation(
    features: Tensor,
    scribble: Tensor,
    blocks: int = 8,
    temperature: float = 0.07,
    pool: str = "batch",
    anchors: str = "with positives",
) -> Tensor:
    """FBSL: contrast between blocks with and without foreground scribble (EFFDNet, MICCAI 2025).

    features [N, C, *space] (2-D or 3-D), scribble [N, *space] integer with UNLABELED. Each map is averaged over
    `blocks` parts per axis and L2-normalised; a block is foreground when it holds any scribble pixel of a class > 0.
    For anchor a and positive b (same kind, b ≠ a), over all N·blocks^d blocks of the batch,
    ℓ_ab = −log[e^{s_ab/τ} / (e^{s_ab/τ} + Σ_{n of the other kind} e^{s_an/τ})], s = cosine; mean over positives, then
    over anchors that have one. `anchors="all"` divides by all anchors. `pool="slice"` compares the blocks of each slice
    with each other only, and takes the mean over slices. 0 when all blocks are of one kind: there is nothing to
    separate. The axes' lengths need not be multiples of `blocks`. Raises InputError for another `pool` or `anchors`.
    """
    of_batch = choose("pool", pool, {"batch": True, "slice": False})
    every = choose("anchors", anchors, {"with positives": False, "all": True})
    with torch.autocast(features.device.type, enabled=False):
        vectors, foreground = _blocks(features, scribble, blocks)
        if of_batch:
            return _separation(vectors.flatten(0, 1), foreground.flatten(), temperature, every)
        return torch.stack([_separation(*one, temperature, every) for one in zip(vectors, foreground)]).mean()


def foreground_blocks(scribble: Tensor, blocks: int) -> Tensor:
    """R: whether each block holds a foreground scribble pixel, bool [N, *blocks]; scribble [N, *space]."""
    maximum = {2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[scribble.dim() - 1]
    drawn = ((scribble != 0) & (scribble != UNLABELED)).float().unsqueeze(1)
    return maximum(drawn, blocks)[:, 0] > 0


def _blocks(features: Tensor, scribble: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Unit vectors [N, B, C] and kinds [N, B] of the blocks of the whole batch."""
    average = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[features.dim() - 2]
    vectors = F.normalize(average(as_float(features), blocks).flatten(2).transpose(1, 2), dim=2)
    return batch_cat(vectors), batch_cat(foreground_blocks(scribble, blocks).flatten(1).float()) > 0


def _separation(vectors: Tensor, foreground: Tensor, temperature: float, every: bool) -> Tensor:
    similarity = vectors @ vectors.T / temperature
    same = foreground[:, None] == foreground[None, :]
    positive = same & ~torch.eye(len(same), dtype=torch.bool, device=same.device)
    # a finite stand-in for −∞: the gradient of logsumexp over nothing but −∞ is NaN
    negatives = similarity.masked_fill(same, -1e4).logsumexp(1, keepdim=True)
    pairs = F.softplus(negatives - similarity) * positive  # −log[e^s / (e^s + e^negatives)]
    count = positive.sum(1)
    divisor = len(count) if every else (count > 0).sum().clamp(min=1)
    return (pairs.sum(1) / count.clamp(min=1)).sum() / divisor


def foreground_augmentation(
    image: Tensor,
    scribble: Tensor,
    pseudo: Tensor,
    box: str = "annotated",
    donor: Tensor | None = None,
    resize: str = "nearest",
) -> tuple[Tensor, Tensor, Tensor]:
    """FADC: every sample's scribble box is filled with the content of a donor's box (EFFDNet, MICCAI 2025).

    image [N, C, *space], scribble and pseudo [N, *space]. The donor's box is resized (nearest) to the recipient's,
    in all three alike; `resize="bilinear"` interpolates the image. `box`: bounding box of all annotated pixels,
    background scribble included ("annotated", the released code), or of foreground scribble only ("foreground", a
    reading of the paper). `donor` [N]: indices into the batch; by default drawn with replacement among the samples
    that have a box. Samples without a box stay as they are. Raises InputError for another `box` or `resize`.
    """
    smooth = choose("resize", resize, {"nearest": False, "bilinear": True})
    foreground_only = choose("box", box, {"annotated": False, "foreground": True})
    boxes, found = annotated_box(scribble, foreground_only)
    count = len(image)
    if donor is None:
        donor = (torch.rand(count, count, device=image.device) + found).argmax(1)
    dims = scribble.dim() - 1

    def along(axis: int, value: Tensor) -> Tensor:
        """[N, side] or [N, 1] as one factor of [N, *space]."""
        return value.view(len(value), *[1] * axis, -1, *[1] * (dims - 1 - axis))

    source, exact, pasted = [], [], along(0, (found & found[donor])[:, None])
    for axis, size in enumerate(scribble.shape[1:]):
        low, high = boxes[:, axis], boxes[:, dims + axis]
        position = torch.arange(size, device=image.device)
        offset = position - low[:, None]
        length = (high - low).clamp(min=1)[:, None]
        theirs = (high - low)[donor].clamp(min=1)[:, None]
        nearest = torch.div((2 * offset + 1) * theirs, 2 * length, rounding_mode="floor")
        between = ((offset + 0.5) * theirs / length - 0.5).clamp(min=0).minimum(theirs - 1) + low[donor, None]
        exact.append(along(axis, (2 * between + 1) / size - 1))  # as grid_sample counts: −1 and 1 are the image's edges
        source.append(along(axis, (low[donor, None] + nearest).clamp(0, size - 1)))
        pasted = pasted & along(axis, (position >= low[:, None]) & (position < high[:, None]))
    taken = (along(0, donor[:, None]), *source)
    if smooth:
        grid = torch.stack([axis.expand_as(pasted) for axis in reversed(exact)], -1)
        content = F.grid_sample(image[donor], grid.to(image.dtype), align_corners=False)
    else:
        content = image.movedim(1, -1)[taken].movedim(-1, 1)
    return (
        torch.where(pasted[:, None], content, image),
        torch.where(pasted, scribble[taken], scribble),
        torch.where(pasted, pseudo[taken], pseudo),
    )


def annotated_box(label: Tensor, foreground_only: bool = False) -> tuple[Tensor, Tensor]:
    """Bounding box of each sample's annotated pixels.

    label [N, *space], integer, UNLABELED where nothing was drawn. Returns (box [N, 2 · axes], the lower ends of all
    axes before the upper ones, which are exclusive: top, left, bottom, right of a slice; found [N] bool). A sample
    without a pixel has box 0 and found False. No host synchronisation.
    """
    mask = label != UNLABELED
    if foreground_only:
        mask = mask & (label != 0)
    lower, upper = [], []
    for axis, size in enumerate(label.shape[1:], 1):
        line = mask.movedim(axis, 1).flatten(2).any(2)
        position = torch.arange(size, device=label.device)
        lower.append(torch.where(line, position, size).amin(1))
        upper.append(torch.where(line, position + 1, 0).amax(1))
    found = mask.flatten(1).any(1)
    box = torch.stack(lower + upper, 1)
    return box * found[:, None], found
