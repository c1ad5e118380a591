"""What the training cases decide about a plan: preparation, distance of slices, size and length where rings are cut."""

from dataclasses import dataclass, replace

import torch

from ..data.case import drawn_cases, read_scribble
from ..data.dataset import Dataset
from ..data.fitting import fit
from ..data.voxels import Voxels
from ..methods import method_class
from .dims import between_slices, depth_multiple, most_voxels, patch_of_volume, slice_side
from .plan import Plan


@dataclass(frozen=True)
class Undecided:
    """What the settings leave to the training cases; on, off and auto as `data.fitting.fit` reads them."""

    enclosure: str
    locate: str
    by_data: bool
    in_rings: tuple[int, int] | None  # size and iterations where slices are cut to rings; None: those of the plan


def fit_plan(plan: Plan, dataset: Dataset, left: Undecided) -> Plan:
    """The plan with what the training cases decide. Reads files; raises what `fit` raises."""
    fitted = fit(
        dataset,
        plan.fold.train,
        patch=plan.size if plan.preparation == "patches" else 0,
        enclosure=left.enclosure,
        locate=left.locate,
        by_data=left.by_data,
        learns_from_bare=plan.dims == 3 or method_class(plan.method).learns_from_bare,
    )
    plan = replace(plan, fitted=fitted)
    if fitted.locate and left.in_rings is not None:
        size, iterations = left.in_rings
        plan = replace(plan, size=size, recipe=replace(plan.recipe, iterations=iterations))
    return replace(plan, between=_slice_distance(dataset, plan)) if plan.dims == 3 else plan


def _slice_distance(dataset: Dataset, plan: Plan) -> float:
    """How far apart slices are for a 3-D network: `between_slices` of the training cases."""
    if plan.fitted.unit != "mm":
        return plan.fitted.pixel
    drawn = drawn_cases(dataset, plan.fold.train)
    grids = [read_scribble(dataset, dataset.case(name), plan.fitted.plane)[1] for name in drawn]
    return between_slices([grid.spacing_mm[0] for grid in grids], plan.fitted.pixel)


def choose_patch(plan: Plan, voxels: Voxels, device: torch.device, side: int | None) -> Plan:
    """The plan with the shape of its patches, as `dims` finds it for these items; `side` is what the user wants."""
    shapes = voxels.shape.cpu()
    if plan.dims == 2:
        return replace(plan, size=slice_side(shapes, plan.size) if side is None else side)
    multiple = depth_multiple(plan.network, plan.anisotropy)
    depth, side = patch_of_volume(shapes, plan.anisotropy, most_voxels(device), multiple, side)
    return replace(plan, depth=depth, size=side)
