"""Which augmentation helps on a pathology that training never saw, judged by what the annotator drew.

python benchmarks/studies/left_out.py [--only VARIANT ...] [--groups 0 1]

ACDC's folds of `cv5` are its five pathologies. Every variant is the preset best with its augmentation and 2000
iterations. It is trained once for each of GROUPS, on three pathologies. The two that are left out judge it, as in
choose.py: by strokes, enclosed background and a random walker from both. What pathology 0 says of such a run has seen
nothing of pathology 1, on which fold 1 tests, and so on. Dense masks are reported and choose nothing. Variants that
were trained are only measured. It writes best/left-out.csv and best/left-out.md.
"""

import argparse
import json
import math
from pathlib import Path

import choose
import numpy as np
import torch
import torch.nn.functional as F
from common import RESULTS, markdown_table, put_line, slug, with_split, write_page
from torch import Tensor

import scribbleseg as ss
from scribbleseg.core.device import prepare_cpu
from scribbleseg.core.labels import UNLABELED
from scribbleseg.training.augment import patch_affine, random_affine, random_intensity, upright_affine, warp
from scribbleseg.training.train import resume

VARIANTS = {  # name → augmentation
    "papers": "papers",
    "papers, scales": "left_out:scaled",
    "papers, bulges": "left_out:bulged",
    "papers, stretches": "left_out:turned",
    "papers, stretches, grey values": "left_out:grey",
    "stretched": "left_out:stretched",
}
GROUPS = ((0, 1), (3, 4))  # pathologies that are left out together
COLUMNS = ("variant", "left_out", "judged_by", *choose.COLUMNS[1:])
SHOWN = ("variant", "left_out", "judged_by", *choose.SHOWN[1:])
HEAD = ("variant", "left out", "judged by", *choose.HEAD[1:])
JUDGED = ("cross_entropy", "dice_labelled", "dice_walker", "dice_dense")
MEANS = ("variant", "judged by", "cross-entropy", "Dice over labelled pixels", "with the walker", "dense masks")
ABOUT = (
    "Made by `python benchmarks/studies/left_out.py`; numbers, commits and machines in left-out.csv. ACDC, preset "
    "`best` with 2000 iterations, one seed. Pathologies are the folds of `cv5`: 0 dilated, 1 hypertrophic, 2 infarct, "
    "3 normal, 4 abnormal right ventricle. Two are left out of the training and judge it by strokes, enclosed "
    "background and a random walker from both. Dense masks choose nothing. papers: turns and flips. stretched: "
    "rotations, shifts and stretches. The rows were trained with the same augmentations in another file, before this "
    "script was there."
)


def scaled(image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The papers' turns and flips, and a scale that is log-uniform in .7 to 1.4."""
    turn, scale = random_affine(len(image), image.device), patch_affine(len(image), image.device, 0, (0.7, 1.4))
    return warp(image, labels, torch.cat([turn[:, :, :2] @ scale, turn[:, :, 2:]], 2))


def bulged(image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and one place of each slice is bulged or pinched: x ← c + (x − c)(1 + a exp(−|x − c|² / 2s²)).

    In half sides: c in ±.5 along both axes, s in .2 to .5, a in ±.5, all uniform.
    """
    turn, scale = random_affine(len(image), image.device), patch_affine(len(image), image.device, 0, (0.7, 1.4))
    matrix = torch.cat([turn[:, :, :2] @ scale, turn[:, :, 2:]], 2)
    grid = F.affine_grid(matrix, list(image.shape), align_corners=False)
    uniform = torch.rand(4, len(image), 1, 1, 1, device=image.device)
    centre, spread, strength = torch.cat([uniform[0], uniform[1]], 3) - 0.5, 0.2 + 0.3 * uniform[2], uniform[3] - 0.5
    away = grid - centre
    grid = centre + away * (1 + strength * torch.exp(-(away**2).sum(3, keepdim=True) / (2 * spread**2)))
    image = F.grid_sample(image, grid, align_corners=False)
    found = F.grid_sample((labels - UNLABELED).float(), grid, mode="nearest", align_corners=False)
    return image, found.long() + UNLABELED


def turned(image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The papers' turns and flips, and stretches."""
    turn = random_affine(len(image), image.device)
    stretch = stretches(len(image), image.device)
    return warp(image, labels, torch.cat([turn[:, :, :2] @ stretch, turn[:, :, 2:]], 2))


def grey(image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same with other grey values, as `upright` has them."""
    image, labels = turned(image, labels)
    return random_intensity(image), labels


def left_out(data: Path, target: Path) -> tuple[Path, list[list[str]]]:
    """The data set with a split whose folds leave out GROUPS; and the cases of each pathology."""
    folds = json.loads((data / "splits" / "cv5.json").read_text(encoding="utf-8"))
    cases = [sorted(fold["test"]) for fold in folds]
    split = []
    for group in GROUPS:
        out = sorted(case for number in group for case in cases[number])
        rest = sorted(case for number, some in enumerate(cases) if number not in group for case in some)
        split.append({"name": f"without {group}", "train": rest, "val": out, "test": []})
    return with_split(data, target, "left-out", split), cases


def train(name: str, data: Path, group: int, run: Path) -> None:
    """Train a variant, or carry it on."""
    augmentation = VARIANTS[name]
    if (run / "config.json").is_file():
        resume(run, augmentation=augmentation if ":" in augmentation else None)
        return
    ss.train(data, run, preset="best", iterations=2000, augmentation=augmentation, split="left-out", fold=group, seed=0)


def place(row: dict) -> tuple[int, str, str]:
    """Where a line stands in the table."""
    return list(VARIANTS).index(row["variant"]), row["left_out"], str(row["judged_by"])


def stretched(image: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations and shifts of `upright`, and stretches; no turns, no flips, grey values as they are."""
    turn = upright_affine(len(image), image.device, scales=(1, 1))
    stretch = stretches(len(image), image.device)
    return warp(image, labels, torch.cat([turn[:, :, :2] @ stretch, turn[:, :, 2:]], 2))


def stretches(count: int, device: torch.device, most: float = 1.4) -> Tensor:
    """Stretches along two perpendicular axes of any direction, log-uniform in 1 / most to most: [count, 2, 2]."""
    uniform = torch.rand(3, count, device=device)
    one, other = ((2 * uniform[:2] - 1) * math.log(most)).exp()
    angle = uniform[2] * math.pi
    cos, sin = angle.cos(), angle.sin()
    rest = (one - other) * cos * sin
    return torch.stack([one * cos**2 + other * sin**2, rest, rest, one * sin**2 + other * cos**2], 1).view(count, 2, 2)


def means(lines: list[dict]) -> list[list[str]]:
    """Of each variant the means over the pathologies that judged it."""
    rows = []
    for variant in VARIANTS:
        own = [line for line in lines if line["variant"] == variant]
        if own:
            values = [np.mean([float(line[key]) for line in own]) for key in JUDGED]
            judges = ", ".join(str(line["judged_by"]) for line in own)
            rows.append([variant, judges, f"{values[0]:.3f}", *(f"{value:.1f}" for value in values[1:])])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--groups", nargs="+", type=int, choices=range(len(GROUPS)), default=list(range(len(GROUPS))))
    parser.add_argument("--data", type=Path, default=Path("datasets/acdc"))
    parser.add_argument("--runs", type=Path, default=Path("runs/left-out"))
    parser.add_argument("--results", type=Path, default=RESULTS / "best")
    given = parser.parse_args()
    prepare_cpu()
    data, cases = left_out(given.data, given.runs / given.data.name)
    for number in given.groups:
        for name in given.only:
            run = given.runs / f"{slug(name)}-{number}"
            train(name, data, number, run)
            for pathology in GROUPS[number]:
                line = choose.measure(name, data, run, cases[pathology])
                line |= {"left_out": " and ".join(map(str, GROUPS[number])), "judged_by": pathology}
                lines = put_line(given.results / "left-out.csv", line, place, COLUMNS)
    rows = [[row[key] for key in SHOWN] for row in lines]
    tables = (markdown_table(MEANS, means(lines)), "## One by one", markdown_table(HEAD, rows))
    write_page(given.results / "left-out.md", "# A pathology left out", ABOUT, *tables)


if __name__ == "__main__":
    main()
