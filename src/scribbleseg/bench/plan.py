"""Read a bench plan (a TOML file), check it, and list its runs."""

import dataclasses
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ..config import Bench, Train
from ..core.errors import InputError, nearest
from ..methods import hyperparameters, method_class, parse_options
from ..training.recipe import make_recipe

Budget = Literal["paper", "quick"]
Name = Annotated[str, Meta(pattern="^[^/]+$")]  # of a folder
Numbers = Annotated[list[Annotated[int, Meta(ge=0)]], Meta(min_length=1)]
OTHER_WORDS = {
    "matching regex '^[^/]+$'": "that names a folder, so without a slash",
    "`array`": "a list",
    "`list`": "a list",
    "`object`": "a table",
    "`str`": "a text in quotes",
    "`int`": "a whole number",
    "`bool`": "true or false",
    "of length >= 1": "with at least one entry",
}  # msgspec's words → words for a user of TOML


class RecipeEntry(Struct, forbid_unknown_fields=True, frozen=True):
    """`[recipe]`: how all rows are trained, with the options of `train`. What is None or empty is the method's own."""

    optimizer: Literal["sgd", "adam", "adamw"] | None = None
    lr: float | None = None
    schedule: Literal["poly", "cosine", "onecycle", "step", "constant"] | None = None
    step_at: tuple[float, ...] = ()
    gamma: float | None = None
    weight_decay: float | None = None
    batch: int | None = None
    iterations: int | None = None

    def given(self, budget: Budget) -> dict[str, Any]:
        """The keys that are given. Budget quick has its own number of iterations."""
        found = {key: value for key, value in msgspec.structs.asdict(self).items() if value not in (None, ())}
        return {key: value for key, value in found.items() if key != "iterations" or budget == "paper"}


OWN_RECIPE = RecipeEntry()


class DataEntry(Struct, forbid_unknown_fields=True):
    """`[[data]]`: a data set, a split and the folds to run. `without` lists labels of rows that have no runs there."""

    folder: Name
    split: Name
    folds: Numbers
    without: list[str] = []


class RowEntry(Struct, forbid_unknown_fields=True):
    """`[[row]]`: a method with its options."""

    method: str
    label: Name = ""
    set: list[str] = []


class Boxplot(Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="boxplot"):
    """`[[figure]]` of this kind; so are the next three."""


class Curves(Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="curves"):
    pass


class Sensitivity(Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="sensitivity"):
    option: str


class Grid(Struct, forbid_unknown_fields=True, frozen=True, tag_field="kind", tag="grid"):
    cases: list[str] = []
    slices: Annotated[int, Meta(ge=1)] = 1


FigureEntry = Boxplot | Curves | Sensitivity | Grid


class PlanFile(Struct, forbid_unknown_fields=True):
    """The content of a plan file."""

    data: Annotated[list[DataEntry], Meta(min_length=1)]
    row: Annotated[list[RowEntry], Meta(min_length=1)]
    seeds: Numbers = msgspec.field(default_factory=lambda: [0])
    title: str = ""
    published: str = ""
    recipe: RecipeEntry = OWN_RECIPE
    figure: list[FigureEntry] = []


class Published(Struct, forbid_unknown_fields=True, frozen=True):
    """What a paper prints for one data set: `rows` is label → class (or "mean") → dice, dice_sd, hd95, better.

    A number that is not known is left out. `own`: the row of the paper's own method; `better`: the paper prints it as
    significantly better there. `split` describes the paper's split in words. `ours` names our split of the same kind;
    scores on other splits cannot be compared with the paper's.
    """

    source: str
    data: str
    split: str
    ours: str
    rows: dict[str, dict[str, dict[str, float | bool]]]
    own: str = ""
    note: str = ""


STRUCTS = (PlanFile, RecipeEntry, DataEntry, RowEntry, Sensitivity, Grid, Published)
KEYS = {name for struct in STRUCTS for name in struct.__struct_fields__} | {"kind"}


@dataclass(frozen=True)
class Job:
    """One run of a bench."""

    data: str  # name of the data set's folder
    split: str
    fold: int
    label: str
    method: str
    set: tuple[str, ...]
    seed: int
    budget: Budget
    plan: str = ""  # the plan, if its recipe differs from the method's own
    recipe: RecipeEntry = OWN_RECIPE

    @property
    def run(self) -> str:
        """The run's name in the CSV files of its budget. With another recipe than the method's it names the plan."""
        at = f"@{self.plan}" if self.plan else ""
        return f"{self.data}/{self.split}-{self.fold}/{self.label}{at}-s{self.seed}"

    @property
    def place(self) -> Path:
        """The run's folder in RUNS."""
        return Path(self.budget, self.run)

    def settings(self, config: Bench) -> Train:
        return Train(
            config.datasets / self.data,
            config.runs / self.place,
            method=self.method,
            set=self.set,
            split=self.split,
            fold=self.fold,
            budget=self.budget,
            seed=self.seed,
            device=config.device,
            checkpoint_every=config.checkpoint_every,
            **self.recipe.given(self.budget),
        )

    def command(self, config: Bench) -> str:
        """The command that trains this run alone."""
        words = ["scribbleseg", "train", config.datasets / self.data, config.runs / self.place]
        given = {key: getattr(self, key) for key in ("method", "budget", "split", "fold", "seed", "set")}
        for key, value in (given | self.recipe.given(self.budget)).items():
            for each in value if isinstance(value, tuple) else [value]:
                words += [f"--{key.replace('_', '-')}", each]
        return shlex.join(map(str, words))


@dataclass(frozen=True)
class BenchPlan:
    """A plan and its runs. `name` is the stem of the file, `labels` are those of its rows in order."""

    name: str
    path: Path
    budget: Budget
    labels: tuple[str, ...]
    jobs: tuple[Job, ...]  # data set by data set, fold by fold, seed by seed, row by row
    title: str
    folds: tuple[int, ...]  # the folds chosen on the command line; empty: all folds of the plan
    published: Published | None
    figures: tuple[FigureEntry, ...]

    @property
    def places(self) -> dict[tuple[str, str], list[Job]]:
        """(data, split) → its jobs, in the plan's order."""
        found: dict[tuple[str, str], list[Job]] = {}
        for job in self.jobs:
            found.setdefault((job.data, job.split), []).append(job)
        return found


def read_bench_plan(config: Bench) -> BenchPlan:
    """The runs of a TOML plan; docs/bench.md says what a plan may hold.

    Raises InputError for a file that cannot be read, for a key that is missing, unknown or has a value of the wrong
    kind, for a method, option or published table that does not exist, for two rows with the same label, for a run or a
    figure that is asked for twice, and for a fold on the command line that the plan does not have.
    """
    path = Path(config.plan)
    plan = _convert(path, _read_toml(path), PlanFile)
    rows = [(row.label or row.method, row.method, tuple(row.set)) for row in plan.row]
    for label, method, options in rows:
        try:
            parse_options(method, options)
            make_recipe(Train(Path(), Path(), method=method, budget=config.budget, **plan.recipe.given(config.budget)))
        except InputError as error:
            raise InputError(f"{path}: row '{label}': {error}") from error
    data = [(entry.folder, entry.split, fold) for entry in plan.data for fold in entry.folds]
    left_out = {
        (entry.folder, entry.split, fold, label)
        for entry in plan.data
        for fold in entry.folds
        for label in entry.without
    }
    labels = tuple(label for label, _, _ in rows)
    if len(set(labels)) < len(labels):
        raise InputError(f'{path}: two rows have the same label among {labels}. Give one of them another label = "…".')
    if missing := set(config.folds) - {fold for _, _, fold in data}:
        known = sorted({fold for _, _, fold in data})
        raise InputError(f"--fold {min(missing)}: {path} has the folds {known}. Choose one of them.")
    data = [place for place in data if not config.folds or place[2] in config.folds]
    if odd := {label for *_, label in left_out} - set(labels):
        raise InputError(f'{path}: without = ["{min(odd)}"] names no row. {nearest(min(odd), labels)}')
    jobs = tuple(
        Job(*place, *row, seed, config.budget, *_own_recipe(path.stem, row[1], plan.recipe, config.budget))
        for place in data
        for seed in plan.seeds
        for row in rows
        if (*place, row[0]) not in left_out
    )
    if len(set(jobs)) < len(jobs):
        raise InputError(f"{path}: a run is listed twice. List every seed, and every fold of a split, once.")
    _check_figures(path, plan.figure, jobs)
    published = _read_published(path, plan.published) if plan.published else None
    title, folds = plan.title or path.stem, tuple(config.folds)
    return BenchPlan(path.stem, path, config.budget, labels, jobs, title, folds, published, tuple(plan.figure))


def _own_recipe(plan: str, method: str, recipe: RecipeEntry, budget: Budget) -> tuple[str, RecipeEntry]:
    """The plan's name and recipe, or nothing if the recipe changes nothing of the method's own."""
    own, given = method_class(method).recipe, recipe.given(budget)
    return (plan, recipe) if dataclasses.replace(own, **given) != own else ("", OWN_RECIPE)


def _check_figures(path: Path, figures: list, jobs: tuple[Job, ...]) -> None:
    known = {name for job in jobs for name in hyperparameters(job.method)}
    seen = set()
    for number, figure in enumerate(figures):
        option = getattr(figure, "option", None)
        if option is not None and option not in known:
            expected = f"expected an option of the plan's methods. {nearest(option, known)}"
            raise InputError(f"{path}: figure[{number}].option = {option!r}; {expected}")
        if (type(figure), option) in seen:
            raise InputError(f"{path}: figure[{number}] is listed twice and would overwrite the first one. Remove one.")
        seen.add((type(figure), option))


def _read_toml(path: Path) -> dict:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a TOML file. Correct the path.")
    try:
        return msgspec.toml.decode(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file. Correct the path.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start + 1} is not UTF-8. Save the file as UTF-8.") from error
    except RecursionError as error:
        raise InputError(f"{path}: is not readable as TOML (nested too deeply). Correct the file.") from error
    except msgspec.DecodeError as error:
        raise InputError(f"{path}: is not TOML: {error}. Correct the file.") from error


def _convert(path: Path, content: dict, kind: type, table: str = "") -> Any:
    """Convert a table of a file to `kind`. Raises InputError that names the first wrong value: `data[0].folds`."""
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise InputError(_explain(path, content, kind, table, str(error))) from error


def _explain(path: Path, content: Any, kind: type, table: str, said: str) -> str:
    """msgspec's message in the words of a TOML user, with the value that was found."""
    text, _, place = said.partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    where = ": ".join(filter(None, (str(path), table, place)))
    if unknown := re.match(r"Object contains unknown field `(.*)`", text):
        return f"{where}: unknown key '{unknown[1]}'. {nearest(unknown[1], KEYS - {unknown[1]})}"
    if missing := re.match(r"Object missing required field `(.*)`", text):
        needs = "A plan needs [[data]] with folder, split, folds and [[row]] with method."
        return f"{where}: {missing[1]} is missing. {needs if kind is PlanFile else ''}".strip()
    for theirs, ours in OTHER_WORDS.items():
        text = text.replace(theirs, ours)
    text = f"{text[0].lower()}{text[1:]}."
    if "[...]" in place:  # inside a table that may have any keys
        return f"{where}: {text}"
    found = content
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", place):
        found = found[int(index) if index else key]
    return f"{where} = {found!r}; {text}"


def _read_published(plan: Path, key: str) -> Published:
    """The table `key` of published.toml, in the folder above the plan's.

    Raises InputError if there is no such file or key.
    """
    path = plan.resolve().parents[1] / "published.toml"
    if not path.exists():
        way_out = "Write the paper's numbers there, or leave the key out of the plan."
        raise InputError(f"{plan}: published = '{key}', but there is no {path}. {way_out}")
    known = _read_toml(path)
    if key not in known:
        raise InputError(f"{plan}: published = '{key}' is not in {path}. {nearest(key, known)}")
    return _convert(path, known[key], Published, key)
