"""A simulated annotator: is it better to draw where the model is least sure than on random slices?

python benchmarks/studies/annotator.py [--data acdc] [--seeds 0 1 2] [--orders random turns unsure spread gaps]

The annotator draws the data set's own strokes, slice by slice: 8 random slices first, then as many as ROUNDS says, each
time after an update of the model as the page makes it (preset fast, then --init), of fewer iterations.

random   the slices in random order
turns    a random slice of the cases with the fewest drawn slices, as the page suggests
unsure   the slice with the highest mean entropy
spread   the same, of the cases with the fewest drawn slices
gaps     the least sure of these cases, and in it the middle of the longest run without strokes

The patients of fold 0's training side are divided into a pool, which is drawn on, and HELD_OUT patients, whose dense
masks score every model. Test cases are never read.

Every step is kept in --runs, and a study that was cut off carries on. Writes annotator/DATA.csv, .md and .png.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import torch

import scribbleseg as ss
from scribbleseg.core.atomic import atomic_file, atomic_folder
from scribbleseg.core.device import prepare_cpu
from scribbleseg.core.json_file import read_json
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import load_label, read_scribble
from scribbleseg.data.dataset import Case, Dataset
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import Grid, write_volume
from scribbleseg.draw.suggest import next_slice
from scribbleseg.evaluation.metrics import dice
from scribbleseg.inference.models import load_models
from scribbleseg.inference.probabilities import Segmented, segment
from scribbleseg.inference.scan import read_scan
from scribbleseg.training.train import resume

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, read_csv, read_log, write_csv, write_page

ROUNDS = (8, 16, 32, 64, 128)  # slices with strokes
ORDERS = ("random", "turns", "unsure", "spread", "gaps")
HELD_OUT = 20  # patients
POOL = 30  # patients of one seed
FIRST_ITERATIONS, NEXT_ITERATIONS = 200, 80  # the page takes 900 or more, and 300
COLUMNS = ("data", "seed", "order", "slices", "cases", "dice", "minutes", "commit", "device")
Place = tuple[str, int]  # case and slice


def divide(dataset: Dataset, split: str, seed: int) -> tuple[list[str], list[str]]:
    """The cases of the pool of a seed, and those held out, which are the same for every seed."""
    cases = [name for name in dataset.fold(split, 0).train if dataset.case(name).scribble is not None]
    patients = sorted({dataset.patient(name) for name in cases})
    random.Random(0).shuffle(patients)
    held, rest = patients[:HELD_OUT], patients[HELD_OUT:]
    random.Random(seed).shuffle(rest)
    pool = rest[:POOL]
    parts = ([name for name in cases if dataset.patient(name) in part] for part in (pool, held))
    return next(parts), next(parts)


def shuffled(dataset: Dataset, pool: Sequence[str], seed: int) -> list[Place]:
    """The slices of the pool in the random order of a seed."""
    places = []
    for name in pool:
        label, _ = read_scribble(dataset, dataset.case(name), dataset.plane or "spacing")
        places += [(name, index) for index in range(len(label))]
    random.Random(seed).shuffle(places)
    return places


def choose(order: str, places: Sequence[Place], before: Sequence[Place], unsure: dict, count: int) -> list[Place]:
    """`count` slices: those drawn `before`, then the next ones. unsure: case → mean entropy of its slices.

    The orders random and turns do not need it.
    """
    if order == "random":
        return list(places[:count])
    chosen, depth = list(before), Counter(name for name, _ in places)
    while len(chosen) < count:
        drawn: dict[str, set[int]] = {name: {index for case, index in chosen if case == name} for name in depth}
        if order == "turns":
            found = next_slice(drawn, depth.__getitem__)
        else:
            found = in_gaps(unsure, drawn) if order == "gaps" else least_sure(unsure, drawn, spread=order == "spread")
        if found is None:
            break
        chosen.append(found)
    return chosen


def least_sure(
    uncertainty: Mapping[str, Sequence[float]], drawn: Mapping[str, Collection[int]], spread: bool = False
) -> Place | None:
    """The slice without strokes whose mean entropy is the highest; None if every slice has strokes.

    uncertainty: case → mean entropy of each slice. drawn: case → its slices with strokes. `spread`: only slices of the
    cases that have the fewest drawn slices.
    """
    open_ = {
        name: [index for index in range(len(values)) if index not in drawn.get(name, ())]
        for name, values in uncertainty.items()
    }
    names = [name for name, indices in open_.items() if indices]
    if spread and names:
        fewest = min(len(drawn.get(name, ())) for name in names)
        names = [name for name in names if len(drawn.get(name, ())) == fewest]
    found = [(name, index) for name in names for index in open_[name]]
    return max(found, key=lambda each: uncertainty[each[0]][each[1]], default=None)


def in_gaps(uncertainty: Mapping[str, Sequence[float]], drawn: Mapping[str, Collection[int]]) -> Place | None:
    """The middle of the longest run of slices without strokes, in a case with the fewest drawn slices.

    Of such cases, the one with the highest mean entropy; of runs as long as each other, the one whose middle has the
    highest. None if every slice has strokes. uncertainty, drawn: as in `least_sure`.
    """
    gaps = {}
    for name, values in uncertainty.items():
        ends = [-1, *sorted(drawn.get(name, ())), len(values)]
        middles = [(start + end) // 2 for start, end in pairwise(ends) if end - start > 1]
        lengths = [end - start for start, end in pairwise(ends) if end - start > 1]
        if middles:
            gaps[name] = max(zip(lengths, (values[middle] for middle in middles), middles))[2]
    if not gaps:
        return None
    fewest = min(len(drawn.get(name, ())) for name in gaps)
    names = [name for name in gaps if len(drawn.get(name, ())) == fewest]
    name = max(names, key=lambda name: sum(uncertainty[name]) / len(uncertainty[name]))
    return name, gaps[name]


def draw(dataset: Dataset, chosen: Sequence[Place], target: Path) -> None:
    """The data set of an update: the drawn cases with the strokes of the chosen slices, and no splits."""
    with atomic_folder(target) as partial:
        for part in ("imagesTr", "labelsTr"):
            (partial / part).mkdir()
        names = sorted({name for name, _ in chosen})
        for case in map(dataset.case, names):
            assert case.scribble is not None
            label, grid = read_scribble(dataset, case, dataset.plane or "spacing")
            drawn = np.full_like(label, dataset.ignore)
            for index in (index for name, index in chosen if name == case.id):
                drawn[index] = np.where(label[index] == UNLABELED, dataset.ignore, label[index])
            write_volume(partial / "labelsTr" / case.scribble.name, drawn, grid)
            for path in case.images:
                (partial / "imagesTr" / path.name).symlink_to(path.resolve())
        description = read_json(dataset.folder / "dataset.json") | {"numTraining": len(names)}
        for key in ("groups", "strata", "dataset"):
            description.pop(key, None)
        (partial / "dataset.json").write_text(json.dumps(description), encoding="utf-8")


def train(data: Path, run: Path, before: Path | None, seed: int) -> None:
    """An update as the page makes it, or the rest of one that was cut off."""
    if (run / "config.json").is_file():
        resume(run)
    elif before is None:
        ss.train(data, run, preset="fast", iterations=FIRST_ITERATIONS, seed=seed)
    else:
        ss.train(data, run, preset="fast", iterations=NEXT_ITERATIONS, init=before, seed=seed)


def look(
    dataset: Dataset, names: Sequence[str], run: Path, uncertainty: bool
) -> Iterator[tuple[Case, Segmented, Grid]]:
    """The cases as a run segments them."""
    models = load_models([run], "last", torch.device("cpu"))
    for case in map(dataset.case, names):
        scan = read_scan(case.images, models)
        found = segment(models, scan.images, scan.grid.spacing_mm, torch.device("cpu"), uncertainty=uncertainty)
        yield case, scan.placed(found), scan.grid


def score(dataset: Dataset, names: Sequence[str], run: Path) -> float:
    """Mean Dice over the cases with a dense mask and the structures; a structure in neither mask is left out."""
    found = []
    for case, segmented, grid in look(dataset, names, run, uncertainty=False):
        if case.truth is not None:
            truth = load_label(case.truth, grid, case.images[0], dataset.ignore, ignored=False)
            found += [dice(segmented.label == value, truth == value) for value in range(1, len(dataset.classes))]
    return float(np.nanmean(found))


def kept(path: Path, make: Callable[..., Any], *given: Any) -> Any:
    """What `make(*given)` returns, or returned when the file was written."""
    if not path.is_file():
        made = make(*given)
        with atomic_file(path) as partial:
            partial.write_text(json.dumps(made) + "\n", encoding="utf-8")
    return read_json(path)


def study(dataset: Dataset, split: str, seed: int, order: str, runs: Path) -> list[dict]:
    """The lines of one order; the first round is the same for all orders and is made once."""
    pool, held = divide(dataset, split, seed)
    places = shuffled(dataset, pool, seed)
    before, chosen, lines, minutes = None, places[: ROUNDS[0]], [], 0.0
    for count in ROUNDS:
        folder = runs / f"s{seed}" / ("first" if count == ROUNDS[0] else f"{order}-{count}")
        if before is not None:
            entropy = {}
            if order not in ("random", "turns"):
                entropy = kept(before / "entropy.json", mean_entropy, dataset, pool, before / "run")
            chosen = choose(order, places, chosen, entropy, count)
        chosen = [(name, index) for name, index in kept(folder / "chosen.json", list, chosen)]
        if not (folder / "data").is_dir():
            draw(dataset, chosen, folder / "data")
        train(folder / "data", folder / "run", None if before is None else before / "run", seed)
        minutes += sum_of_minutes(folder / "run")
        reached = kept(folder / "dice.json", score, dataset, held, folder / "run")
        environment = read_json(folder / "run" / "environment.json")
        lines.append(
            {
                "data": dataset.folder.name,
                "seed": seed,
                "order": order,
                "slices": len(chosen),
                "cases": len({name for name, _ in chosen}),
                "dice": f"{100 * reached:.2f}",
                "minutes": f"{minutes:.1f}",
                "commit": environment["commit"],
                "device": environment["device"],
            }
        )
        before = folder
    return lines


def mean_entropy(dataset: Dataset, names: Sequence[str], run: Path) -> dict[str, list[float]]:
    """Case → mean entropy of each slice, as the page has it."""
    found = {}
    for case, segmented, _ in look(dataset, names, run, uncertainty=True):
        assert segmented.entropy is not None
        found[case.id] = [float(plane.mean()) for plane in segmented.entropy]
    return found


def sum_of_minutes(run: Path) -> float:
    log = read_log(run)
    steps = np.diff([0, *(entry["iteration"] for entry in log)])
    return float(steps @ [entry["seconds_per_iteration"] for entry in log]) / 60


def gains(lines: Sequence[dict]) -> str:
    """How much better one order is than another, over the seeds that both have.

    A seed counts once, with its mean over the numbers of slices after the first. The interval holds the mean of the
    seeds with 95 % (t-distribution). One seed makes no row.
    """
    dice = {(row["order"], int(row["seed"]), int(row["slices"])): float(row["dice"]) for row in lines}
    rows = []
    for order, other in (*((order, "random") for order in ORDERS[1:]), ("spread", "turns")):
        seeds = sorted({seed for one, seed, _ in dice if one == order and (other, seed, ROUNDS[-1]) in dice})
        each = [[dice[order, seed, n] - dice[other, seed, n] for n in ROUNDS[1:]] for seed in seeds]
        if len(seeds) > 1:
            means = np.mean(each, axis=1)
            half = scipy.stats.t.ppf(0.975, len(seeds) - 1) * scipy.stats.sem(means)
            steps = [f"{value:+.1f}" for value in np.mean(each, 0)]
            by_seed = " / ".join(f"{value:+.1f}" for value in means)
            rows.append([f"{order} − {other}", *steps, f"{means.mean():+.1f} ({by_seed})", f"± {half:.1f}"])
    return markdown_table(("orders", *(f"{n} slices" for n in ROUNDS[1:]), "mean (each seed)", "95 %"), rows)


def summary(lines: Sequence[dict]) -> str:
    """Dice of every order, a column for each number of slices: mean of the seeds (each of them)."""
    rows = []
    for order in ORDERS:
        found = [
            [float(row["dice"]) for row in lines if (row["order"], int(row["slices"])) == (order, count)]
            for count in ROUNDS
        ]
        if any(found):
            each = [" / ".join(f"{value:.1f}" for value in values) for values in found]
            rows.append([order, *(f"{np.mean(v):.1f} ({e})" if v else "" for v, e in zip(found, each))])
    return markdown_table(("order", *(f"{count} slices" for count in ROUNDS)), rows)


def chart(lines: Sequence[dict], path: Path) -> None:
    """Dice against the number of annotated slices: the mean of the seeds, and every seed as a point."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    words = {
        "random": "random order",
        "turns": "random order, cases in turn (the page)",
        "unsure": "least sure slice of all cases",
        "spread": "least sure slice, cases in turn",
        "gaps": "middle of the longest gap, cases in turn",
    }
    figure, axes = plt.subplots(figsize=(6.4, 4))
    for order in ORDERS:
        rows = [row for row in lines if row["order"] == order]
        if not rows:
            continue
        counts = sorted({int(row["slices"]) for row in rows})
        means = [np.mean([float(row["dice"]) for row in rows if int(row["slices"]) == count]) for count in counts]
        [line] = axes.plot(counts, means, label=words[order])
        axes.plot(
            [int(row["slices"]) for row in rows],
            [float(row["dice"]) for row in rows],
            "o",
            markersize=3,
            color=line.get_color(),
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(ROUNDS, list(map(str, ROUNDS)))
    axes.set_xlabel("slices with strokes")
    axes.set_ylabel("Dice of held-out patients, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    with atomic_file(path) as partial:
        figure.savefig(partial, format="png", dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="acdc")
    parser.add_argument("--split", default="cv5")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--runs", type=Path, default=Path("runs/annotator"))
    parser.add_argument("--results", type=Path, default=RESULTS / "annotator")
    given = parser.parse_args()
    prepare_cpu()
    dataset, table = read_dataset(given.datasets / given.data), given.results / f"{given.data}.csv"
    for seed in given.seeds:
        for order in given.orders:
            began = time.monotonic()
            made = study(dataset, given.split, seed, order, given.runs / given.data)
            others = [row for row in read_csv(table) if (row["seed"], row["order"]) != (str(seed), order)]
            lines = sorted(
                [*others, *made], key=lambda row: (int(row["seed"]), ORDERS.index(row["order"]), int(row["slices"]))
            )
            write_csv(table, lines, COLUMNS)
            chart(lines, table.with_suffix(".png"))
            about = f"Made by `python benchmarks/studies/annotator.py` from {table.name}. Mean of the seeds, and each."
            gained = "How much better one order is than another, in points, and the 95 % interval over the seeds."
            title = f"# Orders of slices, {given.data}"
            write_page(table.with_suffix(".md"), title, about, summary(lines), gained, gains(lines))
            print(f"seed {seed}, {order}: {(time.monotonic() - began) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
