"""Grey values as the network sees them: by the name of the channel, or as the papers have them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.errors import InputError

KINDS = ("papers", "robust", "ct", "nonorm", "rescale_to_0_1", "rgb_to_0_1")
PADDING_FROM = 0.25  # share of the border from which its most frequent value is padding
ENOUGH = 2**22  # voxels from which percentiles are taken; a larger volume is sampled at even steps
PERCENTILES = (0.5, 99.0)  # of the robust normalisation
CT_PERCENTILES = (0.5, 99.5)  # [nnU-Net]
CT_SAMPLES = 10_000  # voxels a case


@dataclass(frozen=True)
class Intensity:
    """How one channel is normalised. The limits are of CT only: they come from the strokes of the training cases."""

    kind: str = "papers"  # one of KINDS
    low: float = 0.0  # limits of the clip
    high: float = 0.0

    def __post_init__(self) -> None:
        fine = math.isfinite(self.high - self.low) and (self.low < self.high or self.kind != "ct")
        if self.kind not in KINDS or not fine:
            raise ValueError(f"intensity {self.kind} from {self.low} to {self.high}: not known")

    def __str__(self) -> str:
        match self.kind:
            case "ct":
                return f"{self.low:.4g} … {self.high:.4g}, the range under foreground strokes, to 0 … 1 (CT)"
            case "robust":
                return f"percentiles {PERCENTILES[0]:g} … {PERCENTILES[1]:g} of the volume without padding, to 0 … 1"
            case "nonorm":
                return "as it is (noNorm)"
            case "rescale_to_0_1":
                return "minimum … maximum of the volume, to 0 … 1"
            case "rgb_to_0_1":
                return "over 255"
        return "minimum … percentile 99 of the volume, to 0 … 1 (papers)"


def kind_of(channel: str) -> str:
    """Which normalisation the name of a channel asks for, as in nnU-Net; case does not matter."""
    name = channel.casefold()
    return name if name in ("ct", "nonorm", "rescale_to_0_1", "rgb_to_0_1") else "robust"


def fit_ct(samples: Sequence[np.ndarray], channel: str) -> Intensity:
    """CT: the percentiles .5 and 99.5 of the voxels under foreground strokes [nnU-Net], which become 0 and 1.

    nnU-Net subtracts their mean and divides by their deviation instead: the same up to a scale and a shift. With 0 for
    the lowest value, what lies outside of a slice is air and not tissue, and the noise and the kernels of the methods,
    which are made for images in [0, 1], keep their size. samples: the grey values of each training case there. Raises
    InputError for none, and where the percentiles are equal.
    """
    values = np.concatenate([*samples, np.zeros(0, np.float32)]).astype(np.float64)
    low, high = np.percentile(values, CT_PERCENTILES) if values.size else (0.0, 0.0)
    if low == high:
        found = f"{values.size} voxels of {low:g}" if values.size else "none"
        raise InputError(
            f"channel {channel}: its normalisation needs different grey values under the foreground strokes of the "
            f"training cases; found {found}. Draw some, or name the channel otherwise in dataset.json, such as MR."
        )
    return Intensity("ct", float(low), float(high))


def ct_samples(image: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Grey values of a case under its foreground strokes, at most CT_SAMPLES, at even steps."""
    values = image[drawn]
    return values[:: max(1, math.ceil(len(values) / CT_SAMPLES))]


def prepare(image: np.ndarray, how: Intensity) -> np.ndarray:
    """The grey values [D, H, W] of one channel as the network sees them, float32. A constant channel is 0 throughout.

    "rescale_to_0_1": minimum and maximum to 0 and 1. "rgb_to_0_1": x / 255. "nonorm": x.
    """
    if how.kind == "nonorm":
        return image
    if how.kind == "rgb_to_0_1":
        return image / np.float32(255)
    if how.kind == "papers":
        return normalise(image)
    low, high = how.low, how.high
    if how.kind != "ct":
        low, high = robust_range(image) if how.kind == "robust" else (float(image.min()), float(image.max()))
    return _to_unit(np.clip(image, low, high), low, high)


def unit_range(image: np.ndarray) -> np.ndarray:
    """Each channel of [channels, D, H, W] from its minimum and maximum to 0 and 1."""
    return np.stack([_to_unit(channel, float(channel.min()), float(channel.max())) for channel in image])


def grey_range(image: np.ndarray) -> tuple[float, float]:
    """The volume's minimum and 99th percentile. If both are equal (an almost empty volume): minimum and maximum."""
    low, high = float(image.min()), float(np.percentile(image, 99))
    return low, high if high > low else float(image.max())


def normalise(image: np.ndarray) -> np.ndarray:
    """Clip at the volume's 99th percentile, then min-max to [0, 1]: the preparation of the WSL4MIS ACDC files."""
    low, high = grey_range(image)
    return _to_unit(np.minimum(image, high), low, high)


def robust_range(image: np.ndarray) -> tuple[float, float]:
    """Percentiles .5 and 99 of the volume, without padding and sentinels. [D, H, W], finite and not constant.

    Left out: the lowest and the highest value, if a gap separates it from the others that is wider than their whole
    range (−32768 for "nothing measured", a dead voxel), and then the most frequent value of the border, if a quarter of
    the border has it. If nothing is left, or all of it is equal, the volume's minimum and maximum are returned.
    """
    border = np.concatenate([image[:, [0, -1]].ravel(), image[:, :, [0, -1]].ravel()])
    flat = image.ravel()
    rest = flat[:: math.ceil(flat.size / ENOUGH)]
    for sign in (1, -1):
        rest = _without_sentinel(rest, sign)
    values, counts = np.unique(border, return_counts=True)
    if counts.max() >= PADDING_FROM * len(border):
        rest = rest[rest != values[counts.argmax()]]
    if rest.size:
        low, high = (float(value) for value in np.percentile(rest, PERCENTILES))
        if high > low:
            return low, high
    return float(image.min()), float(image.max())


def _without_sentinel(values: np.ndarray, sign: int) -> np.ndarray:
    """Without the lowest value (sign 1) or the highest (sign −1), if it is far from the others."""
    if not values.size:
        return values
    extreme = values.min() if sign > 0 else values.max()
    others = values[values != extreme]
    if not others.size:
        return values
    near, far = (others.min(), others.max()) if sign > 0 else (others.max(), others.min())
    return others if abs(float(near) - float(extreme)) > abs(float(far) - float(near)) else values


def _to_unit(image: np.ndarray, low: float, high: float) -> np.ndarray:
    return (image - low) / (high - low) if high > low else np.zeros_like(image)
