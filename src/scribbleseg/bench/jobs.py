"""The runs of a bench plan, and what each leaves behind.

A finished run leaves three small files under RESULTS/BUDGET/DATA/SPLIT-FOLD/LABEL-sSEED: metrics.csv (per case), curve.csv (training, at most
50 lines) and run.json (settings, machine, minutes, command). They are what tables and figures are made from, and what makes a later bench skip
the run; the weights stay in RUNS.
"""

import csv
import dataclasses
import json
import shlex
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config import Bench, Predict, Train
from ..core.atomic import atomic_file
from ..core.errors import InputError, nearest
from ..core.json_file import read_json
from ..data.dataset import Case, Dataset, Fold
from ..data.layout import read_dataset
from ..evaluation.scores import list_masks, read_rows, score_cases, write_rows
from ..inference.models import load_network
from ..inference.predict import predict
from ..methods import hyperparameters, own_code, parse_options
from ..training.plan import Plan, make_plan, make_recipe, read_plan, read_recipe
from ..training.train import resume, train

TEXT = (lambda value: isinstance(value, str), "a text in quotes")
NAME = (
    lambda value: isinstance(value, str) and value != "" and "/" not in value,
    "a text in quotes, without a slash: it names a folder",
)
NUMBERS = (
    lambda value: _is_list(value, int) and value and min(value) >= 0,
    "a list of whole numbers from 0 on, such as [0, 1]",
)
WORDS = (lambda value: _is_list(value, str), 'a list of texts, such as ["fadc=false"]')
TABLES = (lambda value: _is_list(value, dict) and value, "tables: [[{key}]], with its keys on the lines below it")
PLAN_KEYS = {
    "data": TABLES,
    "row": TABLES,
    "seeds": NUMBERS,
    "title": TEXT,
    "published": TEXT,
    "figure": TABLES,
}  # key → what its value must be
DATA_KEYS = {"folder": NAME, "split": NAME, "folds": NUMBERS, "without": WORDS}
ROW_KEYS = {"method": TEXT, "label": NAME, "set": WORDS}
CURVE = ("iteration", "loss", "val_mean_dice")


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
    budget: str

    @property
    def place(self) -> Path:
        return Path(self.budget, self.data, f"{self.split}-{self.fold}", f"{self.label}-s{self.seed}")

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
        )

    def command(self, config: Bench) -> str:
        words = [
            "scribbleseg",
            "train",
            config.datasets / self.data,
            config.runs / self.place,
            "--method",
            self.method,
            "--budget",
            self.budget,
        ]
        words += ["--split", self.split, "--fold", self.fold, "--seed", self.seed] + (
            ["--set", *self.set] if self.set else []
        )
        return shlex.join(map(str, words))


@dataclass(frozen=True)
class Published:
    """What a paper prints, for the sections of one data set: `rows` is label → class (or "mean") → dice, dice_sd, hd95, as far as known.

    `split` is the paper's, in words; `ours` the name of our split that is of its kind: numbers on another do not compare.
    """

    source: str
    data: str
    split: str
    ours: str
    rows: dict[str, dict[str, dict[str, float]]]
    note: str = ""


@dataclass(frozen=True)
class BenchPlan:
    """A plan file, read: `name` is the file's stem, `labels` its rows in order."""

    name: str
    path: Path
    budget: str
    labels: tuple[str, ...]
    jobs: tuple[Job, ...]  # data set by data set, fold by fold, seed by seed, row by row
    title: str
    folds: tuple[int, ...]  # what --folds leaves of the plan's; empty: all
    published: Published | None
    figures: tuple[dict, ...]  # the plan's [[figure]] tables


@dataclass(frozen=True)
class Result:
    """What a finished run left: run.json, metrics.csv as `evaluate.read_rows` gives it, curve.csv as numbers (nan where nothing was validated)."""

    record: dict
    rows: list[dict]
    curve: dict[str, np.ndarray]


def read_bench_plan(config: Bench) -> BenchPlan:
    """The runs of a TOML plan: `[[data]] folder, split, folds`, `[[row]] label, method, set`, `seeds`, `title`, `published`, `[[figure]]`.

    Raises InputError for a file that cannot be read, lacks a key or has an unknown one, for a value that cannot be meant, for a row whose method
    or option does not exist, for two rows of the same label, for a run that is there twice, for a fold of --folds that the plan does not have,
    and for a key that published.toml does not have.
    """
    path = Path(config.plan)
    plan = _read_toml(path)
    _check_table(path, plan, PLAN_KEYS, ("data", "row"))
    for entry in plan["data"]:
        _check_table(path, entry, DATA_KEYS, ("folder", "split", "folds"), "[[data]] ")
    for row in plan["row"]:
        _check_table(path, row, ROW_KEYS, ("method",), "[[row]] ")
    rows = [(row.get("label", row["method"]), row["method"], tuple(row.get("set", ()))) for row in plan["row"]]
    for label, method, options in rows:
        try:
            parse_options(method, options)
        except InputError as error:
            raise InputError(f"{path}: row '{label}': {error}") from error
    data = [(entry["folder"], entry["split"], fold) for entry in plan["data"] for fold in entry["folds"]]
    left_out = {
        (entry["folder"], entry["split"], label) for entry in plan["data"] for label in entry.get("without", ())
    }
    labels = tuple(label for label, _, _ in rows)
    if len(set(labels)) < len(labels):
        raise InputError(f'{path}: two rows have the same label among {labels}. Name them apart with label = "…".')
    if missing := set(config.folds) - {fold for _, _, fold in data}:
        raise InputError(f"--folds {min(missing)}: {path} has only the folds {sorted({fold for _, _, fold in data})}.")
    data = [place for place in data if not config.folds or place[2] in config.folds]
    if odd := {label for *_, label in left_out} - set(labels):
        raise InputError(f'{path}: without = ["{min(odd)}"] names no row. {nearest(min(odd), labels)}')
    runs = [
        (place, seed, row)
        for place in data
        for seed in plan.get("seeds", [0])
        for row in rows
        if (*place[:2], row[0]) not in left_out
    ]
    jobs = tuple(Job(*place, *row, seed, config.budget) for place, seed, row in runs)
    if len(set(jobs)) < len(jobs):
        raise InputError(f"{path}: a run is there twice. Name every seed, and every fold of a data set's split, once.")
    published = _read_published(path, plan["published"]) if "published" in plan else None
    title, figures = plan.get("title", path.stem), tuple(plan.get("figure", ()))
    return BenchPlan(path.stem, path, config.budget, labels, jobs, title, tuple(config.folds), published, figures)


def _is_list(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


def _read_toml(path: Path) -> dict:
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected a TOML file.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start + 1} is not UTF-8. Save the file as UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: is not TOML: {error}.") from error


def _check_table(path: Path, table: dict, kinds: dict, needed: tuple[str, ...], where: str = "") -> None:
    for key in table:
        if key not in kinds:
            raise InputError(f"{path}: {where}unknown key '{key}'. {nearest(key, kinds)}")
    for key in needed:
        if key not in table:
            raise InputError(
                f"{path}: {where}{key} is missing. A bench plan needs [[data]] with folder, split, folds and [[row]] with method."
            )
    for key, value in table.items():
        fits, words = kinds[key]
        if not fits(value):
            raise InputError(f"{path}: {where}{key} = {value!r}; expected {words.format(key=key)}.")


def _read_published(plan: Path, key: str) -> Published:
    """A key of published.toml, which lies beside the folder of the plan. Raises InputError when there is no such file or key."""
    path = plan.resolve().parents[1] / "published.toml"
    if not path.exists():
        raise InputError(
            f"{plan}: published = '{key}', and there is no {path}. Write the paper's numbers there, or leave the key out."
        )
    known = _read_toml(path)
    if key not in known:
        raise InputError(f"{plan}: published = '{key}' is not in {path}. {nearest(key, known)}")
    try:
        return Published(**known[key])
    except TypeError as error:
        raise InputError(
            f"{path}: '{key}' has other keys than it needs, which are source, data, split, ours, rows and, if you like, note."
        ) from error


def is_done(job: Job, config: Bench) -> bool:
    """Whether RESULTS has the job's scores. Raises InputError when they are of another method, other options, or a recipe, defaults or own code that have changed."""
    folder = config.results / job.place
    if not (folder / "metrics.csv").is_file():
        return False
    record = _read_record(folder)
    _check_same(job, record["plan"], config.results)
    recipe, size, network = make_recipe(job.settings(config))
    plan, own = record["plan"], {"size": size, "network": network}
    now = _all_options(job) | dataclasses.asdict(recipe) | own
    was = (
        record.get("options", {}) | dataclasses.asdict(read_recipe(plan["recipe"])) | {key: plan[key] for key in own}
    )  # the oldest records lack options
    if changed := [name for name in was if was[name] != now.get(name)]:
        raise InputError(
            f"{folder}: is from when {', '.join(changed)} of {job.method} was {', '.join(str(was[name]) for name in changed)}. Remove it, here and in RUNS, to run it anew."
        )
    code = own_code(job.method)
    if plan.get("own_code", code) != code:
        raise InputError(
            f"{folder}: is from when the file of {job.method} was another. Remove it, here and in RUNS, to run it anew."
        )
    return True


def read_results(plan: BenchPlan, config: Bench) -> dict[Job, Result]:
    """What the finished runs of a plan left in RESULTS, in the plan's order. Raises InputError for runs that cannot stand side by side."""
    results = {job: _read_result(config.results / job.place) for job in plan.jobs if is_done(job, config)}
    _check_alike(results, config.results)
    return results


def _check_alike(results: dict[Job, Result], folder: Path) -> None:
    """Raises InputError when runs of a fold were trained or scored on other cases, of a data set have other classes or units."""
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
                    f"{folder / other.place} and {folder / job.place}: their {what} differ, so that no table can show both. Were data, split or code "
                    "changed in between? Remove the outdated one, here and in RUNS, and run the bench again."
                )


def _read_record(folder: Path) -> dict:
    path = folder / "run.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}). Restore it, or remove {folder} to have the run made again."
        ) from error


def _read_result(folder: Path) -> Result:
    with open(folder / "curve.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    curve = {name: np.array([float(line[name]) for line in lines]) for name in CURVE}
    return Result(_read_record(folder), read_rows(folder / "metrics.csv"), curve)


def scored_cases(dataset: Dataset, fold: Fold) -> list[Case]:
    """The held-out cases that have a dense mask. Raises InputError where there is none."""
    cases = [case for case in dataset.held_out(fold)[1] if case.truth is not None]
    if not cases:
        raise InputError(
            f"{dataset.folder}: fold '{fold.name}' holds out no case with a dense mask, so nothing can be scored. Add masks to labelsTr_dense or labelsTs, or choose another split."
        )
    return cases


def without_data(jobs: list[Job], config: Bench) -> dict[Job, str]:
    """The jobs whose data set, split, fold or dense masks are not there, and why."""
    reasons: dict[tuple, str | None] = {}
    for job in jobs:
        place = job.data, job.split, job.fold
        if place not in reasons:
            try:
                dataset = read_dataset(config.datasets / job.data)
                scored_cases(
                    dataset, dataset.fold(dataset.default_split() if job.split == "auto" else job.split, job.fold)
                )
                reasons[place] = None
            except InputError as error:
                reasons[place] = f"InputError: {error}"
    found = {job: reasons[job.data, job.split, job.fold] for job in jobs}
    return {job: reason for job, reason in found.items() if reason is not None}


def run_job(job: Job, config: Bench) -> None:
    """Train (or carry on), predict the held-out cases, score them, and leave the small files in RESULTS.

    Raises InputError, before it trains, for a run that was begun with other settings and for a fold that holds out no dense mask.
    """
    settings = job.settings(config)
    run, plan = Path(settings.run), make_plan(settings)
    dataset = read_dataset(settings.dataset)
    cases = scored_cases(dataset, plan.fold)
    begun, clock = (run / "config.json").is_file(), [time.perf_counter()]
    if begun:
        _check_begun(job, settings, plan, config.runs)
        resume(run)
    else:
        train(settings)
    clock.append(time.perf_counter())
    predict(Predict(run, settings.dataset, run / "predictions", device=config.device))
    clock.append(time.perf_counter())
    rows = score_cases(dataset, cases, list_masks(run / "predictions"))
    write_rows(run / "metrics.csv", rows)
    clock.append(time.perf_counter())
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    median, minutes = training_time(log)
    training, *others = (round(after - before, 1) for before, after in zip(clock, clock[1:]))
    record = {
        "command": job.command(config),
        "environment": json.loads((run / "environment.json").read_text(encoding="utf-8")),
        "plan": dataclasses.asdict(plan),
        "options": _all_options(job),
        "data_note": read_json(settings.dataset / "dataset.json").get("scribbleseg_note", ""),
        "held_out_cases": len({row["case"] for row in rows}),
        "parameters": sum(p.numel() for p in load_network(run, plan).parameters()),
        "seconds_per_iteration": median,
        "minutes": minutes,
        "wall_seconds": dict(zip(("training", "prediction", "scoring"), (None if begun else training, *others))),
        "peak_memory_mib": max(entry["peak_memory_mib"] for entry in log),
    }
    target = config.results / job.place
    write_curve(target / "curve.csv", log)
    with atomic_file(target / "run.json") as partial:
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_file(target / "metrics.csv") as partial:
        partial.write_bytes((run / "metrics.csv").read_bytes())


def training_time(log: list[dict]) -> tuple[float, float]:
    """Median seconds of an iteration, and minutes of all iterations, validation and checkpoints not counted, from the lines of log.jsonl."""
    before = [0, *(entry["iteration"] for entry in log)]
    seconds = [entry["seconds_per_iteration"] for entry in log]
    return float(np.median(seconds)), sum(
        value * (entry["iteration"] - start) for value, entry, start in zip(seconds, log, before)
    ) / 60


def write_curve(path: Path, log: list[dict]) -> None:
    """At most 50 lines of a training log as CSV: losses are means over the entries since the line before, validation is where it was made."""
    with atomic_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(CURVE)
        for part in np.array_split(np.array(log, dtype=object), min(50, len(log))):
            validated = [entry["val_mean_dice"] for entry in part if "val_mean_dice" in entry]
            loss = np.mean([entry["loss"] for entry in part])
            writer.writerow([part[-1]["iteration"], f"{loss:.5g}", f"{validated[-1]:.5f}" if validated else "nan"])


def _all_options(job: Job) -> dict[str, object]:
    """The method's hyperparameters in this run, defaults included, as JSON gives them back."""
    return json.loads(json.dumps(hyperparameters(job.method) | parse_options(job.method, job.set)))


def _check_begun(job: Job, settings: Train, plan: Plan, folder: Path) -> None:
    """Raises InputError when a run that is to be carried on was begun with other settings than the bench's."""
    begun, found = read_plan(folder / job.place)
    _check_same(job, dataclasses.asdict(found), folder)
    pairs = [(name, getattr(settings, name), getattr(begun, name)) for name in ("seed", "precision")]
    pairs += [(field.name, getattr(plan, field.name), getattr(found, field.name)) for field in dataclasses.fields(Plan)]
    if changed := [name for name, wanted, stored in pairs if wanted != stored]:
        raise InputError(
            f"{folder / job.place}: was begun with another {', '.join(changed)} than the bench has now, and would be finished with that. Remove the folder to train anew."
        )


def _check_same(job: Job, plan: dict, folder: Path) -> None:
    options = parse_options(job.method, job.set)
    if (plan["method"], plan["options"]) != (job.method, options):
        raise InputError(
            f"{folder / job.place}: is a run of {plan['method']} {plan['options']}; the plan's row '{job.label}' says {job.method} {options}. "
            "Give the row another label."
        )
