"""Compare an exported run with `predict`: masks of its script, and masks and time of ONNX Runtime and OpenVINO.

python benchmarks/studies/elsewhere.py RUN SCANS [SCANS ...] [--volumes 15] [--threads 1]

RUN is a run on whole slices, SCANS a folder of one-channel NIfTI files. `--volumes` of them are taken, of each folder
about as many, at equal distances. The first and the last of them also go through the MONAI bundle, where MONAI is
installed. All sides compute in float32, so a copy of the run is predicted with that precision.
Times are of the network with its resizing, for batches of 16 slices, as multiples of PyTorch's in float32: for each
volume the programs take turns, and the table has the median. OpenVINO is left out where it is not installed. Prints
Markdown.
"""

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import onnxruntime
import torch

from scribbleseg.config import Export, Predict
from scribbleseg.core.device import pick_precision, prepare_cpu
from scribbleseg.inference.models import load_models
from scribbleseg.inference.predict import predict
from scribbleseg.inference.scan import read_scan
from scribbleseg.sharing import standalone
from scribbleseg.sharing.export import export
from scribbleseg.sharing.onnx_model import Whole

sys.path.append(str(Path(__file__).parents[1]))

from common import markdown_table

SLICES = 16  # per call
Program = Callable[[np.ndarray], np.ndarray]  # slices [N, 1, H, W], normalised → probabilities [N, K, H, W]


def in_float32(run: Path, folder: Path) -> Path:
    """A copy of a run that predicts in float32."""
    copied = Path(
        shutil.copytree(run, folder / "run", ignore=shutil.ignore_patterns("predictions", "pictures", "resume.pt"))
    )
    stored = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    stored["train"]["precision"] = "float32"
    (copied / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    return copied


def pick(folders: list[Path], count: int) -> list[Path]:
    found = []
    for number, folder in enumerate(folders):
        files = sorted(folder.glob("*_0000.nii.gz"))
        own = len(range(number, count, len(folders)))
        found += [files[place] for place in np.linspace(0, len(files) - 1, own).round().astype(int)]
    return sorted(found, key=lambda path: path.name)  # as predict has them


def is_oblique(path: Path) -> bool:
    """Whether no axis of the volume lies along one of the patient's."""
    axes = np.abs(nibabel.load(path).affine[:3, :3])
    return bool((axes / np.linalg.norm(axes, axis=0)).max() < 0.999)


def programs(run: Path, exported: Path, threads: int) -> dict[str, Program]:
    """Name → program. PyTorch and OpenVINO come in float32, and in bfloat16 where the processor has it."""
    (model,) = load_models([run], "last", torch.device("cpu"))
    whole = Whole(model.network, model.plan.size).eval()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(exported / "model.onnx", options)

    def by_torch(dtype: torch.dtype, image: np.ndarray) -> np.ndarray:
        with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            return whole(torch.from_numpy(image)).float().numpy()

    found: dict[str, Program] = {
        "PyTorch, float32": lambda image: by_torch(torch.float32, image),
        "ONNX Runtime, float32": lambda image: session.run(None, {"image": image})[0],
    }
    if pick_precision("auto", torch.device("cpu")) == torch.bfloat16:
        found["PyTorch, bfloat16"] = lambda image: by_torch(torch.bfloat16, image)
    try:
        import openvino
    except ImportError:
        return found
    core = openvino.Core()
    can = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for name, hint in [("float32", "f32"), *([("bfloat16", "bf16")] if "BF16" in can else [])]:
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads}
        compiled = core.compile_model(exported / "model.onnx", "CPU", settings)
        found[f"OpenVINO, {name}"] = lambda image, compiled=compiled: compiled(image)[0]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("scans", type=Path, nargs="+")
    parser.add_argument("--volumes", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    prepare_cpu()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run, paths = in_float32(given.run, folder), pick(given.scans, given.volumes)
        exported = export(Export(run, folder / "exported"))
        (folder / "scans").mkdir()
        for path in paths:
            shutil.copyfile(path, folder / "scans" / path.name)
        masks = predict(Predict((run,), folder / "scans", folder / "masks", device="cpu"))
        print(scripts_masks(paths, masks, exported, folder / "mask.nii.gz"), end="\n\n", flush=True)
        print(bundles_masks(masks, run, folder), end="\n\n", flush=True)
        print(times(paths, run, programs(run, exported, given.threads)))


def scripts_masks(paths: list[Path], masks: list[Path], exported: Path, target: Path) -> str:
    """How many voxels of the script's masks differ from those of `predict`."""
    differ, voxels = [], 0
    for path, mask in zip(paths, masks, strict=True):
        assert mask.name == path.name.replace("_0000", "")
        standalone.predict([str(path)], str(target), exported)
        ours, theirs = (np.asarray(nibabel.load(file).dataobj) for file in (mask, target))
        target.unlink()  # the script replaces no file
        differ.append(int((ours != theirs).sum()))
        voxels += ours.size
    return (
        f"Masks of the script: {sum(differ)} of {voxels} voxels differ from `predict` in {len(paths)} volumes, "
        f"{sum(map(is_oblique, paths))} of them oblique."
    )


def bundles_masks(masks: list[Path], run: Path, folder: Path) -> str:
    """How many voxels of the masks of the MONAI bundle differ from those of `predict` with the packed run inside it."""
    if importlib.util.find_spec("monai") is None:
        return "MONAI is not installed."
    bundle, some = export(Export(run, folder / "bundle", "monai")), {masks[0], masks[-1]}
    scans, ours, theirs = (folder / f"{name} of the bundle" for name in ("scans", "ours", "theirs"))
    scans.mkdir()
    for mask in some:
        name = mask.name.replace(".nii.gz", "_0000.nii.gz")
        shutil.copyfile(folder / "scans" / name, scans / name)
    predict(Predict((bundle / "models" / "model.zip",), scans, ours, device="cpu"))
    words = ["--config_file", "configs/inference.json", "--images", str(scans), "--masks", str(theirs)]
    subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *words], cwd=bundle, check=True, stdout=subprocess.DEVNULL
    )
    read = {place: [np.asarray(nibabel.load(place / mask.name).dataobj) for mask in some] for place in (ours, theirs)}
    run_itself = [np.asarray(nibabel.load(mask).dataobj) for mask in some]
    voxels = sum(mask.size for mask in run_itself)
    apart, halved = (
        sum(int((one != other).sum()) for one, other in zip(read[theirs], others))
        for others in (read[ours], run_itself)
    )
    return (
        f"Masks of the MONAI bundle: {apart} of {voxels} voxels differ from `predict` with its packed model in "
        f"{len(some)} volumes, and {halved} from `predict` with the run, whose weights are not halved."
    )


def times(paths: list[Path], run: Path, known: dict[str, Program]) -> str:
    """A line per program: its time over PyTorch's, and the share of voxels that get the class that PyTorch gives."""
    models = load_models([run], "last", torch.device("cpu"))
    seconds: dict[str, list[float]] = {name: [] for name in known}
    same: dict[str, list[np.ndarray]] = {name: [] for name in known}
    for number, path in enumerate(paths):
        image = np.ascontiguousarray(read_scan([path], models).images[0].swapaxes(0, 1))
        parts = [image[start : start + SLICES] for start in range(0, len(image), SLICES)]
        labels = {}
        names = list(known)[number % len(known) :] + list(known)[: number % len(known)]
        for name in names:
            known[name](parts[0])  # the first call with a shape prepares it
            began = time.perf_counter()
            labels[name] = np.concatenate([known[name](part).argmax(1) for part in parts])
            seconds[name].append(time.perf_counter() - began)
        for name in known:
            same[name].append((labels[name] == labels["PyTorch, float32"]).ravel())
    base = np.array(seconds["PyTorch, float32"])
    rows = [
        (name, f"{np.median(np.array(seconds[name]) / base):.2f}", f"{100 * np.concatenate(same[name]).mean():.4f}")
        for name in known
    ]
    return markdown_table(["program", "time", "same class, %"], rows)


if __name__ == "__main__":
    main()
