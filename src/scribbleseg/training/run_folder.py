"""The folder of a run: config.json, environment.json, log.jsonl, last and best weights, resume.pt, pictures."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

import numpy as np
import torch
from msgspec import Struct
from torch import Tensor

from ..core.atomic import atomic_file, sweep
from ..core.console import say
from ..core.errors import InputError
from ..core.json_file import convert, read_json, read_lines
from ..core.lock import NO_LOCKS, lock
from .board import BOARDS, Board, open_boards
from .checkpoint import weights_iteration, write_checkpoint, write_weights
from .state import State

OWN = (
    "config.json",
    "environment.json",
    "log.jsonl",
    "last.safetensors",
    "best.safetensors",
    "resume.pt",
    "pictures",
    ".lock",
    *BOARDS,
)  # what a training writes into its folder


class RunFolder:
    """Writes what a training leaves. Of several processes only the first one `writes`; the others do nothing here."""

    def __init__(self, path: Path, network: str = "", wanted: Sequence[str] = (), writes: bool = True):
        self.path, self.network, self.wanted, self.writes = Path(path), network, wanted, writes
        self.made = not self.path.exists()
        self.fresh = not (self.path / "config.json").exists()  # no run was begun here before
        self.boards: list[Board] = []
        self.log_file: TextIO | None = None
        self.lock_file: BinaryIO | None = None

    def check_links(self) -> None:
        """Raises InputError for a link among the files that are written in place, which may lead out of the folder."""
        for name in ("log.jsonl", "pictures", *BOARDS, "predictions", ".lock"):
            if (self.path / name).is_symlink():
                raise InputError(
                    f"{self.path / name}: is a link, and what is written there would lie elsewhere. Put the file or "
                    "folder itself there."
                )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the folder, RUN/.lock, so that no other process trains there.

        Raises InputError if another process holds it.
        """
        if not self.writes:
            yield
            return
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.lock_file = lock(self.path / ".lock")
            if self.lock_file is None:
                raise InputError(
                    f"{self.path}: another process is training in this folder. Wait until it ends, or choose another "
                    "folder."
                )
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise InputError(
                    f"{self.path}: cannot be written ({error.strerror}). Choose another place, or change its "
                    "permissions."
                ) from error
            say(f"{self.path}: this file system has no locks. Start no other training in this folder meanwhile.")
        try:
            yield
        finally:
            if self.lock_file is not None:
                self.lock_file.close()
                self.lock_file = None

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the lock while a new run prepares and trains. If it fails before it leaves anything in the folder, the
        folder is removed again."""
        with self.locked():
            try:
                yield
            except BaseException:
                with suppress(OSError):
                    if self.made and {path.name for path in self.path.iterdir()} <= {".lock"}:
                        (self.path / ".lock").unlink(missing_ok=True)
                        self.path.rmdir()
                raise

    def check_new(self, iterations: int) -> None:
        """Raises InputError when the folder of a new run holds anything, or cannot be made."""
        path = self.path
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file. Name a folder for the run.")
        held = [file.name for file in path.iterdir()] if path.exists() else []
        if any(name != ".lock" and not name.startswith(".partial-") for name in held):
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
        self._sweep()
        self._write_environment(environment)
        if (self.path / "log.jsonl").exists():  # a run that was cut off before its first checkpoint begins anew
            self._cut_log(0)
        self._open_log()
        self.save(state)

    def carry_on(self, state: State, environment: dict) -> None:
        """Drop log lines that are newer than the checkpoint, and note in environment.json what has changed."""
        if not self.writes:
            return
        self._sweep()
        self._cut_log(state.iteration)
        self.add_environment(environment)
        self._open_log()
        if not (self.path / "last.safetensors").is_file():  # the checkpoint has them
            self.save_weights("last", state)

    def _sweep(self) -> None:
        """Delete partial files of killed trainings. The lock says that no other process writes them now."""
        for folder, names in ((self.path, OWN), (self.path / "pictures", ("*",))):
            for name in names:
                sweep(folder, name, seconds=0)

    def _open_log(self) -> None:
        self.boards = open_boards(self.wanted, self.path)
        self.log_file = open(self.path / "log.jsonl", "a", encoding="utf-8")

    def close(self) -> None:
        while self.boards:
            self.boards.pop().close()
        if self.log_file is not None:
            self.log_file.close()

    def save(self, state: State) -> None:
        """Write last.safetensors and resume.pt, each atomically, after the log lines that they count on.

        Raises InputError if a weight is not finite.
        """
        if self.log_file is None:
            return
        if not all(bool(value.isfinite().all()) for value in state.evaluated.state_dict().values()):
            raise InputError(
                f"{self.path}: the weights became NaN or infinite by iteration {state.iteration}; the checkpoint "
                "before is kept. Lower --lr, or try --precision float32."
            )
        os.fsync(self.log_file.fileno())
        self.save_weights("last", state)
        write_checkpoint(self.path, state.stored())

    def save_weights(self, name: str, state: State) -> None:
        write_weights(self.path, name, state.evaluated, {"network": self.network, "iteration": str(state.iteration)})

    def log(self, entry: dict, pictures: dict[str, Tensor]) -> None:
        """Append a line to log.jsonl, and write pictures/ITERATION.npz if there are any; the boards get both."""
        if self.log_file is None:
            return
        self.log_file.write(json.dumps(entry) + "\n")
        self.log_file.flush()
        arrays = {name: _compact(value) for name, value in pictures.items()}
        if arrays:
            with atomic_file(self.path / "pictures" / f"{entry['iteration']:06d}.npz") as partial:
                np.savez_compressed(partial, allow_pickle=False, **arrays)
        for board in self.boards:
            board.write(entry, arrays)

    @contextmanager
    def removed_if_nothing_was_trained(self, state: State) -> Iterator[None]:
        """If a new run fails in its first step, its files are removed; `claimed` removes the folder."""
        try:
            yield
        except Exception:  # whatever it is, it is raised again
            self.close()
            if self.writes and self.fresh and state.iteration == 0:
                with suppress(OSError):
                    for name in OWN:
                        path = self.path / name
                        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            raise
        finally:
            self.close()

    def check_data(self, prints: dict[str, str]) -> None:
        """Raises InputError if the cases that the run learns from are not those that it began with."""
        path = self.path / "environment.json"
        began = read_json(path, dict).get("data") if path.is_file() else None
        if self.writes and began is None:
            say(f"{path}: does not say which data the run began with; it is carried on with those of its data set now")
        if self.writes and isinstance(began, dict) and began.get("learned") != prints["learned"]:
            raise InputError(
                f"{self.path}: images or labels that it learns from have changed since it began, or its data set is "
                "another one now. Put the files back as they were, or train a new run in another folder."
            )

    def _write_environment(self, stored: dict) -> None:
        with atomic_file(self.path / "environment.json") as partial:
            partial.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")

    def add_environment(self, now: dict) -> None:
        """Add to the list `continued` a dict of what differs from before."""
        path = self.path / "environment.json"
        if not path.is_file():
            self._write_environment(now)
            return
        stored = read_json(path, dict)
        convert(stored.get("continued", []), list[dict], path)
        last = {key: value for part in (stored, *stored.get("continued", [])) for key, value in part.items()}
        if changed := {key: value for key, value in now.items() if last.get(key) != value}:
            self._write_environment(stored | {"continued": [*stored.get("continued", []), changed]})

    def _cut_log(self, iteration: int) -> None:
        log = self.path / "log.jsonl"
        kept = [line for line in read_lines(log) if line.endswith("\n") and _iteration(line, log) <= iteration]
        with atomic_file(log) as partial:
            partial.write_text("".join(kept), encoding="utf-8")


def _iteration(line: str, log: Path) -> int:
    try:
        return convert(json.loads(line), Logged, log).iteration
    except (ValueError, RecursionError) as error:
        raise InputError(f"{log}: not the log of a run ({error}). If it was edited, remove the broken line.") from error


class Logged(Struct):
    """What carrying on reads of a line of log.jsonl."""

    iteration: int


def _compact(value: Tensor) -> np.ndarray:
    value = value.cpu()
    if value.is_floating_point():
        return value.half().numpy()
    return value.numpy() if value.dtype == torch.bool else value.to(torch.uint8).numpy()
