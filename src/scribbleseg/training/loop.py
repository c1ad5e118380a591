"""The one training loop, from top to bottom."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..core import distributed
from ..core.console import say
from ..core.device import peak_memory_mib
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..core.progress import Progress
from ..core.recipe import Recipe
from .batches import most_drawn
from .calendar import Calendar
from .machine import Machine
from .optimizer import learning_rate
from .run_folder import RunFolder
from .sampling import Sampler
from .state import State
from .step import Step
from .validation import Validation

PICTURED = 4  # slices


def run_to_end(
    state: State,
    step: Step,
    sampler: Sampler,
    recipe: Recipe,
    calendar: Calendar,
    folder: RunFolder,
    validation: Validation | None,
    machine: Machine,
    seed: int,
    stop: Sequence[int],
    bar: Progress,
) -> None:
    """Take steps until the recipe's last one; sweep, log, validate, draw and save when the calendar says so.

    A signal in `stop` ends the run after a checkpoint, with KeyboardInterrupt. Raises InputError when a loss is not
    finite.
    """
    while state.iteration < recipe.iterations:
        began, progress = time.perf_counter(), state.iteration / recipe.iterations
        rate = learning_rate(recipe, progress)
        state.tally.add(step(sampler(state.iteration), progress, rate))
        state.iteration += 1
        if step.compiled and step.taken == 1:
            say(f"compiled in {time.perf_counter() - began:.0f} s")
        if step.taken == 1 and folder.writes:
            folder.add_environment({"step": step.kind})  # code of others that waits is not recorded
        if calendar.sweeps_at(state.iteration):
            share = torch.full((), state.iteration / recipe.iterations, device=machine.device)
            state.method.sweep(step.slices, share)
        logs = calendar.logs_at(state.iteration)
        saves = calendar.saves_at(state.iteration) or bool(stop)
        means = state.tally.means() if logs else []
        if (logs or saves) and machine.device.type == "cuda":
            torch.cuda.synchronize(machine.device)  # before the clock is read
        state.tally.seconds += time.perf_counter() - began
        bar.advance()

        if logs:
            entry = log_entry(folder.path, state, dict(zip(step.names, means)), rate, machine)
            if validation is not None and calendar.validates_at(state.iteration):
                entry |= validate(state, validation, machine, folder)
            pictured = folder.writes and calendar.pictures_at(state.iteration)
            folder.log(entry, pictures(state, step, machine, seed) if pictured else {})
            bar.note(" ".join(f"{name} {entry[name]:.3f}" for name in ("loss", "val_mean_dice") if name in entry))
            state.tally.reset()
        if saves and (logs or distributed.processes() == 1):  # several processes save only where they agreed on means
            folder.save(state)
            calendar.saved()
        if saves and stop and state.iteration < recipe.iterations:
            raise KeyboardInterrupt


def log_entry(run: Path, state: State, means: dict[str, float], rate: float, machine: Machine) -> dict:
    """A line of log.jsonl from the means since the last one. Raises InputError when a loss is not finite."""
    monitored = state.method.monitor()
    losses = {name: value for name, value in means.items() if name not in monitored}
    if bad := [name for name, value in losses.items() if not np.isfinite(value)]:
        raise InputError(
            f"{run}: {', '.join(bad)} became NaN or infinite by iteration {state.iteration}. "
            "Lower --lr, or try --precision float32."
        )
    return {
        "iteration": state.iteration,
        "lr": rate,
        "seconds_per_iteration": round(state.tally.seconds / state.tally.steps, 5),
        "peak_memory_mib": round(peak_memory_mib(machine.device)),
        "loss": sum(losses.values()),
        "losses": losses,
        "monitor": {name: means[name] for name in monitored},
    }


def validate(state: State, validation: Validation, machine: Machine, folder: RunFolder) -> dict:
    """Dice of the validation cases for the log; the best weights so far go to best.safetensors."""
    dice = validation.dice(state.evaluated, machine)
    mean = float(torch.tensor(list(dice.values()), dtype=torch.float64).nanmean())
    if mean > state.best:
        state.best = mean
        folder.save_weights("best", state)
    return {"val_dice": dice, "val_mean_dice": mean}


@torch.no_grad()
def pictures(state: State, step: Step, machine: Machine, seed: int) -> dict[str, Tensor]:
    """A few fixed training slices, what the network says about them, and the method's own maps, [N, H, W] each.

    Of 3-D patches the slice with most strokes is shown.
    """
    batch = most_drawn(step.slices, PICTURED, machine.device)
    state.method.eval()
    cuda = [machine.device] if machine.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), machine.autocast:
        torch.manual_seed(seed)
        shown = state.method.pictures(batch)
        found = state.evaluated(batch.image).argmax(1)
    state.method.train()
    truth = {} if batch.truth is None else {"truth": batch.truth}
    maps = {"image": batch.image[:, 0], "scribble": batch.label, "prediction": found, **truth, **shown}
    if batch.label.dim() == 3:
        return maps
    drawn = ((batch.label != UNLABELED) & (batch.label > 0)).flatten(2).sum(2).argmax(1)
    return {name: value[torch.arange(len(value), device=value.device), drawn] for name, value in maps.items()}
