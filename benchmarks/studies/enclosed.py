"""How often background strokes enclose the structures, and how often that is wrong, when some of them are deleted.

python benchmarks/studies/enclosed.py [--only acdc thick cubes] [--cases 25]

From every slice that has foreground strokes, a share of the background strokes is deleted: those in one sector, as seen
from the middle of the foreground strokes, pieces of 12 by 12 pixels all around, or all but a dash on either side. Dense
masks then say how much foreground lies outside of what is left. Writes enclosed.csv and enclosed.md into --results.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

import numpy as np

from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import drawn_cases, load_label, read_scribble
from scribbleseg.data.enclosure import outside_hull, outside_ring
from scribbleseg.data.fitting import find_plane
from scribbleseg.data.layout import read_dataset

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, write_csv, write_page
from preparations import open_data

PIECE = 12  # pixels
DASH = 30  # degrees
DELETED = [(0.0, "none"), *product((0.25, 0.5), ("sector", "pieces")), (1 - DASH / 180, "all but two dashes")]
COLUMNS = ("data", "deleted", "which", "slices", "rule", "enclosing", "wrong", "read")
HEAD = (
    "data",
    "deleted, %",
    "which",
    "slices",
    "rule",
    "slices that it reads, %",
    "foreground wrongly outside, %",
    "background read, %",
)
ABOUT = (
    "Made by `python benchmarks/studies/enclosed.py` from scribbles and dense masks; no model is trained. Numbers in "
    "enclosed.csv. The last two columns are shares of the foreground's and the background's pixels, in the slices that "
    "the rule reads. Box: the smallest one around the background strokes, if it holds all foreground strokes; only to "
    "compare. Deleted are background strokes: those in one sector around the foreground strokes, pieces of "
    f"{PIECE} by {PIECE} pixels all around, or all but a dash on either side, {DASH} degrees wide each."
)


def without(drawn: np.ndarray, share: float, which: str, rng: np.random.Generator) -> np.ndarray:
    """A slice [H, W] without a share of its background strokes. It has foreground strokes."""
    places = np.argwhere(drawn == 0)
    if not share or not len(places):
        return drawn
    middle = np.argwhere((drawn != 0) & (drawn != UNLABELED)).mean(0)
    angle = np.arctan2(*(places - middle).T) - rng.uniform(-np.pi, np.pi)
    if which == "sector":
        gone = angle % (2 * np.pi) < 2 * np.pi * share
    elif which == "all but two dashes":
        gone = angle % np.pi < np.pi * share
    else:
        pieces, piece = np.unique(places // PIECE, axis=0, return_inverse=True)
        gone = np.isin(piece.ravel(), rng.permutation(len(pieces))[: round(share * len(pieces))])
    left = drawn.copy()
    left[tuple(places[gone].T)] = UNLABELED
    return left


def outside_box(drawn: np.ndarray) -> np.ndarray | None:
    """Outside of the smallest box around the background strokes of a slice [H, W]; None if a foreground stroke is."""
    inside = (slice(place.min(), place.max() + 1) for place in (drawn == 0).nonzero() if len(place))
    outside = np.ones(drawn.shape, bool)
    outside[tuple(inside)] = False
    return None if (outside & (drawn != 0) & (drawn != UNLABELED)).any() or not (drawn == 0).any() else outside


def judge(outside: np.ndarray | None, truth: np.ndarray) -> np.ndarray:
    """1 for a slice that is read, then foreground outside and in all, background outside and in all, pixels."""
    if outside is None:
        return np.zeros(5, int)
    parts = (truth > 0, truth == 0)
    return np.array([1, *(value for part in parts for value in ((part & outside).sum(), part.sum()))])


def measure(name: str, data: Path, most: int) -> list[dict]:
    """The lines of a data set: of at most that many cases, for every rule."""
    dataset = read_dataset(data)
    names = drawn_cases(dataset, sorted(name for name in dataset.cases if dataset.case(name).truth is not None))
    plane, counts, slices = find_plane(dataset, names), {}, 0
    rng = np.random.default_rng(0)
    for case in map(dataset.case, names[:: -(-len(names) // most)]):
        scribble, grid = read_scribble(dataset, case, plane)
        truth = load_label(case.truth, grid, case.images[0], dataset.ignore, ignored=False)
        for drawn, mask in zip(scribble, truth):
            if not ((drawn != 0) & (drawn != UNLABELED)).any():
                continue
            slices += 1
            for deleted in DELETED:
                left = without(drawn, *deleted, rng)
                rules = {"hull": outside_hull(left), "ring": outside_ring(left, dataset.reach(grid))}
                for rule, outside in (rules | {"box": outside_box(left)}).items():
                    counts[*deleted, rule] = counts.get((*deleted, rule), 0) + judge(outside, mask)
    lines = []
    for (share, which, rule), (read, *pixels) in counts.items():
        (wrong, foreground), (outside, background) = pixels[:2], pixels[2:]
        shares = (read / slices, wrong / max(foreground, 1), outside / max(background, 1))
        values = (name, f"{100 * share:.0f}", which, slices, rule, *(f"{100 * value:.2f}" for value in shares))
        lines.append(dict(zip(COLUMNS, values)))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["acdc", "thick", "cubes"], metavar="DATA")
    parser.add_argument("--cases", type=int, default=25)
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    lines = [line for name in given.only for line in measure(name, open_data(name, given.datasets), given.cases)]
    write_csv(given.results / "enclosed.csv", lines, COLUMNS)
    table = markdown_table(HEAD, [[line[key] for key in COLUMNS] for line in lines])
    write_page(given.results / "enclosed.md", "# What background strokes enclose", ABOUT, table)
    print(table)


if __name__ == "__main__":
    main()
