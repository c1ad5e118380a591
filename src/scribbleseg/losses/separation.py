"""What EFFDNet (MICCAI 2025) adds to the mean teacher: FBSL and FADC, functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.distributed import batch_cat
from ..core.errors import choose
from ..core.labels import UNLABELED
from .supervised import as_float


def foreground_background_separation(
    features: Tensor, scribble: Tensor, blocks: int = 8, temperature: float = 0.07
) -> Tensor:
    """FBSL: contrast between blocks with and without foreground scribble (EFFDNet, MICCAI 2025).

    features [N, C, *space] (2-D or 3-D), scribble [N, *space] integer with UNLABELED. Each map is averaged over
    `blocks` parts per axis and L2-normalised; a block is foreground when it holds any scribble pixel of a class > 0.
    For anchor a and positive b (same kind, b ≠ a), over all N·blocks^d blocks of the batch,
    ℓ_ab = −log[e^{s_ab/τ} / (e^{s_ab/τ} + Σ_{n of the other kind} e^{s_an/τ})], s = cosine; mean over positives, then
    over anchors that have one. 0 when all blocks are of one kind: there is nothing to separate. The axes'
    lengths need not be multiples of `blocks`.
    """
    with torch.autocast(features.device.type, enabled=False):
        return _separation(features, scribble, blocks, temperature)


def _separation(features: Tensor, scribble: Tensor, blocks: int, temperature: float) -> Tensor:
    pool = {2: (F.adaptive_avg_pool2d, F.adaptive_max_pool2d), 3: (F.adaptive_avg_pool3d, F.adaptive_max_pool3d)}
    average, maximum = pool[features.dim() - 2]
    vectors = average(as_float(features), blocks).flatten(2).transpose(1, 2).flatten(0, 1)
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


def foreground_augmentation(
    image: Tensor, scribble: Tensor, pseudo: Tensor, box: str = "annotated", donor: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """FADC: every sample's scribble box is filled with the content of a donor's box (EFFDNet, MICCAI 2025).

    image [N, C, H, W], scribble and pseudo [N, H, W]. The donor's box is resized (nearest) to the recipient's,
    in all three alike. `box`: bounding box of all annotated pixels, background scribble included ("annotated",
    the released code), or of foreground scribble only ("foreground", a reading of the paper). `donor` [N]:
    indices into the batch; by default drawn with replacement among the samples that have a box. Samples without
    a box stay as they are. Raises InputError for another `box`.
    """
    foreground_only = choose("box", box, {"annotated": False, "foreground": True})
    boxes, found = annotated_box(scribble, foreground_only)
    count = len(image)
    if donor is None:
        donor = (torch.rand(count, count, device=image.device) + found).argmax(1)
    source, inside = [], []
    for low, high, size in ((0, 2, image.shape[2]), (1, 3, image.shape[3])):
        position = torch.arange(size, device=image.device)
        offset = position - boxes[:, low, None]
        length = (boxes[:, high] - boxes[:, low]).clamp(min=1)[:, None]
        theirs = (boxes[donor, high] - boxes[donor, low]).clamp(min=1)[:, None]
        nearest = torch.div((2 * offset + 1) * theirs, 2 * length, rounding_mode="floor")
        source.append((boxes[donor, low, None] + nearest).clamp(0, size - 1))
        inside.append((position >= boxes[:, low, None]) & (position < boxes[:, high, None]))
    pasted = inside[0][:, :, None] & inside[1][:, None, :] & (found & found[donor])[:, None, None]
    who, row, column = donor[:, None, None], source[0][:, :, None], source[1][:, None, :]
    return (
        torch.where(pasted[:, None], image.movedim(1, -1)[who, row, column].movedim(-1, 1), image),
        torch.where(pasted, scribble[who, row, column], scribble),
        torch.where(pasted, pseudo[who, row, column], pseudo),
    )


def annotated_box(label: Tensor, foreground_only: bool = False) -> tuple[Tensor, Tensor]:
    """Bounding box of each slice's annotated pixels.

    label [N, H, W], integer, UNLABELED where nothing was drawn. Returns (box [N, 4] = top, left, bottom, right with
    exclusive ends, found [N] bool). A slice without a pixel has box 0 and found False. No host synchronisation.
    """
    mask = label != UNLABELED
    if foreground_only:
        mask = mask & (label != 0)
    ends = []
    for dim in (2, 1):  # rows first, then columns
        line = mask.any(dim)
        size = line.shape[1]
        position = torch.arange(size, device=label.device)
        low = torch.where(line, position, size).amin(1)
        high = torch.where(line, position + 1, 0).amax(1)
        ends.append((low, high))
    (top, bottom), (left, right) = ends
    found = mask.flatten(1).any(1)
    box = torch.stack([top, left, bottom, right], 1)
    return box * found[:, None], found
