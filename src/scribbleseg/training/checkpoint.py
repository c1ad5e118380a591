"""RUN/resume.pt, from which a run is carried on, and RUN/*.safetensors, the network's weights."""

import io
import json
import zipfile
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
        with zipfile.ZipFile(path) as file:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in file.infolist()):
                raise ValueError("it is compressed, and may need any amount of memory")
            if damaged := file.testzip():
                raise ValueError(f"the checksum of {damaged} is wrong")
        stored = torch.load(path, map_location="cpu", weights_only=True)
        before = {"unlogged": (torch.zeros(()), 0, 0.0)}  # earlier checkpoints were made at lines of the log only
        stored = before | {name: stored[name] for name in ("iteration", "best", "method", "optimizer", "rng")} | stored
        kinds = {"iteration": int, "best": float, "method": dict, "optimizer": dict, "rng": torch.Tensor}
        for name, kind in kinds.items():
            if not isinstance(stored[name], kind) or isinstance(stored[name], bool):
                raise TypeError(f"{name} is a {type(stored[name]).__name__}")
        if stored["iteration"] < 0:
            raise ValueError(f"iteration {stored['iteration']}")
        return stored
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
    content = tensor_file({key: value.contiguous() for key, value in network.state_dict().items()}, notes)
    with atomic_file(run / f"{name}.safetensors") as partial:
        partial.write_bytes(content)


def tensor_file(tensors: dict[str, torch.Tensor], notes: dict[str, str]) -> bytes:
    """The content of a safetensors file; equal tensors and notes give equal bytes."""
    content = save(tensors, notes)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end]) | {"__metadata__": notes}  # safetensors writes the notes in any order
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(end - 8)
    return content[:8] + text + content[end:]


@contextmanager
def open_weights(path: Path) -> Iterator[safe_open]:
    """The file of `write_weights`, to take tensors and notes from. Raises InputError when it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file ({error}). Copy the run folder again.") from error


def weights_iteration(path: Path, total: int) -> int:
    """The iteration that the weights are of; `total` where they do not say it. Raises InputError for no number."""
    with open_weights(path) as file:
        text = (file.metadata() or {}).get("iteration", str(total))
    if not (text.isascii() and text.isdecimal()) or len(text) > 12:
        raise InputError(f"{path}: is of iteration {text!r}; expected a number. Copy the run folder again.")
    return int(text)


def load_weights(network: nn.Module, path: Path, name: str, classes: int, without: str | None = None) -> None:
    """Put the tensors of a file of `write_weights` into the network `name`, built for so many classes.

    Tensors of the part `without` are left out.

    Raises InputError when the file cannot be read or has tensors of another architecture or that
    are not finite.
    """
    with open_weights(path) as file:
        stored = {key: file.get_tensor(key) for key in file.keys() if key.split(".")[0] != without}
    wanted = network.state_dict()
    odd = list(stored.keys() ^ wanted.keys())
    odd = odd or [key for key in wanted if wanted[key].shape != stored[key].shape]
    if odd:
        raise InputError(
            f"{path}: weights of another architecture than '{name}' with {classes} classes (differs at {min(odd)}). "
            "Do config.json and weights belong to one run?"
        )
    if bad := [key for key, value in stored.items() if not torch.isfinite(value).all()]:
        raise InputError(
            f"{path}: the weights are NaN or infinite ({bad[0]}). Copy the run folder again, or train a new run."
        )
    network.load_state_dict(stored)
