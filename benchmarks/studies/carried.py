"""What a run loses that is carried on from a small state: python benchmarks/studies/carried.py [--seeds 0 1 2]

A small state is what papers.py commits of a run: half precision, no moments of the optimiser, no teacher. EFFDNet is
trained on MSCMR at 64 pixels and stopped at half of its iterations. Then it is carried on twice: from its checkpoint,
as if it had not been stopped, and from a small state of it. Writes carried.csv and carried.md: Dice of the five
validation subjects at the end.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from scribbleseg.core.environment import devices
from scribbleseg.training.checkpoint import read_checkpoint, write_checkpoint
from scribbleseg.training.plan import read_plan

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, SCRIBBLESEG, markdown_table, put_line, read_log, scribbleseg, write_page
from papers import checkpoint_of, small_state

ITERATIONS = 1200
OPTIONS = ("--method", "effdnet", "--split", "25-5-15", "--size", "64", "--iterations", ITERATIONS)
COLUMNS = ("seed", "stopped_at", "whole", "from_small_state", "device", "commit")
HEAD = ("seed", "stopped at iteration", "Dice, from its checkpoint", "Dice, from a small state", "device", "commit")


def train_half(dataset: Path, run: Path, seed: int) -> None:
    """Train until the log has reached half of the iterations, and stop at a checkpoint."""
    command = [*SCRIBBLESEG, "train", dataset, run, *OPTIONS, "--seed", seed]
    process = subprocess.Popen([str(word) for word in command])
    while process.poll() is None and not (
        (run / "log.jsonl").is_file() and any(line["iteration"] >= ITERATIONS // 2 for line in read_log(run))
    ):
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.wait()


def dice_at_the_end(run: Path) -> float:
    """Carry the run on to its end; the mean Dice of the last validation, in percent."""
    scribbleseg(["train", run, "--resume"])
    return 100 * read_log(run)[-1]["val_mean_dice"]


def compare(dataset: Path, runs: Path, seed: int) -> dict:
    """A line of the table."""
    whole, small = runs / f"whole-s{seed}", runs / f"small-s{seed}"
    train_half(dataset, whole, seed)
    shutil.copytree(whole, small)
    stored, (_, plan) = read_checkpoint(whole), read_plan(whole)
    same = {name: stored[name] for name in ("iteration", "best", "unlogged")}
    write_checkpoint(small, checkpoint_of(small_state(stored), plan) | same)
    found = {"whole": dice_at_the_end(whole), "from_small_state": dice_at_the_end(small)}
    machine = json.loads((whole / "environment.json").read_text(encoding="utf-8"))
    about = {"device": devices(machine), "commit": machine["commit"]}
    return {"seed": seed, "stopped_at": stored["iteration"], **{k: f"{v:.2f}" for k, v in found.items()}, **about}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--dataset", type=Path, default=Path("datasets/mscmr"))
    parser.add_argument("--runs", type=Path, default=Path("runs/carried"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    for seed in given.seeds:
        line = compare(given.dataset, given.runs, seed)
        lines = put_line(given.results / "carried.csv", line, lambda row: (int(row["seed"]),), COLUMNS)
        table = markdown_table(HEAD, [[row[key] for key in COLUMNS] for row in lines])
        about = (
            f"EFFDNet on MSCMR, {ITERATIONS} iterations of 12 slices at 64 pixels. Made by `python "
            "benchmarks/studies/carried.py`. Dice: mean of the five validation subjects after the last iteration, at "
            "the network's resolution, in percent."
        )
        write_page(given.results / "carried.md", "# A run that is carried on from a small state", about, table)


if __name__ == "__main__":
    main()
