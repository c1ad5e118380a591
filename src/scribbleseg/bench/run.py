"""One job of a bench: train (or continue), predict the held-out cases, score them, and add the run to RESULTS."""

import dataclasses
import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..config import Bench, Predict, Train
from ..core.errors import InputError
from ..data.dataset import Case, Dataset, Fold
from ..data.layout import read_dataset
from ..evaluation.scores import list_masks, score_cases, write_rows
from ..inference.models import load_network
from ..inference.predict import predict
from ..training.plan import Plan, read_plan
from ..training.settings import make_plan
from ..training.train import resume, train
from .plan import Job
from .store import CURVE, add_run, all_options, check_same


def scored_cases(dataset: Dataset, fold: Fold) -> list[Case]:
    """The held-out cases that have a dense mask. Raises InputError if there are none."""
    cases = [case for case in dataset.held_out(fold)[1] if case.truth is not None]
    if not cases:
        raise InputError(
            f"{dataset.folder}: fold '{fold.name}' holds out no case with a dense mask, so nothing can be scored. "
            "Add masks to labelsTr_dense or labelsTs, or choose another split."
        )
    return cases


def without_data(jobs: list[Job], config: Bench) -> dict[Job, str]:
    """The jobs whose data set, split, fold or dense masks are missing, each with the error."""
    reasons: dict[tuple, str | None] = {}
    for job in jobs:
        place = job.data, job.split, job.fold
        if place not in reasons:
            try:
                dataset = read_dataset(config.datasets / job.data)
                split = dataset.default_split() if job.split == "auto" else job.split
                scored_cases(dataset, dataset.fold(split, job.fold))
                reasons[place] = None
            except InputError as error:
                reasons[place] = f"InputError: {error}"
    found = {job: reasons[job.data, job.split, job.fold] for job in jobs}
    return {job: reason for job, reason in found.items() if reason is not None}


def run_job(job: Job, config: Bench) -> None:
    """Train (or continue), predict the held-out cases, score them, and add the run to the CSV files in RESULTS.

    Before it trains, raises InputError for a run that began with other settings, and for a fold that holds out no case
    with a dense mask.
    """
    settings = job.settings(config)
    dataset = read_dataset(settings.dataset)
    run, plan = Path(settings.run), make_plan(settings, dataset)
    cases = scored_cases(dataset, plan.fold)
    begun, clock = (run / "config.json").is_file(), [time.perf_counter()]
    if begun:
        _check_begun(job, settings, plan, config.runs)
        resume(run, job.method, plan.network, plan.recipe.augmentation)
    else:
        train(settings)
    clock.append(time.perf_counter())
    predict(Predict((run,), settings.dataset, run / "predictions", networks=(plan.network,), device=config.device))
    clock.append(time.perf_counter())
    rows = score_cases(dataset, cases, list_masks(run / "predictions"))
    write_rows(run / "metrics.csv", rows)
    clock.append(time.perf_counter())
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    median, minutes = training_time(log)
    training, *others = (round(after - before, 1) for before, after in pairwise(clock))
    machine = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    record = {
        "command": job.command(config),
        "environment": {key: value for key, value in machine.items() if key != "data_note"},
        "plan": json.loads(json.dumps(dataclasses.asdict(plan))),
        "options": all_options(job),
        "data_note": machine.get("data_note", dataset.note),
        "held_out_cases": len({row["case"] for row in rows}),
        "parameters": sum(p.numel() for p in load_network(run, plan, networks=[plan.network]).parameters()),
        "seconds_per_iteration": median,
        "minutes": minutes,
        "wall_seconds": dict(zip(("training", "prediction", "scoring"), (None if begun else training, *others))),
        "peak_memory_mib": max(entry["peak_memory_mib"] for entry in log),
    }
    rows = [row | {"patient": dataset.patient(row["case"])} for row in rows]
    add_run(config.results / job.budget, job, record, rows, short_curve(log))


def training_time(log: list[dict]) -> tuple[float, float]:
    """Median seconds per iteration and total minutes of all iterations, from the lines of log.jsonl.

    Validation and checkpoints are not included.
    """
    before = [0, *(entry["iteration"] for entry in log)]
    seconds = [entry["seconds_per_iteration"] for entry in log]
    spent = sum(value * (entry["iteration"] - start) for value, entry, start in zip(seconds, log, before))
    return float(np.median(seconds)), spent / 60


def short_curve(log: list[dict]) -> list[dict[str, str]]:
    """At most 50 rows of a training log.

    A loss is the mean over the entries since the previous row. A validation Dice is the last of these entries.
    """
    rows = []
    for part in np.array_split(np.array(log, dtype=object), min(50, len(log))):
        validated = [entry["val_mean_dice"] for entry in part if "val_mean_dice" in entry]
        loss = np.mean([entry["loss"] for entry in part])
        cells = (str(part[-1]["iteration"]), f"{loss:.5g}", f"{validated[-1]:.5f}" if validated else "nan")
        rows.append(dict(zip(CURVE, cells)))
    return rows


def _check_begun(job: Job, settings: Train, plan: Plan, folder: Path) -> None:
    """Raises InputError if the run to continue began with other settings than the bench's.

    What the run found in its data (`Plan.fitted`) is no setting; `resume` refuses data that changed.
    """
    run = folder / job.place
    begun, found = read_plan(run)
    check_same(job, dataclasses.asdict(found), run)
    pairs = [(name, getattr(settings, name), getattr(begun, name)) for name in ("seed", "precision")]
    names = [field.name for field in dataclasses.fields(Plan) if field.name != "fitted"]
    pairs += [(name, getattr(plan, name), getattr(found, name)) for name in names]
    if changed := [name for name, wanted, stored in pairs if wanted != stored]:
        raise InputError(
            f"{run}: began with another {', '.join(changed)} than the bench has now. Delete the folder to train this "
            "run again."
        )
