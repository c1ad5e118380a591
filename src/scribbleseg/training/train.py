"""The verb `train`: settings are resolved, data read, the run folder made; then the loop takes over."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from ..config import Train
from ..core import distributed
from ..core.device import prepare_cpu
from ..core.environment import environment
from ..core.errors import InputError
from ..core.progress import Progress
from ..data.dataset import Dataset
from ..data.layout import read_dataset
from ..methods import method_class
from ..networks import build_network
from .average import Average
from .batches import fit, read_training
from .calendar import Calendar
from .checkpoint import load_weights, read_checkpoint, weights_iteration
from .loop import run_to_end
from .machine import Machine, determinism, pick_machine
from .optimizer import make_optimizer
from .plan import Plan, enclosure_of, make_plan, read_plan, write_plan
from .run_folder import RunFolder
from .state import State
from .step import Step
from .validation import read_validation


def train(config: Train) -> Path:
    """Train on one fold and write the run folder; returns it.

    Raises InputError for anything wrong with the data, the settings or the folder, before anything is written, and for
    a method that returns no named terms. If the first step fails, the run folder is removed again.
    """
    with distributed.joined():
        dataset = read_dataset(config.dataset)
        plan = make_plan(config, dataset)
        machine = pick_machine(config, plan.recipe)
        folder = RunFolder(config.run, plan.network, config.tensorboard, writes=distributed.rank() == 0)
        folder.check_new(plan.recipe.iterations)
        _run(config, plan, machine, dataset, folder, stored=None)
    return Path(config.run)


def resume(run: Path) -> Path:
    """Carry on a run that was cut off, to the same weights as if it had not been; a finished run is left as it is."""
    run = Path(run)
    with distributed.joined():
        config, plan = read_plan(run)
        folder = RunFolder(run, plan.network, config.tensorboard, writes=distributed.rank() == 0)
        stored = read_checkpoint(run) if (run / "resume.pt").is_file() else None  # none: cut off before the first one
        if stored is None:
            _check_untrained(run, plan)
        if stored is None or stored["iteration"] < plan.recipe.iterations:
            machine = pick_machine(config, plan.recipe)
            _run(config, plan, machine, read_dataset(config.dataset), folder, stored)
        elif folder.writes:
            print(f"{run}: is finished ({plan.recipe.iterations} iterations)", file=sys.stderr)
    return run


def _check_untrained(run: Path, plan: Plan) -> None:
    """Raises InputError for a run that has trained weights and no checkpoint: starting anew would replace them."""
    weights = run / "last.safetensors"
    reached = weights_iteration(weights, plan.recipe.iterations) if weights.is_file() else 0
    if reached:
        raise InputError(
            f"{run}: has weights of iteration {reached}, but no checkpoint (resume.pt), so it cannot be carried on. "
            "Put resume.pt back, or train a new run in another folder."
        )


def _run(config: Train, plan: Plan, machine: Machine, dataset: Dataset, folder: RunFolder, stored: dict | None) -> None:
    prepare_cpu()
    wanted = enclosure_of(config)
    if stored is None and (wanted != "off" or plan.preparation == "patches"):
        plan = replace(plan, fitted=fit(dataset, plan, wanted))
    torch.manual_seed(config.seed)
    network = build_network(plan.network, len(plan.channels), len(plan.classes))
    if config.init is not None and stored is None:
        weights = config.init / "last.safetensors"
        load_weights(network, weights, plan.network, len(plan.classes))  # before a method copies it for a teacher
    method = method_class(plan.method)(network, **plan.options)
    with distributed.first_process_first():
        slices = read_training(dataset, plan, method, machine.device)
    validation = read_validation(dataset, plan) if plan.fold.val and folder.writes else None

    method.to(machine.device, memory_format=torch.channels_last).train()
    optimizer = make_optimizer(plan.recipe, method, machine.device)
    average = Average(network, plan.recipe.ema) if plan.recipe.ema else None
    state = State(method, optimizer, average, machine.device)
    step = Step(
        method,
        optimizer,
        slices,
        machine.dtype,
        size=plan.size,
        part=distributed.own_part(plan.recipe.batch),
        seed=config.seed,
        average=average,
        compiled=machine.compiled,
        recorded=machine.recorded,
    )
    if stored is not None:
        state.restore(stored, slices, folder.path / "resume.pt")
    elif folder.writes and folder.fresh:
        folder.check_new(plan.recipe.iterations)  # another training may have begun there while the cases were read
    with folder.removed_if_nothing_was_trained(state), determinism(machine.deterministic), _interruptible() as stop:
        record = environment(machine.device, machine.dtype) | {"step": step.kind}
        record |= {"data_note": dataset.note} if dataset.note else {}
        if stored is not None:
            folder.carry_on(state, record)
        else:
            if folder.writes:
                write_plan(config, plan)
            folder.begin(state, record)
        validations = config.validations if plan.fold.val else 0
        calendar = Calendar(plan.recipe.iterations, method.sweeps, validations, config.checkpoint_every)
        label, done = f"training {plan.method}", state.iteration
        with Progress(label, plan.recipe.iterations, "it", done, folder.writes) as bar:
            run_to_end(state, step, plan.recipe, calendar, folder, validation, machine, config.seed, stop=stop, bar=bar)


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Ctrl-C fills the list, so that no step is cut in two. A second one, or several processes, stop at once."""
    stop: list[int] = []
    if threading.current_thread() is not threading.main_thread() or distributed.processes() > 1:
        yield stop
        return

    def handle(number: int, frame: object) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.append(number)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
