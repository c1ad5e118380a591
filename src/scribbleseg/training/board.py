"""Curves of a run beside log.jsonl, for TensorBoard, MLflow and Weights & Biases; nothing leaves this computer."""

import os
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..core.errors import InputError
from ..core.labels import UNLABELED


class Board(Protocol):
    """What is told of a run: made with the run folder, it keeps its files in a folder of its own there."""

    def write(self, entry: dict, pictures: dict[str, np.ndarray]) -> None:
        """An entry of log.jsonl, and pictures [N, H, W] of its iteration."""

    def close(self) -> None:
        """The run has ended, or was stopped."""


class TensorBoard:
    """RUN/tensorboard: scalars and pictures."""

    def __init__(self, run: Path):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(run / "tensorboard"))

    def write(self, entry: dict, pictures: dict[str, np.ndarray]) -> None:
        at = entry["iteration"]
        for name, stack in pictures.items():
            grey = np.where(stack == UNLABELED, 0, stack).astype(np.float32)
            self.writer.add_images(f"pictures/{name}", grey[:, None] / max(float(grey.max()), 1e-6), at)
        for name, value in scalars(entry).items():
            self.writer.add_scalar(name, value, at)
        self.writer.flush()

    def close(self) -> None:
        self.writer.close()


class MLflow:
    """RUN/mlflow/mlflow.db, a database of SQLite: scalars. Each training or continued training is a run of MLflow."""

    def __init__(self, run: Path):
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        folder = (run / "mlflow").resolve()
        folder.mkdir(exist_ok=True)
        self.client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
        known = self.client.get_experiment_by_name("scribbleseg")
        group = known.experiment_id if known else self.client.create_experiment("scribbleseg", folder.as_uri())
        self.id = self.client.create_run(group, run_name=run.name).info.run_id

    def write(self, entry: dict, pictures: dict[str, np.ndarray]) -> None:
        from mlflow.entities import Metric

        now = time.time_ns() // 10**6
        named = {
            re.sub(r"[^\w\-. /]", "_", name): value for name, value in scalars(entry).items()
        }  # MLflow allows these
        values = [Metric(name, value, now, entry["iteration"]) for name, value in named.items()]
        self.client.log_batch(self.id, values)

    def close(self) -> None:
        self.client.set_terminated(self.id)


class WandB:
    """RUN/wandb, offline: scalars. `wandb sync` sends them."""

    def __init__(self, run: Path):
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        quiet = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        self.run = wandb.init(project="scribbleseg", name=run.name, dir=run, mode="offline", settings=quiet)

    def write(self, entry: dict, pictures: dict[str, np.ndarray]) -> None:
        self.run.log(scalars(entry), step=entry["iteration"])

    def close(self) -> None:
        self.run.finish()


BOARDS: dict[str, Callable[[Path], Board]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def open_boards(names: Sequence[str], run: Path) -> list[Board]:
    """The boards of these names. Raises InputError where the package of one is missing."""
    boards = []
    for name in names:
        try:
            boards.append(BOARDS[name](run))
        except ImportError as error:
            raise InputError(
                f"--{name} needs the {name} package ({error}). Run: pip install 'scribbleseg[{name}]'"
            ) from error
    return boards


def scalars(entry: dict) -> dict[str, float]:
    """The numbers of an entry of log.jsonl that make curves: losses/NAME, monitor/NAME, val_dice/CLASS, lr, loss …"""
    found = {
        f"{group}/{name}": value
        for group in ("losses", "monitor", "val_dice")
        for name, value in entry.get(group, {}).items()
    }
    single = ("lr", "loss", "val_mean_dice", "seconds_per_iteration")
    return found | {name: entry[name] for name in single if name in entry}
