"""The plan of a run, and config.json of the run folder, which keeps it with the settings."""

import dataclasses
import json
from dataclasses import asdict
from pathlib import Path

from msgspec import Struct

from .. import __version__
from ..config import Train
from ..core.atomic import atomic_file
from ..core.errors import InputError, nearest
from ..core.json_file import convert, read_json
from ..core.labels import UNLABELED
from ..core.own_code import find, version
from ..core.recipe import Recipe
from ..core.seeds import check_seed
from ..data.dataset import Fold
from ..data.preparation import Fitted
from ..data.raster import LARGEST, Raster
from ..data.volume import ENDINGS, PLANES
from ..methods import is_own, method_class
from ..networks import is_own as is_own_network
from .augment import AUGMENTATIONS, own_function
from .calendar import check_interval
from .recipe import check_recipe

PACKED = ".zip"  # the ending of a packed model


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
    def raster(self) -> Raster:
        """The grid on which the network sees a volume."""
        if self.preparation == "slices":
            return Raster(self.size)
        return Raster(0, self.fitted.pixel, self.between if self.dims == 3 else 0.0, self.fitted.unit)

    @property
    def anisotropy(self) -> float:
        """Distance of the network's slices over the side of its pixels; 1 in 2-D."""
        return self.between / self.fitted.pixel if self.dims == 3 else 1.0


class Stored(Struct):
    """config.json. What an older version did not write gets its default."""

    train: Train
    plan: Plan
    version: str = ""


def own_code(method: str, network: str, augmentation: str) -> str | None:
    """SHA-256 of the files of what is not ours; None where everything is, whose code the commit names.

    Imports what is not ours. Raises InputError where that fails.
    """
    found = [] if is_own(method) else [method_class(method)]
    found += [] if is_own_network(network) else [find("network", network)]
    found += [] if augmentation in AUGMENTATIONS else [own_function(augmentation)]
    return version(*found)


def shown_patch(plan: Plan) -> str:
    """The shape of what a network is trained on, in words."""
    sides = " × ".join(map(str, plan.patch))
    if plan.preparation == "slices":
        return f"slices of {sides} pixels{', cut to where rings lie' * plan.fitted.locate}"
    unit = " mm" if plan.fitted.unit == "mm" else ""
    lengths = " × ".join(f"{step:.2f}" for step in ([plan.between] if plan.dims == 3 else []) + [plan.fitted.pixel] * 2)
    return f"patches of {sides} {'voxels' if plan.dims == 3 else 'pixels'} of {lengths}{unit}"


def data_folder(run: Path, named: Path) -> Path:
    """Where a run's data set is: its name in training, seen from the working folder or from a folder above the run."""
    places = [base / named for base in (Path(), *Path(run).absolute().parents)]
    return next((place for place in places if (place / "dataset.json").is_file()), named)


def read_plan(run: Path) -> tuple[Train, Plan]:
    """The settings of a run folder. Raises InputError when it is none."""
    path = Path(run) / "config.json"
    kind = None if path.is_file() else _input_kind(Path(run))
    if kind == "a packed model":
        raise InputError(
            f"{run}: a packed model, not a run folder. pack, export and report need the run folder that it was made "
            "from; predict takes this file."
        )
    if kind:
        made = run if kind == "a data set" else "DATASET"
        raise InputError(
            f"{run}: {kind}, not a run folder (no config.json). The run folder comes first, "
            f"the one that this made: scribbleseg train {made} RUN"
        )
    if not path.is_file():
        new = run if not Path(run).exists() else "RUN"
        raise InputError(f"{run}: not a run folder (no config.json). Make one with: scribbleseg train DATASET {new}")
    content = {}
    try:
        content = read_json(path, dict)
        stored: Stored = convert(content, Stored, path)
        _check_keys(content, {"version": "", "train": asdict(stored.train), "plan": asdict(stored.plan)})
        _check_stored(stored)
    except InputError as error:
        wrote = str(content.get("version", ""))[:40]
        why = f"Was it edited, or written by another version (this is {__version__})?"
        if wrote not in ("", __version__):
            why = f"Version {wrote} wrote it; this is {__version__}. Use that version, or train a new run."
        raise InputError(f"{path}: not a run's settings. {error} {why}") from error
    stored.train.run = Path(run)
    return stored.train, stored.plan


def _check_keys(content: object, known: object, place: str = "") -> None:
    """Raises InputError for a key that means nothing here: what it was meant to say would get its default."""
    if isinstance(content, list) and isinstance(known, (list, tuple)):
        for number, (part, meant) in enumerate(zip(content, known)):
            _check_keys(part, meant, f"{place}{number}.")
    if not (isinstance(content, dict) and isinstance(known, dict)):
        return
    for key, value in content.items():
        if key not in known:
            raise InputError(f"'{place}{key}' is not a known key. {nearest(key, known)} Rename or remove it.")
        _check_keys(value, known[key], f"{place}{key}.")


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
        raise InputError(f"a share of {plan.fitted.closed} of the slices with enclosed structures; expected 0 to 1.")
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


def write_plan(config: Train, plan: Plan) -> None:
    """Write RUN/config.json."""
    with atomic_file(Path(config.run) / "config.json") as partial:
        partial.write_text(plan_text(config, plan), encoding="utf-8")


def plan_text(config: Train, plan: Plan) -> str:
    """The content of config.json."""
    stored = {"version": __version__, "train": asdict(config), "plan": asdict(plan)}
    return json.dumps(stored, indent=1, default=str) + "\n"
