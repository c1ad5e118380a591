"""The verb `train`: settings are resolved, data read, the run folder made; then the loop takes over."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from ..config import Train
from ..core import distributed
from ..core.console import say
from ..core.device import prepare_cpu
from ..core.errors import InputError
from ..core.progress import Progress
from ..core.signals import stops
from ..data.dataset import Dataset
from ..data.layout import read_dataset
from ..methods import method_class
from ..networks import build_network
from .average import Average
from .batches import build_slices, check_trainable, resident
from .calendar import Calendar
from .checkpoint import read_checkpoint, weights_iteration
from .loop import run_to_end
from .machine import Machine, determinism, pick_machine
from .optimizer import make_optimizer
from .plan import Plan, make_plan, read_plan
from .run_folder import RunFolder
from .state import State
from .step import Step
from .validation import Validation, read_validation


def train(config: Train) -> Path:
    """Train on one fold and write the run folder; returns it.

    Raises InputError for anything wrong with the data, the settings or the folder, before anything is written, and for
    a method that returns no named terms. If the first step fails, the run folder is removed again.
    """
    with distributed.joined():
        dataset = read_dataset(config.dataset)
        plan = make_plan(config, dataset)
        folder = RunFolder(Path(config.run), writes=distributed.rank() == 0)
        folder.check_new(plan.recipe.iterations)
        _run(config, plan, dataset, folder, stored=None)
    return Path(config.run)


def resume(run: Path) -> Path:
    """Carry on a run that was cut off, to the same weights as if it had not been; a finished run is left as it is."""
    run = Path(run)
    with distributed.joined():
        config, plan = read_plan(run)
        folder = RunFolder(run, writes=distributed.rank() == 0)
        if _is_finished(_checkpoint(run, plan), plan):
            if folder.writes:
                say(f"{run}: is finished ({plan.recipe.iterations} iterations)")
            return run
        dataset = read_dataset(config.dataset)
        with folder.locked():
            stored = _checkpoint(run, plan)  # of now: another process may have trained until the lock was free
            if not _is_finished(stored, plan):
                _run(config, plan, dataset, folder, stored)
    return run


def _is_finished(stored: dict | None, plan: Plan) -> bool:
    return stored is not None and stored["iteration"] >= plan.recipe.iterations


def _checkpoint(run: Path, plan: Plan) -> dict | None:
    """The checkpoint of a run, None where it was cut off before its first one.

    Raises InputError for a run that has trained weights and no checkpoint: starting anew would replace them.
    """
    if (run / "resume.pt").is_file():
        return read_checkpoint(run)
    for name in ("last", "best"):
        weights = run / f"{name}.safetensors"
        if weights.is_file():
            reached = weights_iteration(weights, plan.recipe.iterations)
            if reached:
                raise InputError(
                    f"{run}: has weights of iteration {reached}, but no checkpoint (resume.pt), so it cannot be "
                    "carried on. Put resume.pt back, or train a new run in another folder."
                )
    for name in ("resume.pt", "last.safetensors", "best.safetensors"):
        if os.path.lexists(run / name) and not (run / name).is_file():
            raise InputError(
                f"{run / name}: is not a file (a folder, a pipe, or a link to nowhere?), so it is not known how far "
                "the run has come. Put the file back, or train a new run in another folder."
            )
    return None


def _run(config: Train, plan: Plan, dataset: Dataset, folder: RunFolder, stored: dict | None) -> None:
    machine = pick_machine(
        config.device, config.precision, config.compile, config.graph, config.deterministic, plan.recipe.iterations
    )
    part = distributed.own_part(plan.recipe.batch)
    prepare_cpu()
    torch.manual_seed(config.seed)
    if folder.writes:
        _say_what_is_left_out(dataset, plan)
    network = build_network(plan.network, len(plan.channels), len(plan.classes))
    method = method_class(plan.method)(network, **plan.options)
    with distributed.first_process_first():
        slices, _ = build_slices(dataset, plan.fold.train, method, plan.size)
    check_trainable(slices, plan.classes, dataset.folder)
    validation = read_validation(dataset, plan) if plan.fold.val and folder.writes else None

    slices = resident(slices, machine.device)
    method.to(machine.device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(plan.recipe, method, machine.device)
    average = Average(network, plan.recipe.ema) if plan.recipe.ema else None
    state = State(method, optimizer, average, machine.device)
    step = Step(
        method,
        optimizer,
        slices,
        machine.dtype,
        part=part,
        seed=config.seed,
        average=average,
        compiled=machine.compiled,
        recorded=machine.recorded,
    )
    if stored is not None:
        state.restore(stored, slices, folder.path / "resume.pt")
    with folder.locked():
        if stored is None and folder.writes and folder.fresh:
            folder.check_new(plan.recipe.iterations)  # another training may have begun there meanwhile
        _begin(config, plan, dataset, folder, validation, machine, state, step, stored is None)


def _begin(
    config: Train,
    plan: Plan,
    dataset: Dataset,
    folder: RunFolder,
    validation: Validation | None,
    machine: Machine,
    state: State,
    step: Step,
    new: bool,
) -> None:
    """Write the folder of a new run, or get that of an earlier one ready, and train to the end."""
    with folder.removed_if_nothing_was_trained(state), determinism(machine.deterministic), _interruptible() as stop:
        notes = {"step": step.kind} | ({"data_note": dataset.note} if dataset.note else {})
        if new:
            folder.begin(config, plan, machine, notes, state)
        else:
            folder.carry_on(config, plan, machine, notes, state)
        validations = config.validations if plan.fold.val else 0
        calendar = Calendar(plan.recipe.iterations, state.method.sweeps, validations, config.checkpoint_every)
        label, done = f"training {plan.method}", state.iteration
        with Progress(label, plan.recipe.iterations, "it", done, folder.writes) as bar:
            run_to_end(state, step, plan.recipe, calendar, folder, validation, machine, config.seed, stop=stop, bar=bar)


def _say_what_is_left_out(dataset: Dataset, plan: Plan) -> None:
    for message in dataset.left_out():
        say(f"{dataset.folder}: {message}")
    bare = [name for name in plan.fold.train if dataset.case(name).scribble is None]
    if bare:
        count = f"{len(bare)} of {len(plan.fold.train)}"
        say(f"{count} training cases have no scribble (first: {bare[0]})")


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGHUP fill the list, so that no step is cut in two; a second one stops at once.

    With several processes they all stop at once.
    """
    stop: list[int] = []
    if distributed.processes() > 1:
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.append(number)

    with stops(handle):
        yield stop
