"""Volume in, volume out: a prediction has its image's shape, affine and header. Several runs: the mean of their probabilities."""

import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Predict, Train
from ..core.device import pick_device, pick_precision, prepare_cpu
from ..core.errors import InputError
from ..core.parallel import ahead
from ..core.progress import Progress
from ..data.dataset import load_image, read_dataset
from ..data.preparation import resize_image
from ..data.volume import ITK, NIFTI, Grid, ending, write_volume
from ..networks import build_network
from ..training.checkpoint import open_weights, weights_iteration
from ..training.plan import Plan, read_plan
from .provenance import MADE_BY, check_replaceable, write_note, written

FLIPS = ((), (2,), (3,), (2, 3))
VOLUMES = NIFTI + ITK
IMAGES, LABELS = ("imagesTr", "imagesTs"), ("labelsTr", "labelsTr_dense", "labelsTs")  # folders of a data set


@dataclass(frozen=True)
class Model:
    """The network of a run, and how it wants its slices."""

    network: nn.Module
    size: int
    dtype: torch.dtype


@dataclass(frozen=True)
class Job:
    """One case to predict: its channels' files and the file to write."""

    images: tuple[Path, ...]
    output: Path


def predict(config: Predict) -> list[Path]:
    """Segment a file, a folder or a data set's held-out cases; returns the volumes written. A folder of them also gets made_by.json.

    Raises InputError for runs that do not belong together and for a file that would be replaced and is not what `predict` wrote, before
    anything is written, and for an input that cannot be read, before anything of that case is.
    """
    if not config.runs:
        lacking = "OUTPUT" if (Path(config.input) / "config.json").is_file() else "RUN"
        raise InputError(f"{config.input}, {config.output}: {lacking} is missing. Expected RUN [RUN ...] INPUT OUTPUT.")
    trains, plans = zip(*map(read_plan, config.runs))
    _check_same(config.runs, plans)
    if config.batch < 1:
        raise InputError(f"--batch {config.batch}: expected 1 or more slices.")
    device = pick_device(config.device)
    prepare_cpu()
    models, reached = [], []
    for run, train, plan in zip(config.runs, trains, plans):
        network = load_network(run, plan, config.weights).to(device, memory_format=torch.channels_last)
        models.append(Model(network, plan.size, pick_precision(train.precision, device)))
        reached.append(weights_iteration(Path(run) / f"{config.weights}.safetensors", plan.recipe.iterations))
        if reached[-1] == 0:
            at = f"iteration 0 of {plan.recipe.iterations}"
            raise InputError(
                f"{run}: not trained yet, {at}: the weights are random. Carry on first: scribbleseg train {run} --resume"
            )
        if config.weights == "last" and reached[-1] < plan.recipe.iterations:
            print(
                f"{run}: training is not finished, iteration {reached[-1]} of {plan.recipe.iterations}", file=sys.stderr
            )
    jobs = list_jobs(Path(config.input), Path(config.output), plans)
    images = {path.resolve() for job in jobs for path in job.images}
    if known := images & _trained_on(trains, plans):
        count = f"{len(known)} of {len(images)} image{'s' * (len(images) != 1)}"
        print(f"trained on: {count} ({min(known)}); scores on them say nothing about new ones", file=sys.stderr)
    outputs = {job.output: output_files(job, config, plans[0].classes) for job in jobs}
    paths = [path for files in outputs.values() for path in files]
    for path in paths:
        if path.resolve() in images:
            raise InputError(f"{path}: the prediction would replace an image. Choose another OUTPUT.")
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise InputError(
            f"{twice[0]}: a case's mask and another's map would have this name. Rename one of the cases, or leave out --uncertainty and --probabilities."
        )
    folder = jobs[0].output.parent.resolve()
    if folder.name in IMAGES + LABELS and (folder.parent / "dataset.json").is_file():
        raise InputError(
            f"{folder}: holds the images or labels of the data set {folder.parent}. Choose another OUTPUT."
        )
    if (folder / "dataset.json").is_file():
        raise InputError(f"{folder}: is a data set. Choose another OUTPUT, such as a folder in it.")
    if Path(config.input).resolve() == folder:
        raise InputError(
            f"{config.output}: is INPUT itself; predictions among its images would be taken for images. Choose another OUTPUT."
        )
    if not config.overwrite:
        check_replaceable(paths)
    if stale := _maps(written(folder), jobs) - {path.name for path in paths}:
        print(
            f"{folder}: {len(stale)} map{'s' * (len(stale) > 1)} of an earlier prediction will not belong to the new masks (first: {min(stale)})",
            file=sys.stderr,
        )
    files, done = [], []
    noted = (
        not Path(config.input).is_file() or (folder / MADE_BY).is_file()
    )  # not beside a single file among the user's own
    said = {
        "runs": [str(run) for run in config.runs],
        "weights": config.weights,
        "iterations": reached,
        "tta": config.tta,
    }

    def write(job: Job, probs: np.ndarray, grid: Grid, began_ns: int | None) -> list[Path]:
        arrays = [
            probs.argmax(0).astype(np.uint8),
            *(probs if config.probabilities else ()),
            *([entropy(probs)] if config.uncertainty else ()),
        ]
        for path, array in zip(outputs[job.output], arrays, strict=True):
            write_volume(path, array, grid)
            if noted:
                write_note(folder, said, [path], began_ns)
        done.append(job.output)
        return outputs[job.output]

    # reading, network and writing overlap; at most four volumes are in memory
    try:
        with (
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(1) as writer,
            Progress("predicting", len(jobs), "case") as bar,
        ):
            writing, began_ns = [], None
            for job, (image, grid) in zip(jobs, ahead(reader, lambda job: load_image(job.images), jobs, 2)):
                probs = mean_probs(models, image, device, config.batch, config.tta)
                if noted and job is jobs[0]:
                    began_ns = write_note(
                        folder, said
                    )  # before the predictions: what is older than the note is not of it
                writing.append(writer.submit(write, job, probs, grid, began_ns))
                if len(writing) > 1:
                    files += writing.pop(0).result()
                bar.advance()
            for future in writing:
                files += future.result()
    finally:
        if 0 < len(done) < len(jobs):
            print(
                f"{len(done)} of {len(jobs)} cases are predicted and written, the last is {done[-1]}", file=sys.stderr
            )
    return files


def output_files(job: Job, config: Predict, classes: Sequence[str]) -> list[Path]:
    """What is written for a case: its mask, with --probabilities a map per class, with --uncertainty the entropy."""
    end = ending(job.output)
    stem = str(job.output)[: -len(end)]
    probs = [Path(f"{stem}_prob_{name.replace('/', '-')}{end}") for name in classes] if config.probabilities else []
    return [job.output, *probs, *([Path(f"{stem}_entropy{end}")] if config.uncertainty else [])]


def _maps(names: Iterable[str], jobs: Sequence[Job]) -> set[str]:
    """The files that are named as maps of the cases."""
    stems = {job.output.name[: -len(ending(job.output))] for job in jobs}
    return {name for name in names if stems & {name.rpartition("_prob_")[0], name.rpartition("_entropy.")[0]}}


def _check_same(runs: Sequence[Path], plans: Sequence[Plan]) -> None:
    """Raises InputError when two runs cannot be averaged: their classes or channels differ."""
    for run, plan in zip(runs, plans):
        for what in ("classes", "channels"):
            one, other = getattr(plans[0], what), getattr(plan, what)
            if one != other:
                raise InputError(
                    f"{runs[0]} has {what} {', '.join(one)}, {run} has {', '.join(other)}; only runs with the same {what} in the same order can be averaged. Leave one out."
                )


def _trained_on(trains: Sequence[Train], plans: Sequence[Plan]) -> set[Path]:
    """The images that the runs were trained on, as far as their data sets can still be read where they were."""
    cases = {}
    for folder in {train.dataset for train in trains}:
        try:
            dataset = read_dataset(folder)
        except (InputError, OSError):
            continue
        cases[folder] = dataset.cases | dataset.tests
    known = [
        cases[train.dataset][name]
        for train, plan in zip(trains, plans)
        if train.dataset in cases
        for name in plan.fold.train
        if name in cases[train.dataset]
    ]
    return {path.resolve() for case in known for path in case.images}


def load_network(run: Path, plan: Plan, weights: str = "last") -> nn.Module:
    """The trained network of a run, in eval mode. Raises InputError for missing weights or weights of another architecture."""
    path = Path(run) / f"{weights}.safetensors"
    if not path.is_file():
        hint = "The run had no validation cases; use --weights last." if weights == "best" else "Has it been trained?"
        raise InputError(f"{run}: has no {path.name}. {hint}")
    network = build_network(plan.network, len(plan.channels), len(plan.classes))
    with open_weights(path) as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}
    wanted = network.state_dict()
    odd = [name for name in stored.keys() ^ wanted.keys()] or [
        name for name in wanted if wanted[name].shape != stored[name].shape
    ]
    if odd:
        raise InputError(
            f"{path}: weights of another architecture than '{plan.network}' with {len(plan.classes)} classes (differs at {min(odd)}). Do config.json and weights belong to one run?"
        )
    network.load_state_dict(stored)
    return network.eval()


def list_jobs(source: Path, output: Path, plans: Sequence[Plan]) -> list[Job]:
    """What to predict, and where to write it; of a data set the cases that every run held out: its fold's test cases, or its validation cases where it has no test case. Raises InputError when there is nothing, or the channels do not match the runs'."""
    plan = plans[0]
    if (source / MADE_BY).is_file() or (source.is_file() and source.name in written(source.parent)):
        raise InputError(
            f"{source}: holds predictions, as the {MADE_BY} there says. The order is RUN [RUN ...] INPUT OUTPUT. If these are scans after all, remove {MADE_BY}."
        )
    if source.is_dir() and str(output).lower().endswith(VOLUMES):
        raise InputError(f"{output}: is one file, and {source} is a folder of volumes. Give a folder as OUTPUT.")
    if (source / "dataset.json").is_file():
        dataset = read_dataset(source)
        if len(dataset.channels) != len(plan.channels):
            raise InputError(
                f"{source}: has the channels {', '.join(dataset.channels)}; the run was trained on {', '.join(plan.channels)}."
            )
        parts, held = zip(*(dataset.held_out(plan.fold) for plan in plans))
        cases = [case for case in held[0] if all(case in other for other in held[1:])]
        folds = ", ".join(dict.fromkeys(plan.fold.name for plan in plans))
        if not all(held):
            raise InputError(
                f"{source}: the run's fold holds out no case. Give a folder of images instead, such as {source}/imagesTs."
            )
        if not cases:
            raise InputError(
                f"{source}: no case was held out by all {len(plans)} runs (folds {folds}). Give a folder of volumes that none was trained on, or one run."
            )
        print(
            f"predicting the {len(cases)} {' or '.join(dict.fromkeys(parts))} case{'s' * (len(cases) != 1)} of fold {folds}",
            file=sys.stderr,
        )
        return [Job(case.images, output / f"{case.id}{dataset.file_ending}") for case in cases]
    folder = (source.parent if source.is_file() else source).resolve()
    if folder.name in LABELS and (folder.parent / "dataset.json").is_file():
        raise InputError(
            f"{source}: holds labels of the data set {folder.parent}, no images. Give the data set, or its imagesTr or imagesTs, as INPUT."
        )
    if source.is_file():
        end = ending(source)
        if len(plan.channels) != 1:
            raise InputError(
                f"{source}: the run needs {len(plan.channels)} channels ({', '.join(plan.channels)}). Give a folder with CASE_0000{end}, CASE_0001{end}, …"
            )
        return [Job((source,), output if str(output).lower().endswith(VOLUMES) else output / source.name)]
    if not source.is_dir():
        raise InputError(f"{source}: no such file or folder.")
    files = sorted(
        path for path in source.iterdir() if not path.name.startswith(".") and str(path).lower().endswith(VOLUMES)
    )
    if not files:
        raise InputError(f"{source}: no volumes (.nii.gz, .nii, .nrrd, .mha) in this folder.")
    names = {path.name for path in files}
    groups: dict[str, list[Path]] = {}
    for path in files:
        end = path.name[-len(ending(path)) :]
        name, _, channel = path.name[: -len(end)].rpartition("_")
        numbered = (
            bool(name)
            and len(channel) == 4
            and channel.isdigit()
            and (len(plan.channels) > 1 or f"{name}_0000{end}" in names)
        )  # else a patient's number
        groups.setdefault((name if numbered else path.name[: -len(end)]) + end, []).append(path)
    for name, paths in groups.items():
        last = f"_{len(plan.channels) - 1:04d}{ending(paths[0])}"
        if len(paths) != len(plan.channels) or (len(paths) > 1 and not paths[-1].name.endswith(last)):
            got, needed = (
                f"{count} {word}{'s' * (count != 1)}"
                for count, word in ((len(paths), "file"), (len(plan.channels), "channel"))
            )
            end = name[-len(ending(paths[0])) :]
            wanted = [f"{name[: -len(end)]}_{channel:04d}{end}" for channel in range(len(plan.channels))]
            missing = ", ".join(file for file in wanted if file not in names)
            numbers = ", ".join(f"CASE_{channel:04d}" for channel in range(len(plan.channels)))
            raise InputError(
                f"{source}: {name} has {got}; the run needs {needed} ({', '.join(plan.channels)}), named {numbers}.{f' Missing: {missing}.' * bool(missing)}"
            )
    return [Job(tuple(paths), output / name) for name, paths in groups.items()]


@torch.no_grad()
def predict_volume(
    network: nn.Module,
    image: np.ndarray,
    size: int,
    device: torch.device,
    dtype: torch.dtype,
    batch: int = 32,
    tta: bool = False,
) -> np.ndarray:
    """Class probabilities float32 [K, D, H, W] of a normalised image [channels, D, H, W], slice by slice at `size`, resized back (bilinear)."""
    planes = []
    for part in resize_image(image, size).split(batch):
        part = part.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            probs = average_softmax(network, part, FLIPS if tta else FLIPS[:1])
        if probs.shape[2:] != image.shape[2:]:
            probs = F.interpolate(probs, image.shape[2:], mode="bilinear", align_corners=False)
        planes.append(probs.cpu())
    return torch.cat(planes).movedim(1, 0).numpy()


def mean_probs(
    models: Sequence[Model], image: np.ndarray, device: torch.device, batch: int = 32, tta: bool = False
) -> np.ndarray:
    """Mean over the models of `predict_volume`, each at its own size, float32 [K, D, H, W]."""
    return sum(
        predict_volume(model.network, image, model.size, device, model.dtype, batch, tta) for model in models
    ) / len(models)


def average_softmax(network: nn.Module, image: Tensor, flips: tuple[tuple[int, ...], ...]) -> Tensor:
    """Mean softmax over flips of [N, C, H, W], each turned back."""
    return sum(network(image.flip(dims)).softmax(1).flip(dims) for dims in flips) / len(flips)


def entropy(probs: np.ndarray) -> np.ndarray:
    """−Σ p ln p / ln K over the first axis, float32 in [0, 1]: 0 where one class is certain, 1 where all are equal."""
    bounded = np.clip(probs, np.finfo(np.float32).tiny, 1)
    return np.clip(-(bounded * np.log(bounded)).sum(0) / math.log(len(probs)), 0, 1).astype(np.float32)
