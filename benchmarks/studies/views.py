"""What averaging over flips or shifts of a slice does to trained models (predict --tta).

python benchmarks/studies/views.py [--data mscmr] RUN [RUN ...]

Each run is scored on its validation cases: as it is, mean over the four flips, mean over five shifts. Which of the two
--tta takes depends on the training. Writes views.csv and views.md into --results.
"""

import argparse
from pathlib import Path

from annotator import score
from common import RESULTS, markdown_table, put_line, write_page

from scribbleseg.core.device import prepare_cpu
from scribbleseg.data.layout import read_dataset
from scribbleseg.inference import probabilities
from scribbleseg.training.plan import Plan, read_plan

COLUMNS = ("data", "run", "trained with", "cases", "as it is", "flips", "shifts")
ABOUT = (
    "Made by `python benchmarks/studies/views.py` from the runs that are named: mean Dice in percent on their "
    "validation cases, for one view of a slice, the mean over its four flips, and the mean over five shifts by a "
    "twentieth of a side. `predict --tta` takes flips where training flipped slices, else shifts."
)


def dice_over(dataset, plan: Plan, run: Path, seen: tuple[probabilities.View, ...]) -> float:
    """Mean Dice of a run on its validation cases with these views, in percent."""
    chosen = probabilities.views
    probabilities.views = lambda plan, tta: seen
    try:
        return 100 * score(dataset, plan.fold.val, run)
    finally:
        probabilities.views = chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--data", default="mscmr")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    prepare_cpu()
    dataset, table = read_dataset(given.datasets / given.data), given.results / "views.csv"
    for run in given.runs:
        plan = read_plan(run)[1]
        shifts = probabilities.shifts(plan.size)
        found = [dice_over(dataset, plan, run, seen) for seen in (shifts[:1], probabilities.FLIPS, shifts)]
        values = (given.data, run.name, plan.recipe.augmentation, len(plan.fold.val), *(f"{one:.2f}" for one in found))
        lines = put_line(table, dict(zip(COLUMNS, values)), lambda line: (line["data"], line["run"]), COLUMNS)
        cells = [[line[key] for key in COLUMNS] for line in lines]
        write_page(table.with_suffix(".md"), "# Flips and shifts at prediction", ABOUT, markdown_table(COLUMNS, cells))


if __name__ == "__main__":
    main()
