"""Does SCN's region shape refinement stay alive? python benchmarks/studies/rsr.py [--variants NAME ...] [--table-only]

Trains readings of eq. 4-12 with equal budgets and writes benchmarks/results/scn-rsr.csv and .md. A run that was cut off
is carried on, a finished one is skipped. --full RUN ... reads the logs of other trainings of SCN, such as those at the
paper's length, and writes scn-rsr-full.csv and .md: means over each tenth of the run. What the CSV has of runs that are
not here stays.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np

from scribbleseg.core.environment import devices
from scribbleseg.training.plan import read_plan

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, put_line, read_log, scribbleseg, write_csv, write_page

VARIANTS = {
    "as printed": ("region_threshold=0",),
    "t = .85": ("region_threshold=0.85",),
    "class mean": ("towards=class mean", "region_threshold=0"),
    "class mean, t = .85": ("towards=class mean", "region_threshold=0.85"),
    "pixel mean": ("towards=pixel mean", "region_threshold=0"),
}
BUDGET = {"method": "scn", "split": "tuning", "size": 96, "batch": 8, "iterations": 2000, "set": "momentum=0.985"}
MONITORED = ("threshold", "coverage", "coverage_refined", "accepted", "changed")
ABOUT = (
    "MSCMR's `tuning` split: 20 of the 25 scribbled subjects are trained on, 5 are validated on their scribbled "
    "pixels. None "
    "of them has a dense mask, and none is a validation or test subject of the paper's split. "
    "The momentum of τ is .985 for "
    "2000 iterations of 8 slices at 96 pixels, so that τ moves as far as with .999 in the paper's 30 000. "
    "`changed` is the "
    "share of pixels whose pseudo-label RSR adds or changes. Dice in percent. "
    "Made by `python benchmarks/studies/rsr.py`."
)
ABOUT_FULL = (
    "SCN with its defaults (t = .85, momentum of τ .999). Each row has the means over the log lines of a tenth of the "
    "run, and the validation Dice at its end, in percent, at the network's resolution: of the scribbled pixels where "
    "split is `tuning` on MSCMR, else of dense masks. `changed` is the share of pixels whose pseudo-label RSR adds or "
    "changes. Made by `python benchmarks/studies/rsr.py --full RUN ...`."
)
COLUMNS = ("variant", "seed", "iteration", *MONITORED, "dice", "device", "commit", "command")
FULL_COLUMNS = ("data", "split", "size", "batch", "seed", "iteration", *MONITORED, "dice", "device", "commit")


def course(run: Path) -> list[dict]:
    """τ, coverage and RSR's share of changed pixels at each validation: means since the log line before."""
    log = [entry for entry in read_log(run) if "val_mean_dice" in entry]
    return [
        {"iteration": entry["iteration"], "dice": round(100 * entry["val_mean_dice"], 2)}
        | {name: f"{entry['monitor'][name]:.5f}" for name in MONITORED}
        for entry in log
    ]


def tenths(run: Path) -> list[dict]:
    """A row for each tenth of a run: what its log says between two validations, of which a run has ten."""
    train, plan = read_plan(run)
    if plan.method != "scn" or plan.options:
        raise SystemExit(
            f"{run}: trained {plan.method} with {plan.options}; expected scn with its defaults. Leave it out."
        )
    machine = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    about = {"data": Path(train.dataset).name, "split": plan.split, "size": plan.size, "batch": plan.recipe.batch}
    about |= {"seed": train.seed, "device": devices(machine), "commit": machine["commit"]}
    rows, since = [], []
    for entry in read_log(run):
        since.append(entry["monitor"])
        if "val_mean_dice" in entry:
            means = {name: f"{np.mean([monitor[name] for monitor in since]):.5f}" for name in MONITORED}
            rows.append(
                about | {"iteration": entry["iteration"], "dice": f"{100 * entry['val_mean_dice']:.2f}"} | means
            )
            since = []
    return rows


def place(row: dict) -> tuple[str, str, int, int, int, int]:
    """Where a line stands in scn-rsr-full.csv."""
    return row["data"], row["split"], *(int(row[key]) for key in ("size", "batch", "seed", "iteration"))


def write_full(runs: list[Path], results: Path) -> None:
    path = results / "scn-rsr-full.csv"
    lines: list = []
    for row in (row for run in runs for row in tenths(run)):
        lines = put_line(path, row, place, FULL_COLUMNS)
    table = markdown_table(FULL_COLUMNS, [[row[key] for key in FULL_COLUMNS] for row in lines])
    write_page(path.with_suffix(".md"), "# SCN: region shape refinement over whole runs", ABOUT_FULL, table)
    print(f"table: {path.with_suffix('.md')}")


def write_variants(variants: list[str], dataset: Path, runs: Path, results: Path, table_only: bool) -> None:
    rows = []
    for variant in variants:
        run = runs / variant.replace(" ", "-").replace(",", "").replace("=", "")
        options = [word for key, value in BUDGET.items() for word in (f"--{key}", str(value))]
        options += [word for option in VARIANTS[variant] for word in ("--set", option)]
        command = ["train", str(dataset), str(run), *options]
        if not table_only:
            scribbleseg(["train", str(run), "--resume"] if (run / "config.json").is_file() else command)
        found = course(run) if (run / "log.jsonl").is_file() else []
        if found and found[-1]["iteration"] == BUDGET["iterations"]:
            machine = json.loads((run / "environment.json").read_text(encoding="utf-8"))
            about = {"variant": variant, "seed": 0, "command": shlex.join(["scribbleseg", *command])}
            rows += [{**about, "device": machine["device"], "commit": machine["commit"], **row} for row in found]
    page = results / "scn-rsr.md"
    write_csv(page.with_suffix(".csv"), rows, COLUMNS)
    shown = COLUMNS[:-1]
    table = markdown_table(shown, [[row[key] for key in shown] for row in rows])
    commands = "\n".join(f"- `{command}`" for command in dict.fromkeys(row["command"] for row in rows))
    write_page(page, "# SCN: does region shape refinement stay alive?", ABOUT, table, "Commands:", commands)
    print(f"table: {page}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--dataset", type=Path, default=Path("datasets/mscmr"))
    parser.add_argument("--runs", type=Path, default=Path("runs/rsr"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table-only", action="store_true", help="train nothing, read the finished runs")
    parser.add_argument("--full", type=Path, nargs="+", metavar="RUN", help="read these runs, train nothing")
    given = parser.parse_args()
    if given.full:
        write_full(given.full, given.results)
    else:
        write_variants(given.variants, given.dataset, given.runs, given.results, given.table_only)


if __name__ == "__main__":
    main()
