"""What the training cases decide about a plan: preparation, distance of slices, size and length where rings are cut."""

from dataclasses import dataclass, replace

from ..core.errors import InputError
from ..data.case import drawn_grids
from ..data.dataset import Dataset
from ..data.fitting import between_slices, fit
from .plan import Plan


@dataclass(frozen=True)
class Undecided:
    """What the settings leave to the training cases; on, off and auto as `data.fitting.fit` reads them."""

    enclosure: str
    locate: str
    by_data: bool
    learns_from_bare: bool
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
        learns_from_bare=plan.dims == 3 or left.learns_from_bare,
    )
    if plan.preparation == "patches" and not fitted.pixel:
        raise InputError(f"{dataset.folder}: no training case has a stroke, around which patches lie. Draw some.")
    plan = replace(plan, fitted=fitted)
    if fitted.locate and left.in_rings is not None:
        size, iterations = left.in_rings
        plan = replace(plan, size=size, recipe=replace(plan.recipe, iterations=iterations))
    if plan.dims == 3:
        grids = drawn_grids(dataset, plan.fold.train, fitted.plane) if fitted.unit == "mm" else []
        between = between_slices([grid.spacing_mm[0] for grid in grids], fitted.pixel) if grids else fitted.pixel
        plan = replace(plan, between=between)
    return plan
