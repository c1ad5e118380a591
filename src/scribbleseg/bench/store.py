"""Write and read the results of a budget's finished runs: four CSV files in RESULTS/BUDGET.

runs.csv     a row per run: how it was trained, on which machine, how long it took; a run listed here is done
folds.csv    a row per fold: the names of its cases; runs.csv names the fold by `plan.fold`
scores.csv   a row per run, case and class, with the case's patient
curves.csv   at most 50 rows per run: training loss and validation Dice

In runs.csv and folds.csv a cell is plain text, or JSON for everything that is not text. An empty cell means that the
run's record has no such entry. Runs are sorted by name. A process that adds a run holds a lock, so that benches that
end at the same time do not overwrite each other's rows.
"""

import dataclasses
import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
from msgspec import Struct

from ..config import Bench
from ..core.atomic import atomic_file
from ..core.errors import InputError
from ..core.json_file import convert
from ..core.lock import NO_LOCKS, lock
from ..evaluation.scores import COLUMNS
from ..evaluation.tables import as_cell, plain
from ..methods import hyperparameters, method_class, parse_options
from ..training.plan import own_code
from ..training.recipe import make_recipe, read_recipe
from .plan import OWN_RECIPE, BenchPlan, Job

SCORES = (*COLUMNS, "patient")
CURVE = ("iteration", "loss", "val_mean_dice")
RESTORE = "Restore the tables of this folder, for example with git."
LEAVES = ("options", "plan.options", "environment.continued")  # kept as JSON in one cell
FLAGS = ("missing", "spurious")
TEXTS = ("run", "case", "class", "unit", "patient")
KEY = ("data", "split", "fold", "label", "seed")


@dataclasses.dataclass(frozen=True)
class Difference:
    """How the settings of a finished run differ from those that its job has now.

    `had`: what the run had, such as `lr 0.2 (now 0.03), no delta (now 0.3)`. `changed`: who has other settings now, the
    method, the plan or both. `stands_in`: the run has the method's own recipe, and the job has the plan's.
    """

    had: str
    changed: str
    stands_in: bool


@dataclasses.dataclass(frozen=True)
class Results:
    """Finished runs: job → record, in the plan's order, and two tables.

    `scores` has the columns run, KEY and SCORES, `curves` has run, KEY and CURVE (nan: not validated). `outdated`:
    job → how its settings differ from those that it would have now, if they do.
    """

    records: dict[Job, dict]
    scores: pd.DataFrame
    curves: pd.DataFrame
    outdated: dict[Job, Difference]

    def of(self, jobs: Iterable[Job]) -> "Results":
        """The results of these jobs, and of those that stand in for them."""
        wanted = {_key(job) for job in jobs}
        records = {job: record for job, record in self.records.items() if _key(job) in wanted}
        outdated = {job: found for job, found in self.outdated.items() if job in records}
        names = {job.run for job in records}
        scores, curves = (table[table["run"].isin(names)] for table in (self.scores, self.curves))
        return Results(records, scores, curves, outdated)


class StoredRecipe(Struct):
    optimizer: str
    lr: float
    schedule: str
    batch: int
    iterations: int
    step_at: list[float] = []


class StoredPlan(Struct):
    recipe: StoredRecipe
    method: str
    options: dict[str, Any]
    size: int
    network: str
    classes: list[str]
    fold: str


class StoredMachine(Struct):
    device: str
    precision: str
    threads: int | None = None


class Record(Struct):
    """What every record has; older versions wrote fewer entries than now."""

    plan: StoredPlan
    environment: StoredMachine
    held_out_cases: int
    parameters: int
    seconds_per_iteration: float
    minutes: float
    peak_memory_mib: float | None = None
    options: dict[str, Any] = {}


def _key(job: Job) -> tuple:
    return tuple(getattr(job, name) for name in KEY)


def add_run(budget: Path, job: Job, record: dict, rows: list[dict], curve: list[dict]) -> None:
    """Add a finished run to the CSV files of BUDGET. It replaces an earlier run of the same name."""
    fold = record["plan"]["fold"]
    name = hashlib.sha256(json.dumps(fold, sort_keys=True).encode()).hexdigest()[:8]
    record = record | {"plan": record["plan"] | {"fold": name}}
    place = {key: getattr(job, key) for key in KEY}
    run = {"run": job.run}
    new = {
        "folds": [_cells({"id": name} | fold)],
        "scores": [
            run | {key: str(int(row[key]) if key in FLAGS else as_cell(row[key])) for key in SCORES} for row in rows
        ],
        "curves": [run | row for row in curve],
        "runs": [run | _cells(place | _flat(record))],
    }
    with lock_results(budget):
        for part, lines in new.items():  # runs.csv last: a run listed there is complete
            _replace(budget / f"{part}.csv", pd.DataFrame(lines))


def read_records(budget: Path) -> dict[str, dict]:
    """Name → record of the finished runs in BUDGET. Raises InputError if a table cannot be read."""
    table = budget / "runs.csv"
    try:
        runs = _read(table)  # before the folds, which are written first: every run finds its fold
        folds = {fold.pop("id"): fold for fold in map(_nested, _read(budget / "folds.csv").to_dict("records"))}
        records = {}
        for line in runs.drop(columns=list(KEY)).to_dict("records"):
            name, record = line.pop("run"), _nested(line)
            convert(record, Record, f"{table}: {name}", RESTORE)
            record["plan"]["fold"] = folds[record["plan"]["fold"]]
            records[name] = record
        return records
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{table}: is damaged ({error!r}). {RESTORE}") from error


def read_scores(budget: Path) -> dict[str, list[dict]]:
    """Name → scores, a dict per case and class, as `evaluation.scores.read_rows` gives them."""
    runs = _numbers(budget / "scores.csv", SCORES).groupby("run")[list(SCORES)]
    return {name: rows.to_dict("records") for name, rows in runs}


def read_results(plan: BenchPlan, config: Bench) -> Results:
    """The results of a plan's finished runs, those with outdated settings included.

    If the plan has a recipe and a run with it is not done, the run with the method's own recipe stands in for it, as
    an outdated one.

    Raises InputError if a run has another method or other options than its row, or if runs cannot be compared.
    """
    budget = config.results / plan.budget
    records = read_records(budget)
    found, outdated = {}, {}
    for job in plan.jobs:
        stored = job if job.run in records else dataclasses.replace(job, plan="", recipe=OWN_RECIPE)
        if record := records.get(stored.run):
            check_same(stored, record["plan"], f"{budget / 'runs.csv'}: {stored.run}")
            found[stored] = record
            if changed := difference(job, config, record):
                outdated[stored] = dataclasses.replace(changed, stands_in=stored != job)
    results = make_results(found, _numbers(budget / "scores.csv", SCORES), _numbers(budget / "curves.csv", CURVE))
    _check_alike(results, budget / "runs.csv")
    return dataclasses.replace(results, outdated=outdated)


def make_results(records: dict[Job, dict], scores: pd.DataFrame, curves: pd.DataFrame) -> Results:
    """Take the runs of `records`, in their order, from tables that name a run in the column `run`."""
    places = [{"run": job.run} | {key: getattr(job, key) for key in KEY} for job in records]
    table = pd.DataFrame(places, columns=["run", *KEY])
    return Results(records, table.merge(scores, on="run"), table.merge(curves, on="run"), {})


def is_done(job: Job, config: Bench) -> bool:
    """Whether runs.csv has the job.

    Raises InputError if the run had another method or other options, or if its settings are outdated (`difference`).
    """
    return job in done_jobs([job], config)


def done_jobs(jobs: Collection[Job], config: Bench) -> list[Job]:
    """The jobs of one budget that are done. Raises what `is_done` raises."""
    table = config.results / next(iter(jobs)).budget / "runs.csv"
    records = read_records(table.parent)
    done = [job for job in jobs if job.run in records]
    for job in done:
        check_same(job, records[job.run]["plan"], f"{table}: {job.run}")
        if changed := difference(job, config, records[job.run]):
            raise InputError(
                f"{table}: {job.run} is outdated, because {changed.changed} changed after it. It had {changed.had}. To "
                f"run it again, delete its row there and the folder {config.runs / job.place}. With --table-only the "
                "tables show it as it is, with a note."
            )
    return done


def difference(job: Job, config: Bench, record: dict) -> Difference | None:
    """How the settings of a finished run differ from those that the job has now. None if they do not."""
    plan, (recipe, size, network) = record["plan"], make_recipe(job.settings(config))
    now = dataclasses.asdict(recipe) | {"size": size, "network": network}
    was = dataclasses.asdict(read_recipe(plan["recipe"])) | {key: plan[key] for key in ("size", "network")}
    if "options" in record:  # the oldest records lack them
        defaults = hyperparameters(job.method)
        later = {key: defaults[key] for key in method_class(job.method).later}
        now, was = all_options(job) | now, later | record["options"] | was
    had, owners = [], set()
    for key in dict.fromkeys((*was, *now)):
        if key not in was or key not in now or was[key] != now[key]:
            before = f"{key} {_shown(was[key])}" if key in was else f"no {key}"
            had.append(f"{before} ({f'now {_shown(now[key])}' if key in now else 'no longer a setting'})")
            owners.add("the plan" if key in job.recipe.given(job.budget) else "the method")
    if had and "options" not in record:
        had.append("hyperparameters that were not recorded")
    code = own_code(job.method, network, recipe.augmentation)
    if plan.get("own_code", code) != code:
        had.append(f"another version of the file that defines {job.method}")
        owners.add("the method")
    return Difference(", ".join(had), " and ".join(sorted(owners)), stands_in=False) if had else None


def _shown(value: object) -> str:
    """A setting in a sentence: `0.25 / 0.5` for several numbers, `none` for no number."""
    return (" / ".join(map(str, value)) or "none") if isinstance(value, (tuple, list)) else str(value)


def _check_alike(results: Results, table: Path) -> None:
    """Raises InputError if runs of one fold differ in cases, or runs of one data set in classes or units."""
    first: dict[tuple, tuple[Job, object]] = {}
    scored = results.scores.groupby("run")[["case", "unit"]].agg(set)
    for job, record in results.records.items():
        if job.run not in scored.index:
            raise InputError(f"{table}: {job.run} has no scores in scores.csv. {RESTORE}")
        plan, data, fold = record["plan"], (job.data, job.split), (job.data, job.split, job.fold)
        shared = {
            ("cases of the fold", fold): plan["fold"],
            ("scored cases", fold): scored.case[job.run],
            ("classes", data): plan["classes"],
            ("units", data): scored.unit[job.run],
        }
        if files := record.get("environment", {}).get("data"):
            shared["files of the fold", fold] = files
        for what, value in shared.items():
            other, known = first.setdefault(what, (job, value))
            if value != known:
                raise InputError(
                    f"{table}: {other.run} and {job.run} have different {what[0]}, so they cannot be compared. Data, "
                    "split or code may have changed in between. Delete the row and the run folder of the outdated "
                    "run, and run the bench again."
                )


def check_same(job: Job, plan: dict, where: object) -> None:
    """Raises InputError if the run at `where` has another method or other options than the plan's row."""
    options = parse_options(job.method, job.set)
    if (plan["method"], plan["options"]) != (job.method, options):
        raise InputError(
            f"{where} is a run of {plan['method']} {plan['options']}; the plan's row '{job.label}' says {job.method} "
            f"{options}. Give the row another label."
        )


def all_options(job: Job) -> dict[str, object]:
    """The method's hyperparameters in this run, defaults included, as JSON gives them back."""
    return json.loads(json.dumps(hyperparameters(job.method) | parse_options(job.method, job.set)))


def _flat(record: dict, prefix: str = "") -> dict[str, object]:
    """Flatten nested dicts: their keys become `outer.inner`."""
    found: dict[str, object] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        nested = isinstance(value, dict) and name not in LEAVES
        found |= _flat(value, f"{name}.") if nested else {name: value}
    return found


def _nested(line: dict[str, str]) -> dict:
    """The record of a row of runs.csv: the reverse of `_flat` and `_cell`."""
    record: dict = {}
    for name, text in line.items():
        if text:
            *outer, last = name.split(".")
            part = record
            for key in outer:
                part = part.setdefault(key, {})
            part[last] = _value(text)
    return record


def _cells(row: dict[str, object]) -> dict[str, str]:
    return {key: _cell(value) for key, value in row.items()}


def _cell(value: object) -> str:
    """The text of a cell; `_value` gives the value back."""
    return value if isinstance(value, str) and _value(value) == value != "" else json.dumps(value, ensure_ascii=False)


def _score(key: str, value: object) -> str:
    return str(int(bool(value)) if key in FLAGS else as_cell(value))


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(path: Path) -> pd.DataFrame:
    """A table of text. It has no rows if there is no file."""
    if not path.is_file():
        return pd.DataFrame(columns=["run", "id", *KEY, *SCORES, *CURVE])
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({said}). {RESTORE}") from error


def _numbers(path: Path, columns: Collection[str]) -> pd.DataFrame:
    """The column `run` and these columns of a table, with numbers and flags instead of text."""
    table = _read(path)
    if lacking := [key for key in columns if key not in table]:
        raise InputError(
            f"{path}: has no column '{lacking[0]}'; another version of scribbleseg wrote it. Add the column (a case's "
            "patient is in `groups` of dataset.json), or give another folder for --results and run the bench again."
        )
    kinds = {key: float for key in columns if key not in (*TEXTS, *FLAGS)}
    flags = {key: table[key] == "1" for key in columns if key in FLAGS}
    texts = {key: table[key].map(plain) for key in columns if key in TEXTS}
    try:
        return table[["run", *columns]].assign(**flags, **texts).astype(kinds)
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error}). {RESTORE}") from error


def _replace(path: Path, rows: pd.DataFrame) -> None:
    """Put rows into a table. They replace rows with the same name in the first column."""
    key = rows.columns[0]
    old = _read(path) if path.is_file() else rows[:0]
    table = pd.concat([old[~old[key].isin(rows[key])], rows]).fillna("").sort_values(key, kind="stable")
    with atomic_file(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


def lock_results(budget: Path) -> BinaryIO:
    """Wait for the lock of the CSV files in BUDGET. It is held until the file is closed."""
    held = lock_file(budget / ".lock", "--results", wait=True)
    assert held is not None
    return held


def lock_file(path: Path, option: str, wait: bool = False) -> BinaryIO | None:
    """Open a file to append to it, and lock it until it is closed. None if another process holds the lock.

    Raises InputError, which names the option with which the user chose the folder, if the file system has no locks.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return lock(path, wait)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise InputError(
            f"{path}: cannot be locked ({error.strerror}). Choose {option} on a file system with locks, such as NFS 4 "
            "or a local disk."
        ) from error
