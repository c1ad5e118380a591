"""TensorBoard: scalars of the log and pictures of a run."""

from pathlib import Path

import numpy as np

from ..core.errors import InputError
from ..core.labels import UNLABELED


class Board:
    """Writes log entries as scalars and pictures as images. Raises InputError without the tensorboard package."""

    def __init__(self, folder: Path):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise InputError("--tensorboard needs the tensorboard package. Run: pip install tensorboard") from error
        self.writer = SummaryWriter(str(folder))

    def write(self, entry: dict, pictures: dict[str, np.ndarray]) -> None:
        """An entry of log.jsonl, and pictures [N, H, W] of its iteration."""
        at = entry["iteration"]
        for name, stack in pictures.items():
            grey = np.where(stack == UNLABELED, 0, stack).astype(np.float32)
            self.writer.add_images(f"pictures/{name}", grey[:, None] / max(float(grey.max()), 1e-6), at)
        for group in ("losses", "monitor", "val_dice"):
            for name, value in entry.get(group, {}).items():
                self.writer.add_scalar(f"{group}/{name}", value, at)
        for name in ("lr", "loss", "val_mean_dice", "seconds_per_iteration"):
            if name in entry:
                self.writer.add_scalar(name, entry[name], at)
        self.writer.flush()
