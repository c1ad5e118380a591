"""Write and read the results of a budget's finished runs: four CSV files in RESULTS/BUDGET.

runs.csv     a row per run: how it was trained, on which machine, how long it took; a run listed here is done
folds.csv    a row per fold: the names of its cases; runs.csv names the fold by `plan.fold`
scores.csv   a row per run, case and class
curves.csv   at most 50 rows per run: training loss and validation Dice

In runs.csv and folds.csv a cell is plain text, or JSON for everything that is not text. An empty cell means that the
run's record has no such entry. Runs are sorted by name. A process that adds a run holds a lock, so that benches that
end at the same time do not overwrite each other's rows.
"""

import dataclasses
import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd

from ..config import Bench
from ..core.atomic import atomic_file
from ..core.errors import InputError
from ..evaluation.scores import COLUMNS
from ..methods import hyperparameters, own_code, parse_options
from ..training.plan import make_recipe, read_recipe
from .plan import BenchPlan, Budget, Job

CURVE = ("iteration", "loss", "val_mean_dice")
LEAVES = ("options", "plan.options", "environment.continued")  # kept as JSON in one cell
FLAGS = ("missing", "spurious")
KEY = ("data", "split", "fold", "label", "seed")


@dataclass(frozen=True)
class Result:
    """The results of a finished run: record, scores as `read_rows` gives them, and curve (nan: not validated).

    `outdated`: how its settings differ from those that the run would have now (`difference`).
    """

    record: dict
    rows: list[dict]
    curve: dict[str, np.ndarray]
    outdated: str = ""


def add_run(budget: Path, job: Job, record: dict, rows: list[dict], curve: list[dict]) -> None:
    """Add a finished run to the CSV files of BUDGET. It replaces an earlier run of the same name."""
    fold = record["plan"]["fold"]
    name = hashlib.sha256(json.dumps(fold, sort_keys=True).encode()).hexdigest()[:8]
    record = record | {"plan": record["plan"] | {"fold": name}}
    place = {key: getattr(job, key) for key in KEY}
    run = {"run": job.run}
    new = {
        "folds": [_cells({"id": name} | fold)],
        "scores": [run | {key: str(int(row[key]) if key in FLAGS else row[key]) for key in COLUMNS} for row in rows],
        "curves": [run | row for row in curve],
        "runs": [run | _cells(place | _flat(record))],
    }
    with _lock(budget):
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
            record["plan"]["fold"] = folds[record["plan"]["fold"]]
            records[name] = record
        return records
    except (KeyError, TypeError) as error:
        raise InputError(f"{table}: is damaged ({error!r}). Restore it and folds.csv, for example with git.") from error


def read_scores(budget: Path) -> dict[str, list[dict]]:
    """Name → scores, a dict per case and class, as `evaluation.scores.read_rows` gives them."""
    table = _read(budget / "scores.csv")
    for key in ("dice", "hd95", "assd", "penalised_hd95"):
        table[key] = table[key].astype(float)
    for key in FLAGS:
        table[key] = table[key] == "1"
    return {name: rows[list(COLUMNS)].to_dict("records") for name, rows in table.groupby("run", sort=False)}


def read_curves(budget: Path) -> dict[str, dict[str, np.ndarray]]:
    """Name → column of curves.csv → its numbers."""
    table = _read(budget / "curves.csv")
    found = table.groupby("run", sort=False)
    return {name: {key: rows[key].astype(float).to_numpy() for key in CURVE} for name, rows in found}


def is_done(job: Job, config: Bench) -> bool:
    """Whether runs.csv has the job.

    Raises InputError if the run had another method or other options, or if its settings are outdated (`difference`).
    """
    return _is_done(job, config, read_records(config.results / job.budget))


def _is_done(job: Job, config: Bench, records: dict[str, dict]) -> bool:
    if job.run not in records:
        return False
    where = f"{config.results / job.budget / 'runs.csv'}: {job.run}"
    check_same(job, records[job.run]["plan"], where)
    if changed := difference(job, config, records[job.run]):
        raise InputError(
            f"{where} was run {changed}. To run it again, delete its row there and the folder "
            f"{config.runs / job.place}. With --table-only the tables show it as it is, with a note."
        )
    return True


def difference(job: Job, config: Bench, record: dict) -> str:
    """How the settings of a finished run differ from those that the job has now: `with lr 0.2, the method now has
    0.03`. Empty if they do not."""
    plan, (recipe, size, network) = record["plan"], make_recipe(job.settings(config))
    now = dataclasses.asdict(recipe) | {"size": size, "network": network}
    was = dataclasses.asdict(read_recipe(plan["recipe"])) | {key: plan[key] for key in ("size", "network")}
    if "options" in record:  # the oldest records lack them
        now, was = all_options(job) | now, record["options"] | was
    changed = []
    for key in dict.fromkeys((*was, *now)):
        if key not in was or key not in now or was[key] != now[key]:
            before = f"with {key} {was[key]}" if key in was else f"without {key}"
            changed.append(before + (f", the method now has {now[key]}" if key in now else ", which is no longer one"))
    if changed and "options" not in record:
        changed.append("with hyperparameters that its record does not name")
    code = own_code(job.method)
    if plan.get("own_code", code) != code:
        changed.append(f"with another version of the file that defines {job.method}")
    return "; ".join(changed)


def done_jobs(plan: BenchPlan, config: Bench) -> list[Job]:
    """The jobs of a plan that are done. Raises what `is_done` raises."""
    records = read_records(config.results / plan.budget)
    return [job for job in plan.jobs if _is_done(job, config, records)]


def read_results(plan: BenchPlan, config: Bench) -> dict[Job, Result]:
    """The results of a plan's finished runs, in the plan's order, those with outdated settings included.

    Raises InputError if a run has another method or other options than its row, or if runs cannot be compared.
    """
    budget = config.results / plan.budget
    records, scores, curves = read_records(budget), read_scores(budget), read_curves(budget)
    results = {}
    for job in (job for job in plan.jobs if job.run in records):
        record = records[job.run]
        check_same(job, record["plan"], f"{budget / 'runs.csv'}: {job.run}")
        results[job] = Result(record, scores[job.run], curves[job.run], difference(job, config, record))
    _check_alike(results, budget / "runs.csv")
    return results


def _check_alike(results: dict[Job, Result], table: Path) -> None:
    """Raises InputError if runs of one fold differ in cases, or runs of one data set in classes or units."""
    first: dict[tuple, tuple[Job, object]] = {}
    for job, result in results.items():
        plan, rows, data = result.record["plan"], result.rows, (job.data, job.split)
        shared = {
            "cases of the fold": ((*data, job.fold), plan["fold"]),
            "scored cases": ((*data, job.fold), {row["case"] for row in rows}),
            "classes": (data, plan["classes"]),
            "units": (data, {row["unit"] for row in rows}),
        }
        for what, (where, value) in shared.items():
            other, known = first.setdefault((what, where), (job, value))
            if value != known:
                raise InputError(
                    f"{table}: {other.run} and {job.run} have different {what}, so they cannot be compared. Data, "
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


def convert(results: Path) -> int:
    """Move runs of the layout before 0.2 into the CSV files, and return their number.

    That layout had a folder per run: RESULTS/BUDGET/DATA/SPLIT-FOLD/LABEL-sSEED. Its three files are deleted once the
    CSV files hold the run; other files stay. A run that the CSV files hold already is not replaced, and its folder
    stays.
    """
    if not any(results.glob("*/*/*/*/metrics.csv")):
        return 0
    with _lock(results):  # two benches at once: the second one finds nothing left
        return sum(_convert(results, path.parent) for path in sorted(results.glob("*/*/*/*/metrics.csv")))


def _convert(results: Path, folder: Path) -> bool:
    budget, data, split_fold, label_seed = folder.relative_to(results).parts
    (split, _, fold), (label, _, seed) = split_fold.rpartition("-"), label_seed.rpartition("-s")
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        rows, curve = (
            pd.read_csv(folder / name, dtype=str, keep_default_na=False).to_dict("records")
            for name in ("metrics.csv", "curve.csv")
        )
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be read ({error}). Restore its files, or delete the folder.") from error
    job = Job(data, split, int(fold), label, record["plan"]["method"], (), int(seed), cast(Budget, budget))
    if job.run in read_records(results / budget):
        return False
    add_run(results / budget, job, record, rows, curve)
    for name in ("metrics.csv", "curve.csv", "run.json"):
        (folder / name).unlink()
    for place in (folder, *list(folder.parents)[:2]):
        if not any(place.iterdir()):
            place.rmdir()
    return True


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


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _read(path: Path) -> pd.DataFrame:
    """A table of text. It has no rows if there is no file."""
    names = ["run", "id", *KEY, *COLUMNS, *CURVE]
    if not path.is_file():
        return pd.DataFrame(columns=names)
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}). Restore it, for example with git.") from error


def _replace(path: Path, rows: pd.DataFrame) -> None:
    """Put rows into a table. They replace rows with the same name in the first column."""
    key = rows.columns[0]
    old = _read(path) if path.is_file() else rows[:0]
    table = pd.concat([old[~old[key].isin(rows[key])], rows]).fillna("").sort_values(key, kind="stable")
    with atomic_file(path) as partial:
        table.to_csv(partial, index=False, lineterminator="\n")


@contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder, which one process can hold at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
