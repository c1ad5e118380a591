"""The one training loop."""

import importlib.util
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import Train
from ..core import distributed
from ..core.device import free_memory, peak_memory_mib, pick_device, pick_precision, prepare_cpu
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.progress import Progress
from ..data.dataset import read_dataset
from ..data.voxels import Slices
from ..methods import method_class
from ..networks import build_network
from .average import Average
from .batches import Sampler, build_slices, check_trainable, most_drawn
from .checkpoint import read_checkpoint, weights_iteration, write_checkpoint, write_weights
from .optimizer import learning_rate, make_optimizer
from .plan import Plan, make_plan, read_plan, write_plan
from .run_folder import add_environment, cut_log, open_board, write_environment, write_pictures
from .step import Step


def train(config: Train) -> Path:
    """Train on one fold and write the run folder; returns it.

    Raises InputError for anything wrong with the data, the settings or the folder, before anything is written, and for a method that returns
    no named terms. A run that fails in its first step leaves nothing.
    """
    with distributed.joined():
        plan = make_plan(config)
        run = Path(config.run)
        check_new(run, plan)
        parent = next(folder for folder in (run, *run.absolute().parents) if folder.exists())
        if not (parent.is_dir() and os.access(parent, os.W_OK | os.X_OK)):
            raise InputError(
                f"{run}: cannot be made: {parent} is no folder that can be written to. Choose another place, or change its permissions."
            )
        training = _Training(config, plan)
        made = not run.exists()
        if training.first:
            check_new(run, plan)  # reading the cases takes its time: another training may have begun there
        training.start()
        try:
            training.run_to_end()
        except Exception:  # whatever it is, it is raised again
            if training.first and training.iteration == 0:  # no step was taken: nothing to carry on
                _remove(run, made)
            raise
    return run


def check_new(run: Path, plan: Plan) -> None:
    """Raises InputError when there is anything in the folder of a new run."""
    if run.exists() and (not run.is_dir() or any(not path.name.startswith(".partial-") for path in run.iterdir())):
        weights = run / "last.safetensors"
        if weights.is_file() and weights_iteration(weights, plan.recipe.iterations) == 0:
            raise InputError(
                f"{run}: exists already, with a training that stands at iteration 0. Remove it, unless it is running, or choose another folder."
            )
        carry_on = f", or carry on with: scribbleseg train {run} --resume" if (run / "config.json").is_file() else "."
        raise InputError(f"{run}: exists already and is not empty. Choose another folder{carry_on}")


def _remove(run: Path, made: bool) -> None:
    """Empty the folder of a run that took no step, and remove it where it was `made` for the run; what cannot be removed stays."""
    with suppress(OSError):
        for path in run.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if made:
            run.rmdir()


def resume(run: Path) -> Path:
    """Carry on a run that was cut off, to the same weights as if it had not been; a finished run is left as it is."""
    run = Path(run)
    with distributed.joined():
        config, plan = read_plan(run)
        if not (run / "resume.pt").is_file():  # cut off before its first checkpoint
            training = _Training(config, plan)
            training.start()
            training.run_to_end()
            return run
        stored = read_checkpoint(run)
        if stored["iteration"] < plan.recipe.iterations:
            training = _Training(config, plan)
            training.restore(stored)
            training.run_to_end()
        elif distributed.rank() == 0:
            print(f"{run}: is finished ({plan.recipe.iterations} iterations)", file=sys.stderr)
    return run


def resident(slices: Slices, device: torch.device) -> Slices:
    """The slices on the device, if they leave half of its free memory to the network; else as they are, and the user hears of it."""
    size = sum(layer.nbytes for layer in slices.layers())
    if device.type == "cpu" or size < free_memory(device) / 2:
        return slices.to(device)
    print(f"the slices are {size / 2**30:.1f} GiB, too much for {device}: they stay on the host", file=sys.stderr)
    return slices


def pick_step(config: Train, plan: Plan, device: torch.device) -> tuple[bool, bool]:
    """Whether the step is compiled, and whether it is recorded as a CUDA graph.

    auto: recorded on CUDA; compiled there too when the run is long enough to pay for the minutes that this takes. On CPUs compiled
    steps were slower (docs/speed.md). Neither with --deterministic or several processes.
    """
    cuda = device.type == "cuda" and distributed.processes() == 1 and not config.deterministic
    if config.compile == "auto":
        return cuda and plan.recipe.iterations >= 5000 and importlib.util.find_spec("triton") is not None, cuda
    return config.compile == "on", cuda and config.compile == "on"


@torch.no_grad()
def validation_dice(
    network: nn.Module, slices: Slices, owner: Tensor, classes: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Dice per case and foreground class over the pixels whose truth is known, at network resolution, float64 [cases, classes − 1]; nan where a case lacks the class."""
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
        self.device = pick_device(distributed.own_device(config.device))
        self.dtype = pick_precision(config.precision, self.device)
        self.iteration, self.best = 0, -1.0
        self.sums, self.steps, self.seconds = torch.zeros(()), 0, 0.0  # since the last line of the log
        self.first, part = distributed.rank() == 0, distributed.own_part(plan.recipe.batch)
        prepare_cpu()
        torch.manual_seed(config.seed)

        dataset = read_dataset(config.dataset)
        unread = dataset.unread()
        if unread and self.first:
            print(f"{config.dataset}: {unread}", file=sys.stderr)
        bare = [name for name in plan.fold.train if dataset.case(name).scribble is None]
        if bare and self.first:
            print(
                f"{len(bare)} of {len(plan.fold.train)} training cases have no scribble (first: {bare[0]})",
                file=sys.stderr,
            )
        network = build_network(plan.network, len(plan.channels), len(plan.classes))
        self.method = method_class(plan.method)(network, **plan.options)
        with distributed.first_process_first():
            slices, _ = build_slices(dataset, plan.fold.train, self.method, plan.size)
        check_trainable(slices, plan, config.dataset)
        self.val = self.owner = None
        if plan.fold.val and self.first:
            train, val = plan.fold.train, plan.fold.val
            judged = sum(dataset.case(name).truth is not None for name in val)
            scored = (
                ""
                if plan.val_on_scribbles or judged in (0, len(val))
                else f"; Dice is of the {judged} that {'have' if judged > 1 else 'has'} a dense mask"
            )
            print(
                f"validation: {len(val)} of {len(train) + len(val)} cases ({', '.join(val[:3])}{', …' * (len(val) > 3)}){scored}",
                file=sys.stderr,
            )
            self.val, self.owner = build_slices(dataset, val, None, plan.size)
            if plan.val_on_scribbles:
                print(
                    "no validation case has a dense mask: Dice is of their scribbled pixels alone, blind to what lies between the strokes",
                    file=sys.stderr,
                )
                self.val = replace(self.val, truth=self.val.label)
            if self.val.truth is None:
                raise InputError(
                    f"{config.dataset}: no validation case has a mask in labelsTr_dense any more. Put them back, or begin a new run."
                )
            if not ((self.val.truth > 0) & (self.val.truth != UNLABELED)).any():
                raise InputError(
                    f"{config.dataset}: no validation case has foreground in its mask or scribble. Draw some, or validate on other cases."
                )
        self.slices = resident(slices, self.device)
        self.method.to(self.device, memory_format=torch.channels_last).train()
        self.optimizer = make_optimizer(plan.recipe, self.method, self.device)
        self.average = Average(network, plan.recipe.ema) if plan.recipe.ema else None
        self.evaluated = network if self.average is None else self.average.network
        compiled, recorded = pick_step(config, plan, self.device)
        self.step = Step(
            self.method,
            self.optimizer,
            self.slices,
            self.dtype,
            part=part,
            seed=config.seed,
            average=self.average,
            compiled=compiled,
            recorded=recorded,
        )

    def start(self) -> None:
        """Make the run folder; from here on the run can be resumed."""
        if not self.first:
            return
        self.run.mkdir(parents=True, exist_ok=True)
        write_plan(self.config, self.plan)
        write_environment(self.run, self.device, self.dtype, self.step.kind)
        self.checkpoint()

    def restore(self, stored: dict) -> None:
        try:
            self.method.load_state_dict(stored["method"])
            self.optimizer.load_state_dict(stored["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(stored["average"])
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[-1].strip()
            raise InputError(
                f"{self.run / 'resume.pt'}: a checkpoint of another architecture than {self.plan.method} on {self.plan.network} ({reason}). "
                "Do config.json and resume.pt belong to one run?"
            ) from error
        self.iteration, self.best = stored["iteration"], stored["best"]
        self.sums, self.steps, self.seconds = stored["unlogged"]
        self.method.resume(self.slices)
        torch.set_rng_state(stored["rng"])
        if (self.device.type == "cuda") != ("cuda_rng" in stored):
            was = "CUDA" if "cuda_rng" in stored else "a CPU"
            raise InputError(
                f"{self.run}: was trained on {was}, and this is {self.device}. Carry it on where it began, or start again."
            )
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(stored["cuda_rng"], self.device)
        if self.first:
            cut_log(self.run, self.iteration)
            add_environment(self.run, self.device, self.dtype, self.step.kind)

    def checkpoint(self) -> None:
        """Write last.safetensors and resume.pt, each atomically."""
        self.save_weights("last")
        stored = {
            "iteration": self.iteration,
            "best": self.best,
            "unlogged": (self.sums.cpu(), self.steps, self.seconds),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        if self.average is not None:
            stored["average"] = self.average.state_dict()
        if self.device.type == "cuda":
            stored["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        write_checkpoint(self.run, stored)

    def save_weights(self, name: str) -> None:
        write_weights(self.run, name, self.evaluated, {"network": self.plan.network, "iteration": str(self.iteration)})

    def run_to_end(self) -> None:
        total = self.plan.recipe.iterations
        sampler = Sampler(len(self.slices.label), self.plan.recipe.batch, self.config.seed)
        log_at = _evenly(total, 200)
        sweep_at = _evenly(total, min(self.method.sweeps, total // 100))  # never closer than the paper's interval
        val_at = _evenly(total, self.config.validations) if self.plan.fold.val else set()
        picture_at = _evenly(total, 5)
        board = open_board(self.config) if self.first else None
        if self.config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.benchmark = not self.config.deterministic
        torch.use_deterministic_algorithms(self.config.deterministic)
        self.sums = self.sums.to(self.device)
        saved = now = time.perf_counter()
        log = open(self.run / "log.jsonl" if self.first else os.devnull, "a", encoding="utf-8")
        try:
            with (
                log,
                _interruptible() as stop,
                Progress(f"training {self.plan.method}", total, "it", self.iteration, self.first) as bar,
            ):
                while self.iteration < total:
                    share = self.iteration / total
                    lr = learning_rate(self.plan.recipe, share)
                    self.sums = self.sums + self.step(sampler(self.iteration), share, lr)
                    if self.step.compiled and self.step.taken == 1:
                        print(f"compiled in {time.perf_counter() - now:.0f} s", file=sys.stderr)
                    self.iteration += 1
                    self.steps += 1
                    bar.advance()
                    if self.iteration in sweep_at:
                        self.method.sweep(self.slices, torch.full((), self.iteration / total, device=self.device))
                    logged = self.iteration in log_at or self.iteration in val_at
                    due = (
                        self.iteration == total
                        or time.perf_counter() - saved > self.config.checkpoint_every
                        or bool(stop)
                    )
                    means = distributed.process_mean(self.sums / self.steps) if logged else None
                    if (logged or due) and self.device.type == "cuda":
                        torch.cuda.synchronize(self.device)  # before the clock is read
                    before, now = now, time.perf_counter()
                    self.seconds += now - before
                    if logged:
                        entry = self.entry(dict(zip(self.step.names, means.tolist())), lr, self.seconds / self.steps)
                        self.sums, self.steps, self.seconds = torch.zeros((), device=self.device), 0, 0.0
                        if self.first:
                            if self.iteration in val_at:
                                entry |= self.validate()
                            log.write(json.dumps(entry) + "\n")
                            log.flush()
                            bar.note(
                                " ".join(
                                    f"{name} {entry[name]:.3f}" for name in ("loss", "val_mean_dice") if name in entry
                                )
                            )
                            pictures = self.save_pictures() if self.iteration in picture_at else {}
                            if board is not None:
                                board(entry, pictures)
                        now = time.perf_counter()
                    if (
                        due and self.first and (logged or distributed.processes() == 1)
                    ):  # several processes have nothing unlogged to save
                        os.fsync(log.fileno())  # a checkpoint says that these lines are there
                        self.checkpoint()
                        saved = now = time.perf_counter()
                    if (
                        due and stop and self.iteration < total
                    ):  # a signal after `due` was looked at waits for the next step
                        raise KeyboardInterrupt
        finally:
            torch.use_deterministic_algorithms(False)

    def entry(self, means: dict[str, float], lr: float, seconds: float) -> dict:
        """A line of log.jsonl, from the means since the last one. Raises InputError when a loss is not finite."""
        monitored = self.method.monitor()
        losses = {name: value for name, value in means.items() if name not in monitored}
        bad = [name for name, value in losses.items() if not np.isfinite(value)]
        if bad:
            raise InputError(
                f"{self.run}: {', '.join(bad)} became NaN or infinite by iteration {self.iteration}. Lower --lr, or try --precision float32."
            )
        return {
            "iteration": self.iteration,
            "lr": lr,
            "seconds_per_iteration": round(seconds, 5),
            "peak_memory_mib": round(peak_memory_mib(self.device)),
            "loss": sum(losses.values()),
            "losses": losses,
            "monitor": {name: means[name] for name in monitored},
        }

    def validate(self) -> dict:
        dice = validation_dice(
            self.evaluated, self.val, self.owner, len(self.plan.classes), self.device, self.dtype
        ).nanmean(0)
        mean = float(dice.nanmean())
        if mean > self.best:
            self.best = mean
            self.save_weights("best")
        return {"val_dice": dict(zip(self.plan.classes[1:], dice.tolist())), "val_mean_dice": mean}

    @torch.no_grad()
    def save_pictures(self) -> dict[str, np.ndarray]:
        """pictures/ITERATION.npz: a few fixed slices, what the network says of them, and the method's own maps."""
        batch = most_drawn(self.slices, 4, self.device)
        self.method.eval()
        with (
            torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
            torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32),
        ):
            torch.manual_seed(self.config.seed)
            shown = self.method.pictures(batch)
            found = self.evaluated(batch.image).argmax(1)
        self.method.train()
        truth = {} if batch.truth is None else {"truth": batch.truth}
        return write_pictures(
            self.run,
            self.iteration,
            {"image": batch.image[:, 0], "scribble": batch.label, "prediction": found, **truth, **shown},
        )


@contextmanager
def _interruptible() -> Iterator[list]:
    """Ctrl-C fills the list instead of cutting a step in two; a second Ctrl-C stops at once, and so does any with several processes."""
    stop = []
    if threading.current_thread() is not threading.main_thread() or distributed.processes() > 1:
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
