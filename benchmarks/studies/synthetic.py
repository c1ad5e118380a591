"""Settings of corral that strokes cannot choose, chosen on synthetic scans with known masks: r, γ and β.

python benchmarks/studies/synthetic.py [--seeds 0 1]

Each of SETTINGS is trained on synthetic hearts and abdomens with the preset best and a short budget, and scored on
their test cases. The setting with the highest mean over both data sets is the one to take: strokes lie in the middle of
structures and hardly see outlines, and no dense mask of a real scan is looked at. What synthetic.csv has is left out,
and a run that was cut off carries on. Writes best/synthetic.csv and best/synthetic.md.
"""

import argparse
from pathlib import Path

import numpy as np
from annotator import sum_of_minutes
from common import RESULTS, markdown_table, put_line, read_csv, scribbleseg, write_page

from scribbleseg.core.json_file import read_json
from scribbleseg.evaluation.tables import read_rows, summarise

SETTINGS = ("as it is", "narrow=0.25", "narrow=1", "gamma=0", "gamma=1", "beta=50", "beta=800")
DATA = {  # name → how it is made, and the budget of its trainings
    "hearts": (["--cases", 48, "--seed", 5], ["--size", 80, "--iterations", 900]),
    "abdomens": (["--anatomy", "abdomen", "--cases", 24, "--seed", 5], ["--size", 96, "--iterations", 500]),
}
COLUMNS = ("data", "setting", "seed", "cases", "by_class", "dice", "minutes", "commit", "device")
HEAD = ("setting", *(f"{name}: {what}" for name in DATA for what in ("Dice by class", "Dice")), "mean of both", "seeds")
ABOUT = (
    "Made by `python benchmarks/studies/synthetic.py`; commits, machines and minutes in synthetic.csv. The preset "
    "`best` (as it is: `narrow=0.5`, `gamma=0.7`, `beta=200`) with one setting changed, on synthetic scans of the "
    "built-in phantom (hearts: 48 cases, 80 pixels, 900 iterations; abdomens: 24 cases, 96 pixels, 500 iterations), "
    "scored on their test cases with the known masks. With `narrow=1` no width counts, with `gamma=0` no walker."
)


def make(name: str, setting: str, seed: int, runs: Path) -> dict:
    """A line of the table; makes the data, trains, predicts and scores what is not done."""
    made, budget = DATA[name]
    data, run = runs / name, runs / f"{name}-{setting.replace(' ', '-')}-s{seed}"
    if not data.is_dir():
        scribbleseg(["phantom", data, *made])
    if (run / "config.json").is_file():
        scribbleseg(["train", run, "--resume"])
    else:
        changed = ["--set", setting] if "=" in setting else []
        scribbleseg(["train", data, run, "--preset", "best", *changed, *budget, "--seed", seed])
    scores = run / "scores.csv"
    if not scores.is_file():
        scribbleseg(["predict", run, data, run / "predictions"])
        scribbleseg(["evaluate", run / "predictions", data / "labelsTr_dense", "--out", scores])
    rows = read_rows(scores)
    *classes, mean = (f"{100 * entry['dice']:.1f}" for entry in summarise(rows))
    environment = read_json(run / "environment.json")
    return {
        "data": name,
        "setting": setting,
        "seed": seed,
        "cases": len({row["case"] for row in rows}),
        "by_class": " / ".join(classes),
        "dice": mean,
        "minutes": f"{sum_of_minutes(run):.1f}",
        "commit": environment["commit"],
        "device": environment["device"],
    }


def place(line: dict) -> tuple[int, int, int]:
    """Where a line stands in synthetic.csv."""
    return list(DATA).index(line["data"]), SETTINGS.index(line["setting"]), int(line["seed"])


def summary(lines: list[dict]) -> list[list[str]]:
    """The rows of the page: of each setting the mean of its seeds, where both data sets have the same ones."""
    rows = []
    for setting in SETTINGS:
        cells, means, seeds = [], [], []
        for name in DATA:
            found = [line for line in lines if (line["data"], line["setting"]) == (name, setting)]
            classes = np.array([[float(value) for value in line["by_class"].split(" / ")] for line in found])
            means += [np.mean([float(line["dice"]) for line in found])] if found else []
            cells += [" / ".join(f"{value:.1f}" for value in classes.mean(0)), f"{means[-1]:.1f}"] if found else []
            seeds.append(", ".join(str(line["seed"]) for line in found))
        if len(means) == len(DATA) and len(set(seeds)) == 1:
            rows.append([setting, *cells, f"{np.mean(means):.2f}", seeds[0]])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/synthetic"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    results = given.results / "best"
    results.mkdir(parents=True, exist_ok=True)
    path = results / "synthetic.csv"
    done = [place(line) for line in read_csv(path)]
    for seed in given.seeds:
        for setting in SETTINGS:
            for name in DATA:
                if (list(DATA).index(name), SETTINGS.index(setting), seed) not in done:
                    put_line(path, make(name, setting, seed, given.runs), place, COLUMNS)
    table = markdown_table(HEAD, summary(read_csv(path)))
    write_page(results / "synthetic.md", "# Settings of corral, chosen on synthetic scans", ABOUT, table)


if __name__ == "__main__":
    main()
