"""Methods × data sets × folds × seeds: runs what is not done yet and makes the tables from the committed scores.

A finished run leaves two small files under RESULTS/BUDGET/DATA/SPLIT-FOLD/LABEL-sSEED: metrics.csv (per case) and run.json (settings, machine,
minutes, command). They are what the tables are made from, and what makes a later bench skip the run; the weights stay in RUNS.
"""

import dataclasses
import json
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .atomic import atomic_file
from .config import Bench, Predict, Train
from .data.dataset import read_dataset
from .errors import InputError
from .evaluate import list_masks, read_rows, score_cases, summarise, write_rows
from .methods import parse_options
from .plan import read_plan
from .predict import load_network, predict
from .train import resume, train


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
        )

    def command(self, config: Bench) -> str:
        words = ["scribbleseg", "train", config.datasets / self.data, config.runs / self.place, "--method", self.method, "--budget", self.budget]
        words += ["--split", self.split, "--fold", self.fold, "--seed", self.seed] + (["--set", *self.set] if self.set else [])
        return shlex.join(map(str, words))


def bench(config: Bench) -> bool:
    """Run a plan and write its table; True when every run is done. A run that fails does not stop the others: it is listed at the end."""
    name, jobs = read_bench_plan(config)
    failed = []
    for number, job in enumerate(jobs, 1):
        if (config.results / job.place / "metrics.csv").is_file():
            _check_same(job, json.loads((config.results / job.place / "run.json").read_text(encoding="utf-8"))["plan"], config.results)
            continue
        if config.table_only:
            failed.append((job, "not run"))
            continue
        print(f"[{number}/{len(jobs)}] {job.place}", file=sys.stderr, flush=True)
        try:
            run_job(job, config)
        except Exception as error:  # whatever one run dies of, the others go on
            failed.append((job, f"{type(error).__name__}: {error}"))
    path = config.results / f"{name}-{config.budget}.md"
    with atomic_file(path) as partial:
        partial.write_text(make_table(name, jobs, config), encoding="utf-8")
    print(f"table: {path}")
    for job, reason in failed:
        print(f"{job.place}: {reason}", file=sys.stderr)
    return not failed


def read_bench_plan(config: Bench) -> tuple[str, list[Job]]:
    """The name and the runs of a TOML plan: `[[data]] folder, split, folds`, `[[row]] label, method, set`, `seeds`.

    Raises InputError for a file that cannot be read or lacks a key, and for two rows of the same label.
    """
    try:
        plan = tomllib.loads(Path(config.plan).read_text(encoding="utf-8"))
        seeds = plan.get("seeds", [0])
        rows = [(row.get("label", row["method"]), row["method"], tuple(row.get("set", ()))) for row in plan["row"]]
        data = [(entry["folder"], entry["split"], fold) for entry in plan["data"] for fold in entry["folds"]]
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        raise InputError(f"{config.plan}: not a bench plan ({error!r}). It needs [[data]] with folder, split, folds and [[row]] with method.") from error
    labels = [label for label, _, _ in rows]
    if len(set(labels)) < len(labels):
        raise InputError(f"{config.plan}: two rows have the same label among {labels}. Name them apart with label = \"…\".")
    jobs = [Job(*place, label, method, options, seed, config.budget) for place in data for seed in seeds for label, method, options in rows]
    return Path(config.plan).stem, jobs


def run_job(job: Job, config: Bench) -> None:
    """Train (or carry on), predict the held-out cases, score them, and leave the small files in RESULTS."""
    settings = job.settings(config)
    run = Path(settings.run)
    if (run / "config.json").is_file():
        _check_same(job, dataclasses.asdict(read_plan(run)[1]), config.runs)
        resume(run)
    else:
        train(settings)
    _, plan = read_plan(run)
    dataset = read_dataset(settings.dataset)
    _, cases = dataset.held_out(plan.fold)
    predict(Predict(run, settings.dataset, run / "predictions", device=config.device))
    rows = score_cases(dataset, [case for case in cases if case.truth is not None], list_masks(run / "predictions"))
    write_rows(run / "metrics.csv", rows)
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = [entry["seconds_per_iteration"] for entry in log]
    record = {
        "command": job.command(config),
        "environment": json.loads((run / "environment.json").read_text(encoding="utf-8")),
        "plan": dataclasses.asdict(plan),
        "held_out_cases": len({row["case"] for row in rows}),
        "parameters": sum(p.numel() for p in load_network(run, plan).parameters()),
        "seconds_per_iteration": float(np.median(seconds)),
        "minutes": sum(seconds) / len(seconds) * plan.recipe.iterations / 60,
    }
    target = config.results / job.place
    with atomic_file(target / "run.json") as partial:
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with atomic_file(target / "metrics.csv") as partial:
        partial.write_bytes((run / "metrics.csv").read_bytes())


def _check_same(job: Job, plan: dict, folder: Path) -> None:
    options = parse_options(job.method, job.set)
    if (plan["method"], plan["options"]) != (job.method, options):
        raise InputError(
            f"{folder / job.place}: is a run of {plan['method']} {plan['options']}; the plan's row '{job.label}' says {job.method} {options}. "
            "Give the row another label."
        )


def make_table(name: str, jobs: list[Job], config: Bench) -> str:
    """Markdown: per data set and fold one line per row and seed, mean (sd) over cases; rows that were not run say so."""
    lines = [f"# {name}, budget `{config.budget}`", "", f"Made by `scribbleseg bench {config.plan} --budget {config.budget} --table-only` from the CSVs beside this file."]
    lines += ["Last checkpoint. Mean (sd) over held-out cases. HD95 over found structures; `missing` counts structures with no predicted voxel; `HD95*` counts each of those as the volume's diagonal."]
    for data, split, fold in dict.fromkeys((job.data, job.split, job.fold) for job in jobs):
        part = [job for job in jobs if (job.data, job.split, job.fold) == (data, split, fold)]
        done = [job for job in part if (config.results / job.place / "metrics.csv").is_file()]
        lines += ["", f"## {data}, {split}, fold {fold}", ""]
        if not done:
            lines.append("not run")
            continue
        records = {job: json.loads((config.results / job.place / "run.json").read_text(encoding="utf-8")) for job in done}
        tables = {job: summarise(read_rows(config.results / job.place / "metrics.csv")) for job in done}
        first = tables[done[0]]
        unit, names = first[0]["unit"], [entry["class"] for entry in first]
        fold_record = records[done[0]]["plan"]["fold"]
        held = records[done[0]]["held_out_cases"]
        what = "test" if fold_record["test"] else "validation"
        lines.append(f"Fold `{fold_record['name']}`: trained on {len(fold_record['train'])} cases, scored on {held} {what} cases.")
        head = ["method", "seed", *(f"Dice {n}" for n in names), f"HD95 ({unit})", f"HD95* ({unit})", "missing", "size", "iterations", "batch", "optimiser", "parameters", "minutes"]
        lines += ["", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        for job in part:
            if job not in tables:
                lines.append(f"| {job.label} | {job.seed} | not run |" + " |" * (len(head) - 3))
                continue
            table, record = tables[job], records[job]
            recipe, mean = record["plan"]["recipe"], table[-1]
            cells = [job.label, job.seed, *(_percent(entry) for entry in table), f"{mean['hd95']:.1f}", f"{mean['penalised_hd95']:.1f}", mean["n_missing"]]
            cells += [record["plan"]["size"], recipe["iterations"], recipe["batch"], f"{recipe['optimizer']} {recipe['lr']:g} {recipe['schedule']}"]
            cells += [f"{record['parameters'] / 1e6:.2f} M", f"{record['minutes']:.1f}"]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines += ["", "Minutes are of training, other work on the machine included.", "", "```"]
        for job in done:
            machine = records[job]["environment"]
            lines += [f"# {machine['device']}, {machine['precision']}, commit {machine['commit']}", records[job]["command"]]
        lines.append("```")
    return "\n".join(lines) + "\n"


def _percent(entry: dict) -> str:
    return f"{100 * entry['dice']:.1f} ({100 * entry['dice_sd']:.1f})"
