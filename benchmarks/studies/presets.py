"""What a preset reaches on the papers' data.

python benchmarks/studies/presets.py PRESET [--only acdc-cv5-0 mscmr-25-5-15-0 ...] [--seeds 0 1]

Each place, a fold of a split of a data set, is trained for each seed, predicted and scored: the test cases of ACDC,
the validation cases of MSCMR. What runs.csv has is left out, and a run that was cut off carries on. Writes
PRESET/PLACE-s0.csv, … (the scores of each case), PRESET/runs.csv and the page PRESET/runs.md.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from annotator import sum_of_minutes
from common import RESULTS, markdown_table, put_line, read_csv, scribbleseg, write_page

from scribbleseg.core.json_file import read_json
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.set_aside import set_aside
from scribbleseg.evaluation.tables import read_rows, summarise
from scribbleseg.training.recipe import PRESETS

PLACES = {f"{data}-{split}-{fold}": (data, split, fold) for data, split, fold in [("mscmr", "25-5-15", 0)]}
PLACES |= {f"acdc-{split}-{fold}": ("acdc", split, fold) for split in ("cv5", "strat5") for fold in range(5)}
CHOSE = (  # split, fold, share and seed of the patients that chose
    ("cv5", 0, 0.15, 0),  # by strokes, see choose.py
    ("tuning", 0, 0.0, 0),  # by dense masks: optimiser and rates of `fast` before the rings, see preset-choice.md
)
HEAD = ("cases of", "seeds", "cases", "Dice by class", "Dice", "HD95", "Dice without the cases that chose")
ABOUT = (
    "Made by `python benchmarks/studies/presets.py {}`; commits, machines and minutes in runs.csv, scores of each case "
    "in the files beside it. ACDC: test cases; HD95 in voxels. MSCMR: five validation cases; HD95 in mm. The presets "
    "were chosen by strokes of 24 training cases of cv5 fold 0, and their optimiser before that by dense masks of 32 "
    "cases of the split tuning. They are test cases of other folds: the last column is without them."
)
COLUMNS = ("data", "split", "fold", "seed", "cases", "dice", "minutes", "iterations", "size", "commit", "device")


def make(
    preset: str, name: str, seed: int, datasets: Path, runs: Path, scores: Path, method: Sequence[str] = ()
) -> dict:
    """A line of runs.csv; trains, predicts and scores what is not done. method: the words that name another method."""
    data, split, fold = PLACES[name]
    run = runs / f"{name}-s{seed}"
    if (run / "config.json").is_file():
        scribbleseg(["train", run, "--resume", *method])
    else:
        scores.unlink(missing_ok=True)  # of a run that is gone
        place = ["--split", split, "--fold", fold, "--seed", seed]
        scribbleseg(["train", datasets / data, run, "--preset", preset, *place, *method])
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


def summary(preset: str, results: Path, datasets: Path) -> list[list[str]]:
    """The rows of the page: of each place the mean of its seeds, of a split whose folds are all done their mean."""
    dataset = read_dataset(datasets / "acdc")
    chose = {
        ("acdc", case)
        for split, fold, share, seed in CHOSE
        for case in set_aside(dataset, dataset.fold(split, fold), share, seed).val
    }
    lines, rows, means = read_csv(results / "runs.csv"), [], {}
    for number, (name, (data, *_)) in enumerate(PLACES.items()):
        seeds = [line["seed"] for line in lines if place(line)[0] == number]
        found = [read_rows(results / f"{name}-s{seed}.csv") for seed in seeds]
        if not found:
            continue
        means[name] = np.mean([measures(rows, data, chose) for rows in found], 0)
        dice = [f"{100 * summarise(rows)[-1]['dice']:.1f}" for rows in found]
        cases = len({row["case"] for row in found[0]})
        rows.append([name, ", ".join(seeds), cases, *shown(means[name])])
        rows[-1][4] += f" ({' / '.join(dice)})" if len(dice) > 1 else ""
    for split in ("cv5", "strat5"):
        folds = [mean for name, mean in means.items() if name.startswith(f"acdc-{split}-")]
        if len(folds) == 5:
            cases = sum(row[2] for row in rows if row[0].startswith(f"acdc-{split}-"))
            rows.append([f"acdc-{split}, mean of the folds", "", cases, *shown(np.mean(folds, 0))])
    return rows


def measures(rows: list[dict], data: str, chose: set[tuple[str, str]]) -> list[float]:
    """Dice of each class, their mean, HD95, and Dice without the cases that chose; Dice in percent."""
    others = [row for row in rows if (data, row["case"]) not in chose]
    every = summarise(rows)
    return [*(100 * entry["dice"] for entry in every), every[-1]["hd95"], 100 * summarise(others)[-1]["dice"]]


def shown(values: np.ndarray) -> list[str]:
    """The cells of `measures`."""
    *classes, dice, hd95, others = (f"{value:.1f}" for value in values)
    return [" / ".join(classes), dice, hd95, others]


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
    table = markdown_table(HEAD, summary(given.preset, results, given.datasets))
    write_page(results / "runs.md", f"# The preset {given.preset}", ABOUT.format(given.preset), table)


def place(line: dict) -> tuple[int, int]:
    """Where a line stands in runs.csv."""
    return list(PLACES).index(f"{line['data']}-{line['split']}-{line['fold']}"), int(line["seed"])


if __name__ == "__main__":
    main()
