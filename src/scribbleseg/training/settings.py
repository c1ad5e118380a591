"""From the settings to the plan of a run: resolved and checked with dataset.json and the split; no image is read."""

import dataclasses
import importlib.util
from pathlib import Path

from ..config import Train
from ..core.errors import InputError
from ..core.seeds import check_seed
from ..data.case import drawn_grids
from ..data.dataset import Dataset, Fold
from ..data.fitting import suits_3d
from ..data.set_aside import judged_on_scribbles, set_aside
from ..methods import METHODS, method_class, parse_options
from .augment import AUGMENTATIONS
from .calendar import check_interval
from .checkpoint import weights_iteration
from .fit import Undecided
from .patch import MOST_SIDE, SHORTEST
from .plan import Plan, own_code, read_plan
from .recipe import PRESETS, make_recipe, method_name, preset_options

BATCH_3D = 2


def make_plan(config: Train, dataset: Dataset) -> Plan:
    """Resolve defaults and check everything that can be checked without reading an image. `dataset`: the config's.

    Where strokes decide, which cases are set aside or whether to train in 3-D, labels are read.
    """
    check_interval(config.checkpoint_every)
    check_seed(config.seed)
    method = method_name(config)
    options = preset_options(config) | parse_options(method, config.set)
    recipe, size, network = make_recipe(config)
    split = dataset.default_split() if config.split == "auto" else config.split
    fold = dataset.fold(split, config.fold)
    if not fold.train:
        raise InputError(f"{config.dataset}: fold {config.fold} of '{split}' has no training case. Correct the split.")
    fold = set_aside(dataset, fold, config.val_share, config.seed)
    on_scribbles = judged_on_scribbles(dataset, fold)
    dims = _dims(config, method, dataset, fold)
    if dims == 3:
        recipe = dataclasses.replace(recipe, batch=config.batch or BATCH_3D)
        size = MOST_SIDE  # for the pixel; the patch's own size follows from the volumes
        network = config.network or ("unet3d" if network == "unet" else network)
    if config.preparation == "patches" and config.augmentation in AUGMENTATIONS:
        raise InputError(
            f"--augmentation {config.augmentation}: is for whole slices. Leave it out: patches have an augmentation of "
            "their own. Or name one of yours."
        )
    if config.init is not None:
        _check_init(config.init, network, dataset)
    return Plan(
        method,
        options,
        recipe,
        size,
        network,
        dataset.classes,
        dataset.channels,
        split,
        fold,
        on_scribbles,
        own_code(method, network, recipe.augmentation),
        "patches" if config.preparation == "patches" else "slices",
        dims=dims,
    )


def _check_init(run: Path, network: str, dataset: Dataset) -> None:
    """Raises InputError when the weights of a run cannot start another one, or are missing or untrained."""
    _, plan = read_plan(run)
    for what, theirs, ours in (
        ("network", (plan.network,), (network,)),
        ("classes", plan.classes, dataset.classes),
        ("channels", plan.channels, dataset.channels),
    ):
        if theirs != ours:
            raise InputError(
                f"--init {run}: has {what} {', '.join(theirs)}; this training has {', '.join(ours)}. "
                f"A warm start needs the same {what} in the same order. Choose another run, or leave out --init."
            )
    weights = run / "last.safetensors"
    if not weights.is_file():
        raise InputError(f"--init {run}: has no {weights.name}. Has it been trained? Choose another run.")
    if weights_iteration(weights, plan.recipe.iterations) == 0:
        raise InputError(f"--init {run}: stands at iteration 0, its weights are random. Train it first.")


def _dims(config: Train, method: str, dataset: Dataset, fold: Fold) -> int:
    """2 or 3; with --dims auto the training cases decide. Raises InputError where 3-D was asked for and cannot be."""
    able = 3 in method_class(method).dims
    if config.dims == "3" and config.preparation != "patches":
        raise InputError("--dims 3: whole slices are resized to squares, which is 2-D. Add --preparation patches.")
    if config.dims == "3" and not able:
        others = ", ".join(name for name in METHODS if 3 in method_class(name).dims)
        raise InputError(
            f"--dims 3: {method} sees slices alone. Use --dims 2, or a method that works in 3-D: {others}."
        )
    if config.dims == "3" and config.size is not None and config.size < SHORTEST:
        raise InputError(f"--size {config.size}: 3-D patches need {SHORTEST} pixels or more. Give a larger --size.")
    if config.dims != "auto":
        return int(config.dims)
    if config.preparation != "patches" or not able or importlib.util.find_spec("monai") is None:
        return 2
    return 3 if suits_3d(drawn_grids(dataset, fold.train)) else 2


def undecided(config: Train) -> Undecided:
    """What the settings leave to the training cases. Raises InputError for what the method has no term for."""
    preset, in_rings = PRESETS.get(config.preset), None
    if preset is not None:
        size, iterations = preset.rings["size"], preset.rings["iterations"]
        in_rings = (config.size or size, config.iterations or iterations)
    method = method_name(config)
    return Undecided(
        enclosure=_enclosure(config, method),
        locate={"rings": "on", "auto": "auto" if preset else "off"}.get(config.preparation, "off"),
        by_data=preset is not None,
        learns_from_bare=method_class(method).learns_from_bare,
        in_rings=in_rings,
    )


def _enclosure(config: Train, method: str) -> str:
    """on, off, or auto (the strokes decide). Raises InputError for a method that has no term for it."""
    reads, rings = method_class(method).reads_enclosure, config.preparation == "rings"
    if not reads and (rings or config.enclosure == "on"):
        able = ", ".join(name for name in METHODS if method_class(name).reads_enclosure)
        raise InputError(
            f"{'--preparation rings' if rings else '--enclosure on'}: {method} has no term for the enclosed "
            f"background. Methods that have one: {able}."
        )
    if rings and config.enclosure == "off":
        raise InputError("--preparation rings --enclosure off: rings are what encloses. Leave one of the two out.")
    if rings:
        return "on"
    if config.enclosure == "auto":
        return "auto" if config.preset in PRESETS and reads else "off"
    return config.enclosure
