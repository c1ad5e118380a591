"""The verb `pack`: one file with what prediction needs of a run, to be sent to somebody else."""

import dataclasses
import io
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from ..config import Pack, Train
from ..core.atomic import atomic_file
from ..core.console import say
from ..core.errors import InputError
from ..data.dataset import Fold
from ..inference.packed import CARD, CONFIG, FILES, WEIGHTS
from ..networks.locator import LOCATOR
from ..reporting.card import card
from ..reporting.collect import open_run
from ..training.checkpoint import open_weights, tensor_file
from ..training.plan import PACKED, Plan, plan_text

MADE = (1980, 1, 1, 0, 0, 0)  # of every file in the zip: equal runs give equal files


def pack(config: Pack) -> Path:
    """Write a zip file with settings, weights and card of a run; returns it.

    Weights of layers are rounded to half precision; biases, the statistics of norms and the network that finds where
    rings lie, which are small, stay as they are. The settings lose folders and case names. No image, label or score of
    a case is in the file. Raises InputError for a run that is not trained, for a name that does not end in .zip, and
    for a file that exists and is no packed model.
    """
    target = Path(config.output)
    if target.suffix != PACKED:
        raise InputError(f"{target}: expected a name that ends in {PACKED}, such as model{PACKED}.")
    _check_replaceable(target)
    content = packed(config.run)
    say(f"{target}: writing {len(content) / 2**20:.0f} MiB")
    with atomic_file(target) as partial:
        partial.write_bytes(content)
    return target


def packed(folder: Path) -> memoryview:
    """The content of the packed model of a run folder. Raises InputError for a run that is not trained."""
    run = open_run(folder)
    if not run.weights.is_file() or run.done == 0:
        raise InputError(f"{folder}: has no trained weights ({run.weights.name}). Train it first.")
    if not run.finished:
        say(f"{folder}: training is not finished, iteration {run.done} of {run.plan.recipe.iterations}")
    say(f"{folder}: packing {run.weights.stat().st_size / 2**20:.0f} MiB of weights")
    with open_weights(run.weights) as file:
        notes = dict(sorted((file.metadata() or {}).items()))  # safetensors reads them in any order
        weights = {key: file.get_tensor(key) for key in file.keys()}
    weights = {key: value if key.startswith(LOCATOR) else half(value) for key, value in weights.items()}
    contents = {
        CONFIG: plan_text(_without_folders(run.train), _without_cases(run.plan)).encode(),
        WEIGHTS: tensor_file(weights, notes),
        CARD: card(run).encode(errors="backslashreplace"),
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for name in FILES:
            entry = zipfile.ZipInfo(name, MADE)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, contents[name])
    return content.getbuffer()


def half(tensor: torch.Tensor) -> torch.Tensor:
    """A layer's weights in half precision; vectors, whole numbers and what half precision cannot hold unchanged."""
    if tensor.dim() < 2 or not tensor.is_floating_point():
        return tensor
    rounded = tensor.half()
    return rounded if rounded.isfinite().all() else tensor


def _without_folders(train: Train) -> Train:
    """The settings with the last part of every path alone."""
    paths: dict[str, Any] = {
        field.name: Path(value.resolve().name)
        for field in dataclasses.fields(train)
        if isinstance(value := getattr(train, field.name), Path)
    }
    return dataclasses.replace(train, **paths)


def _without_cases(plan: Plan) -> Plan:
    return dataclasses.replace(plan, fold=Fold(plan.fold.name, (), (), ()))


def _check_replaceable(path: Path) -> None:
    """Raises InputError for a file that is there and is no packed model."""
    if not path.exists():
        return
    with suppress(zipfile.BadZipFile, ValueError, NotImplementedError):
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if set(archive.namelist()) == set(FILES):
                    return
    raise InputError(f"{path}: exists already and is no packed model. Choose another name.")
