"""What a preset reaches on the papers' data.

python benchmarks/studies/presets.py PRESET [--only acdc-cv5-0 mscmr-25-5-15-0 ...] [--seeds 0 1]

Each place, a fold of a split of a data set, is trained for each seed, predicted and scored: the test cases of ACDC,
the validation cases of MSCMR. What runs.csv has is left out, and a run that was cut off carries on. Writes
PRESET/PLACE-s0.csv, … (the scores of each case) and PRESET/runs.csv.
"""

import argparse
from pathlib import Path

from annotator import sum_of_minutes
from common import RESULTS, put_line, read_csv, scribbleseg

from scribbleseg.core.json_file import read_json
from scribbleseg.evaluation.tables import read_rows, summarise
from scribbleseg.training.recipe import PRESETS

PLACES = {f"{data}-{split}-{fold}": (data, split, fold) for data, split, fold in [("mscmr", "25-5-15", 0)]}
PLACES |= {f"acdc-{split}-{fold}": ("acdc", split, fold) for split in ("cv5", "strat5") for fold in range(5)}
COLUMNS = ("data", "split", "fold", "seed", "cases", "dice", "minutes", "iterations", "size", "commit", "device")


def make(preset: str, name: str, seed: int, datasets: Path, runs: Path, scores: Path) -> dict:
    """A line of runs.csv; trains, predicts and scores what is not done."""
    data, split, fold = PLACES[name]
    run = runs / f"{name}-s{seed}"
    if (run / "config.json").is_file():
        scribbleseg(["train", run, "--resume"])
    else:
        scores.unlink(missing_ok=True)  # of a run that is gone
        place = ["--split", split, "--fold", fold, "--seed", seed]
        scribbleseg(["train", datasets / data, run, "--preset", preset, *place])
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
    parser.add_argument("preset", choices=PRESETS)
    parser.add_argument("--only", nargs="+", choices=PLACES, default=list(PLACES), metavar="PLACE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    results = given.results / given.preset
    results.mkdir(parents=True, exist_ok=True)
    path = results / "runs.csv"
    done = [place(line) for line in read_csv(path)]
    for seed in given.seeds:
        for name in given.only:
            if (list(PLACES).index(name), seed) not in done:
                scores = results / f"{name}-s{seed}.csv"
                line = make(given.preset, name, seed, given.datasets, given.runs / given.preset, scores)
                put_line(path, line, place, COLUMNS)


def place(line: dict) -> tuple[int, int]:
    """Where a line stands in runs.csv."""
    return list(PLACES).index(f"{line['data']}-{line['split']}-{line['fold']}"), int(line["seed"])


if __name__ == "__main__":
    main()
