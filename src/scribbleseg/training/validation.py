"""Dice on the validation cases of a fold, at the network's resolution."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..core.console import say
from ..core.errors import InputError, counted
from ..core.labels import UNLABELED
from ..data.case import Locate
from ..data.dataset import Dataset
from ..data.reading import read_judged
from ..networks.windows import read
from .batches import layout_of
from .machine import Machine
from .plan import Plan


class Validation:
    """The validation cases as the network sees them: image as of `Raster.image`, and truth [D, H, W]."""

    def __init__(
        self,
        cases: Sequence[tuple[Tensor, Tensor]],
        classes: Sequence[str],
        window: tuple[int, ...],
        missed: Tensor | None = None,
    ):
        self.cases, self.classes, self.window, self.missed = cases, classes, window, missed

    def dice(self, network: nn.Module, machine: Machine) -> dict[str, float]:
        """Foreground class → mean Dice over the cases that hold it; nan where none does."""
        cases = validation_dice(network, self.cases, len(self.classes), self.window, machine, self.missed)
        return dict(zip(self.classes[1:], cases.nanmean(0).tolist()))


def read_validation(dataset: Dataset, plan: Plan, locate: Locate | None = None) -> Validation:
    """Read the validation cases of a plan and tell the user what they are judged on. locate: where slices are cut.

    Raises InputError when the masks that the plan counted on are gone, and when none holds foreground.
    """
    train, names = plan.fold.train, plan.fold.val
    judged = sum(dataset.case(name).truth is not None for name in names)
    scored = ""
    if not plan.val_on_scribbles and judged not in (0, len(names)):
        scored = f"; Dice is computed on the {judged} with a dense mask"
    shown = f"{', '.join(names[:3])}{', …' * (len(names) > 3)}"
    say(f"validation: {len(names)} of {counted(len(train) + len(names), 'case')} ({shown}){scored}")
    cases = [read_judged(dataset, name, plan.raster, plan.fitted, plan.val_on_scribbles, locate) for name in names]
    if plan.val_on_scribbles:
        say(
            "no validation case has a dense mask: Dice is computed on their scribbled pixels only "
            "and says nothing about pixels where nothing was drawn"
        )
    known = [(image, truth) for image, truth, _ in cases if truth is not None]
    missed = torch.stack([outside for _, truth, outside in cases if truth is not None] or [torch.zeros(0)])
    if not known:
        raise InputError(
            f"{dataset.folder}: no validation case has a mask in labelsTr_dense any more. "
            "Put the masks back, or begin a new run."
        )
    if not any(((truth > 0) & (truth != UNLABELED)).any() for _, truth in known) and not missed[:, 1:].any():
        raise InputError(
            f"{dataset.folder}: no validation case has foreground in its mask or scribble. "
            "Draw some, or validate on other cases."
        )
    return Validation(known, plan.classes, plan.patch, missed)


@torch.no_grad()
def validation_dice(
    network: nn.Module,
    cases: Sequence[tuple[Tensor, Tensor]],
    classes: int,
    window: tuple[int, ...],
    machine: Machine,
    missed: Tensor | None = None,
) -> Tensor:
    """Dice per case and foreground class over the pixels whose truth is known, float64 [cases, classes − 1].

    nan where a case lacks the class. missed: pixels of each class that are true and lie outside of the images, float64
    [cases, classes]. window: the shape of what the network is trained on. The network is in eval mode
    meanwhile.
    """
    sums = torch.zeros(len(cases), 3, classes, dtype=torch.float64)
    training, layout = network.training, layout_of(len(window))
    network.eval()

    def score(image: Tensor) -> Tensor:
        with machine.autocast:
            logits: Tensor = network(image.to(machine.device, memory_format=layout))
        return logits

    for (image, truth), row in zip(cases, sums):
        known = iter(truth.split(32)) if len(window) == 2 else iter([truth])
        for some in image.split(32):
            labels = [part.argmax(1).cpu() for part in read(score, some, window)]
            found, label = torch.cat(labels, 1).flatten(), next(known).flatten()
            drawn = label != UNLABELED
            for values, (pixels, where) in zip(
                row, ((label, drawn & (found == label)), (label, drawn), (found, drawn))
            ):
                values += torch.bincount(pixels[where].long(), minlength=classes)
    network.train(training)
    overlap, true, found = sums[:, :, 1:].unbind(1)
    true = true if missed is None else true + missed[:, 1:]
    return torch.where(true > 0, 2 * overlap / (true + found), torch.nan)
