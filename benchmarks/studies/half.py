"""What half-precision weights, and batch norm folded into convolutions, change in a prediction.

python benchmarks/studies/half.py RUN [RUN ...] [--cases 8] [--numbers float32 bfloat16]

For held-out cases of each run the script predicts with the last weights as they are, with them rounded to half
precision (as `papers.py` and `results.py` keep them), and with every batch norm folded into the convolution before it.
It writes half.csv and half.md: mean Dice, its change, and the share of voxels with the same class.
"""

import argparse
import copy
import dataclasses
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from scribbleseg.core.device import prepare_cpu
from scribbleseg.data.case import load_image
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import read_label
from scribbleseg.evaluation.metrics import dice
from scribbleseg.inference.models import Model, folded, load_models, load_network
from scribbleseg.inference.probabilities import segment

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, write_csv, write_page

COLUMNS = ("run", "weights", "numbers", "cases", "dice", "change", "agreement", "foreground_agreement", "seconds")
HEAD = ("run", "weights", "numbers", "cases", "Dice", "change", "same class, %", "of foreground, %", "s per volume")


def halved(network: nn.Module) -> nn.Module:
    """A copy whose floating-point weights and buffers went through half precision."""
    network = copy.deepcopy(network)
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half())
    return network


def measure(model: Model, datasets: Path, cases: int, numbers: list[str]) -> list[dict]:
    """A line per number format and kind of weights, over the first `cases` held-out cases of the run's fold."""
    fold, device = model.plan.fold, torch.device("cpu")
    dataset = read_dataset(datasets / Path(model.settings.dataset).name)
    held = [dataset.cases[name] for name in (fold.test or fold.val)[:cases]]
    plain = load_network(model.run, model.plan).to(memory_format=torch.channels_last)
    kinds = {"as they are": plain, "half precision": halved(plain), "norm folded": folded(copy.deepcopy(plain))}
    lines = []
    for dtype in (getattr(torch, name) for name in numbers):
        found: dict[str, list] = {kind: [] for kind in kinds}
        seconds = dict.fromkeys(kinds, 0.0)
        for case in held:
            image, grid = load_image(case.images)
            for kind, network in kinds.items():
                began = time.perf_counter()
                one = dataclasses.replace(model, network=network, dtype=dtype)
                label = segment([one], image, grid.spacing_mm[1:], device).label
                seconds[kind] += time.perf_counter() - began
                truth, _ = read_label(case.truth, grid.order)
                scores = [dice(label == c, truth == c) for c in range(1, len(model.plan.classes))]
                found[kind].append((np.nanmean(scores), label))
        score_before = np.mean([score for score, _ in found["as they are"]])
        for kind, pairs in found.items():
            together = [(label, first) for (_, label), (_, first) in zip(pairs, found["as they are"])]
            same = np.concatenate([(label == first).ravel() for label, first in together])
            either = np.concatenate([((label > 0) | (first > 0)).ravel() for label, first in together])
            score = np.mean([score for score, _ in pairs])
            lines.append(
                {
                    "run": "/".join(model.run.parts[-2:]),
                    "weights": kind,
                    "numbers": str(dtype).removeprefix("torch."),
                    "cases": len(held),
                    "dice": f"{100 * score:.3f}",
                    "change": f"{100 * (score - score_before):+.3f}",
                    "agreement": f"{100 * same.mean():.4f}",
                    "foreground_agreement": f"{100 * same[either].mean():.3f}",
                    "seconds": f"{seconds[kind] / len(held):.2f}",
                }
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--numbers", nargs="+", choices=("float32", "bfloat16"), default=["float32"])
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    prepare_cpu()
    lines = []
    for run in given.runs:
        lines += measure(load_models([run], "last", torch.device("cpu"))[0], given.datasets, given.cases, given.numbers)
    write_csv(given.results / "half.csv", lines, COLUMNS)
    about = (
        "Made by `python benchmarks/studies/half.py RUN ...`; numbers in half.csv. Same class: of all voxels, and of "
        "those that either prediction calls foreground. Seconds with other work on the machine."
    )
    table = markdown_table(HEAD, [[line[key] for key in COLUMNS] for line in lines])
    write_page(given.results / "half.md", "# Half-precision weights and folded batch norm", about, table)
    print(table)


if __name__ == "__main__":
    main()
