"""A run as an ONNX file: resizing, network, softmax and resizing back, with the rest as JSON and a script beside it."""

import dataclasses
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import __version__
from ..core.console import say
from ..core.errors import InputError
from ..data.intensity import Intensity
from ..inference.models import Model
from ..networks.locator import SIDE, Locator, spans
from . import standalone

if TYPE_CHECKING:
    import onnx

OPSET = 18
NEAR = 1e-4  # by how much values of a file may differ from PyTorch's


class Whole(nn.Module):
    """Slices [N, C, H, W], normalised, of any size → probabilities [N, K, H, W], as `predict` has them in float32."""

    def __init__(self, network: nn.Module, size: int):
        super().__init__()
        self.network, self.size = network, size

    def forward(self, image: Tensor) -> Tensor:
        probs = self.network(shrunk(image, self.size)).softmax(1)
        return F.interpolate(probs, image.shape[2:], mode="bilinear", align_corners=False)


def shrunk(image: Tensor, size: int) -> Tensor:
    """Slices [N, C, H, W] → [N, C, size, size], as PyTorch's bilinear interpolation with antialiasing has them.

    ONNX has an operator for it, Resize with `antialias`, but OpenVINO 2026.4 computes that without antialiasing.
    """
    rows, columns = (_shrinking(image.shape[axis], size) for axis in (2, 3))
    return rows @ (image @ columns.T)  # in PyTorch's order: most values are the same to the bit


def _shrinking(length: int, size: int) -> Tensor:
    """The matrix [size, length] of that interpolation along one axis."""
    place = torch.arange(length) + 0.5
    scale = torch.ones_like(place).sum() / size  # a tensor, so that the length stays free in the export
    middle = (torch.arange(size) + 0.5) * scale
    weight = (1 - (middle[:, None] - place).abs() * (1 / scale.clamp(min=1))).clamp(min=0)
    return weight / weight.sum(1, keepdim=True)


class Place(nn.Module):
    """All slices [N, C, H, W] of a scan, normalised → first and last row and column of its box, shares of the sides."""

    def __init__(self, locator: Locator, size: int):
        super().__init__()
        self.locator, self.size = locator, size

    def forward(self, image: Tensor) -> Tensor:
        return spans(self.locator(shrunk(image, SIDE)).argmax(1).sum(0))


def write_onnx(model: Model, folder: Path) -> None:
    """Write model.onnx, model.json and predict.py into a folder, and locator.onnx if slices are cut to rings.

    N, H and W of the input `image` are free; values are normalised as model.json says. Raises InputError for runs on
    patches and for volumes, without the packages of the extra `export`, and for a network that ONNX does not express or
    that gives other probabilities there.
    """
    plan = model.plan
    if plan.preparation != "slices":
        what = "volumes" if plan.dims == 3 else "patches"
        raise InputError(
            f"{model.run}: was trained on {what}, which predict reads in windows; ONNX export has whole slices only. "
            "Use `scribbleseg pack`, or --format monai."
        )
    _save(Whole(model.network, plan.size).eval(), len(plan.channels), folder / "model.onnx", model)
    if model.locator:
        _save(Place(model.locator, plan.size).eval(), len(plan.channels), folder / "locator.onnx", model)
    about = {
        "made_with": f"scribbleseg {__version__}",
        "classes": plan.classes,
        "channels": plan.channels,
        "plane": plan.fitted.plane,
        "crop": plan.fitted.crop,
        "locate": plan.fitted.locate,
        "intensity": [dataclasses.asdict(how) for how in plan.fitted.intensity or (Intensity(),) * len(plan.channels)],
    }
    (folder / "model.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(standalone.__file__, folder / "predict.py")


def _save(whole: Whole | Place, channels: int, path: Path, model: Model) -> None:
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  # PyTorch's exporter needs it
    except ImportError as error:
        raise InputError(f"--format onnx needs {error.name}. Run: pip install 'scribbleseg[export]'") from error
    size, free = whole.size, torch.export.Dim
    say(f"{path.name}: translating the network to ONNX")
    try:
        with _quiet():
            made = torch.onnx.export(
                whole,
                (torch.rand(2, channels, size + 26, size + 16),),
                dynamo=True,
                input_names=["image"],
                output_names=["box" if isinstance(whole, Place) else "probabilities"],
                dynamic_shapes={"image": {0: free("N"), 2: free("H"), 3: free("W")}},
                opset_version=OPSET,
                verbose=False,
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise InputError(
            f"{model.run}: ONNX cannot express the network {model.plan.network} ({str(error).splitlines()[0]}). "
            "Use `scribbleseg pack`, or --format monai."
        ) from error
    assert made is not None
    proto = made.model_proto
    _forget_places(proto)
    onnx.save(proto, path)
    say(f"{path.name}: comparing its values with PyTorch's")
    image = torch.rand(3, channels, size + 5, size - 3)
    with torch.no_grad():
        wanted = whole(image)
    found = onnxruntime.InferenceSession(path).run(None, {"image": image.numpy()})[0]
    if not (apart := float((wanted - torch.from_numpy(found)).abs().max())) <= NEAR:
        raise InputError(
            f"{model.run}: {path.name} gives values that differ by {apart:.2g} from PyTorch's, so it is not "
            "kept. Use `scribbleseg pack`, or --format monai."
        )


def _forget_places(proto: "onnx.ModelProto") -> None:
    """Remove what the exporter notes about where its code lies on this machine."""
    for graph in (proto.graph, *proto.functions):
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
        for value in (*graph.value_info, *(proto.graph.input if graph is proto.graph else ())):
            del value.metadata_props[:]
    del proto.graph.metadata_props[:], proto.metadata_props[:]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, which are about packages and versions that do not matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
