"""What the preparation of scans gains: as the papers do it, and as the data decide.

python benchmarks/studies/preparations.py [--only mscmr acdc thick cubes] [--seeds 0 1]

Every row of ROWS is trained for every seed. 2.5-D: the channels of a slice are the slice below it, itself and the slice
above. Hearts are scored on the validation patients of a split, abdomens on the test cases of the phantom, which is made
if it is not there. A study that was cut off carries on. Writes preparations.csv and preparations.md into --results.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
from annotator import kept, score, sum_of_minutes
from common import RESULTS, markdown_table, put_line, write_page

import scribbleseg as ss
from scribbleseg.core.atomic import atomic_folder
from scribbleseg.core.device import prepare_cpu
from scribbleseg.core.json_file import read_json
from scribbleseg.data.case import drawn_cases
from scribbleseg.data.fitting import find_plane
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import read_volume, write_volume
from scribbleseg.training.train import resume

CASES = 24  # of an abdomen: 16 to learn from, 8 to test in fold 0
PAPERS = {"method": "corral", "size": 128, "iterations": 900}  # the recipe of the preset
FAST = {"preset": "fast"}
HEARTS = {"papers": PAPERS | {"enclosure": "on"}, "fast": FAST}
SHORT = {"iterations": 450}  # an abdomen's scans differ less than hearts
STACKED = "patches, 2.5-D"
FLAT = FAST | SHORT | {"preparation": "patches", "dims": "2"}
ABDOMEN = {
    "papers": PAPERS | SHORT | {"enclosure": "on"},
    "whole slices, strokes alone": FAST | SHORT | {"preparation": "slices", "enclosure": "off"},
    "whole slices": FAST | SHORT | {"preparation": "slices"},
    "patches, 2-D": FLAT,
    STACKED: FLAT,
    "patches, 3-D": FAST | SHORT | {"preparation": "patches", "dims": "3"},
}
ROWS = {"mscmr": HEARTS, "acdc": HEARTS, "thick": ABDOMEN, "cubes": ABDOMEN}
SPLITS = {"mscmr": "25-5-15", "acdc": "tuning", "thick": "auto", "cubes": "auto"}
COLUMNS = ("data", "row", "seed", "cases", "dice", "minutes", "commit", "device")
HEAD = ("data", "preparation", "seeds", "cases", "Dice, %", "minutes")
ABOUT = (
    "Made by `python benchmarks/studies/preparations.py`; every run, its commit and its machine in preparations.csv. "
    f"All rows are trained with `corral`. `papers`: the papers' preparation and augmentation, 128 pixels, "
    f"{PAPERS['iterations']} iterations, with the enclosed background, as `fast` has it; `strokes alone`: without. "
    f"`fast`: the preset as it is. Of the abdomens ({CASES} scans; `thick`: slices of 7 mm, `cubes`: `--isotropic`) "
    f"all rows have {SHORT['iterations']} iterations, and all but `papers` are the preset with the preparation that is "
    "named; 2.5-D: 2-D, with the slices above and below as channels. Validation patients of the hearts, test cases of "
    "the abdomens; Dice is the mean over all structures that a case has."
)


def open_data(name: str, datasets: Path) -> Path:
    """The folder of a data set; an abdomen is made where it is missing."""
    folder = datasets / name
    if name in ("thick", "cubes") and not folder.is_dir():
        ss.phantom(folder, anatomy="abdomen", cases=CASES, isotropic=name == "cubes")
    return folder


def with_neighbours(data: Path, target: Path) -> Path:
    """A copy of a data set of one channel whose channels are the slice below, the slice and the slice above."""
    if target.is_dir():
        return target
    dataset = read_dataset(data)
    plane = find_plane(dataset, drawn_cases(dataset, sorted(dataset.cases)))
    with atomic_folder(target) as partial:
        for path in data.iterdir():
            if path.is_dir() and path.name != "imagesTr":
                (partial / path.name).symlink_to(path.resolve())
        shutil.copy(data / "splits_final.json", partial)
        description = read_json(data / "dataset.json")
        (channel,) = description["channel_names"].values()
        description["channel_names"] = {str(number): channel for number in range(3)}
        (partial / "dataset.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
        (partial / "imagesTr").mkdir()
        for case in dataset.cases.values():
            voxels, grid = read_volume(case.images[0], plane=plane)
            padded = np.concatenate([voxels[:1], voxels, voxels[-1:]])
            for number in range(3):
                name = f"{case.id}_{number:04d}{dataset.file_ending}"
                write_volume(partial / "imagesTr" / name, padded[number : number + len(voxels)], grid)
    return target


def measure(name: str, row: str, seed: int, data: Path, runs: Path) -> dict:
    """A line of the table; trains the run, or the rest of it."""
    run, dataset = runs / f"{name}-{row.replace(', ', '-').replace(' ', '-')}-s{seed}", read_dataset(data)
    if (run / "config.json").is_file():
        resume(run)
    else:
        ss.train(dataset.folder, run, split=SPLITS[name], seed=seed, **ROWS[name][row])
    stored = read_json(run / "config.json")
    fold = stored["plan"]["fold"]
    cases = fold["val"] or fold["test"]
    environment = read_json(run / "environment.json")
    return {
        "data": name,
        "row": row,
        "seed": seed,
        "cases": len(cases),
        "dice": f"{100 * kept(run / 'dice.json', score, dataset, cases, run):.2f}",
        "minutes": f"{sum_of_minutes(run):.1f}",
        "commit": environment["commit"],
        "device": environment["device"],
    }


def place(line: dict) -> tuple[int, int, int]:
    """Where a line stands in the table."""
    return list(ROWS).index(line["data"]), list(ROWS[line["data"]]).index(line["row"]), int(line["seed"])


def summary(lines: list[dict]) -> list[list[str]]:
    """The rows of the page: the mean of the seeds, and each of them."""
    rows = []
    for name, table in ROWS.items():
        for row in table:
            found = [line for line in lines if (line["data"], line["row"]) == (name, row)]
            if found:
                dice, minutes = (np.array([float(line[key]) for line in found]) for key in ("dice", "minutes"))
                each = f" ({' / '.join(f'{value:.1f}' for value in dice)})" if len(found) > 1 else ""
                seeds = ", ".join(str(line["seed"]) for line in found)
                rows.append([name, row, seeds, found[0]["cases"], f"{dice.mean():.1f}{each}", f"{minutes.mean():.0f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS), metavar="DATA")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--runs", type=Path, default=Path("runs/preparations"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    prepare_cpu()
    table = given.results / "preparations.csv"
    for seed in given.seeds:
        for name in given.only:
            data = open_data(name, given.datasets)
            for row in ROWS[name]:
                seen = with_neighbours(data, given.datasets / f"{name}-neighbours") if row == STACKED else data
                line = measure(name, row, seed, seen, given.runs)
                lines = put_line(table, line, place, COLUMNS)
                page = given.results / "preparations.md"
                write_page(page, "# Preparations of scans", ABOUT, markdown_table(HEAD, summary(lines)))


if __name__ == "__main__":
    main()
