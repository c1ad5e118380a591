"""What the preset best reaches if it is trained on dense masks instead of strokes: what strokes cost.

python benchmarks/studies/dense.py [--only acdc-cv5-1 ...]

Each place, a fold of a split, is trained with the cross-entropy of the dense masks of its training cases, and scored on
its test cases. Length, optimiser and augmentation are the preset's; rings decide where slices are cut and count as
background, as with strokes. Nothing is labelled at half-time, and widths do not count. What dense.csv has is
left out, and a run that was cut off carries on. Writes best/dense-PLACE.csv (the scores of each case), best/dense.csv
and best/dense.md, which has the preset's own scores beside them.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, findable, markdown_table, put_line, read_csv, write_page
from presets import COLUMNS, PLACES, make, measures, place

from scribbleseg.data.case import Volume
from scribbleseg.evaluation.tables import read_rows
from scribbleseg.methods.corral import Corral

METHOD = ("--method", "dense:Dense")
HEAD = ("cases of", "dense masks: Dice by class", "Dice", "HD95", "strokes: Dice by class", "Dice", "HD95")
ABOUT = (
    "Made by `python benchmarks/studies/dense.py`; commits, machines and minutes in dense.csv, scores of each case in "
    "the files beside it. The same optimiser, length, augmentation and cases, one seed. With dense masks nothing is "
    "labelled at half-time, and widths do not count."
)


class Dense(Corral):
    """Cross-entropy of the dense mask, and that of the enclosed background as a term of its own."""

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        assert volume.truth is not None, "every training case of ACDC has a dense mask"
        return {"label": volume.truth}


def cells(scores: Path) -> list[str]:
    """Dice of each class, their mean and HD95, of a file of scores; dashes where there is none."""
    if not scores.is_file():
        return ["–"] * 3
    *classes, dice, hd95, _ = measures(read_rows(scores), "", set())
    return [" / ".join(f"{value:.1f}" for value in classes), f"{dice:.1f}", f"{hd95:.1f}"]


def beside_the_preset(
    stem: str,
    names: Sequence[str],
    results: Path,
    trained: Callable[[str, Path], dict],
    title: str,
    about: str,
    head: Sequence[str],
) -> None:
    """STEM.csv and STEM.md: a line per place and the scores of STEM-PLACE.csv beside those of the preset, seed 0.

    trained: makes the line of a place that STEM.csv lacks, and the scores at the path.
    """
    path = results / f"{stem}.csv"
    done = [place(line) for line in read_csv(path)]
    for name in names:
        if (list(PLACES).index(name), 0) not in done:
            put_line(path, trained(name, results / f"{stem}-{name}.csv"), place, COLUMNS)
    made = [list(PLACES)[place(line)[0]] for line in read_csv(path)]
    rows = [[name, *cells(results / f"{stem}-{name}.csv"), *cells(results / f"{name}-s0.csv")] for name in made]
    write_page(results / f"{stem}.md", title, about, markdown_table(head, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    masked = [name for name in PLACES if name.startswith("acdc-")]
    parser.add_argument("--only", nargs="+", choices=masked, default=masked, metavar="PLACE")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--runs", type=Path, default=Path("runs/dense"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    findable()

    def trained(name: str, scores: Path) -> dict:
        return make("best", name, 0, given.datasets, given.runs, scores, METHOD)

    beside_the_preset(
        "dense", given.only, given.results / "best", trained, "# Dense masks instead of strokes", ABOUT, HEAD
    )


if __name__ == "__main__":
    main()
