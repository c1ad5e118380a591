"""The settings of a run: resolved and checked before a voxel is read, and kept in config.json of the run folder."""

import dataclasses
import importlib.util
import json
import math
import random
from pathlib import Path

from msgspec import Struct

from .. import __version__
from ..config import Train
from ..core.atomic import atomic_file
from ..core.errors import InputError
from ..core.json_file import read_json
from ..core.labels import UNLABELED
from ..core.own_code import find, version
from ..core.recipe import Recipe
from ..core.seeds import check_seed
from ..data.dataset import Dataset, Fold
from ..data.fitting import fit
from ..data.preparation import Fitted
from ..data.volume import ENDINGS, PLANES, read_label
from ..methods import METHODS, is_own, method_class, parse_options
from ..networks import is_own as is_own_network
from .augment import AUGMENTATIONS, is_name, own_function
from .checkpoint import weights_iteration
from .dims import MOST_SIDE, SHORTEST, suits_3d

BUDGETS = {"paper": {"size": 256}, "quick": {"size": 128, "iterations": 600}}
FAST = {
    "optimizer": "adamw",
    "lr": 0.001,
    "schedule": "onecycle",
    "weight_decay": 0.01,
    "batch": 12,
    "iterations": 900,
    "ema": 0.99,
    "augmentation": "upright",
}
FAST_SIZE = 128
RINGS = {"size": 80, "iterations": 2300}  # of the preset fast, where slices are cut to where rings lie
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("poly", "cosine", "onecycle", "step", "constant")
HIGHEST_LR = 10
MOST = {"iterations": 10**9, "batch": 10_000}
LARGEST = 16384  # pixels
BATCH_3D = 2
PACKED = ".zip"  # the ending of a packed model
QUICK_SGD_LR = 0.03  # every SGD method starts at the comparison's pCE rate: the schedule is a hundred times shorter


@dataclasses.dataclass(frozen=True)
class Plan:
    """The resolved settings of a run: from the config, the method, the budget or preset, and the data set."""

    method: str
    options: dict
    recipe: Recipe
    size: int
    network: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    split: str
    fold: Fold
    val_on_scribbles: bool = False  # no validation case has a dense mask: Dice is computed on scribbled pixels only
    own_code: str | None = None  # `own_code` when the run began
    preparation: str = "slices"  # slices of size² pixels | patches of size² pixels, in 3-D of depth · size² voxels
    fitted: Fitted = dataclasses.field(default_factory=Fitted)
    dims: int = 2
    depth: int = 1  # slices of a patch
    between: float = 0.0  # distance of the slices in 3-D, in the unit of `fitted`

    @property
    def patch(self) -> tuple[int, ...]:
        """The shape of a patch, or of a slice that is resized as a whole."""
        return (self.depth, self.size, self.size)[3 - self.dims :]

    @property
    def anisotropy(self) -> float:
        """Distance of the network's slices over the side of its pixels; 1 in 2-D."""
        return self.between / self.fitted.pixel if self.dims == 3 else 1.0


class Stored(Struct):
    """config.json. What an older version did not write gets its default."""

    train: Train
    plan: Plan
    version: str = ""


def method_name(config: Train) -> str:
    """The method that is trained; if none was named, effdnet, or corral with the preset fast."""
    return config.method or ("corral" if config.preset == "fast" else "effdnet")


def check_interval(seconds: float) -> None:
    if not seconds >= 0:
        raise InputError(f"--checkpoint-every {seconds:g}: expected seconds, 0 or more.")


def make_recipe(config: Train) -> tuple[Recipe, int, str]:
    """Recipe, size and network: the method's, then the budget's or preset's, then the config's own values."""
    fast = config.preset == "fast"
    if fast and config.budget != "paper":
        raise InputError(
            f"--preset fast --budget {config.budget}: the preset sets size and length itself. Leave one of the two out."
        )
    method = method_name(config)
    kind = method_class(method)
    if config.budget not in BUDGETS:
        raise InputError(f"budget is {config.budget!r}; expected {' or '.join(BUDGETS)}.")
    recipe, budget = kind.recipe, {"size": FAST_SIZE} if fast else BUDGETS[config.budget]
    if fast:
        recipe = dataclasses.replace(recipe, **FAST)
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


def make_plan(config: Train, dataset: Dataset) -> Plan:
    """Resolve defaults and check everything that can be checked without reading a voxel. `dataset`: the config's."""
    check_interval(config.checkpoint_every)
    check_seed(config.seed)
    method = method_name(config)
    options = parse_options(method, config.set)
    recipe, size, network = make_recipe(config)
    if not 0 <= config.val_share < 1:
        raise InputError(f"--val-share {config.val_share}: expected a share from 0 to below 1, such as 0.2.")
    split = dataset.default_split() if config.split == "auto" else config.split
    fold = dataset.fold(split, config.fold)
    if not fold.train:
        raise InputError(f"{config.dataset}: fold {config.fold} of '{split}' has no training case. Correct the split.")
    fold = _carve(dataset, fold, config.val_share, config.seed)
    val = [dataset.case(name) for name in fold.val]
    if val and all(case.truth is None and case.scribble is None for case in val):
        raise InputError(
            f"{config.dataset}: no validation case has a mask in labelsTr_dense or a scribble in labelsTr. "
            "Add one, use a split without validation, or leave out --val-share."
        )
    dims = _dims(config, dataset, fold)
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
    on_scribbles = bool(val) and all(case.truth is None for case in val)
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


def own_code(method: str, network: str, augmentation: str) -> str | None:
    """SHA-256 of the files of what is not ours; None where everything is, whose code the commit names.

    Imports what is not ours. Raises InputError where that fails.
    """
    found = [] if is_own(method) else [method_class(method)]
    found += [] if is_own_network(network) else [find("network", network)]
    found += [] if augmentation in AUGMENTATIONS else [own_function(augmentation)]
    return version(*found)


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


def _dims(config: Train, dataset: Dataset, fold: Fold) -> int:
    """2 or 3; with --dims auto the training cases decide. Raises InputError where 3-D was asked for and cannot be."""
    method = method_name(config)
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
    labels = [dataset.case(name).scribble for name in fold.train]
    return 3 if suits_3d(read_label(path)[1] for path in labels if path is not None) else 2


def enclosure_of(config: Train) -> str:
    """on, off, or auto (the strokes decide). Raises InputError for a method that has no term for it."""
    reads, rings = method_class(method_name(config)).reads_enclosure, config.preparation == "rings"
    if not reads and (rings or config.enclosure == "on"):
        raise InputError(
            f"{'--preparation rings' if rings else '--enclosure on'}: {method_name(config)} has no term for the "
            "enclosed background. Methods that have one: pce, scn, effdnet, corral."
        )
    if rings and config.enclosure == "off":
        raise InputError("--preparation rings --enclosure off: rings are what encloses. Leave one of the two out.")
    if rings:
        return "on"
    if config.enclosure == "auto":
        return "auto" if config.preset == "fast" and reads else "off"
    return config.enclosure


def fit_plan(config: Train, plan: Plan, dataset: Dataset) -> Plan:
    """The plan with what the training cases decide. Reads files; raises what `fit` raises."""
    fast = config.preset == "fast"
    fitted = fit(
        dataset,
        plan.fold.train,
        patch=plan.size if plan.preparation == "patches" else 0,
        enclosure=enclosure_of(config),
        locate={"rings": "on", "auto": "auto" if fast else "off"}.get(config.preparation, "off"),
        by_data=fast,
        learns_from_bare=plan.dims == 3 or method_class(plan.method).learns_from_bare,
    )
    plan = dataclasses.replace(plan, fitted=fitted)
    if not (fast and fitted.locate):
        return plan
    given = {name: value for name in RINGS if (value := getattr(config, name)) is not None}
    size, iterations = (RINGS | given).values()
    return dataclasses.replace(plan, size=size, recipe=dataclasses.replace(plan.recipe, iterations=iterations))


def _carve(dataset: Dataset, fold: Fold, share: float, seed: int) -> Fold:
    """Set a share of the training patients aside for validation, if the split names no validation case.

    They are drawn from the patients with dense masks, or from those with scribbles if no patient has a dense mask.
    Raises InputError when no training case would be left.
    """
    if fold.val or not share:
        return fold
    dense, scribbled = (
        sorted({dataset.patient(name) for name in fold.train if getattr(dataset.case(name), kind) is not None})
        for kind in ("truth", "scribble")
    )
    patients = dense or scribbled
    random.Random(seed).shuffle(patients)
    chosen = set(patients[: max(1, round(share * len(patients)))])
    parts = [tuple(case for case in fold.train if (dataset.patient(case) in chosen) == held) for held in (False, True)]
    if not parts[0]:
        raise InputError(
            f"--val-share {share}: would set all {len(chosen)} training patients aside. "
            "Give a smaller share, or leave it out."
        )
    return dataclasses.replace(fold, train=parts[0], val=parts[1])


def shown_patch(plan: Plan) -> str:
    """The shape of what a network is trained on, in words."""
    sides = " × ".join(map(str, plan.patch))
    if plan.preparation == "slices":
        return f"slices of {sides} pixels{', cut to where rings lie' * plan.fitted.locate}"
    unit = " mm" if plan.fitted.unit == "mm" else ""
    lengths = " × ".join(f"{step:.2f}" for step in ([plan.between] if plan.dims == 3 else []) + [plan.fitted.pixel] * 2)
    return f"patches of {sides} {'voxels' if plan.dims == 3 else 'pixels'} of {lengths}{unit}"


def read_plan(run: Path) -> tuple[Train, Plan]:
    """The settings of a run folder. Raises InputError when it is none."""
    path = Path(run) / "config.json"
    kind = None if path.is_file() else _input_kind(Path(run))
    if kind:
        raise InputError(
            f"{run}: {kind}, not a run folder (no config.json). The run comes first: "
            "scribbleseg predict RUN INPUT OUTPUT, scribbleseg report RUN. "
            f"Make one with: scribbleseg train {run if kind == 'a data set' else 'DATASET'} RUN"
        )
    if not path.is_file():
        raise InputError(f"{run}: not a run folder (no config.json). Make one with: scribbleseg train DATASET {run}")
    try:
        stored = read_json(path, Stored)
        _check_stored(stored)
    except InputError as error:
        raise InputError(
            f"{path}: not a run's settings. {error} Was it edited, or written by another version "
            f"(this is {__version__})?"
        ) from error
    stored.train.run = Path(run)
    return stored.train, stored.plan


def _check_stored(stored: Stored) -> None:
    plan = stored.plan
    check_recipe(plan.recipe, plan.method)
    if not 1 <= plan.size <= LARGEST:
        raise InputError(f"size {plan.size}: expected pixels, {LARGEST} at most.")
    check_interval(stored.train.checkpoint_every)
    check_seed(stored.train.seed)
    if len(plan.classes) < 2 or not plan.channels or not all(map(str.isprintable, (*plan.classes, *plan.channels))):
        raise InputError(f"classes {plan.classes} and channels {plan.channels}: expected their names.")
    if len(plan.classes) >= UNLABELED or len(plan.channels) >= UNLABELED:
        raise InputError(f"{len(plan.classes)} classes and {len(plan.channels)} channels: too many.")
    names = [name for name in (*plan.fold.train, *plan.fold.val, *plan.fold.test) if not _is_file_name(name)]
    if names:
        raise InputError(f"{names[0]!r} in its fold is not the name of a case.")
    side = plan.fitted.pixel
    if plan.preparation not in ("slices", "patches") or not (side == 0 or 1e-4 <= side <= 1e4):
        raise InputError(f"preparation {plan.preparation} with pixels of {side} {plan.fitted.unit}: not known.")
    if plan.preparation == "patches" and not side:
        raise InputError("preparation patches without the side of a pixel.")
    if plan.dims not in (2, 3) or (plan.dims == 3 and plan.preparation != "patches"):
        raise InputError(f"{plan.dims} dimensions with preparation {plan.preparation}: not known.")
    if plan.dims == 3 and not (1 <= plan.depth <= LARGEST and 1e-4 <= plan.between <= 1e4):
        raise InputError(f"patches of {plan.depth} slices that are {plan.between} {plan.fitted.unit} apart: not known.")
    if plan.fitted.plane not in PLANES:
        raise InputError(f"plane {plan.fitted.plane!r}: expected one of {', '.join(PLANES)}.")
    if plan.fitted.enclosure not in ("hull", "ring", "off") or plan.fitted.unit not in ("mm", "voxels"):
        raise InputError(f"enclosure {plan.fitted.enclosure!r} and unit {plan.fitted.unit!r}: not known.")
    if plan.fitted.locate and (plan.preparation != "slices" or plan.fitted.enclosure == "off"):
        raise InputError(
            f"slices cut to rings, with {plan.preparation} and enclosure {plan.fitted.enclosure!r}: not known."
        )
    if not 0 <= plan.fitted.closed <= 1:
        raise InputError(f"a share of {plan.fitted.closed} of the slices with closed rings; expected 0 to 1.")
    if plan.fitted.intensity and len(plan.fitted.intensity) != len(plan.channels):
        raise InputError(f"{len(plan.fitted.intensity)} intensities for {len(plan.channels)} channels.")
    if not 0 <= (plan.fitted.bare or 0) < 1:
        raise InputError(f"a share of {plan.fitted.bare} of the slices without strokes; expected 0 to below 1.")


def _is_file_name(name: str) -> bool:
    return bool(name) and not name.startswith(".") and "/" not in name and "\0" not in name


def _input_kind(path: Path) -> str | None:
    """What was given as RUN by somebody who changed the order of RUN, INPUT and OUTPUT."""
    if (path / "dataset.json").is_file():
        return "a data set"
    if path.is_file():
        return "a packed model" if path.suffix == PACKED else "a file"
    volumes = path.is_dir() and any(
        not file.name.startswith(".") and str(file).lower().endswith(ENDINGS) for file in path.iterdir()
    )
    return "a folder of volumes" if volumes else None


def read_recipe(stored: dict) -> Recipe:
    """A recipe from JSON. Keys that older versions did not write get their defaults."""
    return Recipe(**{**stored, "step_at": tuple(stored.get("step_at", ()))})


def write_plan(config: Train, plan: Plan) -> None:
    """Write RUN/config.json."""
    with atomic_file(Path(config.run) / "config.json") as partial:
        partial.write_text(plan_text(config, plan), encoding="utf-8")


def plan_text(config: Train, plan: Plan) -> str:
    """The content of config.json."""
    stored = {"version": __version__, "train": dataclasses.asdict(config), "plan": dataclasses.asdict(plan)}
    return json.dumps(stored, indent=1, default=str) + "\n"
