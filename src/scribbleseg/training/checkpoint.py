"""RUN/resume.pt, from which a run is carried on, and RUN/*.safetensors, the network's weights."""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..core.atomic import atomic_file
from ..core.errors import InputError


def read_checkpoint(run: Path) -> dict:
    """RUN/resume.pt, loaded without executing code. Raises InputError when there is none or it is not a checkpoint."""
    path = Path(run) / "resume.pt"
    if not path.is_file():
        raise InputError(f"{run}: has no checkpoint (resume.pt). Remove the folder and start again.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        before = {"unlogged": (torch.zeros(()), 0, 0.0)}  # earlier checkpoints were made at lines of the log only
        return before | {name: stored[name] for name in ("iteration", "best", "method", "optimizer", "rng")} | stored
    except Exception as error:  # torch lets pickle, zip and OS errors through
        raise InputError(
            f"{path}: not a checkpoint of scribbleseg ({type(error).__name__}). Remove the folder and start again."
        ) from error


def write_checkpoint(run: Path, stored: dict) -> None:
    content = io.BytesIO()
    torch.save(stored, content)  # in memory: torch's own writer reports a full disk as a RuntimeError
    with atomic_file(run / "resume.pt") as partial:
        partial.write_bytes(content.getbuffer())


def write_weights(run: Path, name: str, network: nn.Module, notes: dict[str, str]) -> None:
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    content = save(weights, notes)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end]) | {
        "__metadata__": notes
    }  # safetensors writes the notes in any order; equal runs are equal files
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(end - 8)
    with atomic_file(run / f"{name}.safetensors") as partial:
        partial.write_bytes(content[:8] + text + content[end:])


@contextmanager
def open_weights(path: Path) -> Iterator[safe_open]:
    """The file of `write_weights`, to take tensors and notes from. Raises InputError when it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file ({error}). Copy the run folder again.") from error


def weights_iteration(path: Path, total: int) -> int:
    """The iteration that the weights are of; `total` where they do not say it."""
    with open_weights(path) as file:
        return int((file.metadata() or {}).get("iteration", total))


def load_weights(network: nn.Module, path: Path, name: str, classes: int) -> None:
    """Put the tensors of a file of `write_weights` into the network `name`, built for so many classes.

    Raises InputError when the file cannot be read or has tensors of another architecture.
    """
    with open_weights(path) as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}
    wanted = network.state_dict()
    odd = list(stored.keys() ^ wanted.keys())
    odd = odd or [key for key in wanted if wanted[key].shape != stored[key].shape]
    if odd:
        raise InputError(
            f"{path}: weights of another architecture than '{name}' with {classes} classes (differs at {min(odd)}). "
            "Do config.json and weights belong to one run?"
        )
    network.load_state_dict(stored)
