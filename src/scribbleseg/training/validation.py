"""Dice on the validation cases of a fold, at the network's resolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.console import say
from ..core.errors import InputError
from ..core.labels import UNLABELED
from ..data.case import load_volume
from ..data.dataset import Dataset
from ..data.preparation import network_shape, resample_image, resample_label, resize_image, resize_label
from .machine import Machine
from .plan import Plan


class Validation:
    """The slices of each validation case, image [D, channels, H, W] and truth [D, H, W], as the network sees them."""

    def __init__(self, cases: Sequence[tuple[Tensor, Tensor]], classes: Sequence[str]):
        self.cases, self.classes = cases, classes

    def dice(self, network: nn.Module, machine: Machine) -> dict[str, float]:
        """Foreground class → mean Dice over the cases that hold it; nan where none does."""
        cases = validation_dice(network, self.cases, len(self.classes), machine)
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
    cases = [_prepared(dataset, plan, name) for name in names]
    if plan.val_on_scribbles:
        say(
            "no validation case has a dense mask: Dice is computed on their scribbled pixels only "
            "and says nothing about pixels where nothing was drawn"
        )
    known = [(image, truth) for image, truth in cases if truth is not None]
    if not known:
        raise InputError(
            f"{dataset.folder}: no validation case has a mask in labelsTr_dense any more. "
            "Put the masks back, or begin a new run."
        )
    if not any(((truth > 0) & (truth != UNLABELED)).any() for _, truth in known):
        raise InputError(
            f"{dataset.folder}: no validation case has foreground in its mask or scribble. "
            "Draw some, or validate on other cases."
        )
    return Validation(known, plan.classes)


def _prepared(dataset: Dataset, plan: Plan, name: str) -> tuple[Tensor, Tensor | None]:
    """The slices of a case, and its dense mask (its scribble, if the plan validates on scribbles) on their grid."""
    volume = load_volume(dataset, dataset.case(name), plan.fitted)
    truth = volume.scribble if plan.val_on_scribbles else volume.truth
    if plan.preparation == "slices":
        return resize_image(volume.image, plan.size), None if truth is None else resize_label(truth, plan.size)
    shape = network_shape(volume.image.shape[2:], dataset.spacing_of(volume.grid), plan.fitted.pixel)
    image = resample_image(volume.image, shape)
    below, right = (-side % 16 for side in shape)
    image = F.pad(image, (0, right, 0, below))
    if truth is None:
        return image, None
    return image, F.pad(resample_label(truth, shape), (0, right, 0, below), value=UNLABELED)


@torch.no_grad()
def validation_dice(
    network: nn.Module, cases: Sequence[tuple[Tensor, Tensor]], classes: int, machine: Machine
) -> Tensor:
    """Dice per case and foreground class over the pixels whose truth is known, float64 [cases, classes − 1].

    nan where a case lacks the class. The network is in eval mode meanwhile.
    """
    sums = torch.zeros(len(cases), 3, classes, dtype=torch.float64)
    training = network.training
    network.eval()
    for (image, truth), row in zip(cases, sums):
        for some, known in zip(image.split(32), truth.split(32)):
            with machine.autocast:
                found = network(some.to(machine.device, memory_format=torch.channels_last)).argmax(1).cpu()
            drawn = known != UNLABELED
            for values, (label, where) in zip(row, ((known, drawn & (found == known)), (known, drawn), (found, drawn))):
                values += torch.bincount(label[where].long(), minlength=classes)
    network.train(training)
    overlap, true, found = sums[:, :, 1:].unbind(1)
    return torch.where(true > 0, 2 * overlap / (true + found), torch.nan)
