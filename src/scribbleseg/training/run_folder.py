"""What a run says of itself: its environment, log.jsonl, pictures, TensorBoard."""

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..config import Train
from ..core import distributed
from ..core.atomic import atomic_file
from ..core.device import device_name
from ..core.errors import InputError
from ..core.labels import UNLABELED


def environment(device: torch.device, dtype: torch.dtype) -> dict:
    """Versions, commit and machine: what a reader needs beside a number."""
    return {
        "scribbleseg": __version__,
        "commit": _commit() or os.environ.get("SCRIBBLESEG_COMMIT") or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device_name(device),
        "precision": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "processes": distributed.processes(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _commit() -> str | None:
    """What git says of the repository that this file is tracked in; a repository round a virtual environment is another project's."""
    if shutil.which("git") is None:
        return None
    file = Path(__file__)
    tracked, described = (
        subprocess.run(["git", "-C", str(file.parent), *words], capture_output=True, text=True)
        for words in (("ls-files", "--error-unmatch", file.name), ("describe", "--always", "--dirty"))
    )
    return described.stdout.strip() if tracked.returncode == 0 else None


def write_environment(run: Path, device: torch.device, dtype: torch.dtype, step: str) -> None:
    with atomic_file(run / "environment.json") as partial:
        partial.write_text(json.dumps({**environment(device, dtype), "step": step}, indent=1) + "\n", encoding="utf-8")


def add_environment(run: Path, device: torch.device, dtype: torch.dtype, step: str) -> None:
    """Note in environment.json what is no longer as it was, when a run is carried on: a list `continued`, a dict per change."""
    path = run / "environment.json"
    if not path.is_file():
        write_environment(run, device, dtype, step)
        return
    stored = json.loads(path.read_text(encoding="utf-8"))
    last = {key: value for part in (stored, *stored.get("continued", [])) for key, value in part.items()}
    changed = {
        key: value for key, value in {**environment(device, dtype), "step": step}.items() if last.get(key) != value
    }
    if changed:
        stored["continued"] = [*stored.get("continued", []), changed]
        with atomic_file(path) as partial:
            partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def cut_log(run: Path, iteration: int) -> None:
    """Take what came after `iteration` out of log.jsonl, and a line that was cut off."""
    log = run / "log.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["iteration"] <= iteration]
    with atomic_file(log) as partial:
        partial.write_text("".join(kept), encoding="utf-8")


def write_pictures(run: Path, iteration: int, maps: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """pictures/ITERATION.npz; returns the arrays."""
    arrays = {name: _compact(value) for name, value in maps.items()}
    with atomic_file(run / "pictures" / f"{iteration:06d}.npz") as partial:
        np.savez_compressed(partial, **arrays)
    return arrays


def open_board(config: Train):
    """Writes log entries as TensorBoard scalars and pictures as images; None unless asked for."""
    if not config.tensorboard:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs the tensorboard package. Run: pip install tensorboard") from error
    writer = SummaryWriter(str(Path(config.run) / "tensorboard"))

    def write(entry, pictures):
        for name, stack in pictures.items():
            grey = np.where(stack == UNLABELED, 0, stack).astype(np.float32)
            writer.add_images(f"pictures/{name}", grey[:, None] / max(float(grey.max()), 1e-6), entry["iteration"])
        for group in ("losses", "monitor", "val_dice"):
            for name, value in entry.get(group, {}).items():
                writer.add_scalar(f"{group}/{name}", value, entry["iteration"])
        for name in ("lr", "loss", "val_mean_dice", "seconds_per_iteration"):
            if name in entry:
                writer.add_scalar(name, entry[name], entry["iteration"])
        writer.flush()

    return write


def _compact(value: Tensor) -> np.ndarray:
    value = value.cpu()
    if value.is_floating_point():
        return value.half().numpy()
    return value.numpy() if value.dtype == torch.bool else value.to(torch.uint8).numpy()
