"""The recipe of a run: the method's, then the budget's or preset's, then the user's own values, all within limits."""

import dataclasses
import math
from typing import Any

from ..config import Train
from ..core.errors import InputError
from ..core.recipe import Recipe
from ..data.raster import LARGEST
from ..methods import method_class
from .augment import AUGMENTATIONS, is_name

BUDGETS = {"paper": {"size": 256}, "quick": {"size": 128, "iterations": 600}}


@dataclasses.dataclass(frozen=True)
class Preset:
    """Our own recipe, whatever the method."""

    method: str  # if none is named
    options: dict[str, Any]  # of that method
    recipe: dict[str, Any]  # what replaces the method's
    whole: dict[str, int]  # size and iterations of whole slices and patches
    rings: dict[str, int]  # of slices that are cut to where rings lie


ONE_CYCLE = {"optimizer": "adamw", "schedule": "onecycle", "weight_decay": 0.01, "batch": 12, "ema": 0.99}
PRESETS = {
    "fast": Preset(
        method="corral",
        options={},
        recipe=ONE_CYCLE | {"lr": 0.001, "augmentation": "upright"},
        whole={"size": 128, "iterations": 900},
        rings={"size": 80, "iterations": 2300},
    ),
    "best": Preset(
        method="corral",
        options={"taught": 1.0},
        recipe=ONE_CYCLE | {"lr": 0.003, "augmentation": "papers"},
        whole={"size": 128, "iterations": 2400},
        rings={"size": 80, "iterations": 6000},
    ),
}
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("poly", "cosine", "onecycle", "step", "constant")
HIGHEST_LR = 10
MOST = {"iterations": 10**9, "batch": 10_000}
QUICK_SGD_LR = 0.03  # every SGD method starts at the comparison's pCE rate: the schedule is a hundred times shorter


def method_name(config: Train) -> str:
    """The method that is trained; if none was named, effdnet, or that of the preset."""
    return config.method or (PRESETS[config.preset].method if config.preset in PRESETS else "effdnet")


def preset_options(config: Train) -> dict[str, Any]:
    """The options that a preset sets for its method."""
    preset = PRESETS.get(config.preset)
    return preset.options if preset is not None and method_name(config) == preset.method else {}


def make_recipe(config: Train) -> tuple[Recipe, int, str]:
    """Recipe, size and network: the method's, then the budget's or preset's, then the config's own values."""
    preset = PRESETS.get(config.preset)
    if preset is not None and config.budget != "paper":
        raise InputError(
            f"--preset {config.preset} --budget {config.budget}: the preset sets size and length itself. Leave one of "
            "the two out."
        )
    method = method_name(config)
    kind = method_class(method)
    if config.budget not in BUDGETS:
        raise InputError(f"budget is {config.budget!r}; expected {' or '.join(BUDGETS)}.")
    recipe, budget = kind.recipe, BUDGETS[config.budget]
    if preset is not None:
        recipe, budget = dataclasses.replace(recipe, **preset.recipe), preset.whole
    wanted = {
        key: getattr(config, key)
        for key in ("optimizer", "lr", "schedule", "batch", "gamma", "weight_decay", "augmentation")
    }
    wanted["step_at"] = tuple(config.step_at) or None
    wanted["iterations"] = budget.get("iterations") if config.iterations is None else config.iterations
    recipe = dataclasses.replace(recipe, **{key: value for key, value in wanted.items() if value is not None})
    if config.budget == "quick" and recipe.optimizer == "sgd" and config.lr is None:
        recipe = dataclasses.replace(recipe, lr=QUICK_SGD_LR)
    size = budget["size"] if config.size is None else config.size
    check_recipe(recipe, method)
    if size < 16 or size % 16 or size > LARGEST:
        most = f", {LARGEST} at most" * (size > LARGEST)
        raise InputError(f"--size {size}: expected a positive multiple of 16{most}.")
    return recipe, size, config.network or kind.network_name


def check_recipe(recipe: Recipe, method: str) -> None:
    """Raises InputError for a value that no training can have."""
    for name, value in (("iterations", recipe.iterations), ("batch", recipe.batch)):
        if not 1 <= value <= MOST[name]:
            raise InputError(f"--{name} {value}: expected a positive number{f', {MOST[name]} at most' * (value > 0)}.")
    for name, words in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        word = getattr(recipe, name)
        if word not in words:
            raise InputError(f"{name} {word}: expected one of {', '.join(words)}.")
    if not is_name(recipe.augmentation):
        raise InputError(
            f"--augmentation {recipe.augmentation}: expected {' or '.join(AUGMENTATIONS)}, or package.module:function "
            "for one of your own."
        )
    if recipe.schedule == "step" and not recipe.step_at:
        raise InputError(
            f"--schedule step: {method} names no steps. Give --step-at, or use poly, cosine, onecycle or constant."
        )
    if not all(0 < share < 1 for share in recipe.step_at):
        raise InputError(f"--step-at {recipe.step_at}: expected shares of the run, above 0 and below 1.")
    if not (0 < recipe.gamma < math.inf and 0 <= recipe.weight_decay < math.inf):
        raise InputError(
            f"--gamma {recipe.gamma:g} --weight-decay {recipe.weight_decay:g}: expected a factor above 0 and a decay "
            "of 0 or more."
        )
    if not 0 <= recipe.ema < 1:
        raise InputError(f"the recipe's ema is {recipe.ema}; expected a number from 0 to below 1.")
    if not 0 < recipe.lr <= HIGHEST_LR:
        most = f", {HIGHEST_LR} at most" * (recipe.lr > HIGHEST_LR)
        raise InputError(f"--lr {recipe.lr}: expected a positive number{most}.")


def read_recipe(stored: dict) -> Recipe:
    """A recipe from JSON. Keys that older versions did not write get their defaults."""
    return Recipe(**{**stored, "step_at": tuple(stored.get("step_at", ()))})
