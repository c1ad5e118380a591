"""Trained runs in a notebook or a server: arrays in, masks out."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..core.device import pick_device
from ..core.errors import InputError, counted
from ..data.volume import Grid
from .models import Model, load_models
from .probabilities import Segmented, segment
from .scan import prepare_scan


@dataclass(frozen=True)
class Predictor:
    """The networks of one or several runs, whose probabilities are averaged. Made by `scribbleseg.load`."""

    models: list[Model]
    device: torch.device

    @property
    def classes(self) -> tuple[str, ...]:
        """Names; the place of a name is its value in a mask."""
        return self.models[0].plan.classes

    @property
    def channels(self) -> tuple[str, ...]:
        return self.models[0].plan.channels

    def predict(self, image: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> np.ndarray:
        """The mask of a volume, uint8 [D, H, W].

        image: grey values as in the file, [D, H, W], or [channels, D, H, W] for several channels. Slices come first,
        each with rows before columns, as the scans of the training are sliced. spacing: of slices, rows and columns,
        mm; only runs on patches or volumes use it. Raises InputError for an array of another shape, for another number
        of channels, for NaN and infinite values, and for a spacing that is none.
        """
        return self._segment(image, spacing, False).label

    def probabilities(self, image: np.ndarray, spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> np.ndarray:
        """The probability of each class, float32 [classes, D, H, W]; the rest as in `predict`."""
        found = self._segment(image, spacing, True).probs
        assert found is not None
        return found

    def _segment(self, image: np.ndarray, spacing: Sequence[float], probabilities: bool) -> Segmented:
        try:
            stack = np.ascontiguousarray(image, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InputError(f"the image is no array of numbers ({error}). Give grey values, [D, H, W].") from error
        stack = stack[None] if stack.ndim == 3 else stack
        if stack.ndim != 4 or len(stack) != len(self.channels) or not stack.size:
            raise InputError(
                f"the image has shape {np.shape(image)}; expected [D, H, W], or [channels, D, H, W] with the "
                f"{counted(len(self.channels), 'channel')} {', '.join(self.channels)}."
            )
        if not np.isfinite(stack).all():
            raise InputError("the image has values that are NaN or infinite. Replace them.")
        sides = np.asarray(spacing, np.float64)
        if sides.shape != (3,) or not (np.isfinite(sides) & (sides > 0)).all():
            raise InputError(f"spacing is {spacing}; expected the distances of slices, rows and columns in mm.")
        between, rows, columns = map(float, sides)
        scan = prepare_scan(
            "the image", list(stack), Grid(stack.shape[1:], np.diag([between, rows, columns, 1.0]), None), self.models
        )
        return scan.placed(
            segment(self.models, scan.images, (between, rows, columns), self.device, probabilities=probabilities)
        )


def load_predictor(runs: Sequence[Path], weights: str, device: str, networks: Sequence[str]) -> Predictor:
    """Raises InputError as `predict` does for runs that are not trained or do not belong together."""
    place = pick_device(device)
    return Predictor(load_models(runs, weights, place, networks), place)
