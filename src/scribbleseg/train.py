"""The one training loop."""

import io
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from . import __version__
from .atomic import atomic_file
from .augment import random_affine, warp
from .config import Train
from .data.dataset import Dataset, load_volume, read_dataset
from .data.slices import Sampler, resize_image, resize_label, stack_labels
from .device import device_name, peak_memory_mib, pick_device, pick_precision
from .errors import InputError
from .labels import UNLABELED
from .methods import method_class
from .methods.base import Batch, Method, Recipe, Slices
from .networks import build_network
from .plan import Plan, make_plan, read_plan, write_plan
from .progress import Progress


def train(config: Train) -> Path:
    """Train on one fold and write the run folder; returns it.

    Raises InputError for anything wrong with the data, the settings or the folder, before anything is written.
    """
    plan = make_plan(config)
    run = Path(config.run)
    if run.exists() and (not run.is_dir() or any(not path.name.startswith(".partial-") for path in run.iterdir())):
        raise InputError(f"{run}: exists already and is not empty. Choose another folder, or carry on with: scribbleseg train {run} --resume")
    training = _Training(config, plan)
    training.start()
    training.run_to_end()
    return run


def resume(run: Path) -> Path:
    """Carry on a run that was cut off, to the same weights as if it had not been; a finished run is left as it is."""
    config, plan = read_plan(run)
    if not (Path(run) / "resume.pt").is_file():  # cut off before its first checkpoint
        training = _Training(config, plan)
        training.start()
        training.run_to_end()
        return Path(run)
    stored = read_checkpoint(run)
    if stored["iteration"] < plan.recipe.iterations:
        training = _Training(config, plan)
        training.restore(stored)
        training.run_to_end()
    return Path(run)


def read_checkpoint(run: Path) -> dict:
    """RUN/resume.pt, loaded without executing code. Raises InputError when there is none or it is not a checkpoint."""
    path = Path(run) / "resume.pt"
    if not path.is_file():
        raise InputError(f"{run}: has no checkpoint (resume.pt). Remove the folder and start again.")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        return {name: stored[name] for name in ("iteration", "best", "method", "optimizer", "rng")} | stored
    except Exception as error:  # torch lets pickle, zip and OS errors through
        raise InputError(f"{path}: not a checkpoint of scribbleseg ({type(error).__name__}). Remove the folder and start again.") from error


def build_slices(dataset: Dataset, cases: tuple[str, ...], method: Method | None, size: int) -> tuple[Slices, Tensor]:
    """Read, prepare and resize cases in parallel: all their slices on the CPU, and which case (by position) each slice is of.

    Without a method the label is the dense mask (for validation); a case that has none is UNLABELED.
    """
    cache = dataset.folder / ".scribbleseg"

    def load(name):
        volume = load_volume(dataset, dataset.case(name), cache=cache)
        targets = method.targets(volume) if method is not None else {}
        notes = method.notes(volume) if method is not None else {}
        truth = None if volume.truth is None else resize_label(volume.truth, size)
        return resize_image(volume.image, size), {key: resize_label(value, size) for key, value in targets.items()}, truth, notes

    with ThreadPoolExecutor(os.cpu_count()) as pool, Progress("reading cases", len(cases), "case") as bar:
        loaded = []
        for item in pool.map(load, cases):
            loaded.append(item)
            bar.advance()
    images, targets, truths, notes = zip(*loaded)
    for text, count in sum(map(Counter, notes), Counter()).items():
        print(f"{text}: {count}", file=sys.stderr)
    maps = {key: torch.cat([target[key] for target in targets]) for key in targets[0]}
    truth = stack_labels(truths, [image[:, 0].shape for image in images])
    owner = torch.repeat_interleave(torch.arange(len(images)), torch.tensor([len(image) for image in images]))
    return Slices(torch.cat(images), maps.pop("label", truth), maps, truth), owner


def draw_batch(slices: Slices, index: Tensor) -> Batch:
    """Gather slices and augment them, on their device."""
    layers = [slices.label, *slices.maps.values(), *([] if slices.truth is None else [slices.truth])]
    labels = torch.stack([layer[index].long() for layer in layers], 1)
    image, labels = warp(slices.image[index], labels, random_affine(len(index), index.device))
    label, *others = labels.unbind(1)
    truth = None if slices.truth is None else others.pop()
    return Batch(image.contiguous(memory_format=torch.channels_last), label, dict(zip(slices.maps, others)), truth)


def learning_rate(recipe: Recipe, progress: float) -> float:
    """poly: lr (1 − t)^.9; cosine: lr (1 + cos πt)/2; step: lr γ^(steps passed); constant. t = progress."""
    factor = {
        "poly": (1 - progress) ** 0.9,
        "cosine": (1 + np.cos(np.pi * progress)) / 2,
        "step": recipe.gamma ** sum(progress >= share for share in recipe.step_at),
        "constant": 1.0,
    }[recipe.schedule]
    return recipe.lr * float(factor)


def make_optimizer(recipe: Recipe, method: Method, device: torch.device) -> torch.optim.Optimizer:
    """The recipe's optimiser over everything the method trains; SGD has momentum .9."""
    parameters = [p for p in method.parameters() if p.requires_grad]
    common = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": device.type == "cuda" or None}
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=0.9, **common)
    return {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer](parameters, **common)


@torch.no_grad()
def validation_dice(network: nn.Module, slices: Slices, owner: Tensor, classes: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Dice per case and foreground class at network resolution, float64 [cases, classes − 1]; nan where a case lacks the class."""
    cases = int(owner.max()) + 1
    sums = torch.zeros(3, cases * classes, dtype=torch.float64)
    training = network.training
    network.eval()
    for image, truth, case in zip(slices.image.split(32), slices.truth.split(32), owner.split(32)):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            found = network(image.to(device, memory_format=torch.channels_last)).argmax(1).cpu()
        known = truth != UNLABELED
        truth, base = truth.long(), (case * classes)[:, None, None]
        for row, (value, where) in enumerate(((truth, known & (found == truth)), (truth, known), (found, known))):
            sums[row] += torch.bincount((base + value)[where], minlength=cases * classes)
    network.train(training)
    overlap, true, found = sums.view(3, cases, classes)[:, :, 1:]
    return torch.where(true > 0, 2 * overlap / (true + found), torch.nan)


class _Training:
    """One run: what its checkpoint holds (weights, optimiser, generators, iteration) and its folder."""

    def __init__(self, config: Train, plan: Plan):
        self.config, self.plan, self.run = config, plan, Path(config.run)
        self.device = pick_device(config.device)
        self.dtype = pick_precision(config.precision, self.device)
        self.iteration, self.best = 0, -1.0
        torch.set_flush_denormal(True)
        torch.manual_seed(config.seed)

        dataset = read_dataset(config.dataset)
        network = build_network(plan.network, len(plan.channels), len(plan.classes))
        self.method = method_class(plan.method)(network, **plan.options)
        slices, _ = build_slices(dataset, plan.fold.train, self.method, plan.size)
        _check_trainable(slices, plan, config.dataset)
        self.val = self.owner = None
        if plan.fold.val:
            self.val, self.owner = build_slices(dataset, plan.fold.val, None, plan.size)
            if self.val.truth is None:
                raise InputError(f"{config.dataset}: no validation case has a mask in labelsTr_dense. Add one, or use a split without validation.")
        self.slices = slices.to(self.device)
        self.method.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = make_optimizer(plan.recipe, self.method, self.device)

    def start(self) -> None:
        """Make the run folder; from here on the run can be resumed."""
        self.run.mkdir(parents=True, exist_ok=True)
        write_plan(self.config, self.plan)
        with atomic_file(self.run / "environment.json") as partial:
            partial.write_text(json.dumps(environment(self.device, self.dtype), indent=1) + "\n", encoding="utf-8")
        self.checkpoint()

    def restore(self, stored: dict) -> None:
        try:
            self.method.load_state_dict(stored["method"])
            self.optimizer.load_state_dict(stored["optimizer"])
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(
                f"{self.run / 'resume.pt'}: a checkpoint of another architecture than {self.plan.method} on {self.plan.network} ({reason}). "
                "Do config.json and resume.pt belong to one run?"
            ) from error
        self.iteration, self.best = stored["iteration"], stored["best"]
        self.method.resume(self.slices)
        torch.set_rng_state(stored["rng"])
        if (self.device.type == "cuda") != ("cuda_rng" in stored):
            was = "CUDA" if "cuda_rng" in stored else "a CPU"
            raise InputError(f"{self.run}: was trained on {was}, and this is {self.device}. Carry it on where it began, or start again.")
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(stored["cuda_rng"], self.device)
        log = self.run / "log.jsonl"
        kept = [line for line in _complete_lines(log) if json.loads(line)["iteration"] <= self.iteration]
        with atomic_file(log) as partial:
            partial.write_text("".join(kept), encoding="utf-8")

    def checkpoint(self) -> None:
        """Write last.safetensors and resume.pt, each atomically."""
        self.save_weights("last")
        stored = {
            "iteration": self.iteration,
            "best": self.best,
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            stored["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        content = io.BytesIO()
        torch.save(stored, content)  # in memory: torch's own writer reports a full disk as a RuntimeError
        with atomic_file(self.run / "resume.pt") as partial:
            partial.write_bytes(content.getbuffer())

    def save_weights(self, name: str) -> None:
        weights = {key: value.contiguous() for key, value in self.method.network.state_dict().items()}
        with atomic_file(self.run / f"{name}.safetensors") as partial:
            partial.write_bytes(save(weights, {"network": self.plan.network, "iteration": str(self.iteration)}))

    def step(self, index: Tensor) -> dict[str, Tensor]:
        """One optimiser step on the slices `index`; returns what to log. No host synchronisation on CUDA."""
        share = self.iteration / self.plan.recipe.iterations
        progress = torch.full((), share, device=self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.plan.recipe, share)
        batch = draw_batch(self.slices, index.to(self.device, non_blocking=True))
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            terms = self.method.losses(batch, progress)
        torch.stack(list(terms.values())).sum().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.method.after_step(progress)
        self.iteration += 1
        return {name: value.detach() for name, value in {**terms, **self.method.monitor()}.items()}

    def run_to_end(self) -> None:
        total = self.plan.recipe.iterations
        sampler = Sampler(len(self.slices.label), self.plan.recipe.batch, self.config.seed)
        log_at = _evenly(total, 200)
        sweep_at = _evenly(total, min(self.method.sweeps, total // 100))  # never closer than the paper's interval
        val_at = _evenly(total, self.config.validations) if self.val is not None else set()
        picture_at = _evenly(total, 5)
        board = _board(self.config)
        if self.config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = not self.config.deterministic
        torch.use_deterministic_algorithms(self.config.deterministic)
        sums, steps, since = {}, 0, time.perf_counter()
        saved = time.monotonic()
        log = open(self.run / "log.jsonl", "a", encoding="utf-8")
        try:
            with log, _interruptible() as stop, Progress(f"training {self.plan.method}", total, "it", self.iteration) as bar:
                while self.iteration < total:
                    row = self.step(sampler(self.iteration))
                    sums = {name: sums.get(name, 0) + value for name, value in row.items()}
                    steps += 1
                    bar.advance()
                    if self.iteration in sweep_at:
                        self.method.sweep(self.slices, torch.full((), self.iteration / total, device=self.device))
                    if self.iteration in log_at or self.iteration in val_at:
                        entry = self.entry(sums, steps, since)
                        if self.iteration in val_at:
                            entry |= self.validate()
                        log.write(json.dumps(entry) + "\n")
                        log.flush()
                        bar.note(" ".join(f"{name} {entry[name]:.3f}" for name in ("loss", "val_mean_dice") if name in entry))
                        pictures = self.save_pictures() if self.iteration in picture_at else {}
                        if board is not None:
                            board(entry, pictures)
                        if self.iteration == total or time.monotonic() - saved > self.config.checkpoint_every:
                            self.checkpoint()
                            saved = time.monotonic()
                        sums, steps, since = {}, 0, time.perf_counter()
                    if stop and self.iteration < total:
                        self.checkpoint()
                        raise KeyboardInterrupt
        finally:
            torch.use_deterministic_algorithms(False)

    def entry(self, sums: dict[str, Tensor], steps: int, since: float) -> dict:
        """A line of log.jsonl: means since the last one. Raises InputError when a loss is not finite."""
        means = dict(zip(sums, (torch.stack([value.float() for value in sums.values()]) / steps).tolist()))
        seconds = time.perf_counter() - since  # the line above has waited for the device
        monitored = self.method.monitor()
        losses = {name: value for name, value in means.items() if name not in monitored}
        bad = [name for name, value in losses.items() if not np.isfinite(value)]
        if bad:
            raise InputError(f"{self.run}: {', '.join(bad)} became NaN or infinite by iteration {self.iteration}. Lower --lr, or try --precision float32.")
        return {
            "iteration": self.iteration,
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds_per_iteration": round(seconds / steps, 5),
            "peak_memory_mib": round(peak_memory_mib(self.device)),
            "loss": sum(losses.values()),
            "losses": losses,
            "monitor": {name: means[name] for name in monitored},
        }

    def validate(self) -> dict:
        dice = validation_dice(self.method.network, self.val, self.owner, len(self.plan.classes), self.device, self.dtype).nanmean(0)
        mean = float(dice.nanmean())
        if mean > self.best:
            self.best = mean
            self.save_weights("best")
        return {"val_dice": dict(zip(self.plan.classes[1:], dice.tolist())), "val_mean_dice": mean}

    @torch.no_grad()
    def save_pictures(self) -> dict[str, np.ndarray]:
        """pictures/ITERATION.npz: a few fixed slices with most scribble, what the network says of them, and the method's own maps."""
        drawn = ((self.slices.label != UNLABELED) & (self.slices.label != 0)).flatten(1).sum(1)
        index = drawn.topk(min(4, len(drawn)), sorted=True).indices
        image, label = self.slices.image[index], self.slices.label[index].long()
        maps = {name: value[index].long() for name, value in self.slices.maps.items()}
        truth = None if self.slices.truth is None else self.slices.truth[index].long()
        self.method.eval()
        with torch.random.fork_rng(), torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            torch.manual_seed(self.config.seed)
            shown = self.method.pictures(Batch(image.contiguous(memory_format=torch.channels_last), label, maps, truth))
            found = self.method.network(image.contiguous(memory_format=torch.channels_last)).argmax(1)
        self.method.train()
        arrays = {"image": image[:, 0], "scribble": label, "prediction": found, **({} if truth is None else {"truth": truth}), **shown}
        arrays = {name: _compact(value) for name, value in arrays.items()}
        with atomic_file(self.run / "pictures" / f"{self.iteration:06d}.npz") as partial:
            np.savez_compressed(partial, **arrays)
        return arrays


def environment(device: torch.device, dtype: torch.dtype) -> dict:
    """Versions, commit and machine: what a reader needs beside a number."""
    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(describe, capture_output=True, text=True).stdout.strip() if shutil.which("git") else ""
    return {
        "scribbleseg": __version__,
        "commit": commit or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device_name(device),
        "precision": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


@contextmanager
def _interruptible() -> Iterator[list]:
    """Ctrl-C fills the list instead of cutting a step in two; a second Ctrl-C stops at once."""
    stop = []
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number, frame):
        if stop:
            raise KeyboardInterrupt
        stop.append(number)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _evenly(total: int, count: int) -> set[int]:
    """`count` iterations evenly spread over a run, the last one among them; all of them when count > total; none for 0."""
    return {round(total * (i + 1) / min(count, total)) for i in range(min(count, total))}


def _compact(value: Tensor) -> np.ndarray:
    value = value.cpu()
    if value.is_floating_point():
        return value.half().numpy()
    return value.numpy() if value.dtype == torch.bool else value.to(torch.uint8).numpy()


def _complete_lines(path: Path) -> list[str]:
    if not path.is_file():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _board(config: Train):
    """Writes log entries as TensorBoard scalars and pictures as images; None unless asked for."""
    if not config.tensorboard:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("--tensorboard needs the tensorboard package. Run: pip install 'scribbleseg[tensorboard]'") from error
    writer = SummaryWriter(str(Path(config.run) / "tensorboard"))

    def write(entry, pictures):
        for name, stack in pictures.items():
            grey = np.where(stack == UNLABELED, 0, stack).astype(np.float32)
            writer.add_images(f"pictures/{name}", grey[:, None] / max(float(grey.max()), 1e-6), entry["iteration"])
        for group in ("losses", "monitor", "val_dice"):
            for name, value in entry.get(group, {}).items():
                writer.add_scalar(f"{group}/{name}", value, entry["iteration"])
        for name in ("lr", "loss", "val_mean_dice", "seconds_per_iteration"):
            if name in entry:
                writer.add_scalar(name, entry[name], entry["iteration"])
        writer.flush()

    return write


def _check_trainable(slices: Slices, plan: Plan, folder: Path) -> None:
    """Every class must be drawn somewhere in the training cases."""
    count = torch.bincount(slices.label.flatten().int(), minlength=UNLABELED + 1)[: len(plan.classes)]
    missing = [name for name, pixels in zip(plan.classes, count.tolist()) if not pixels]
    if len(missing) >= len(plan.classes) - 1 and plan.classes[0] not in missing or len(missing) == len(plan.classes):
        raise InputError(f"{folder}: no training case has a foreground scribble. Draw some, or check that the ignore value ({len(plan.classes)}) is not used for all.")
    if missing:
        raise InputError(f"{folder}: no training case has a scribble of class {', '.join(missing)}. Draw some, or take the class out of dataset.json.")
