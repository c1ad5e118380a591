"""Choose settings of the presets on training patients, judged by what the annotator drew.

python benchmarks/studies/choose.py [--data acdc --split cv5] [--only NAME ...] [--runs runs/choose]

Every variant below is the preset fast with its changes, or another preset, trained on the training side of fold 0
less 15 % of the patients. Those patients' strokes judge it by the mean cross-entropy over the classes (no probability
counts as less than .0001), and strokes and enclosed background by Dice over the labelled pixels, nine tenths of which
are enclosed, and by Dice against what a random walker makes of both, which has outlines. Dice
against their dense masks, where there are any, is reported and chooses nothing. Variants that were trained are only
measured. It writes fast/choose.csv and fast/choose.md. See docs/presets.md.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import scribbleseg as ss
from scribbleseg.core.device import prepare_cpu
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import load_volume
from scribbleseg.data.enclosure import enclosure
from scribbleseg.data.layout import read_dataset
from scribbleseg.evaluation.metrics import dice
from scribbleseg.inference.models import load_models
from scribbleseg.inference.probabilities import segment
from scribbleseg.inference.scan import read_scan
from scribbleseg.methods.walker import walker_probs
from scribbleseg.training.train import resume

sys.path.append(str(Path(__file__).parents[1]))

from annotator import sum_of_minutes
from common import RESULTS, markdown_table, put_line, write_page

VARIANTS: dict[str, dict] = {  # name → settings of the training
    "papers": {"preparation": "slices", "augmentation": "papers"},
    "upright": {"preparation": "slices"},
    "half-time": {"preparation": "slices", "set": ("taught=1",)},
    "rings": {},
    "rings-96": {"size": 96, "iterations": 1600},
    "longer": {"iterations": 3000},
    "longer, half-time": {"iterations": 3000, "set": ("taught=1",)},
    "longer, lr .003": {"iterations": 3000, "lr": 0.003},
    "longer, papers": {"iterations": 3000, "augmentation": "papers"},
    "best": {"preset": "best"},
    "best, β 800": {"preset": "best", "set": ("beta=800",)},
    "best, 112 pixels": {"preset": "best", "size": 112},
    "best, 12000 iterations": {"preset": "best", "iterations": 12000},
    "best, taught 0": {"preset": "best", "set": ("taught=0",)},
    "best, soft": {"preset": "best", "set": ("taught=0", "soft=1")},
    "best, both": {"preset": "best", "set": ("taught=1", "soft=1")},
    "short": {"iterations": 900},
    "short, cosine": {"iterations": 900, "schedule": "cosine"},
    "short, Adam": {"iterations": 900, "optimizer": "adam", "schedule": "constant"},
    "short, SGD": {"iterations": 900, "optimizer": "sgd", "lr": 0.03, "schedule": "poly"},
    "short, 24 slices": {"iterations": 450, "batch": 24},
}
BETA = 200.0  # of the random walker, as corral has it
COLUMNS = (
    *("variant", "data", "seed", "commit", "device", "minutes", "cases", "cross_entropy", "background"),
    *("foreground", "dice_labelled", "far", "dice_dense", "dice_near", "dice_walker"),
)
SHOWN = ("variant", "cross_entropy", "background", "foreground", *COLUMNS[10:], "minutes")
HEAD = (
    *("variant", "cross-entropy", "of background strokes", "of foreground strokes", "Dice over labelled pixels"),
    *("foreground that is enclosed background, %", "Dice, dense masks", "the same without what is far"),
    *("Dice with the walker", "minutes"),
)


def train(name: str, data: Path, split: str, run: Path, seed: int) -> None:
    """Train a variant, or carry it on."""
    if (run / "config.json").is_file():
        resume(run)
        return
    ss.train(data, run, split=split, val_share=0.15, seed=seed, **{"preset": "fast"} | VARIANTS[name])


def measure(name: str, data: Path, run: Path, cases: Sequence[str] | None = None) -> dict:
    """A line of the table: of these cases, or of those that the run held out for validation."""
    dataset, [model] = read_dataset(data), load_models([run], "last", torch.device("cpu"))
    fitted, classes = model.plan.fitted, range(len(model.plan.classes))
    cases = model.plan.fold.val if cases is None else cases
    found: dict[str, list] = {key: [] for key in ("entropy", "labelled", "far", "dense", "near", "walker")}
    for case in cases:
        volume = load_volume(dataset, dataset.case(case), dataclasses.replace(fitted, crop=False))
        scan = read_scan(dataset.case(case).images, [model])
        cut = segment([model], scan.images, scan.grid.spacing_mm, torch.device("cpu"), probabilities=True)
        whole = scan.placed(cut)
        label, probs = whole.label, whole.probs
        assert probs is not None
        enclosed = enclosure(volume.scribble, dataset.reach(volume.grid), fitted.enclosure) != UNLABELED
        known = np.where(enclosed, 0, volume.scribble)
        drawn = [-np.log(probs[c][volume.scribble == c].clip(1e-4)).mean() for c in classes]
        found["entropy"].append(drawn)
        judged = np.where(known == UNLABELED, 0, label)
        found["labelled"].append([dice(judged == c, known == c) for c in classes[1:]])
        drawn_on = (known != UNLABELED).any((1, 2)).nonzero()[0]
        walked = np.stack([walker_probs(volume.image[:, n], known[n], len(classes), BETA).argmax(0) for n in drawn_on])
        found["walker"].append([dice(label[drawn_on] == c, walked == c) for c in classes[1:]])
        found["far"].append((enclosed & (label > 0)).sum() / max((label > 0).sum(), 1))
        if volume.truth is not None:
            near = np.where(enclosed, 0, label)
            found["dense"].append([dice(label == c, volume.truth == c) for c in classes[1:]])
            found["near"].append([dice(near == c, volume.truth == c) for c in classes[1:]])
    entropy = np.nanmean(found["entropy"], 0)
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    line = {
        "variant": name,
        "data": data.name,
        "seed": model.settings.seed,
        "commit": environment["commit"],
        "device": environment["device"],
        "minutes": f"{sum_of_minutes(run):.1f}",
        "cases": len(cases),
        "cross_entropy": f"{entropy.mean():.4f}",
        "background": f"{entropy[0]:.4f}",
        "foreground": f"{entropy[1:].mean():.4f}",
    }
    for key in ("labelled", "dense", "near", "walker"):
        line[f"dice_{key}"] = f"{100 * np.nanmean(found[key]):.2f}" if found[key] else ""
    line["far"] = f"{100 * np.nanmean(found['far']):.2f}"
    return line


def place(row: dict) -> tuple[str, int, str]:
    """Where a line stands in the table."""
    return row["data"], list(VARIANTS).index(row["variant"]), str(row["seed"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="acdc")
    parser.add_argument("--split", default="cv5")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--runs", type=Path, default=Path("runs/choose"))
    parser.add_argument("--results", type=Path, default=RESULTS / "fast")
    given = parser.parse_args()
    prepare_cpu()
    data, table = given.datasets / given.data, given.results / "choose.csv"
    for name in given.only:
        run = given.runs / f"{given.data}-{name}-s{given.seed}"
        train(name, data, given.split, run, given.seed)
        line = measure(name, data, run)
        lines = put_line(table, line, place, COLUMNS)
        rows = [[row[key] for key in SHOWN] for row in lines]
        about = (
            "Made by `python benchmarks/studies/choose.py`; numbers, commits and machines in choose.csv. Fold 0's "
            "training patients, 15 % of them held out: their strokes and rings judge; dense masks choose nothing "
            "(docs/presets.md says what else was seen)."
        )
        write_page(given.results / "choose.md", "# Settings of the presets", about, markdown_table(HEAD, rows))


if __name__ == "__main__":
    main()
