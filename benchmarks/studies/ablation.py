"""What the enclosed background gains for each method, near the structures and far from them.

python benchmarks/studies/ablation.py [--seeds 0] [--minutes N]

Every row of ROWS is trained on ACDC's cv5 fold 0 with the preset fast on whole slices (128 pixels, 900 iterations) and
scored on the 40 test cases. Nothing is chosen here. A study that was cut off carries on; --minutes begins no run after
that time. Writes ablation.csv and ablation.md into --results.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from annotator import sum_of_minutes
from common import RESULTS, markdown_table, put_line, scribbleseg, write_page
from far_field import MARGIN, measure

from scribbleseg.core.atomic import atomic_folder
from scribbleseg.core.json_file import read_json
from scribbleseg.data.layout import read_dataset

SPLIT, FOLD = "cv5", 0
ROWS = [(method, enclosure) for method in ("pce", "scn", "effdnet") for enclosure in ("off", "on")]
COLUMNS = ("method", "enclosure", "seed", "cases", "dice", "near", "far", "empty", "minutes", "commit", "device")
HEAD = ("method", "enclosure", "seeds", "Dice", "Dice in the box", "foreground outside", "in empty slices", "minutes")
ABOUT = (
    "Made by `python benchmarks/studies/ablation.py`; every run, its commit and its machine in ablation.csv. ACDC, "
    f"`{SPLIT}` fold {FOLD}, 40 test cases, preset `fast` on whole slices: 128 pixels, 900 iterations. In the box: "
    f"inside each slice's box around the dense mask, {MARGIN} pixels wider on every side. Foreground outside: share of "
    "the predicted foreground that lies outside the boxes, in slices with and without a heart. `pce` with the enclosed "
    "background is `corral`."
)


def make(data: Path, method: str, enclosure: str, seed: int, runs: Path) -> dict:
    """A line of the table; trains, predicts and scores what is not done."""
    run = runs / f"{method}-{enclosure}-s{seed}"
    if (run / "config.json").is_file():
        scribbleseg(["train", run, "--resume"])
    else:
        words = ["--preset", "fast", "--preparation", "slices", "--enclosure", enclosure, "--method", method]
        scribbleseg(["train", data, run, *words, "--split", SPLIT, "--fold", FOLD, "--seed", seed])
    if not (run / "predictions").is_dir():
        with atomic_folder(run / "predictions") as partial:
            scribbleseg(["predict", run, data, partial])
    cases, *values = measure(run, read_dataset(data))
    environment = read_json(run / "environment.json")
    return {
        "method": method,
        "enclosure": enclosure,
        "seed": seed,
        "cases": cases,
        **{name: f"{100 * value:.2f}" for name, value in zip(("dice", "near", "far", "empty"), values)},
        "minutes": f"{sum_of_minutes(run):.1f}",
        "commit": environment["commit"],
        "device": environment["device"],
    }


def place(line: dict) -> tuple[int, int]:
    """Where a line stands in the table."""
    return ROWS.index((line["method"], line["enclosure"])), int(line["seed"])


def summary(lines: list[dict]) -> list[list[str]]:
    """The rows of the page: the mean of the seeds, and of Dice each of them."""
    rows = []
    for method, enclosure in ROWS:
        found = [line for line in lines if (line["method"], line["enclosure"]) == (method, enclosure)]
        if found:
            dice, near, far, empty, minutes = (
                np.mean([float(line[key]) for line in found]) for key in ("dice", "near", "far", "empty", "minutes")
            )
            one_by_one = " / ".join(f"{float(line['dice']):.1f}" for line in found)
            each = f" ({one_by_one})" if len(found) > 1 else ""
            shares = [f"{far:.1f} %", f"{empty:.1f} %"]
            seeds = ", ".join(str(line["seed"]) for line in found)
            rows.append([method, enclosure, seeds, f"{dice:.1f}{each}", f"{near:.1f}", *shares, f"{minutes:.0f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--data", type=Path, default=Path("datasets/acdc"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    began = time.monotonic()
    for seed in given.seeds:
        for method, enclosure in ROWS:
            if time.monotonic() - began < 60 * given.minutes:
                line = make(given.data, method, enclosure, seed, given.runs)
                lines = put_line(given.results / "ablation.csv", line, place, COLUMNS)
                table = markdown_table(HEAD, summary(lines))
                write_page(given.results / "ablation.md", "# The enclosed background, method by method", ABOUT, table)


if __name__ == "__main__":
    main()
