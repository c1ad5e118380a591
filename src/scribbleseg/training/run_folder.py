"""The folder of a run: config.json, environment.json, log.jsonl, last and best weights, resume.pt, pictures."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from torch import Tensor

from ..core.atomic import atomic_file
from ..core.errors import InputError
from .board import Board
from .checkpoint import weights_iteration, write_checkpoint, write_weights
from .state import State


class RunFolder:
    """Writes what a training leaves. Of several processes only the first one `writes`; the others do nothing here."""

    def __init__(self, path: Path, network: str = "", tensorboard: bool = False, writes: bool = True):
        self.path, self.network, self.tensorboard, self.writes = Path(path), network, tensorboard, writes
        self.made = not self.path.exists()
        self.fresh = not (self.path / "config.json").exists()  # no run was begun here before
        self.board: Board | None = None
        self.log_file: TextIO | None = None

    def check_new(self, iterations: int) -> None:
        """Raises InputError when the folder of a new run holds anything, or cannot be made."""
        path = self.path
        if path.exists() and (
            not path.is_dir() or any(not file.name.startswith(".partial-") for file in path.iterdir())
        ):
            weights = path / "last.safetensors"
            if weights.is_file() and weights_iteration(weights, iterations) == 0:
                raise InputError(
                    f"{path}: exists already, with a training that stands at iteration 0. "
                    "Remove it, unless it is running, or choose another folder."
                )
            begun = (path / "config.json").is_file()
            carry_on = f", or carry on with: scribbleseg train {path} --resume" if begun else "."
            raise InputError(f"{path}: exists already and is not empty. Choose another folder{carry_on}")
        parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
            raise InputError(
                f"{path}: cannot be made, as {parent} is no folder that can be written to. "
                "Choose another place, or change its permissions."
            )

    def begin(self, state: State, environment: dict) -> None:
        """Fill a folder that has its config.json, with a checkpoint of iteration 0: the run can be resumed from here.

        environment: the content of environment.json.
        """
        if not self.writes:
            return
        self._write_environment(environment)
        if (self.path / "log.jsonl").exists():  # a run that was cut off before its first checkpoint begins anew
            self._cut_log(0)
        self._open_log()
        self.save(state)

    def carry_on(self, state: State, environment: dict) -> None:
        """Drop log lines that are newer than the checkpoint, and note in environment.json what has changed."""
        if not self.writes:
            return
        self._cut_log(state.iteration)
        self.add_environment(environment)
        self._open_log()

    def _open_log(self) -> None:
        self.board = Board(self.path / "tensorboard") if self.tensorboard else None
        self.log_file = open(self.path / "log.jsonl", "a", encoding="utf-8")

    def close(self) -> None:
        if self.log_file is not None:
            self.log_file.close()

    def save(self, state: State) -> None:
        """Write last.safetensors and resume.pt, each atomically, after the log lines that they count on."""
        if self.log_file is None:
            return
        os.fsync(self.log_file.fileno())
        self.save_weights("last", state)
        write_checkpoint(self.path, state.stored())

    def save_weights(self, name: str, state: State) -> None:
        write_weights(self.path, name, state.evaluated, {"network": self.network, "iteration": str(state.iteration)})

    def log(self, entry: dict, pictures: dict[str, Tensor]) -> None:
        """Append a line to log.jsonl, and write pictures/ITERATION.npz if there are any; TensorBoard gets both."""
        if self.log_file is None:
            return
        self.log_file.write(json.dumps(entry) + "\n")
        self.log_file.flush()
        arrays = {name: _compact(value) for name, value in pictures.items()}
        if arrays:
            with atomic_file(self.path / "pictures" / f"{entry['iteration']:06d}.npz") as partial:
                np.savez_compressed(partial, allow_pickle=False, **arrays)
        if self.board is not None:
            self.board.write(entry, arrays)

    @contextmanager
    def removed_if_nothing_was_trained(self, state: State) -> Iterator[None]:
        """If a new run fails in its first step, its folder is emptied, and removed if the run made it."""
        try:
            yield
        except Exception:  # whatever it is, it is raised again
            self.close()
            if self.writes and self.fresh and state.iteration == 0:
                with suppress(OSError):
                    for path in self.path.iterdir():
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                    if self.made:
                        self.path.rmdir()
            raise
        finally:
            self.close()

    def _write_environment(self, stored: dict) -> None:
        with atomic_file(self.path / "environment.json") as partial:
            partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")

    def add_environment(self, now: dict) -> None:
        """Add to the list `continued` a dict of what differs from before."""
        path = self.path / "environment.json"
        if not path.is_file():
            self._write_environment(now)
            return
        stored = json.loads(path.read_text(encoding="utf-8"))
        last = {key: value for part in (stored, *stored.get("continued", [])) for key, value in part.items()}
        if changed := {key: value for key, value in now.items() if last.get(key) != value}:
            self._write_environment(stored | {"continued": [*stored.get("continued", []), changed]})

    def _cut_log(self, iteration: int) -> None:
        log = self.path / "log.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.is_file() else []
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["iteration"] <= iteration]
        with atomic_file(log) as partial:
            partial.write_text("".join(kept), encoding="utf-8")


def _compact(value: Tensor) -> np.ndarray:
    value = value.cpu()
    if value.is_floating_point():
        return value.half().numpy()
    return value.numpy() if value.dtype == torch.bool else value.to(torch.uint8).numpy()
