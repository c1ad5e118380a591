"""How `--preset fast` was chosen.

python benchmarks/studies/preset_choice.py [--candidates NAME ...] [--seeds 0 1] [--table-only]

The script trains every candidate and compares them on the training side only, by two figures at the end of the run:

- Mean Dice of the validation cases of the `tuning` splits: 16 patients (32 cases) of the groups that ACDC cv5 fold 0
  trains on, by dense masks, and 5 of MSCMR's 25 scribbled subjects, over scribbled pixels only, because they have no
  dense masks.
- The share of predicted foreground that lies far away: outside a slice's box around the scribbled foreground, 40 pixels
  (of the file) wider on all sides; the mean over every fifth training case. It needs no mask, so runs on all of MSCMR's
  25 subjects (split 25-5-15) are judged by it as well.

The rule takes the candidate with the highest Dice, among those of which no run put a tenth of its foreground far away.
The script skips finished runs and continues interrupted ones. It writes benchmarks/results/preset-choice.csv and .md
from every finished run that it finds.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np
from far_field import boxes

from scribbleseg.bench.run import training_time
from scribbleseg.config import Train
from scribbleseg.core.device import pick_device, pick_precision
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import load_volume
from scribbleseg.data.dataset import Dataset
from scribbleseg.data.layout import read_dataset
from scribbleseg.inference.models import load_network
from scribbleseg.inference.probabilities import predict_volume
from scribbleseg.training.plan import make_plan, read_plan

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, read_log, safetensors_metadata, scribbleseg, write_csv, write_page

ONCE = {"preset": "fast", "optimizer": "adamw", "batch": 12, "iterations": 900}
CANDIDATES = {
    "quick": {"method": "scn", "budget": "quick"},
    "fast": {
        "preset": "fast"
    },  # as it stands: onecycle-1e-3, and since 2026-11-23 a mean of the weights that forgets the start
    "onecycle-3e-3": {**ONCE, "schedule": "onecycle", "lr": 0.003},
    "onecycle-1e-3": {**ONCE, "schedule": "onecycle", "lr": 0.001},
    "cosine-1e-3": {**ONCE, "schedule": "cosine", "lr": 0.001},
    "size-96": {**ONCE, "schedule": "onecycle", "lr": 0.001, "size": 96, "iterations": 1600},  # as long on a CPU
    "size-160": {**ONCE, "schedule": "onecycle", "lr": 0.001, "size": 160, "iterations": 576},
    "batch-6": {**ONCE, "schedule": "onecycle", "lr": 0.001, "batch": 6, "iterations": 1800},
}
PLACES = (("acdc", "tuning"), ("mscmr", "tuning"), ("mscmr", "25-5-15"))
EVERY, MARGIN = 5, 40  # training case; pixels
COLUMNS = (
    *("candidate", "data", "split", "seed", "size", "iterations", "batch", "optimizer", "lr", "schedule", "ema"),
    *("mean", "per_class", "far", "minutes", "commit", "command"),
)
ABOUT = (
    "At the end of a run, in percent. Dice: on ACDC of the 16 validation patients (32 cases) of the `tuning` split, at "
    "network resolution; on MSCMR of 5 of the 25 scribbled subjects, over scribbled pixels alone. Far: share of the "
    "predicted foreground that lies outside a slice's box round the scribbled foreground, 40 pixels of the file wider "
    "on "
    "all sides, in slices that have such scribbles; mean over every fifth training case; not comparable between data "
    "sets. Split 25-5-15 trains on all 25 subjects and is judged by that alone: their logs have the Dice of the five "
    "validation subjects, which this table does not read. Chosen: the highest Dice among the candidates of which no "
    "run "
    "put a tenth of its foreground far away. `fast` is the preset as it stands: onecycle-1e-3 with a mean of the "
    "weights "
    "that forgets the start sooner; `size-160` has that mean too, the other rows the one before. Minutes are of "
    "training "
    "steps on a shared machine, no speed figures. Made by `python benchmarks/studies/preset_choice.py`."
)


def far_away(run: Path, dataset: Dataset) -> float:
    """Mean over every fifth training case of the share of predicted foreground outside the boxes, in slices with
    scribbled foreground; 1 where none is predicted."""
    train, plan = read_plan(run)
    device, shares = pick_device("cpu"), []
    network = load_network(run, plan)
    for name in plan.fold.train[::EVERY]:
        volume = load_volume(dataset, dataset.case(name))
        found = (
            predict_volume(network, volume.image, plan.size, device, pick_precision(train.precision, device)).argmax(0)
            > 0
        )
        drawn = (volume.scribble > 0) & (volume.scribble != UNLABELED)
        found &= drawn.any((1, 2), keepdims=True)
        shares.append((found & ~boxes(drawn, MARGIN)).sum() / found.sum() if found.any() else 1.0)
    return float(np.mean(shares))


def read_run(settings: Train, dataset: Dataset) -> dict | None:
    """What the table says of a finished run; None where the run is not at its end. Refuses one that was made with other
    settings."""
    run, weights = Path(settings.run), Path(settings.run) / "last.safetensors"
    if not weights.is_file():
        return None
    plan = read_plan(run)[1]
    if plan != make_plan(settings, read_dataset(settings.dataset)):
        raise SystemExit(f"{run}: has other settings ({plan}). Move it elsewhere, or give another --runs.")
    if int(safetensors_metadata(weights.read_bytes())["iteration"]) < plan.recipe.iterations:
        return None
    log = read_log(run)
    last = log[-1]
    found = {key: getattr(plan.recipe, key) for key in ("iterations", "batch", "optimizer", "lr", "schedule", "ema")}
    found |= {"size": plan.size, "mean": "", "per_class": ""}
    if plan.split == "tuning":
        found |= {
            "mean": round(100 * last["val_mean_dice"], 1),
            "per_class": " / ".join(f"{100 * value:.1f}" for value in last["val_dice"].values()),
        }
    commit = json.loads((run / "environment.json").read_text(encoding="utf-8"))["commit"]
    return found | {
        "far": round(100 * far_away(run, dataset), 1),
        "minutes": round(training_time(log)[1], 1),
        "commit": commit,
    }


def table(rows: list[dict]) -> str:
    head = ["candidate", "size", "iterations × batch", "optimizer", "schedule", "mean of weights"]
    head += ["data", "seed", "Dice", "RV / Myo / LV", "far", "minutes", "commit"]
    lines = []
    for row in rows:
        cells = [row["candidate"], row["size"], f"{row['iterations']} × {row['batch']}"]
        cells += [
            f"{row['optimizer']} {row['lr']}",
            row["schedule"],
            row["ema"] or "–",
            f"{row['data']} {row['split']}",
        ]
        cells += [row["seed"], row["mean"] or "–", row["per_class"] or "–"]
        lines.append([*cells, *(row[key] for key in ("far", "minutes", "commit"))])
    return markdown_table(head, lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--candidates", nargs="+", default=list(CANDIDATES), choices=CANDIDATES, help="recipes to compare"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="seeds to run")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"), help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/preset-choice"), help="folder for the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the tables")
    parser.add_argument("--table-only", action="store_true", help="train nothing, make the table of the runs there")
    given = parser.parse_args()
    rows = []
    for (data, split), name, seed in [
        (place, name, seed) for place in PLACES for name in given.candidates for seed in given.seeds
    ]:
        dataset = read_dataset(given.datasets / data)
        settings = Train(
            given.datasets / data,
            given.runs / f"{data}-{split}-{name}-s{seed}",
            split=split,
            seed=seed,
            **CANDIDATES[name],
        )
        options = [
            word
            for key, value in {**CANDIDATES[name], "split": split, "seed": seed}.items()
            for word in (f"--{key}", str(value))
        ]
        command = ["train", str(settings.dataset), str(settings.run), *options]
        found = read_run(settings, dataset)
        if found is None and not given.table_only:
            resumed = (settings.run / "config.json").is_file()
            scribbleseg(["train", str(settings.run), "--resume"] if resumed else command)
            found = read_run(settings, dataset)
        if found is not None:
            row = {"candidate": name, "data": data, "split": split, "seed": seed, **found}
            rows.append({**row, "command": shlex.join(["scribbleseg", *command])})
    if not rows:
        raise SystemExit(f"{given.runs}: has no finished run. Run the script without --table-only.")
    page = given.results / "preset-choice.md"
    write_csv(page.with_suffix(".csv"), rows, COLUMNS)
    commands = "\n".join(f"- `{row['command']}`" for row in rows)
    write_page(page, "# The choice of `--preset fast`", ABOUT, table(rows), "Commands:", commands)
    print(f"table: {page}")


if __name__ == "__main__":
    main()
