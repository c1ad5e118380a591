"""Dice on the validation cases of a fold, at the network's resolution."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core.console import say
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..data.dataset import Dataset
from ..data.voxels import Slices
from .batches import build_slices
from .machine import Machine
from .plan import Plan


class Validation:
    """The slices of the validation cases, and which case (by position) each slice belongs to."""

    def __init__(self, slices: Slices, owner: Tensor, classes: Sequence[str]):
        self.slices, self.owner, self.classes = slices, owner, classes

    def dice(self, network: nn.Module, machine: Machine) -> dict[str, float]:
        """Foreground class → mean Dice over the cases that hold it; nan where none does."""
        cases = validation_dice(network, self.slices, self.owner, len(self.classes), machine)
        return dict(zip(self.classes[1:], cases.nanmean(0).tolist()))


def read_validation(dataset: Dataset, plan: Plan) -> Validation:
    """Read the validation cases of a plan and tell the user what they are judged on.

    Raises InputError when the masks that the plan counted on are gone, and when none holds foreground.
    """
    train, names = plan.fold.train, plan.fold.val
    judged = sum(dataset.case(name).truth is not None for name in names)
    scored = ""
    if not plan.val_on_scribbles and judged not in (0, len(names)):
        scored = f"; Dice is computed on the {judged} with a dense mask"
    shown = f"{', '.join(names[:3])}{', …' * (len(names) > 3)}"
    say(f"validation: {len(names)} of {len(train) + len(names)} cases ({shown}){scored}")
    slices, owner = build_slices(dataset, names, None, plan.size)
    if plan.val_on_scribbles:
        say(
            "no validation case has a dense mask: Dice is computed on their scribbled pixels only "
            "and says nothing about pixels where nothing was drawn"
        )
        slices = replace(slices, truth=slices.label)
    if slices.truth is None:
        raise InputError(
            f"{dataset.folder}: no validation case has a mask in labelsTr_dense any more. "
            "Put the masks back, or begin a new run."
        )
    if not ((slices.truth > 0) & (slices.truth != UNLABELED)).any():
        raise InputError(
            f"{dataset.folder}: no validation case has foreground in its mask or scribble. "
            "Draw some, or validate on other cases."
        )
    return Validation(slices, owner, plan.classes)


@torch.no_grad()
def validation_dice(network: nn.Module, slices: Slices, owner: Tensor, classes: int, machine: Machine) -> Tensor:
    """Dice per case and foreground class over the pixels whose truth is known, float64 [cases, classes − 1].

    nan where a case lacks the class. The network is in eval mode meanwhile.
    """
    assert slices.truth is not None
    cases = int(owner.max()) + 1
    sums = torch.zeros(3, cases * classes, dtype=torch.float64)
    training = network.training
    network.eval()
    for image, truth, case in zip(slices.image.split(32), slices.truth.split(32), owner.split(32)):
        with machine.autocast:
            found = network(image.to(machine.device, memory_format=torch.channels_last)).argmax(1).cpu()
        known = truth != UNLABELED
        truth, base = truth.long(), (case * classes)[:, None, None]
        for row, (value, where) in enumerate(((truth, known & (found == truth)), (truth, known), (found, known))):
            sums[row] += torch.bincount((base + value)[where], minlength=cases * classes)
    network.train(training)
    overlap, true, found = sums.view(3, cases, classes)[:, :, 1:]
    return torch.where(true > 0, 2 * overlap / (true + found), torch.nan)
