"""What the preset best reaches in a second round, with soft labels from models that did not see the patient.

python benchmarks/studies/second_round.py [--only acdc-cv5-0 ...]

The training patients of each place, a fold of a split, are parted into two halves, and the preset best is trained on
each. What the model of one half finds in the other is the soft label q of the second training, which is the preset
best as well, but in place of the labels of half-time and of r it has the cross-entropy of q, weighted by how sure q is,
over the pixels that are neither drawn nor enclosed. The weight is 1 from the first step on. The models of the halves
see the cut that the second training makes, its grey values from 0 to 1.
What second-round.csv has is left out, and a run that was cut off carries on. Writes best/second-round-PLACE.csv (the
scores of each case), best/second-round.csv and best/second-round.md, which has the preset's own scores beside them.
"""

import argparse
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, findable, scribbleseg, with_split
from dense import beside_the_preset
from presets import PLACES, make

from scribbleseg.data.case import Volume
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.voxels import Batch
from scribbleseg.inference.models import load_models
from scribbleseg.inference.probabilities import segment
from scribbleseg.losses.enclosure import enclosure_term, known
from scribbleseg.losses.supervised import certain_cross_entropy, partial_cross_entropy
from scribbleseg.methods.corral import Corral

HALVES = "SECOND_ROUND_HALVES"  # environment variable: the folder of the two runs
STEPS = 200  # q is kept in steps of 1 / STEPS
HEAD = ("cases of", "second round: Dice by class", "Dice", "HD95", "one round: Dice by class", "Dice", "HD95")
ABOUT = (
    "Made by `python benchmarks/studies/second_round.py`; commits, machines and minutes (of the second training alone) "
    "in second-round.csv, scores of each case in the files beside it. Test cases, one seed. One round: the preset "
    "`best` with the same seed. The two models of the first round saw half of the training patients each."
)


class SecondRound(Corral):
    """L = pCE(strokes) + w_e CE(enclosed background) + mean_U c CE(q), q from the half that did not see the patient."""

    def __init__(self, network: nn.Module):
        super().__init__(network)
        self.halves = load_models(sorted(Path(os.environ[HALVES]).glob("half-*")), "last", torch.device("cpu"))

    def targets(self, volume: Volume) -> dict[str, np.ndarray]:
        [unseen] = [half for half in self.halves if volume.case.id not in half.plan.fold.train]
        cpu = torch.device("cpu")
        probs = segment([unseen], [volume.image], volume.grid.spacing_mm, cpu, probabilities=True).probs
        assert probs is not None
        return super().targets(volume) | {f"q{k}": (STEPS * q).round().astype(np.uint8) for k, q in enumerate(probs)}

    def losses(self, batch: Batch, progress: Tensor) -> dict[str, Tensor]:
        logits = self.network(batch.image)
        # outside of the slice all are UNLABELED: every class is as likely there, so the weight is 0
        q = torch.stack([batch.maps[f"q{k}"] for k in range(logits.shape[1])], 1).float()
        return {
            "pce": partial_cross_entropy(logits, batch.label),
            "second": certain_cross_entropy(logits, q / q.sum(1, keepdim=True), known(batch)),
        } | enclosure_term(logits, batch, self.enclosed)


def halves(datasets: Path, name: str, runs: Path) -> Path:
    """The folder of the two runs of the first round, trained if they are not there."""
    data, split, fold = PLACES[name]
    dataset = read_dataset(datasets / data)
    train = dataset.fold(split, fold).train
    patients = sorted({dataset.patient(case) for case in train})
    folds = []
    for half in (0, 1):
        part = {*patients[half::2]}
        cases = [case for case in train if dataset.patient(case) in part]
        folds.append({"name": f"half {half}", "train": cases, "val": [], "test": []})
    folder = runs / name
    made = with_split(datasets / data, folder / "data", "halves", folds)
    for half in (0, 1):
        run = folder / f"half-{half}"
        if (run / "config.json").is_file():
            scribbleseg(["train", run, "--resume"])
        else:
            scribbleseg(["train", made, run, "--preset", "best", "--split", "halves", "--fold", half])
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PLACES, default=list(PLACES), metavar="PLACE")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--runs", type=Path, default=Path("runs/second-round"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    findable()

    def trained(name: str, scores: Path) -> dict:
        os.environ[HALVES] = str(halves(given.datasets, name, given.runs).resolve())
        return make("best", name, 0, given.datasets, given.runs, scores, ("--method", "second_round:SecondRound"))

    beside_the_preset("second-round", given.only, given.results / "best", trained, "# A second round", ABOUT, HEAD)


if __name__ == "__main__":
    main()
