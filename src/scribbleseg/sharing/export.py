"""The verb `export`: a run for programs other than scribbleseg."""

from pathlib import Path

import torch

from ..config import Export
from ..core.atomic import atomic_folder
from ..core.console import say
from ..inference.models import load_models
from ..reporting.card import card
from ..reporting.collect import open_run
from .bundle import write_bundle
from .onnx_model import write_onnx

USE = {
    "onnx": (
        "python predict.py IMAGE MASK",
        "In this folder; IMAGE: a NIfTI file, or one for each channel. `python predict.py --help` says what it needs.",
    ),
    "monai": (
        "python -m monai.bundle run --config_file configs/inference.json --images IMAGES --masks MASKS",
        "In this folder; IMAGES: a folder of NIfTI files. It needs MONAI and scribbleseg.",
    ),
}


def export(config: Export) -> Path:
    """Write a folder with the model in the format that was asked for, and the model card as README.md; returns it.

    Raises InputError for a run that is not trained, for one that the format cannot hold, and for a folder that is not
    empty. Nothing is written then.
    """
    run = open_run(config.run)
    say(f"{config.run}: reading the network")
    named = () if config.network is None else (config.network,)
    (model,) = load_models((config.run,), "last", torch.device("cpu"), named)
    say(f"{config.run}: writing its {config.format} files")
    with atomic_folder(Path(config.output)) as partial:
        {"onnx": write_onnx, "monai": write_bundle}[config.format](model, partial)
        text = card(run, USE[config.format])
        (partial / "README.md").write_text(text, encoding="utf-8", errors="backslashreplace")
    return Path(config.output)
