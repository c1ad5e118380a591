"""Does SCN's region shape refinement stay alive? python benchmarks/studies/rsr.py [--variants NAME ...] [--table-only]

Trains readings of eq. 4-12 with equal budgets and writes benchmarks/results/scn-rsr.csv and .md. A run that was cut off
is carried on, a finished one is skipped.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, read_log, scribbleseg, write_csv, write_page

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
COLUMNS = ("variant", "seed", "iteration", *MONITORED, "dice", "device", "commit", "command")


def course(run: Path) -> list[dict]:
    """τ, coverage and RSR's share of changed pixels at each validation: means since the log line before."""
    log = [entry for entry in read_log(run) if "val_mean_dice" in entry]
    return [
        {"iteration": entry["iteration"], "dice": round(100 * entry["val_mean_dice"], 2)}
        | {name: f"{entry['monitor'][name]:.5f}" for name in MONITORED}
        for entry in log
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--dataset", type=Path, default=Path("datasets/mscmr"))
    parser.add_argument("--runs", type=Path, default=Path("runs/rsr"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table-only", action="store_true", help="train nothing, read the finished runs")
    given = parser.parse_args()
    rows = []
    for variant in given.variants:
        run = given.runs / variant.replace(" ", "-").replace(",", "").replace("=", "")
        options = [word for key, value in BUDGET.items() for word in (f"--{key}", str(value))]
        options += [word for option in VARIANTS[variant] for word in ("--set", option)]
        command = ["train", str(given.dataset), str(run), *options]
        if not given.table_only:
            scribbleseg(["train", str(run), "--resume"] if (run / "config.json").is_file() else command)
        found = course(run) if (run / "log.jsonl").is_file() else []
        if found and found[-1]["iteration"] == BUDGET["iterations"]:
            machine = json.loads((run / "environment.json").read_text(encoding="utf-8"))
            about = {"variant": variant, "seed": 0, "command": shlex.join(["scribbleseg", *command])}
            rows += [{**about, "device": machine["device"], "commit": machine["commit"], **row} for row in found]
    page = given.results / "scn-rsr.md"
    write_csv(page.with_suffix(".csv"), rows, COLUMNS)
    shown = COLUMNS[:-1]
    table = markdown_table(shown, [[row[key] for key in shown] for row in rows])
    commands = "\n".join(f"- `{command}`" for command in dict.fromkeys(row["command"] for row in rows))
    write_page(page, "# SCN: does region shape refinement stay alive?", ABOUT, table, "Commands:", commands)
    print(f"table: {page}")


if __name__ == "__main__":
    main()
