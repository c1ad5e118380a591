"""One scan as the runs of a prediction see it, and the way back to its grid."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.case import prepare_channels, read_channels
from ..data.intensity import Intensity
from ..data.preparation import content_box
from ..data.volume import FILE_AXES, Grid, check_unit
from .models import Model
from .probabilities import Segmented


@dataclass(frozen=True)
class Scan:
    """The images [channels, D, h, w], one per model, cropped to `box` where the runs cut something off."""

    images: list[np.ndarray]
    grid: Grid
    box: tuple[slice, slice]  # rows, columns
    shape: tuple[int, int, int]  # of the whole volume, [D, H, W]

    def placed(self, found: Segmented) -> Segmented:
        """What was found in the box, on the whole grid. What was cut off is background, with certainty."""
        if found.label.shape == self.shape:
            return found
        label = np.zeros(self.shape, found.label.dtype)
        label[:, *self.box] = found.label
        probs = entropy = None
        if found.probs is not None:
            probs = np.zeros((len(found.probs), *self.shape), found.probs.dtype)
            probs[0] = 1
            probs[:, :, *self.box] = found.probs
        if found.entropy is not None:
            entropy = np.zeros(self.shape, found.entropy.dtype)
            entropy[:, *self.box] = found.entropy
        return Segmented(label, probs, entropy)


def read_scan(paths: Sequence[Path], models: Sequence[Model]) -> Scan:
    """Read the channels of a case and prepare them for each model.

    Models that normalise alike share their image. All have the same plane, and all cut off the same. Raises what
    `read_channels` and `prepare_scan` raise.
    """
    plan = models[0].plan
    channels, grid = read_channels(paths, plan.fitted.plane, len(plan.channels))
    return prepare_scan(paths[0], channels, grid, models)


def prepare_scan(what: object, channels: Sequence[np.ndarray], grid: Grid, models: Sequence[Model]) -> Scan:
    """The channels [D, H, W], float32 and as they are in a file, prepared for each model.

    If the models find where rings lie, the box holds what each of them finds. what: names the channels in a message.
    Raises InputError for voxels of quite another size than those of a model. A model in mm needs to know how large a
    voxel is for patches, and to find the slices of a volume, unless its plane is an axis of the file: else InputError.
    """
    fitted = models[0].plan.fitted
    seeks_slices = len(channels[0]) > 1 and fitted.plane not in FILE_AXES
    for model in models:
        if seeks_slices or model.plan.preparation == "patches":
            check_unit(what, grid, model.plan.fitted.unit)
        model.plan.raster.check(what, channels[0].shape, grid.spacing_mm)
    prepared: dict[tuple[Intensity, ...], np.ndarray] = {}
    for model in models:
        how = model.plan.fitted.intensity
        if how not in prepared:
            prepared[how] = prepare_channels(channels, how)
    shape = channels[0].shape
    box = (slice(0, shape[1]), slice(0, shape[2]))
    if fitted.crop:
        box = content_box(channels)
    if found := [model.locator.box(prepared[model.plan.fitted.intensity]) for model in models if model.locator]:
        box = _around(rows for rows, _ in found), _around(columns for _, columns in found)
    images = [prepared[model.plan.fitted.intensity][:, :, *box] for model in models]
    return Scan(images, grid, box, shape)


def _around(spans: Iterable[slice]) -> slice:
    starts, stops = zip(*((span.start, span.stop) for span in spans))
    return slice(min(starts), max(stops))
