"""Compare Dice, HD95 and ASSD with medpy's, in time and values.

python benchmarks/timing/scoring.py NAME PREDICTIONS TRUTH [NAME PREDICTIONS TRUTH ...]

NAME is a name for the set. PREDICTIONS and TRUTH are folders of masks as `scribbleseg evaluate` takes them. Both
implementations run on one core, and reading is not counted. Then the script times `scribbleseg evaluate` itself, with
files and all cores. Run it on a machine that does nothing else. Writes benchmarks/results/scoring-DEVICE.csv and .md.
"""

import argparse
import contextlib
import importlib.metadata
import io
import shlex
import sys
import time
from pathlib import Path

import numpy as np
from medpy.metric import binary

from scribbleseg.config import Evaluate
from scribbleseg.core.device import pick_device, pick_precision
from scribbleseg.core.environment import environment
from scribbleseg.data.volume import read_label
from scribbleseg.evaluation.metrics import score
from scribbleseg.evaluation.scores import evaluate, list_masks

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, slug, write_csv, write_page

COLUMNS = (
    "set",
    "volumes",
    "structures",
    "ours_seconds",
    "medpy_seconds",
    "times_faster",
    "least_times_faster",
    "largest_difference",
    "evaluate_seconds",
)


def theirs(prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[float, float, float]:
    return (
        binary.dc(prediction, truth),
        binary.hd95(prediction, truth, spacing_mm),
        binary.assd(prediction, truth, spacing_mm),
    )


def measure(name: str, predictions: Path, truth: Path) -> dict:
    """A line of the table: sums over the volumes, the volume with the smallest gain, and the largest difference of any
    score."""
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        evaluate(Evaluate(predictions, truth))
    whole = time.perf_counter() - start
    masks, ours, other, structures, difference = list_masks(truth), [], [], 0, 0.0
    for case, path in list_masks(predictions).items():
        found, grid = read_label(path)
        true, _ = read_label(masks[case], grid.order)
        spent = np.zeros(2)
        for value in sorted((set(np.unique(found)) & set(np.unique(true))) - {0}):  # medpy wants both masks filled
            pair = found == value, true == value
            start = time.perf_counter()
            mine = score(*pair, grid.spacing_mm)[:3]
            middle = time.perf_counter()
            expected = theirs(*pair, grid.spacing_mm)
            spent += middle - start, time.perf_counter() - middle
            difference = np.max([difference, *np.abs(np.subtract(mine, expected))])  # a nan stays
            structures += 1
        ours.append(spent[0])
        other.append(spent[1])
    if not structures:
        sys.exit(f"{predictions}: no structure is both predicted and in {truth}. Give other folders.")
    ratios = [b / a for a, b in zip(ours, other) if a]
    return dict(
        zip(
            COLUMNS,
            (
                name,
                len(ours),
                structures,
                sum(ours),
                sum(other),
                sum(other) / sum(ours),
                min(ratios),
                difference,
                whole,
            ),
        )
    )


def table(lines: list[dict]) -> str:
    head = ["predictions", "volumes", "structures", "ours, s", "medpy, s", "times faster", "least of a volume"]
    rows = []
    for line in lines:
        cells = [line["set"], line["volumes"], line["structures"]]
        cells += [f"{line[key]:.3g}" for key in ("ours_seconds", "medpy_seconds")]
        cells += [f"{line[key]:.0f}" for key in ("times_faster", "least_times_faster")]
        rows.append([*cells, f"{line['largest_difference']:.1g}", f"{line['evaluate_seconds']:.2g}"])
    return markdown_table([*head, "largest difference", "`evaluate`, s"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="NAME PREDICTIONS TRUTH", help="three words per set")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the tables")
    given = parser.parse_args()
    if len(given.sets) % 3:
        parser.error(f"{len(given.sets)} words; expected three per set: NAME PREDICTIONS TRUTH. Correct the command.")
    machine = environment(pick_device("cpu"), pick_precision("auto", pick_device("cpu")))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("medpy", "scipy", "numpy"))
    about = (
        f"{machine['device']}, {versions}, commit {machine['commit']}. Made by `python {shlex.join(sys.argv)}`. Dice, "
        "HD95 and ASSD of every structure that is in both masks; `ours` and `medpy` on one core, without reading; "
        "`evaluate`: the function behind the command, with files and all cores."
    )
    path, lines = given.results / f"scoring-{slug(machine['device'])}.md", []
    for name, predictions, truth in zip(*[iter(given.sets)] * 3):
        lines.append(measure(name, Path(predictions), Path(truth)))
        write_csv(path.with_suffix(".csv"), lines, COLUMNS)
        write_page(path, "# Scoring against medpy", about, table(lines))
    print(table(lines))


if __name__ == "__main__":
    main()
