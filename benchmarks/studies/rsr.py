"""Does SCN's region shape refinement stay alive? python benchmarks/studies/rsr.py [--variants NAME ...] [--seeds 0 1 2]

Trains readings of eq. 4-12, and two other schedules, with equal budgets and writes benchmarks/results/scn-rsr.csv and
.md. A run that was cut off is carried on, a finished one is skipped. --full RUN ... reads the logs of other trainings
of SCN, such as those at the paper's length, and writes scn-rsr-full.csv and .md: means over each tenth of the run. What
the CSV has of runs that are not here stays.
"""

import argparse
import itertools
import json
import shlex
import sys
from pathlib import Path

import numpy as np

from scribbleseg.core.environment import devices
from scribbleseg.training.plan import read_plan

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, put_line, read_csv, read_log, scribbleseg, slug, write_page

VARIANTS = {  # reading → words of the command
    "as printed": ("--set", "region_threshold=0"),
    "t = .85": ("--set", "region_threshold=0.85"),
    "class mean": ("--set", "towards=class mean", "--set", "region_threshold=0"),
    "class mean, t = .85": ("--set", "towards=class mean", "--set", "region_threshold=0.85"),
    "pixel mean": ("--set", "towards=pixel mean", "--set", "region_threshold=0"),
}
SCHEDULES = {"× .1 after 1/3 and 2/3": ("0.3333", "0.6667"), "× .1 after 1/2 and 3/4": ("0.5", "0.75")}
for name, (first, second) in SCHEDULES.items():
    VARIANTS[f"t = .85, {name}"] = (*VARIANTS["t = .85"], "--step-at", first, "--step-at", second, "--gamma", "0.1")
BUDGET = {"method": "scn", "split": "tuning", "size": 96, "batch": 8, "iterations": 2000, "set": "momentum=0.985"}
MONITORED = ("threshold", "coverage", "coverage_refined", "accepted", "changed")
ABOUT = (
    "MSCMR's `tuning` split: 20 of the 25 scribbled subjects are trained on, 5 are validated on their scribbled "
    "pixels. None of them has a dense mask, and none is a validation or test subject of the paper's split. The "
    "momentum of τ is .985 for 2000 iterations of 8 slices at 96 pixels, so that τ moves as far as with .999 in the "
    "paper's 30 000. `changed` is the share of pixels whose pseudo-label RSR adds or changes. Dice in percent. The "
    "learning rate is halved after each quarter of the run, except in rows that name other steps. "
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


def row_place(row: dict) -> tuple[int, int, int]:
    """Where a line stands in scn-rsr.csv."""
    return list(VARIANTS).index(row["variant"]), int(row["seed"]), int(row["iteration"])


def train_variant(variant: str, seed: int, dataset: Path, runs: Path) -> list[dict]:
    """Train a variant, or carry it on; its rows."""
    run = runs / f"{slug(variant)}-s{seed}"
    options = [word for key, value in (BUDGET | {"seed": seed}).items() for word in (f"--{key}", str(value))]
    command = ["train", str(dataset), str(run), *options, *VARIANTS[variant]]
    scribbleseg(["train", str(run), "--resume"] if (run / "config.json").is_file() else command)
    machine = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    about = {"variant": variant, "seed": seed, "command": shlex.join(["scribbleseg", *command])}
    return [{**about, "device": devices(machine), "commit": machine["commit"], **row} for row in course(run)]


def write_variants(results: Path) -> None:
    """The page of scn-rsr.csv: means over the seeds at the end of the runs, and each run's course."""
    page = results / "scn-rsr.md"
    rows = sorted(read_csv(page.with_suffix(".csv")), key=row_place)
    ends = [row for row in rows if int(row["iteration"]) == BUDGET["iterations"]]
    means = []
    for variant in dict.fromkeys(row["variant"] for row in ends):
        own = [row for row in ends if row["variant"] == variant]
        dice = [float(row["dice"]) for row in own]
        mean = {name: np.mean([float(row[name]) for row in own]) for name in MONITORED}
        shares = [f"{mean['threshold']:.3f}", *(f"{100 * mean[name]:.2f}" for name in MONITORED[1:])]
        seeds = ", ".join(row["seed"] for row in own)
        means.append([variant, seeds, *shares, " / ".join(f"{value:.1f}" for value in dice), f"{np.mean(dice):.1f}"])
    head = ["reading", "seeds", "τ", "coverage, %", "with RSR, %", "accepted, %", "changed, %", "Dice by seed", "Dice"]
    shown = COLUMNS[:-1]
    blocks = [
        *("# SCN: does region shape refinement stay alive?", ABOUT),
        *("At the end of the runs, means over the seeds:", markdown_table(head, means)),
        *("Over the runs:", markdown_table(shown, [[row[key] for key in shown] for row in rows]), "Commands:"),
        "\n".join(f"- `{command}`" for command in dict.fromkeys(row["command"] for row in rows)),
    ]
    write_page(page, *blocks)
    print(f"table: {page}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--dataset", type=Path, default=Path("datasets/mscmr"))
    parser.add_argument("--runs", type=Path, default=Path("runs/rsr"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table-only", action="store_true", help="train nothing, make the page of the CSV file")
    parser.add_argument("--full", type=Path, nargs="+", metavar="RUN", help="read these runs, train nothing")
    given = parser.parse_args()
    if given.full:
        write_full(given.full, given.results)
        return
    for variant, seed in itertools.product([] if given.table_only else given.variants, given.seeds):
        for row in train_variant(variant, seed, given.dataset, given.runs):
            put_line(given.results / "scn-rsr.csv", row, row_place, COLUMNS)
    write_variants(given.results)


if __name__ == "__main__":
    main()
