"""Wall-clock time until a training reaches a mean Dice.

python benchmarks/timing/time_to_quality.py [--data acdc mscmr] [--recipes fast scn effdnet] [--minutes 60]

The script starts `scribbleseg train` as a user does. It copies every checkpoint when it is written and notes the
seconds since the command was given (start-up and reading included). Afterwards it scores the copies on ACDC's test
cases of cv5 fold 0 or MSCMR's validation subjects, at their own resolution. It stops a recipe that has not ended after
--minutes. Call it again with more --minutes to continue; it also continues a recipe that was interrupted. In both
cases the clock continues too. Run it on a machine that does nothing else. Writes benchmarks/results/time-to-quality/
and, from all results there, time-to-quality.md and .png.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from scribbleseg.bench.figures import write_figure
from scribbleseg.config import Predict
from scribbleseg.core.atomic import atomic_file
from scribbleseg.data.layout import read_dataset
from scribbleseg.evaluation.scores import list_masks, score_cases, summarise
from scribbleseg.inference.predict import predict
from scribbleseg.reporting.figures import LINE_COLOURS, STYLE
from scribbleseg.training.plan import read_plan

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, SCRIBBLESEG, markdown_table, read_csv, read_log, safetensors_metadata, write_csv, write_page

PLACES = {"acdc": ("cv5", "ACDC, 40 test cases of cv5 fold 0"), "mscmr": ("25-5-15", "MSCMR, 5 validation subjects")}
RECIPES = {
    "fast": ["--preset", "fast"],
    "scn": ["--method", "scn"],
    "effdnet": ["--method", "effdnet"],
    "scn-quick": ["--method", "scn", "--budget", "quick"],
    "effdnet-quick": ["--method", "effdnet", "--budget", "quick"],
}
LEVELS = (0.70, 0.75, 0.80)
ABOUT = (
    "Minutes from the command to the first checkpoint whose mean Dice on the held-out cases is at the level or above; "
    "start-up and reading included. A dash: not reached in the minutes that were run. Made by `python "
    "benchmarks/timing/time_to_quality.py --table-only` from the CSV files in `time-to-quality/`."
)


@dataclass(frozen=True)
class Run:
    """What is committed of a run."""

    record: dict
    lines: list[dict]  # of `score`
    steps: list[dict]  # of `step_times`


def train(program: list[str], words: list[str], run: Path, minutes: float) -> None:
    """Run or carry on a training for `minutes` in all; RUN-checkpoints receives a folder ITERATION per checkpoint, with
    its seconds."""
    copies, weights = run.with_name(f"{run.name}-checkpoints"), run / "last.safetensors"
    if not (run / "config.json").is_file():
        shutil.rmtree(copies, ignore_errors=True)  # of a run that was removed
    copies.mkdir(parents=True, exist_ok=True)
    clock = copies / "seconds"
    before = float(clock.read_text()) if clock.is_file() else 0.0
    if before >= 60 * minutes:
        return
    command = [*program, *(["train", str(run), "--resume"] if (run / "config.json").is_file() else words)]
    seen, start = _changed(weights), time.perf_counter()
    process = subprocess.Popen(
        command, start_new_session=True
    )  # Ctrl-C reaches this process only, which passes it on and waits
    try:
        while process.poll() is None and (seconds := before + time.perf_counter() - start) < 60 * minutes:
            if _changed(weights) != seen:
                seen = _changed(weights)
                _copy(run, copies, seconds)
            time.sleep(0.2)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait()
        seconds = before + time.perf_counter() - start
        if _changed(weights) != seen:
            _copy(run, copies, seconds)
        clock.write_text(f"{seconds:.1f}")
    if process.returncode not in (0, 130):
        raise SystemExit(f"{shlex.join(command)}: exit status {process.returncode}")


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0


def _copy(run: Path, copies: Path, seconds: float) -> None:
    content = (run / "last.safetensors").read_bytes()
    iteration = int(safetensors_metadata(content)["iteration"])
    if not iteration:
        return
    place = copies / f"{iteration:06d}"
    place.mkdir(exist_ok=True)
    (place / "scores.json").unlink(missing_ok=True)
    (place / "last.safetensors").write_bytes(content)
    shutil.copy(run / "config.json", place)
    (place / "seconds").write_text(f"{seconds:.1f}")


def score(run: Path, dataset_folder: Path) -> list[dict]:
    """A line per checkpoint: iteration, seconds, Dice in percent, mean and per class; a checkpoint is scored once."""
    dataset, lines = read_dataset(dataset_folder), []
    _, held = dataset.held_out(read_plan(run)[1].fold)
    cases = [case for case in held if case.truth is not None]
    for place in sorted(run.with_name(f"{run.name}-checkpoints").glob("*/seconds")):
        place = place.parent
        if not (place / "scores.json").is_file():
            predict(Predict(place, dataset_folder, place / "predictions"))
            summary = summarise(score_cases(dataset, cases, list_masks(place / "predictions")))
            with atomic_file(place / "scores.json") as partial:
                partial.write_text(json.dumps({entry["class"]: round(100 * entry["dice"], 2) for entry in summary}))
            shutil.rmtree(place / "predictions")
        lines.append(
            {
                "iteration": int(place.name),
                "seconds": float((place / "seconds").read_text()),
                **json.loads((place / "scores.json").read_text()),
            }
        )
    return lines


def step_times(run: Path) -> list[dict]:
    """A line per line of the training's log: the mean time of its iterations, validation and checkpoints not
    counted."""
    return [{key: entry[key] for key in ("iteration", "seconds_per_iteration")} for entry in read_log(run)]


def write(stem: Path, lines: list[dict], steps: list[dict], record: dict) -> None:
    for path, rows in ((stem.with_suffix(".csv"), lines), (stem.with_suffix(".steps.csv"), steps)):
        write_csv(path, rows, list(rows[0]) if rows else ("iteration", "seconds_per_iteration"))
    with atomic_file(stem.with_suffix(".json")) as partial:
        partial.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(results: Path) -> list[Run]:
    """Every run in a folder."""
    found = []
    for path in sorted(results.glob("*.json")):
        texts = [read_csv(path.with_suffix(end)) for end in (".csv", ".steps.csv")]
        tables = [[{key: float(value) for key, value in line.items()} for line in lines] for lines in texts]
        found.append(Run(json.loads(path.read_text(encoding="utf-8")), *tables))
    return found


def reached(lines: list[dict], level: float) -> float | None:
    """Seconds to the first checkpoint whose mean Dice is `level` or more; None when there is none."""
    return next((line["seconds"] for line in lines if line["mean"] >= 100 * level), None)


def table(found: list[Run]) -> str:
    head = ["data", "recipe", "method", "seed", "machine", "threads", "commit"]
    head += [*(f"{100 * level:.0f} %, min" for level in LEVELS), "run, min", "iterations of", "Dice at the end", "best"]
    rows = []
    for run in found:
        record, lines, spent = run.record, run.lines, sorted(line["seconds_per_iteration"] for line in run.steps)
        machine, last = record["environment"], lines[-1]
        cells = [record[key] for key in ("data", "recipe", "method", "seed")]
        continued = ", carried on elsewhere" if "continued" in machine else ""
        cells += [machine["device"], machine["threads"], machine["commit"] + continued]
        times = [reached(lines, level) for level in LEVELS]
        cells += ["–" if seconds is None else f"{seconds / 60:.1f}" for seconds in times]
        cells += [f"{last['seconds'] / 60:.1f}", f"{last['iteration']:.0f} of {record['iterations']}"]
        cells += [f"{last['mean']:.1f}", f"{max(line['mean'] for line in lines):.1f}"]
        shown = ", ".join(f"{spent[round(share * (len(spent) - 1))]:.2f}" for share in (0.5, 0.95, 1) if spent)
        cells.append(f"{shown} ({run.steps[-1]['iteration'] / len(spent):.1f})" if spent else "–")
        rows.append(cells)
    return markdown_table([*head, "s / iteration: median, 95 %, slowest (means of N)"], rows)


def picture(found: list[Run]) -> Figure:
    """Per data set: mean Dice over minutes, and below it the time of an iteration over the course of the run; a line
    per run."""
    places = [data for data in PLACES if any(run.record["data"] == data for run in found)]
    recipes = list(dict.fromkeys(run.record["recipe"] for run in found))
    figure = Figure((1 + 4.6 * len(places), 5.6), layout="constrained")
    panels = figure.subplots(2, len(places), sharey="row", squeeze=False, height_ratios=(2, 1))
    for (above, below), data in zip(panels.T, places):
        for run in (run for run in found if run.record["data"] == data):
            recipe, color = run.record["recipe"], LINE_COLOURS[recipes.index(run.record["recipe"]) % len(LINE_COLOURS)]
            alike = [other for other in found if (other.record["data"], other.record["recipe"]) == (data, recipe)]
            style = ("-", "--", ":", "-.")[alike.index(run) % 4]
            name = (
                recipe
                if len(alike) == 1
                else f"{recipe}, seed {run.record['seed']}, {run.record['environment']['device']}"
            )
            above.plot(
                [line["seconds"] / 60 for line in run.lines],
                [line["mean"] for line in run.lines],
                f"o{style}",
                color=color,
                markersize=3,
                label=name,
            )
            below.plot(
                [line["iteration"] for line in run.steps],
                [line["seconds_per_iteration"] for line in run.steps],
                f"o{style}" if len(run.steps) < 10 else style,
                color=color,
                linewidth=1,
                markersize=3,
            )
        for level in LEVELS:
            above.axhline(100 * level, color="#999999", linewidth=0.8, zorder=0)
        above.set(xlabel="minutes since the command", xlim=(0, None), ylim=(0, 100))
        above.set_title(PLACES[data][1], fontsize=10)
        above.legend(loc="lower right", frameon=False, fontsize=7)
        below.set(xlabel="iteration", ylim=(0, None))
    panels[0, 0].set_ylabel("mean Dice, %")
    panels[1, 0].set_ylabel("s / iteration")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(PLACES), choices=PLACES, help="data sets to train on")
    parser.add_argument(
        "--recipes", nargs="+", default=["fast", "scn", "effdnet"], choices=RECIPES, help="recipes to time"
    )
    parser.add_argument("--minutes", type=float, default=60, help="stop a recipe after this time")
    parser.add_argument("--every", type=float, default=30, help="seconds between checkpoints")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"), help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/time-to-quality"), help="folder for the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the tables")
    parser.add_argument("--table-only", action="store_true", help="train nothing, make the table of the runs there")
    given = parser.parse_args()
    folder = given.results / "time-to-quality"
    for data, recipe in [] if given.table_only else [(data, recipe) for recipe in given.recipes for data in given.data]:
        run, split = given.runs / f"{data}-{recipe}-s{given.seed}", PLACES[data][0]
        words = ["train", str(given.datasets / data), str(run), *RECIPES[recipe], "--split", split, "--fold", "0"]
        words += ["--seed", str(given.seed), "--checkpoint-every", f"{given.every:g}"]
        train(SCRIBBLESEG, words, run, given.minutes)
        plan, machine = read_plan(run)[1], json.loads((run / "environment.json").read_text(encoding="utf-8"))
        record = {
            "data": data,
            "recipe": recipe,
            "method": plan.method,
            "seed": given.seed,
            "iterations": plan.recipe.iterations,
        }
        record |= {"command": shlex.join(["scribbleseg", *words]), "cores": os.cpu_count(), "environment": machine}
        lines = score(run, given.datasets / data)
        if not lines:
            raise SystemExit(f"{run}: no checkpoint after {given.minutes:g} minutes. Give more --minutes.")
        write(folder / run.name, lines, step_times(run), record)
    found = read(folder)
    if not found:
        raise SystemExit(f"{folder}: has no results yet. Run the script without --table-only.")
    with rc_context(STYLE):
        write_figure(picture(found), given.results / "time-to-quality.png")
    commands = "\n".join(f"- `{run.record['command']}`" for run in found)
    write_page(given.results / "time-to-quality.md", "# Time to quality", ABOUT, table(found), "Commands:", commands)
    print(f"table: {given.results / 'time-to-quality.md'}")


if __name__ == "__main__":
    main()
