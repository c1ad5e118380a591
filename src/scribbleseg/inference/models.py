"""The trained networks of run folders and packed models."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..config import Train
from ..core.console import say
from ..core.device import pick_precision
from ..core.errors import InputError
from ..core.own_code import never_from
from ..data.layout import read_dataset
from ..networks import build_network, is_own
from ..networks.locator import LOCATOR, Locator, attach
from ..training.batches import layout_of
from ..training.checkpoint import load_weights, weights_iteration
from ..training.plan import Plan, read_plan
from .packed import run_folder
from .provenance import checksum


@dataclass(frozen=True)
class Model:
    """The network of a run, in eval mode on its device, and what it was trained with."""

    run: Path
    network: nn.Module
    settings: Train
    plan: Plan
    dtype: torch.dtype
    locator: Locator | None  # of a run whose slices are cut to where rings lie
    iteration: int  # of the weights
    sha256: str  # of the file of the weights


def load_models(runs: Sequence[Path], weights: str, device: torch.device, networks: Sequence[str] = ()) -> list[Model]:
    """The networks of runs, which are folders or packed models. networks: as in `load_network`.

    Raises InputError for runs that cannot be averaged, for one that was never trained, for a name in `networks` that no
    run has, and as `load_network` does.
    """
    if not runs:
        raise InputError("no run is named; expected a run folder or a packed model, or several.")
    with ExitStack() as stack:
        return _load(runs, [stack.enter_context(run_folder(run)) for run in runs], weights, device, networks)


def _load(
    runs: Sequence[Path], folders: Sequence[Path], weights: str, device: torch.device, networks: Sequence[str]
) -> list[Model]:
    settings, plans = zip(*map(read_plan, folders))
    _check_same(runs, plans)
    used = [plan.network for plan in plans]
    if odd := [name for name in networks if name not in used]:
        raise InputError(f"--network {odd[0]}: no run has it; they have {', '.join(used)}. Leave it out or correct it.")
    models = []
    for run, folder, train, plan in zip(runs, folders, settings, plans):
        network, dtype = load_network(folder, plan, weights, networks), pick_precision(train.precision, device)
        if dtype == torch.float32 and is_own(plan.network):
            network = folded(network)  # in bfloat16 it would change one voxel in 8000
        network.to(device, memory_format=layout_of(plan.dims))  # type: ignore[call-overload]  # torch declares no such form
        total = plan.recipe.iterations
        file = folder / f"{weights}.safetensors"
        reached = weights_iteration(file, total)
        if reached == 0:
            raise InputError(
                f"{run}: not trained yet, iteration 0 of {total}: the weights are random. "
                f"Carry on first: scribbleseg train {run} --resume"
            )
        if weights == "last" and reached < total:
            say(f"{run}: training is not finished, iteration {reached} of {total}")
        locator = getattr(network, LOCATOR) if plan.fitted.locate else None
        models.append(Model(Path(run), network, train, plan, dtype, locator, reached, checksum(file)))
    return models


def load_network(run: Path, plan: Plan, weights: str = "last", networks: Sequence[str] = ()) -> nn.Module:
    """The trained network of a run, in eval mode. Raises InputError for missing weights or another architecture.

    A network that is not ours is only imported if `networks` names it, and never from the run folder. Raises InputError
    otherwise.
    """
    if not is_own(plan.network) and plan.network not in networks:
        raise InputError(
            f"{run}: its network, {plan.network}, is not one of scribbleseg's, and predicting runs its code. If you "
            f"trust it, name it: --network {plan.network}"
        )
    never_from(run, plan.network)
    path = Path(run) / f"{weights}.safetensors"
    if not path.is_file():
        hint = "The run had no validation cases; use --weights last." if weights == "best" else "Has it been trained?"
        raise InputError(f"{run}: has no {path.name}. {hint}")
    network = build_network(plan.network, len(plan.channels), len(plan.classes), plan.dims, plan.anisotropy, plan.patch)
    if plan.fitted.locate:
        attach(network, len(plan.channels))
    load_weights(network, path, plan.network, len(plan.classes))
    return network.eval()


def folded(network: nn.Module) -> nn.Module:
    """Fold each batch norm right behind a convolution of its Sequential into that convolution, in place; eval mode."""
    for block in [module for module in network.modules() if isinstance(module, nn.Sequential)]:
        for place, (convolution, norm) in enumerate(pairwise(block)):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                block[place], block[place + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return network


def trained_on(models: Sequence[Model]) -> set[Path]:
    """The images that the runs were trained on, as far as their data sets can still be read where they were."""
    images: set[Path] = set()
    for folder in {model.settings.dataset for model in models}:
        try:
            dataset = read_dataset(folder)
        except (InputError, OSError):
            continue
        cases = dataset.cases | dataset.tests
        names = {name for model in models if model.settings.dataset == folder for name in model.plan.fold.train}
        images |= {path.resolve() for name in names & cases.keys() for path in cases[name].images}
    return images


def _check_same(runs: Sequence[Path], plans: Sequence[Plan]) -> None:
    """Raises InputError when two runs cannot be averaged: classes, channels, plane or what is cut off differ."""
    for run, plan in zip(runs, plans):
        for what in ("classes", "channels"):
            one, other = getattr(plans[0], what), getattr(plan, what)
            if one != other:
                raise InputError(
                    f"{runs[0]} has {what} {', '.join(one)}, {run} has {', '.join(other)}; only runs with the same "
                    f"{what} in the same order can be averaged. Leave one out."
                )
        for what, words in (
            ("plane", "plane that slices are cut in"),
            ("crop", "cropping of empty borders"),
            ("locate", "cutting of slices to where rings lie"),
        ):
            one, other = getattr(plans[0].fitted, what), getattr(plan.fitted, what)
            if one != other:
                alike = what == "locate"
                raise InputError(
                    f"{runs[0]} and {run} differ in the {words} ({one} and {other}), so they cannot be averaged. "
                    f"Leave one out{', or train both with --preparation rings or both with slices' * alike}."
                )
