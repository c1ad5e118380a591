"""A run as a MONAI bundle, which calls our own preparation: MONAI's transforms give other masks."""

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .. import __version__
from ..inference.models import Model
from ..networks import is_own
from .pack import packed


def write_bundle(model: Model, folder: Path) -> None:
    """Write configs/metadata.json, configs/inference.json and models/model.zip.

    `python -m monai.bundle run --config_file OUT/configs/inference.json` segments `images` and writes `masks`, which
    are options of that command. It needs scribbleseg beside MONAI.
    """
    plan = model.plan
    for part in ("configs", "models"):
        (folder / part).mkdir()
    (folder / "models" / "model.zip").write_bytes(packed(model.run))
    images = {
        "type": "image",
        "format": "magnitude",
        "modality": ", ".join(plan.channels),
        "num_channels": len(plan.channels),
        "spatial_shape": list(plan.patch),
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": plan.preparation == "patches",
        "channel_def": {str(index): name for index, name in enumerate(plan.channels)},
    }
    scores = images | {
        "format": "segmentation",
        "num_channels": len(plan.classes),
        "channel_def": {str(index): name for index, name in enumerate(plan.classes)},
    }
    metadata = {
        "version": "1.0.0",
        "changelog": {"1.0.0": f"exported by scribbleseg {__version__}"},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {"scribbleseg": __version__},
        "task": f"Segmentation of {', '.join(plan.classes[1:])}",
        "description": f"{plan.method}, trained from scribbles. README.md is its model card.",
        "authors": "see README.md",
        "copyright": "see README.md",
        "intended_use": "Research. Not a medical device.",
        "network_data_format": {"inputs": {"image": images}, "outputs": {"pred": scores}},
    }
    inference = {
        "imports": ["$from pathlib import Path", "$import scribbleseg"],
        "bundle_root": "$Path.cwd()",
        "model": "$Path(@bundle_root) / 'models' / 'model.zip'",
        "images": "$Path(@bundle_root) / 'images'",
        "masks": "$Path(@bundle_root) / 'masks'",
        "networks": [] if is_own(plan.network) else [plan.network],
        "run": ["$scribbleseg.predict(@model, @images, @masks, networks=tuple(@networks))"],
    }
    for name, content in (("metadata", metadata), ("inference", inference)):
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
