"""Time and scores of whole runs.

python benchmarks/studies/folds.py DATASET [--method effdnet] [--set KEY=VALUE ...] [--split cv5] [--folds 0 1]
    [--seeds 0] [--precisions bfloat16 float32] [--iterations N] [--size PIXELS] [--at-once K]

The script trains, predicts and scores every combination with `scribbleseg` in processes of their own, K at a time, on
one device. The table shows how long a fold takes, how long several at once take, and what bfloat16 changes. A line has

- the seconds of training (start-up, reading and compiling included), of prediction and of scoring;
- the iterations per second in the second half of the run, where nothing is compiled any more;
- the Dice of the held-out cases over the whole volume and near the dense mask (`dice_in_box`), and the percentage of
  the predicted foreground that is not near it (`outside`); benchmarks/studies/far_field.py defines both.

float32 is without TF32. Other lines stay in benchmarks/results/folds-DEVICE.csv and .md. The script continues a run
that was cut off; such a run has no seconds of training.
"""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product
from pathlib import Path

import far_field

from scribbleseg.data.layout import read_dataset
from scribbleseg.evaluation.scores import read_rows, summarise

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, read_csv, read_log, scribbleseg, slug, write_csv, write_page

KEY = ("method", "set", "data", "split", "fold", "seed", "precision", "size", "iterations", "at_once", "mps")
COLUMNS = (
    *(*KEY, "step", "training_s", "prediction_s", "scoring_s", "iterations_per_s"),
    *("dice", "dice_per_class", "dice_in_box", "outside", "device", "torch", "commit"),
)


def clocked(words: list[object], environment: dict[str, str]) -> float:
    """Seconds of a verb of the command line. Raises CalledProcessError where it fails."""
    start = time.perf_counter()
    scribbleseg(words, environment, quiet=True)
    return time.perf_counter() - start


def late_rate(log: list[dict]) -> float:
    """Iterations a second from the middle of a run to its end, from the lines of log.jsonl."""
    pairs = [
        (after["iteration"] - before["iteration"], after["seconds_per_iteration"])
        for before, after in pairwise(log)
        if before["iteration"] >= log[-1]["iteration"] / 2
    ]
    pairs = pairs or [(1, log[-1]["seconds_per_iteration"])]
    return sum(count for count, _ in pairs) / sum(count * seconds for count, seconds in pairs)


def measure(given: argparse.Namespace, fold: int, seed: int, precision: str) -> dict:
    """A line of the table."""
    length = f"{given.iterations or 'paper'}-{given.size or 'paper'}"
    name = "-".join(
        [
            given.dataset.name,
            given.split,
            str(fold),
            given.method,
            *given.set,
            precision,
            length,
            f"x{given.at_once}",
            f"s{seed}",
        ]
    )
    run, threads = given.runs / name, str(max(1, len(os.sched_getaffinity(0)) // given.at_once))
    environment = {"OMP_NUM_THREADS": threads} | ({"NVIDIA_TF32_OVERRIDE": "0"} if precision == "float32" else {})
    options = {
        "method": given.method,
        "split": given.split,
        "fold": fold,
        "seed": seed,
        "precision": precision,
        "iterations": given.iterations,
        "size": given.size,
    }
    words = [word for key, value in options.items() if value is not None for word in (f"--{key}", value)]
    words += [word for option in given.set for word in ("--set", option)]
    begun, device = (run / "config.json").is_file(), ["--device", given.device]
    training = clocked(
        ["train", run, "--resume"] if begun else ["train", given.dataset, run, *words, *device], environment
    )
    shutil.rmtree(run / "predictions", ignore_errors=True)
    prediction = clocked(["predict", run, given.dataset, run / "predictions", *device], environment)
    scoring = clocked(
        ["evaluate", run / "predictions", given.dataset / "labelsTr_dense", "--out", run / "metrics.csv"], environment
    )
    plan = json.loads((run / "config.json").read_text(encoding="utf-8"))["plan"]
    machine = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    scores = summarise(read_rows(run / "metrics.csv"))
    _, _, near, far, elsewhere = far_field.measure(run, read_dataset(given.dataset))
    log = read_log(run)
    line = {
        **options,
        "set": " ".join(given.set),
        "data": given.dataset.name,
        "size": plan["size"],
        "iterations": plan["recipe"]["iterations"],
        "at_once": given.at_once,
    }
    line |= {
        "mps": "CUDA_MPS_PIPE_DIRECTORY" in os.environ,
        "step": machine["step"],
        "training_s": "" if begun else round(training, 1),
    }
    line |= {
        "prediction_s": round(prediction, 1),
        "scoring_s": round(scoring, 1),
        "iterations_per_s": round(late_rate(log), 2),
    }
    line |= {
        "dice": round(100 * scores[-1]["dice"], 2),
        "dice_per_class": " / ".join(f"{100 * score['dice']:.1f}" for score in scores[:-1]),
    }
    line |= {"dice_in_box": round(100 * near, 2), "outside": round(100 * (far + elsewhere), 2)}
    return {
        key: str(value) for key, value in (line | {key: machine[key] for key in ("device", "torch", "commit")}).items()
    }


def write(line: dict, results: Path) -> Path:
    """Put the line among those of before; returns the table. A finished run that is asked for again has no new times
    and changes nothing."""
    path, key = results / f"folds-{slug(line['device'])}.md", tuple(line[name] for name in KEY)
    kept = {tuple(row[name] for name in KEY): row for row in read_csv(path.with_suffix(".csv"))}
    if line["training_s"] or key not in kept:
        kept[key] = line
    rows = list(kept.values())
    write_csv(path.with_suffix(".csv"), rows, COLUMNS)
    about = (
        f"{line['device']}. Made by `python {shlex.join(sys.argv)}` and its like. Seconds of training count from the "
        "command to its end. Several at once: iterations a second are each run's own."
    )
    table = markdown_table(COLUMNS, ([row[name] for name in COLUMNS] for row in rows))
    write_page(path, "# Whole runs against the clock", about, table)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="folder of the data set")
    parser.add_argument("--method", default="effdnet", help="method to train")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="the method's own settings")
    parser.add_argument("--split", default="cv5", help="protocol of the data set")
    parser.add_argument("--folds", type=int, nargs="+", default=[0], help="folds to run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="seeds to run")
    parser.add_argument("--precisions", nargs="+", default=["auto"], choices=("auto", "bfloat16", "float32"))
    parser.add_argument("--iterations", type=int, help="length of a run; default: the paper's")
    parser.add_argument("--size", type=int, help="rows and columns of a slice, pixels; default: the paper's")
    parser.add_argument("--at-once", type=int, default=1, help="runs at the same time")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--runs", type=Path, default=Path("runs/folds"), help="folder for the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the tables")
    given = parser.parse_args()
    failed = []
    with ThreadPoolExecutor(given.at_once) as pool:
        combinations = list(product(given.folds, given.seeds, given.precisions))
        waiting = [pool.submit(measure, given, *combination) for combination in combinations]
        for combination, line in zip(combinations, waiting):
            try:
                table = write(line.result(), given.results)
            except subprocess.CalledProcessError as error:
                failed.append(f"{combination}: exit code {error.returncode} of {shlex.join(error.cmd[2:4])}")
                continue
            print(
                {key: value for key, value in line.result().items() if key not in ("device", "torch", "commit")},
                flush=True,
            )
    if failed:
        sys.exit(f"not measured: {'; '.join(failed)}")
    print(f"table: {table}")


if __name__ == "__main__":
    main()
