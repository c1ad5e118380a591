"""How many minutes a whole training takes, from the command to its end, start-up and reading included.

python benchmarks/timing/minutes.py [--only fast best ...] [--data datasets/acdc]

Each recipe trains fold 0 of ACDC's split cv5 once, with all cores; a recipe that is in the file already for this
machine is left out. Run it on a machine that does nothing else. Writes minutes.csv into benchmarks/results, from which
docs/make_tables.py takes the minutes of README.md's first table.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from time import monotonic

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, put_line, read_csv, scribbleseg

from scribbleseg.core.device import device_name, pick_device
from scribbleseg.core.json_file import read_json

RECIPES = {
    **{method: ["--method", method, "--budget", "quick"] for method in ("pce", "scn", "effdnet")},
    **{preset: ["--preset", preset] for preset in ("fast", "best")},
}
COLUMNS = ("recipe", "minutes", "iterations", "size", "commit", "device")


def measure(recipe: str, data: Path) -> dict:
    """A line of the table; the run is deleted."""
    with tempfile.TemporaryDirectory() as folder:
        run, began = Path(folder) / "run", monotonic()
        scribbleseg(["train", data, run, *RECIPES[recipe], "--split", "cv5", "--fold", 0])
        minutes = (monotonic() - began) / 60
        plan, environment = read_json(run / "config.json")["plan"], read_json(run / "environment.json")
    return {
        "recipe": recipe,
        "minutes": f"{minutes:.1f}",
        "iterations": plan["recipe"]["iterations"],
        "size": plan["size"],
        "commit": environment["commit"],
        "device": environment["device"],
    }


def place(line: dict) -> tuple[str, int]:
    """Where a line stands in the table."""
    return line["device"], list(RECIPES).index(line["recipe"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES), metavar="RECIPE")
    parser.add_argument("--data", type=Path, default=Path("datasets/acdc"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    path, device = given.results / "minutes.csv", device_name(pick_device("auto"))
    done = [(line["recipe"], line["device"]) for line in read_csv(path)]
    for recipe in given.only:
        if (recipe, device) not in done:
            put_line(path, measure(recipe, given.data), place, COLUMNS)


if __name__ == "__main__":
    main()
