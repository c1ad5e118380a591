"""What the enclosed background gains for each method, near the structures and far from them.

python benchmarks/studies/ablation.py [--seeds 0] [--minutes N]

Every row of ROWS is trained on ACDC's cv5 fold 0 with the preset fast on whole slices (128 pixels, 900 iterations) and
scored on the 40 test cases; in some rows a part of the background strokes was deleted, as in enclosed.py, and in two
the closed ring or the box around the background strokes is read in place of the hull. Nothing is chosen here. Rows that
ablation.csv has are left out, and a run that was cut off carries on; --minutes begins no run after that time. Writes
ablation.csv and ablation.md into --results.
"""

import argparse
import time
from pathlib import Path

import enclosed
import nibabel
import numpy as np
from annotator import sum_of_minutes
from common import RESULTS, findable, markdown_table, put_line, read_csv, scribbleseg, slug, write_page
from far_field import MARGIN, measure

from scribbleseg.core.atomic import atomic_folder
from scribbleseg.core.json_file import read_json
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import Volume
from scribbleseg.data.dataset import REACH_PIXELS
from scribbleseg.data.enclosure import enclosure as read_strokes
from scribbleseg.data.layout import read_dataset
from scribbleseg.methods.pce import PCE

SPLIT, FOLD = "cv5", 0
DELETED = {f"{100 * share:.0f} %, {which}": (share, which) for share, which in enclosed.DELETED if 0 < share <= 0.5}
ROWS = [(method, enclosure, "none") for method in ("pce", "scn", "effdnet", "corral") for enclosure in ("off", "on")]
RULES = {"ring": "ablation:Ring", "box": "ablation:Box"}  # enclosure → method
ROWS += [("pce", rule, "none") for rule in RULES] + [("pce", "auto", deleted) for deleted in DELETED]
COLUMNS = (
    *("method", "enclosure", "deleted", "seed", "cases", "dice", "near", "far", "empty"),
    *("minutes", "commit", "device"),
)
HEAD = (
    *("method", "enclosure", "strokes deleted", "seeds", "Dice", "Dice in the box", "foreground outside"),
    *("in empty slices", "minutes"),
)
ABOUT = (
    "Made by `python benchmarks/studies/ablation.py`; every run, its commit and its machine in ablation.csv. ACDC, "
    f"`{SPLIT}` fold {FOLD}, 40 test cases, preset `fast` on whole slices: 128 pixels, 900 iterations. In the box: "
    f"inside each slice's box around the dense mask, {MARGIN} pixels wider on every side. Foreground outside: share of "
    "the predicted foreground that lies outside the boxes, in slices with and without a heart. `pce` with the enclosed "
    "background is `corral` as `fast` has it; `corral` here has the labels of half-time too (`taught=1`). Enclosure: "
    "on and auto read the hull, and the ring where the hull holds nothing; ring: the closed ring alone; box: the "
    "smallest box around the background strokes, where it holds all foreground strokes. Strokes "
    "deleted: of the background's, see [enclosed.md](enclosed.md); `auto` decides "
    "whether the rest is read. Minutes are of different machines and other work beside them: they compare nothing."
)


class Ring(PCE):
    """pCE, and background is what lies outside of closed rings alone. For data sets in voxels, as ACDC is."""

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        return super().targets(volume) | {"enclosure": read_strokes(volume.scribble, REACH_PIXELS, "ring")}


class Box(PCE):
    """pCE, and background is what lies outside of the box around a slice's background strokes."""

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        found = np.full_like(volume.scribble, UNLABELED)
        for drawn, target in zip(volume.scribble, found):
            bare = not ((drawn != 0) & (drawn != UNLABELED)).any()  # background strokes alone: all is background
            outside = np.full(drawn.shape, (drawn == 0).any()) if bare else enclosed.outside_box(drawn)
            if outside is not None:
                target[outside & (drawn == UNLABELED)] = 0
        return super().targets(volume) | {"enclosure": found}


def make(data: Path, method: str, enclosure: str, deleted: str, seed: int, runs: Path) -> dict:
    """A line of the table; trains, predicts and scores what is not done."""
    run = runs / f"{method}-{enclosure}{'' if deleted == 'none' else f'-{slug(deleted)}'}-s{seed}"
    data = data if deleted == "none" else with_deleted(data, *DELETED[deleted], runs / f"data-{slug(deleted)}")
    named, read = ["--method", RULES.get(enclosure, method)], "off" if enclosure in RULES else enclosure
    if (run / "config.json").is_file():
        scribbleseg(["train", run, "--resume", *(named if enclosure in RULES else [])])
    else:
        words = ["--preset", "fast", "--preparation", "slices", "--enclosure", read, *named]
        words += ["--set", "taught=1"] if method == "corral" else []
        scribbleseg(["train", data, run, *words, "--split", SPLIT, "--fold", FOLD, "--seed", seed])
    if not (run / "predictions").is_dir():
        with atomic_folder(run / "predictions") as partial:
            scribbleseg(["predict", run, data, partial])
    cases, *values = measure(run, read_dataset(data))
    environment = read_json(run / "environment.json")
    return {
        "method": method,
        "enclosure": enclosure,
        "deleted": deleted,
        "seed": seed,
        "cases": cases,
        **{name: f"{100 * value:.2f}" for name, value in zip(("dice", "near", "far", "empty"), values)},
        "minutes": f"{sum_of_minutes(run):.1f}",
        "commit": environment["commit"],
        "device": environment["device"],
    }


def with_deleted(data: Path, share: float, which: str, target: Path) -> Path:
    """A copy of a data set of NIfTI files whose slices lack a share of their background strokes."""
    if target.is_dir():
        return target
    ignore, rng = read_dataset(data).ignore, np.random.default_rng(0)
    with atomic_folder(target) as partial:
        for path in data.iterdir():
            if path.name != "labelsTr":
                (partial / path.name).symlink_to(path.resolve())
        (partial / "labelsTr").mkdir()
        for path in sorted((data / "labelsTr").iterdir()):
            image = nibabel.load(path)
            label = np.asarray(image.dataobj, np.uint8)
            label[label == ignore] = UNLABELED
            for number in range(label.shape[2]):
                drawn = label[:, :, number]
                if ((drawn != 0) & (drawn != UNLABELED)).any():
                    label[:, :, number] = enclosed.without(drawn, share, which, rng)
            label[label == UNLABELED] = ignore
            nibabel.save(nibabel.Nifti1Image(label, image.affine, image.header), partial / "labelsTr" / path.name)
    return target


def place(line: dict) -> tuple[int, int]:
    """Where a line stands in the table."""
    return ROWS.index((line["method"], line["enclosure"], line["deleted"])), int(line["seed"])


def summary(lines: list[dict]) -> list[list[str]]:
    """The rows of the page: the mean of the seeds, and of Dice each of them."""
    rows = []
    for row in ROWS:
        found = [line for line in lines if (line["method"], line["enclosure"], line["deleted"]) == row]
        if found:
            dice, near, far, empty, minutes = (
                np.mean([float(line[key]) for line in found]) for key in ("dice", "near", "far", "empty", "minutes")
            )
            one_by_one = " / ".join(f"{float(line['dice']):.1f}" for line in found)
            each = f" ({one_by_one})" if len(found) > 1 else ""
            shares = [f"{far:.1f} %", f"{empty:.1f} %"]
            seeds = ", ".join(str(line["seed"]) for line in found)
            rows.append([*row, seeds, f"{dice:.1f}{each}", f"{near:.1f}", *shares, f"{minutes:.0f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--data", type=Path, default=Path("datasets/acdc"))
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    findable()
    began, path = time.monotonic(), given.results / "ablation.csv"
    done = [place(line) for line in read_csv(path)]
    for seed in given.seeds:
        for number, (method, enclosure, deleted) in enumerate(ROWS):
            if (number, seed) not in done and time.monotonic() - began < 60 * given.minutes:
                line = make(given.data, method, enclosure, deleted, seed, given.runs)
                lines = put_line(path, line, place, COLUMNS)
                table = markdown_table(HEAD, summary(lines))
                write_page(given.results / "ablation.md", "# The enclosed background, method by method", ABOUT, table)


if __name__ == "__main__":
    main()
