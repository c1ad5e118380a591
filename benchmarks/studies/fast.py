"""What the preset fast reaches on the papers' data.

python benchmarks/studies/fast.py [--only acdc mscmr] [--seeds 0 1]

Each data set is trained for each seed, predicted and scored: the test cases of ACDC's cv5 fold 0, the validation cases
of MSCMR. A study that was cut off carries on. Writes fast/DATA-s0.csv, … (the scores of each case) and fast/runs.csv.
"""

import argparse
from pathlib import Path

from annotator import sum_of_minutes
from common import RESULTS, put_line, scribbleseg

from scribbleseg.core.json_file import read_json
from scribbleseg.evaluation.tables import read_rows, summarise

PLACES = {"acdc": ("cv5", 0), "mscmr": ("25-5-15", 0)}
COLUMNS = ("data", "split", "fold", "seed", "cases", "dice", "minutes", "iterations", "size", "commit", "device")


def make(data: str, seed: int, datasets: Path, runs: Path, scores: Path) -> dict:
    """A line of runs.csv; trains, predicts and scores what is not done."""
    split, fold = PLACES[data]
    run = runs / f"{data}-{split}-{fold}-s{seed}"
    if (run / "config.json").is_file():
        scribbleseg(["train", run, "--resume"])
    else:
        place = ["--split", split, "--fold", fold, "--seed", seed]
        scribbleseg(["train", datasets / data, run, "--preset", "fast", *place])
    if not scores.is_file():
        scribbleseg(["predict", run, datasets / data, run / "predictions"])
        scribbleseg(["evaluate", run / "predictions", datasets / data / "labelsTr_dense", "--out", scores])
    rows = read_rows(scores)
    plan, environment = read_json(run / "config.json")["plan"], read_json(run / "environment.json")
    return {
        "data": data,
        "split": split,
        "fold": fold,
        "seed": seed,
        "cases": len({row["case"] for row in rows}),
        "dice": f"{100 * summarise(rows)[-1]['dice']:.2f}",
        "minutes": f"{sum_of_minutes(run):.1f}",
        "iterations": plan["recipe"]["iterations"],
        "size": plan["size"],
        "commit": environment["commit"],
        "device": environment["device"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PLACES, default=list(PLACES), metavar="DATA")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--runs", type=Path, default=Path("runs/fast"))
    parser.add_argument("--results", type=Path, default=RESULTS / "fast")
    given = parser.parse_args()
    for seed in given.seeds:
        for data in given.only:
            line = make(data, seed, given.datasets, given.runs, given.results / f"{data}-s{seed}.csv")
            put_line(given.results / "runs.csv", line, place, COLUMNS)


def place(line: dict) -> tuple[str, int]:
    """Where a line stands in runs.csv."""
    return line["data"], int(line["seed"])


if __name__ == "__main__":
    main()
