"""What the page of a run shows, read from the run folder and its data set. Nothing is predicted or scored here."""

import dataclasses
import json
import shlex
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from ..config import Train
from ..core.console import say
from ..core.errors import InputError, counted
from ..core.json_file import convert, read_json, read_lines
from ..core.labels import UNLABELED
from ..data.case import Volume, load_volume
from ..data.dataset import Case, Dataset
from ..data.intensity import unit_range
from ..data.layout import read_dataset
from ..data.preparation import Fitted
from ..data.volume import read_label
from ..evaluation.scores import list_masks, read_rows
from ..inference.provenance import MADE_BY, changed, is_folder, read_note
from ..training.checkpoint import weights_iteration
from ..training.plan import Plan, data_folder, read_plan, shown_patch
from .figures import crop, upright, upright_spacing

UNREADABLE = (OSError, ValueError, EOFError, LookupError, TypeError, MemoryError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class Run:
    """A run folder: its settings, log and data set, and the iteration of its last checkpoint."""

    folder: Path
    train: Train
    plan: Plan
    log: list[dict]
    dataset: Dataset | None  # None where the data set cannot be found
    done: int

    @property
    def finished(self) -> bool:
        return self.done == self.plan.recipe.iterations

    @property
    def weights(self) -> Path:
        return self.folder / "last.safetensors"

    @property
    def held_out(self) -> list[Case]:
        """The cases that are scored: those of the fold's test list, or of its validation list where it has none."""
        return [] if self.dataset is None else self.dataset.held_out(self.plan.fold)[1]

    @property
    def kind(self) -> str:
        return "held-out" if self.plan.fold.test else "validation"

    def predictions(self) -> dict[str, Path]:
        """Case → file in RUN/predictions."""
        folder = self.folder / "predictions"
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return list_masks(folder) if any(name != MADE_BY and not name.startswith(".") for name in names) else {}


@dataclass
class ShownCase:
    """Planes of one slice of a case, cropped alike: image, scribble, prediction, truth, as far as they exist."""

    place: str  # Worst, Median, ...
    name: str
    value: float  # its mean Dice, or without scores the share of its voxels that are predicted as foreground
    scores: list[tuple[str, float]] = dataclasses.field(default_factory=list)  # Dice per class
    planes: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    spacing: tuple[float, float] = (1.0, 1.0)
    position: str = ""
    left_out: str = ""  # why it has no planes


@dataclass
class Content:
    """All that the page shows."""

    run: Run
    title: str
    rows: list[dict]  # of metrics.csv
    note: str  # why there are no scores, or not of all cases
    seen: str  # held-out, validation, training or other: the cases of the rows
    maker: str  # what made the predictions
    cases: list[ShownCase]
    cases_left_out: str  # why no case is shown
    course: dict[int, dict[str, np.ndarray]]  # iteration → planes of one training slice
    settings: dict[str, str]
    commands: list[str]


def open_run(folder: Path) -> Run:
    """Raises InputError for a folder that is not a run, and for files in it or in the data set that cannot be read."""
    train, plan = read_plan(folder)
    log = _read_log(folder / "log.jsonl")
    place = data_folder(folder, train.dataset)
    dataset = read_dataset(place) if (place / "dataset.json").is_file() else None
    weights = folder / "last.safetensors"
    if weights.is_file():
        done = weights_iteration(weights, plan.recipe.iterations)
    else:  # the weights were deleted: what the log says
        done = log[-1]["iteration"] if log else 0
    return Run(folder, train, plan, log, dataset, done)


def collect(run: Run) -> Content:
    """Everything that the page shows. Raises InputError for scores, a volume or a mask that cannot be read."""
    rows, note = read_scores(run)
    cases, cases_left_out = _shown_cases(run, rows, note)
    name = run.dataset.name if run.dataset else run.train.dataset.name
    again = dataclasses.replace(run.train, run=Path(f"{run.train.run}-again"))  # a run is never trained over
    commands = [repeat_command(again), shlex.join(["scribbleseg", "report", str(again.run)])]
    return Content(
        run=run,
        title=f"{run.plan.method} on {name}, {fold_name(run)}",
        rows=rows,
        note=note,
        seen=part_of_fold(rows, run.plan),
        maker=_maker(run.folder),
        cases=cases,
        cases_left_out=cases_left_out,
        course=_course(run),
        settings=_settings(run),
        commands=commands,
    )


class Entry(Struct):
    """A line of log.jsonl."""

    iteration: Annotated[int, Meta(ge=1)]
    seconds_per_iteration: float
    loss: float
    losses: dict[str, float]
    monitor: dict[str, float]
    val_dice: dict[str, float] | None = None
    val_mean_dice: float | None = None


def not_found(run: Run) -> str:
    return f"the data set {run.train.dataset} was not found."


def _read_log(path: Path) -> list[dict]:
    lines = read_lines(path)
    entries: list[dict] = []
    first: Entry | None = None
    for number, line in enumerate(lines, 1):
        if line.endswith("\n"):  # a running training may be in the middle of its last line
            try:
                entries.append(json.loads(line))
                entry = convert(entries[-1], Entry, f"line {number}")
                _check_alike(entry, first := first or entry, number)
            except (ValueError, RecursionError) as error:
                raise InputError(
                    f"{path}: not the log of a run ({error}). If it was edited, remove the broken line."
                ) from error
    if any(one["iteration"] >= other["iteration"] for one, other in pairwise(entries)):
        raise InputError(f"{path}: its iterations do not rise. If it was edited, remove the broken lines.")
    return entries


def _check_alike(entry: Entry, first: Entry, number: int) -> None:
    """Raises ValueError for a line that logs other things than the first one."""
    for one, other in ((entry.losses, first.losses), (entry.monitor, first.monitor)):
        if one.keys() != other.keys():
            raise ValueError(f"line {number} logs {', '.join(one)}, line 1 {', '.join(other)}")
    if (entry.val_dice is None) != (entry.val_mean_dice is None):
        raise ValueError(f"line {number} has one of val_dice and val_mean_dice")


def read_scores(run: Run) -> tuple[list[dict], str]:
    """The rows of metrics.csv, and why there are none or not of all cases."""
    table = run.folder / "metrics.csv"
    held = run.held_out
    judged = [case for case in held if case.truth is not None]
    if table.is_file():
        lacking = len(held) - len(judged)
        note = f"{run.kind.capitalize()} cases without a dense mask, not scored: {lacking} of {len(held)}."
        return read_rows(table), note if lacking else ""
    if run.dataset is None:
        return [], not_found(run)
    if not held:
        return [], "the fold holds out no case."
    if not run.finished:
        return [], (
            f"training is at iteration {run.done} of {run.plan.recipe.iterations}. Write the report again at its end."
        )
    if not judged:
        return [], f"no {run.kind} case has a dense mask."
    return [], f"the weights, {run.weights.name}, are missing."


def part_of_fold(rows: list[dict], plan: Plan) -> str:
    cases = {row["case"] for row in rows}
    parts = {"held-out": plan.fold.test, "validation": plan.fold.val, "training": plan.fold.train}
    return next((kind for kind, names in parts.items() if cases <= set(names)), "other")


def _maker(folder: Path) -> str:
    """What made RUN/predictions, as `predict` noted it, and how many were changed since."""
    path = folder / "predictions" / MADE_BY
    if not path.is_file():
        return "it is not known what made the predictions"
    made = read_note(path.parent)
    own = len(made.runs) == 1 and is_folder(made.runs[0], folder)
    others = "" if own else f" of {' and '.join(made.runs)}"
    means = [name for name, taken in (("runs", len(made.runs) > 1), (made.averaged or "flips", made.tta)) if taken]
    mean = f", mean over {' and '.join(means)}" if means else ""
    mean += ", largest piece of each class" if made.largest else ""
    altered = changed(path.parent)
    since = f"; {len(altered)} of {counted(len(made.sha256), 'file')} changed since" if altered else ""
    return f"{made.weights} checkpoint{others}, iteration {' and '.join(map(str, made.iterations))}{mean}{since}"


def rank_cases(rows: list[dict]) -> list[tuple[str, float]]:
    """(case, mean of its classes' Dice), the worst first. A case where no Dice is defined is left out."""
    dice: dict[str, list[float]] = {}
    for row in rows:
        if not np.isnan(row["dice"]):
            dice.setdefault(row["case"], []).append(row["dice"])
    means = [(case, float(np.mean(values))) for case, values in dice.items()]
    return sorted(means, key=lambda pair: (pair[1], pair[0]))


def rank_predictions(predictions: dict[str, Path]) -> list[tuple[str, float]]:
    """(case, share of its voxels that are predicted as foreground), the smallest first."""
    shares = {case: float((read_label(path)[0] > 0).mean()) for case, path in predictions.items()}
    return sorted(shares.items(), key=lambda pair: (pair[1], pair[0]))


def pick_cases(
    ranked: list[tuple[str, float]], first: str = "Worst", last: str = "Best"
) -> dict[str, tuple[str, float]]:
    """The first, the median (of an even number the lower one) and the last; each case once."""
    if len(ranked) < 2:
        return {"Only case": ranked[0]} if ranked else {}
    middle = {"Median": ranked[(len(ranked) - 1) // 2]} if len(ranked) > 2 else {}
    return {first: ranked[0], **middle, last: ranked[-1]}


def _shown_cases(run: Run, rows: list[dict], note: str) -> tuple[list[ShownCase], str]:
    """The cases on the page, and why there are none."""
    if run.dataset is None:
        return [], not_found(run)
    predictions = run.predictions()
    picked = pick_cases(rank_cases(rows))
    if not rows and not any(case.truth for case in run.held_out):
        own = {case.id: predictions[case.id] for case in run.held_out if case.id in predictions}
        picked = pick_cases(rank_predictions(own), "Least", "Most")
    shown = [
        _show(ShownCase(place, name, value), run.dataset, run.plan.fitted, rows, predictions)
        for place, (name, value) in picked.items()
    ]
    return shown, "" if shown else "no Dice is defined." if rows else note


def _show(
    shown: ShownCase, dataset: Dataset, fitted: Fitted, rows: list[dict], predictions: dict[str, Path]
) -> ShownCase:
    """Fill in scores and planes as the network saw them, but whole, or why there are none."""
    name = shown.name
    shown.scores = [(row["class"], row["dice"]) for row in rows if row["case"] == name and not np.isnan(row["dice"])]
    case = dataset.case(name) if name in dataset.cases or name in dataset.tests else None
    if case is None or (rows and case.truth is None) or name not in predictions:
        shown.left_out = "its image, dense mask or prediction is missing."
        return shown
    volume = load_volume(dataset, case, dataclasses.replace(fitted, crop=False))
    prediction, grid = read_label(predictions[name], volume.grid.order)
    if not grid.same_place(volume.grid):
        shown.left_out = "its prediction has another grid than its image."
        return shown
    shown.planes, shown.spacing, shown.position = case_planes(volume, prediction, dataset.spacing_unit == "mm")
    return shown


def case_planes(
    volume: Volume, prediction: np.ndarray, located: bool = True
) -> tuple[dict[str, np.ndarray], tuple[float, float], str]:
    """({name: plane}, their (row, column) spacing, position as text) of the slice with most foreground in the truth.

    Without a truth: in the prediction. Without any foreground: the middle slice. Cropped to truth and prediction.
    Turned upright where the file is `located` in the patient, otherwise as stored.
    """
    shown = prediction if volume.truth is None else volume.truth
    counts = (shown > 0).sum((1, 2))
    index = int(counts.argmax()) if counts.any() else len(counts) // 2
    planes = {
        "image": unit_range(volume.image[:1])[0, index],
        "scribble": volume.scribble[index],
        "prediction": prediction[index],
        "truth": shown[index],
    }
    if volume.case.scribble is None:
        del planes["scribble"]
    if volume.truth is None:
        del planes["truth"]
    spacing = volume.grid.spacing_mm[1:]
    if located:
        planes = {key: upright(plane, volume.grid) for key, plane in planes.items()}
        spacing = upright_spacing(volume.grid)
    foreground = planes["prediction"] > 0
    if "truth" in planes:
        foreground = foreground | (planes["truth"] > 0)
    box = crop(foreground, spacing)
    return {key: plane[box] for key, plane in planes.items()}, spacing, f"{index + 1} of {len(prediction)}"


def _course(run: Run) -> dict[int, dict[str, np.ndarray]]:
    """The first slice of each of RUN/pictures: image, scribble, the method's own, prediction, truth; cropped."""
    pages = {}
    for file in sorted((run.folder / "pictures").glob("[!.]*.npz")):
        try:
            pages[int(file.stem)] = _planes(file)
        except UNREADABLE as error:
            say(f"{file}: cannot be read ({error}); the page does not show it")
    if not pages:
        return {}
    last = pages[max(pages)]
    known = "truth" in last and bool((last["truth"] != UNLABELED).any())
    own = [name for name in last if name not in ("image", "scribble", "prediction", "truth")]
    names = ["image", "scribble", *own, "prediction", *["truth"] * known]
    box = crop((last["scribble"] > 0) & (last["scribble"] < len(run.plan.classes)), (1, 1))
    alike = {at: page for at, page in pages.items() if page.keys() >= set(names)}
    return {iteration: {name: page[name][box] for name in names} for iteration, page in alike.items()}


def _planes(file: Path) -> dict[str, np.ndarray]:
    """The first slice of each array of a file of pictures. Raises one of UNREADABLE for what is no such file."""
    with np.load(file) as stored:
        planes = {name: stored[name][0] for name in stored.files}
    if not {"image", "scribble", "prediction"} <= planes.keys():
        raise ValueError(f"it holds {', '.join(planes) or 'nothing'}")
    if planes["image"].ndim != 2 or len({plane.shape for plane in planes.values()}) > 1:
        raise ValueError(f"its planes have the shapes {[plane.shape for plane in planes.values()]}")
    return planes


def fold_name(run: Run) -> str:
    if run.plan.split == "all":
        return "all cases"
    named = f" ({run.plan.fold.name})" if run.plan.fold.name != str(run.train.fold) else ""
    return f"{run.plan.split} fold {run.train.fold}{named}"


def _settings(run: Run) -> dict[str, str]:
    train, plan, recipe, fold = run.train, run.plan, run.plan.recipe, run.plan.fold
    options = ", ".join(f"{name} = {value}" for name, value in plan.options.items()) or "the defaults"
    optimiser = (
        f"{recipe.optimizer}, learning rate {recipe.lr:g} ({recipe.schedule}), weight decay {recipe.weight_decay:g}"
    )
    if recipe.ema:
        optimiser += f", mean of the weights with decay {recipe.ema:g}"
    if recipe.augmentation == "upright":
        optimiser += ", augmentation without flips and quarter turns"
    kind, kinds = ("slice", "slices") if plan.preparation == "slices" else ("patch", "patches")
    settings = {
        "Method": f"{plan.method}; hyperparameters: {options}",
        "Data set": f"{train.dataset}; channels: {', '.join(plan.channels)}; classes: {', '.join(plan.classes)}",
        "Fold": f"{fold_name(run)}: {counted(len(fold.train), 'case')} for training, "
        f"{len(fold.val)} for validation, {len(fold.test)} held out",
        "Network": f"{plan.network} on {shown_patch(plan)}",
        "Optimisation": f"{optimiser}; {counted(recipe.iterations, 'iteration')} of {recipe.batch} "
        f"{kind if recipe.batch == 1 else kinds}; seed {train.seed}",
    }
    if run.log:
        steps = np.diff([0, *(entry["iteration"] for entry in run.log)])
        seconds = float(steps @ [entry["seconds_per_iteration"] for entry in run.log])
        settings["Time"] = f"{seconds / 60:.1f} min of training steps, {seconds / run.log[-1]['iteration']:.3f} s each"
    environment = run.folder / "environment.json"
    if environment.is_file():
        named = read_json(environment, dict)
        settings["Environment"] = ", ".join(
            f"{name} {value}" for name, value in named.items() if value is not None and name != "data"
        )
    return settings


def repeat_command(train: Train) -> str:
    """The command line that trains this run again. Options at their defaults are left out."""
    words = ["scribbleseg", "train", str(train.dataset), str(train.run)]
    for field in dataclasses.fields(Train)[2:]:
        value, option = getattr(train, field.name), f"--{field.name.replace('_', '-')}"
        if value == field.default:
            continue
        if value is True:
            words.append(option)
        else:
            for item in value if isinstance(value, tuple) else (value,):
                words += [option, str(item)]
    return shlex.join(words)
