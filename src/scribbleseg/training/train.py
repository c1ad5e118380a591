"""The verb `train`: settings are resolved, data read, the run folder made; then the loop takes over."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..config import Resume, Train
from ..core import distributed
from ..core.console import say
from ..core.device import prepare_cpu
from ..core.environment import environment
from ..core.errors import InputError, counted, first_names
from ..core.own_code import never_from
from ..core.progress import Progress
from ..core.signals import stops
from ..data.case import Locate
from ..data.dataset import Dataset
from ..data.enclosure import not_enclosed
from ..data.fingerprint import fingerprint
from ..data.layout import read_dataset
from ..data.reading import read_training
from ..data.voxels import Slices, Voxels
from ..methods import is_own, method_class
from ..methods.base import Method
from ..methods.targets import kept_targets
from ..networks import build_network
from ..networks import is_own as is_own_network
from ..networks.locator import LOCATOR
from .augment import AUGMENTATIONS
from .average import Average
from .batches import layout_of
from .board import BOARDS
from .calendar import SWEEP_DISTANCE, Calendar
from .checkpoint import load_weights, read_checkpoint, weights_iteration
from .fit import fit_plan
from .locate import find_locator
from .loop import run_to_end
from .machine import Machine, determinism, pick_machine
from .optimizer import make_optimizer
from .patch import choose_patch
from .plan import Plan, data_folder, own_code, read_plan, shown_patch, write_plan
from .run_folder import RunFolder
from .sampling import make_sampler
from .settings import make_plan, undecided
from .state import State
from .step import Step
from .validation import read_validation

Length = Callable[[Plan, Machine], int]
DAYS_ON_A_CPU = 10**10  # pixels of all batches; 12 × 256² take 1 to 4 s on two cores


def train(config: Train, length: Length | None = None) -> Path:
    """Train on one fold and write the run folder; returns it.

    length: how many iterations a plan gets on a machine, asked when the training cases have decided the rest of it.
    Raises InputError for anything wrong with the data, the settings or the folder, before anything is written, and for
    a method that returns no named terms. If the first step fails, the run folder is removed again.
    """
    with distributed.joined():
        dataset = read_dataset(config.dataset)
        plan, left = make_plan(config, dataset), undecided(config)
        machine = pick_machine(config, plan.recipe, plan.dims)
        folder = RunFolder(config.run, plan.network, _boards(config), writes=distributed.rank() == 0)
        folder.check_new(plan.recipe.iterations)
        if machine.device.type == "cpu" and folder.writes and _pixels(plan) > DAYS_ON_A_CPU:
            say(
                f"{plan.recipe.iterations} iterations of {plan.recipe.batch} slices of {plan.size}² pixels take days "
                "on a CPU. `--preset fast` trains in minutes."
            )
        if folder.writes and config.split == "auto":
            say(f"{config.dataset}: {_shown_fold(dataset, plan, config.fold)}")
        prepare_cpu()
        with folder.claimed():
            plan = fit_plan(plan, dataset, left)
            if folder.writes and (left.enclosure, plan.fitted.enclosure) == ("auto", "off"):
                say(not_enclosed(plan.fitted.closed))
            if length is not None:
                plan = replace(plan, recipe=replace(plan.recipe, iterations=length(plan, machine)))
            _run(config, plan, machine, dataset, folder)
    return Path(config.run)


def resume(run: Path, method: str | None = None, network: str | None = None, augmentation: str | None = None) -> Path:
    """Carry on a run that was cut off, to the same weights as if it had not been; a finished run is left as it is.

    A run folder may come from somebody else, and its method, network and augmentation may be code: what is not ours is
    only imported if it is named here too, and never from the run folder. Raises InputError otherwise.
    """
    run = Path(run)
    with distributed.joined():
        config, plan = read_plan(run)
        _check_named(run, plan, {"method": method, "network": network, "augmentation": augmentation})
        never_from(run, plan.method, plan.network, plan.recipe.augmentation)
        if plan.own_code and plan.own_code != own_code(plan.method, plan.network, plan.recipe.augmentation):
            raise InputError(
                f"{run}: the code of its method, network or augmentation has changed since it began. Put the files "
                "back as they were, or train a new run in another folder."
            )
        folder = RunFolder(run, plan.network, _boards(config), writes=distributed.rank() == 0)
        folder.check_links()
        if _is_finished(_checkpoint(run, plan), plan) and (run / "last.safetensors").is_file():
            if folder.writes:
                say(f"{run}: is finished ({plan.recipe.iterations} iterations)")
            return run
        config = dataclasses.replace(config, dataset=data_folder(run, config.dataset))
        if not config.dataset.exists():
            raise InputError(
                f"{run}: its data set {config.dataset} is neither here nor in a folder above the run. Put it back, or "
                "give the command where the training was started."
            )
        machine, dataset = pick_machine(config, plan.recipe, plan.dims), read_dataset(config.dataset)
        _check_names(run, plan, dataset)
        prepare_cpu()
        with folder.locked():
            stored = _checkpoint(run, plan)  # of now: another process may have trained until the lock was free
            if not (_is_finished(stored, plan) and (run / "last.safetensors").is_file()):
                _run(config, plan, machine, dataset, folder, stored)
    return run


def carry_on(settings: Resume) -> Path:
    """`resume` as the command line calls it."""
    return resume(settings.run, settings.method, settings.network, settings.augmentation)


def _check_named(run: Path, plan: Plan, given: dict[str, str | None]) -> None:
    """Raises InputError for a name that is not the run's, and for code that is not ours and was not named."""
    theirs = {"method": plan.method, "network": plan.network, "augmentation": plan.recipe.augmentation}
    for what, name in given.items():
        if name not in (None, theirs[what]):
            raise InputError(f"{run}: is a run of {theirs[what]}, not of {name}. Leave --{what} out.")
    ours = {
        "method": is_own(plan.method),
        "network": is_own_network(plan.network),
        "augmentation": plan.recipe.augmentation in AUGMENTATIONS,
    }
    foreign = [what for what in given if not ours[what]]
    for what in foreign:
        if given[what] is None:
            named = " ".join(f"--{what} {theirs[what]}" for what in foreign)
            raise InputError(
                f"{run}: its {what}, {theirs[what]}, is not one of scribbleseg's, and carrying on runs its code. If "
                f"you trust it, name it: scribbleseg train {run} --resume {named}"
            )


def _check_names(run: Path, plan: Plan, dataset: Dataset) -> None:
    """Raises InputError for a data set that lacks cases of the run, or has other classes or channels than it had."""
    known = dataset.cases.keys() | dataset.tests.keys()
    if gone := sorted({*plan.fold.train, *plan.fold.val} - known):
        raise InputError(
            f"{run}: began with {first_names(gone)}; {dataset.folder} has no image of that name now. Put the files "
            "back as they were, or train a new run in another folder."
        )
    for what, began, now in (
        ("classes", plan.classes, dataset.classes),
        ("channels", plan.channels, dataset.channels),
    ):
        if began != now:
            raise InputError(
                f"{run}: began with the {what} {', '.join(began)}; {dataset.folder / 'dataset.json'} has "
                f"{', '.join(now)} now. Put them back as they were, or train a new run in another folder."
            )


def _boards(config: Train) -> list[str]:
    """The boards that the settings ask for."""
    return [name for name in BOARDS if getattr(config, name)]


def _shown_fold(dataset: Dataset, plan: Plan, number: int) -> str:
    """Which cases train, validate and are held out, and how to choose others; one line."""
    trained, val, test = (list(part) for part in (plan.fold.train, plan.fold.val, plan.fold.test))
    parts = [f"; validation: {len(val)} ({first_names(val)})"] if val else []
    parts += [f"; test, never seen: {len(test)} ({first_names(test)})"] if test else []
    held = "".join(parts)
    if plan.split == "all":
        way = "" if val else " --val-share 0.2 sets some aside."
        among = f"{len(trained)} of {counted(len(dataset.cases), 'case')} of imagesTr"
        return f"has no split; training: {among}{held}.{way}"
    folds = len(dataset.folds(plan.split))
    other = "--fold chooses another fold, " if folds > 1 else ""
    return (
        f"split {plan.split}, fold {number} of {folds} (from 0); training: {len(trained)} "
        f"({first_names(trained)}){held}. {other}--split another split, or all: every case."
    )


def _pixels(plan: Plan) -> int:
    return plan.recipe.iterations * plan.recipe.batch * plan.size**2


def _is_finished(stored: dict | None, plan: Plan) -> bool:
    return stored is not None and stored["iteration"] >= plan.recipe.iterations


def _checkpoint(run: Path, plan: Plan) -> dict | None:
    """The checkpoint of a run, None where it was cut off before its first one.

    Raises InputError for a run that has trained weights and no checkpoint, as starting anew would replace them, and for
    a checkpoint that is not of these weights.
    """
    if (run / "resume.pt").is_file():
        stored = read_checkpoint(run)
        weights = run / "last.safetensors"
        reached = weights_iteration(weights, plan.recipe.iterations) if weights.is_file() else None
        if reached is not None and reached < stored["iteration"]:
            raise InputError(
                f"{run}: its checkpoint (resume.pt) is of iteration {stored['iteration']}, and its weights "
                f"(last.safetensors), which are written first, of iteration {reached}. They are not of one run. Put "
                "the right file back."
            )
        return stored
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


def _run(
    config: Train, plan: Plan, machine: Machine, dataset: Dataset, folder: RunFolder, stored: dict | None = None
) -> None:
    """Read the cases, build what is trained, and train to the end. stored: a checkpoint that is carried on from."""
    torch.manual_seed(config.seed)
    network, locator = _network(plan, dataset, config.seed, config.init, stored)
    method = method_class(plan.method)(network, **plan.options)  # which may copy the network for a teacher
    with distributed.first_process_first():
        targets = kept_targets(method, dataset.folder / ".scribbleseg")
        slices = read_training(dataset, plan.fold.train, targets, plan.raster, plan.fitted, machine.device, locator)
    if isinstance(slices, Voxels):
        if stored is None:
            plan = choose_patch(plan, slices, machine.device, config.size)
        slices.size = plan.patch
    if stored is None and folder.writes:
        outside = "; outside of the background strokes is background" * (plan.fitted.enclosure != "off")
        many = f"{counted(plan.recipe.iterations, 'iteration')} of {plan.recipe.batch}"
        say(f"{plan.method}: {many} {shown_patch(plan)}{outside}")
        if method.sweeps and plan.recipe.iterations < 2 * SWEEP_DISTANCE:
            say(f"{plan.method}: a run of less than {2 * SWEEP_DISTANCE} iterations is too short to label slices anew")
    validation = read_validation(dataset, plan, locator) if plan.fold.val and folder.writes else None
    state, step = _first_step(plan, machine, network, method, slices, config.seed)
    if stored is not None:
        state.restore(stored, slices, folder.path / "resume.pt")
        if folder.writes:
            say(f"{folder.path}: goes on after iteration {state.iteration} of {plan.recipe.iterations}")
    validations = config.validations if plan.fold.val else 0
    prints = _fingerprints(dataset, plan) if folder.writes else {}
    if not folder.fresh:
        folder.check_data(prints)
    elif folder.writes:
        folder.check_new(plan.recipe.iterations)  # another training may have begun there meanwhile
    with folder.removed_if_nothing_was_trained(state), determinism(machine.deterministic), _interruptible() as stop:
        record = environment(machine.device, machine.dtype) | {"step": step.kind}
        record |= {"data_note": dataset.note} if dataset.note else {}
        record["data"] = prints
        if stored is not None:
            folder.carry_on(state, record)
        else:
            if folder.writes:
                write_plan(config, plan)
            folder.begin(state, record)
        calendar = Calendar(plan.recipe.iterations, method.sweeps, validations, config.checkpoint_every)
        sampler = make_sampler(slices, plan.recipe.batch, config.seed, plan.fitted.bare)
        label, done = f"training {plan.method}", state.iteration
        with Progress(label, plan.recipe.iterations, "it", done, folder.writes) as bar:
            run_to_end(state, step, sampler, plan.recipe, calendar, folder, validation, machine, config.seed, stop, bar)


def _network(
    plan: Plan, dataset: Dataset, seed: int, init: Path | None, stored: dict | None
) -> tuple[nn.Module, Locate | None]:
    """The network with its first weights, and what finds the place to cut slices to, where they are cut to rings."""
    size = plan.patch if plan.dims == 2 or stored is not None else None  # a 3-D patch is chosen when cases are read
    network = build_network(plan.network, len(plan.channels), len(plan.classes), plan.dims, plan.anisotropy, size)
    if init is not None and stored is None:
        load_weights(network, init / "last.safetensors", plan.network, len(plan.classes), without=LOCATOR)
    locator = find_locator(network, dataset, plan, seed, stored, init) if plan.fitted.locate else None
    needs = " ".join(method_class(plan.method).needs)
    if hasattr(network, "described") and "features_and_logits" in needs:
        say(f"features of {plan.network}: {network.described}")
    return network, locator


def _first_step(
    plan: Plan, machine: Machine, network: nn.Module, method: Method, slices: Slices | Voxels, seed: int
) -> tuple[State, Step]:
    """What a run knows before its first iteration, and the step that it repeats."""
    layout = layout_of(plan.dims)
    method.to(machine.device, memory_format=layout).train()  # type: ignore[call-overload]
    optimizer = make_optimizer(plan.recipe, method, machine.device)
    average = Average(network, plan.recipe.ema) if plan.recipe.ema else None
    step = Step(
        method,
        optimizer,
        slices,
        machine.dtype,
        layout=layout,
        part=distributed.own_part(plan.recipe.batch),
        seed=seed,
        augmentation=plan.recipe.augmentation,
        average=average,
        compiled=machine.compiled,
        recorded=machine.recorded,
        foreign=not is_own(plan.method) or ":" in plan.network,
    )
    return State(method, optimizer, average, machine.device), step


def _fingerprints(dataset: Dataset, plan: Plan) -> dict[str, str]:
    """Of the cases that the run learns from, and of those that score it, as far as the data set still has them."""
    held = [name for name in plan.fold.test if name in dataset.cases or name in dataset.tests]
    return {
        "learned": fingerprint(dataset, (*plan.fold.train, *plan.fold.val)),
        "held_out": fingerprint(dataset, held),
    }


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
