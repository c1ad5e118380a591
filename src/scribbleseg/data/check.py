"""Report what is in a data set, and every problem in it."""

from collections.abc import Callable, Iterable

import numpy as np

from .. import config
from ..core.console import tell
from ..core.errors import InputError, counted, first_names
from ..core.labels import UNLABELED
from ..core.parallel import for_each
from .case import read_scribble
from .dataset import Dataset
from .enclosure import choose_rule, not_enclosed
from .fitting import find_plane
from .inspection import Found, inspect
from .layout import read_description, survey
from .nifti import AS_ITK, two_places
from .preparation import MOST_SCALE
from .volume import PICTURES, PLANES, Grid

MOST_OF_ALL = 0.8  # share of all pixels from which a class is too large for strokes
LEAST_BACKGROUND = 0.02  # share of the drawn pixels


def check(settings: config.Check, outlook: Callable[[Dataset], Iterable[str]] = lambda dataset: ()) -> bool:
    """Print what is in a data set, and a line for every problem. Return whether it can be used for training.

    outlook: lines about the training that would follow; asked only if there is no problem.

    A data set with a problem cannot be used. Problems are: a misnamed image, a channel that is missing or too many, an
    unreadable, constant or NaN image, a label that does not fit its image or dataset.json, no scribble at all, a class
    without scribbles in all cases or in a fold's training cases, and a split that leaks or names unknown cases. A data
    set with warnings can be used.
    """
    try:
        dataset, problems = survey(settings.dataset)
    except InputError as error:
        tell(f"problem: {error}\nnot usable")
        return False
    plane = _plane(dataset)
    train = for_each("checking", lambda case: inspect(dataset, case, plane), dataset.cases.values())
    tests = (
        for_each("checking imagesTs", lambda case: inspect(dataset, case, plane), dataset.tests.values())
        if dataset.tests
        else []
    )
    problems += [problem for found in (*train, *tests) for problem in found.problems]
    warnings: list[str] = []
    _describe_cases(dataset, train, tests, warnings)
    _describe_plane(dataset, plane, train, warnings)
    _describe_greys(dataset, train)
    _describe_scribbles(dataset, train, problems, warnings)
    _describe_splits(dataset, train, problems, warnings)
    for line in outlook(dataset) if not problems else ():
        tell(line)
    for kind, lines in (("warning", warnings), ("problem", problems)):
        for line in lines:
            tell(f"{kind}: {line}")
    tell("not usable" if problems else "usable")
    return not problems


def _plane(dataset: Dataset) -> str:
    """The plane that training would choose, from the scribbles that can be read."""

    def readable(name: str) -> bool:
        try:
            case = dataset.case(name)
            return case.scribble is not None and bool((read_scribble(dataset, case)[0] != UNLABELED).any())
        except InputError:
            return False

    return dataset.plane or find_plane(dataset, [name for name in dataset.cases if readable(name)])


def _describe_cases(dataset: Dataset, train: list[Found], tests: list[Found], warnings: list[str]) -> None:
    patients = len({dataset.patient(case) for case in dataset.cases})
    alone = " (no groups in dataset.json: each case counts as a patient)" * (
        not dataset.groups and not dataset.splits()
    )
    tell(
        f"{dataset.name}: {counted(len(train), 'case')} of {counted(patients, 'patient')}{alone}, "
        f"{len(tests)} in imagesTs; channels: {', '.join(dataset.channels)}"
    )
    warnings += dataset.left_out()
    said = read_description(dataset.folder / "dataset.json")[0].numTraining
    if said not in (None, len(train)):
        warnings.append(
            f"numTraining of dataset.json is {said}, and imagesTr has {counted(len(train), 'case')}. "
            "Correct it, or add the images that are missing; nnU-Net needs it to be right."
        )
    read = [found for found in (*train, *tests) if found.grid is not None]
    grids = [found.grid for found in read if found.grid is not None]
    if read:
        slices = [found.slices for found in read]
        rows, columns = zip(*(found.size for found in read), strict=True)
        tell(f"slices    {sum(slices)} in all, {_range(slices)} a case, of {_range(rows)} × {_range(columns)} pixels")
        spacing = np.array([grid.spacing_mm for grid in grids])
        unsized = [found.case for found, grid in zip(read, grids, strict=True) if grid.unit != "mm"]
        if dataset.spacing_unit == "mm" and unsized:
            tell(
                f"spacing   none in the files of {len(unsized)} of {counted(len(read), 'case')}: {first_names(unsized)}"
            )
        elif dataset.spacing_unit == "mm":
            tell(f"spacing   {_range(spacing[:, 0])} mm between slices, {_range(spacing[:, 1:].ravel())} mm in plane")
        else:
            tell(f"spacing   none in the files: distances are in {dataset.spacing_unit}")
            if sized := [found.case for found, sizes in zip(read, spacing, strict=True) if (sizes != 1).any()]:
                warnings.append(
                    f"{first_names(sized)}: the files say how large a voxel is, and dataset.json says "
                    '"spacing": "voxels". Training counts voxels, and `evaluate` mm. Remove "spacing" if the sizes are '
                    "right."
                )
        apart = np.abs(np.log(spacing / np.median(spacing, axis=0))).max(1) > np.log(MOST_SCALE)
        if apart.any() and dataset.spacing_unit == "mm":
            names = first_names([found.case for found, odd in zip(read, apart, strict=True) if odd])
            warnings.append(
                f"{names}: the voxel size is over {MOST_SCALE} times as large or as small as that of most cases. "
                "Is the unit of length right?"
            )
        twice = [found.case for found, grid in zip(read, grids, strict=True) if two_places(grid.header)]
        if twice:
            warnings.append(f"{first_names(twice)}: {AS_ITK}. Labels must lie at the same place.")
        single = [found.case for found in read if found.slices == 1]
        if single and dataset.file_ending.lower() not in PICTURES:
            warnings.append(f"{first_names(single)}: one slice only")
        tilted = [  # where strokes are flat, they say whether the slices are right: `_describe_plane`
            found.case for found, tilts in zip(read, _tilted(grids), strict=True) if tilts and found.flat is None
        ]
        if tilted:
            warnings.append(
                f"{first_names(tilted)}: the slices lie over 45° from those of the other cases. "
                "Slices are taken across the axis with the largest spacing. "
                "If that is not the plane in which you drew, write image and labels with that plane across the largest "
                "spacing. Resampling thin strokes loses some of them."
            )
    ungrouped = [case for case in dataset.groups if case not in dataset.cases and case not in dataset.tests]
    if ungrouped:
        warnings.append(
            f"groups of dataset.json names {first_names(ungrouped)}, for which there is no image. "
            "Correct or remove the name. A case that groups does not name counts as a patient of its own."
        )


def _describe_plane(dataset: Dataset, plane: str, train: list[Found], warnings: list[str]) -> None:
    why = "dataset.json says so" if dataset.plane else "the strokes are flat there"
    if plane != "spacing" or dataset.plane:
        tell(f"plane     {plane}: {why}")
    elsewhere = [
        found.case
        for found in train
        if found.grid is not None and found.flat is not None and found.flat != found.grid.across(plane)
    ]
    if elsewhere:
        here = "across the largest spacing" if plane == "spacing" else plane
        warnings.append(
            f"{first_names(elsewhere)}: the strokes are flatter in another plane than that of the slices ({here}). "
            f'Name the plane in dataset.json, such as "plane": "axial" (one of {", ".join(PLANES)}), or draw on the '
            "slices."
        )


def _describe_greys(dataset: Dataset, train: list[Found]) -> None:
    """The grey values of every channel under the foreground strokes of all cases."""
    read = [found.greys for found in train if len(found.greys) == len(dataset.channels)]
    for number, name in enumerate(dataset.channels):
        values = np.concatenate([greys[number] for greys in read] or [np.zeros(0)])
        if values.size:
            low, middle, high = np.percentile(values, (0.5, 50, 99.5))
            tell(
                f"greys     {name}: {low:.4g} to {high:.4g}, median {middle:.4g}, mean {values.mean():.4g}, "
                f"sd {values.std():.3g} under foreground strokes"
            )


def _tilted(grids: list[Grid]) -> np.ndarray:
    """Whether the slices of a case lie more than 45° from those of the largest group, bool [cases]."""
    normals = np.array([np.cross(*grid.affine[:3, list(grid.order[1:])].T) for grid in grids])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    near = np.abs(normals @ normals.T) > np.cos(np.pi / 4)
    return ~near[near.sum(1).argmax()]


def _describe_rings(drawn: list[Found]) -> None:
    rule, share = choose_rule(found.rings for found in drawn)
    slices = sum(found.rings[1] for found in drawn)
    if not slices:
        return
    if rule == "off":
        tell(f"rings     {not_enclosed(share)}")
        return
    tell(
        f"rings     {int(100 * share)} % of {slices} slices enclose their structures with background strokes: what "
        "lies outside of these strokes (of their hull) counts as background (--enclosure auto)"
    )


def _describe_scribbles(dataset: Dataset, train: list[Found], problems: list[str], warnings: list[str]) -> None:
    drawn = [found for found in train if found.drawn.any()]
    dense = sum(found.dense for found in train)
    broken = sum(bool(found.problems) for found in train)
    unread = f", {broken} with unusable files" if broken else ""
    tell(
        f"labels    {counted(len(drawn), 'case')} with scribbles, {dense} with dense masks, "
        f"{sum(found.dense for found in drawn)} with both{unread}"
    )
    if not drawn:
        simulate = f"Run: scribbleseg simulate {dataset.folder}"
        if any(found.has_scribble for found in train):
            way_out = f"{simulate}. Or" if dense else "Draw some, or"
            problems.append(
                f"{dataset.folder / 'labelsTr'}: nothing is drawn. "
                f"{way_out} check that not all pixels have the ignore value ({dataset.ignore})."
            )
        elif all(case.scribble is None for case in dataset.cases.values()):
            hint = simulate if dense else "Draw some, and write them to labelsTr."
            problems.append(f"{dataset.folder}: no scribbles in labelsTr. {hint}")
        return
    _describe_rings(drawn)
    _describe_classes(dataset, drawn, problems, warnings)
    pixels, counts = sum(found.pixels for found in drawn), np.sum([found.drawn for found in drawn], 0)
    covered = [found.case for found in drawn if found.drawn.sum() == found.pixels]
    if covered:
        warnings.append(
            f"the labels of {len(covered)} of {counted(len(drawn), 'case')} cover every pixel and have no "
            f"{dataset.ignore} (ignore): {first_names(covered)}. "
            f"0 means background, not 'not drawn': write {dataset.ignore} where nothing was drawn. "
            "If these cases are labelled completely, change nothing."
        )
    _warn_of_shares(dataset, counts, pixels, bool(covered), warnings)
    bare = sum(found.bare_slices for found in drawn)
    tell(
        f"  together {100 * counts.sum() / pixels:.3f} % of the pixels ({counts.sum()}); {bare} slices without scribble"
    )
    _describe_agreement(drawn, bool(covered), warnings)
    undrawn = [found.case for found in train if not found.problems and not found.drawn.any()]
    if undrawn:
        warnings.append(
            f"{len(undrawn)} of {counted(len(train), 'case')} {'has' if len(undrawn) == 1 else 'have'} no scribble: "
            f"{first_names(undrawn)}. A scribble method cannot learn from these cases. "
            "Tests use their dense masks, and so does validation if it can."
        )


def _describe_classes(dataset: Dataset, drawn: list[Found], problems: list[str], warnings: list[str]) -> None:
    pixels, slices = sum(found.pixels for found in drawn), sum(found.slices for found in drawn)
    counts = np.sum([found.drawn for found in drawn], 0)
    on_slices = np.sum([found.drawn_slices for found in drawn], 0)
    width = max(len(name) for name in dataset.classes)
    for value, name in enumerate(dataset.classes):
        without = [found.case for found in drawn if not found.drawn[value]]
        share, cases = 100 * counts[value] / pixels, len(drawn) - len(without)
        tell(
            f"  {value} {name:{width}}  {share:.3f} % of the pixels, on {on_slices[value]} of {slices} slices, "
            f"{cases} of {counted(len(drawn), 'case')}"
        )
        if not counts[value]:
            problems.append(
                f"class {value} ({name}) is in no scribble. Draw "
                f"some{', or remove it from dataset.json' * (value > 0)}."
            )
        elif without:
            warnings.append(
                f"class {value} ({name}) is missing from the scribbles of {len(without)} of "
                f"{counted(len(drawn), 'case')}: {first_names(without)}"
            )
    if not counts[1:].any():
        problems.append(
            f"{dataset.folder / 'labelsTr'}: the scribbles have only background and no foreground. "
            "Draw the structures too."
        )


def _describe_agreement(drawn: list[Found], covered: bool, warnings: list[str]) -> None:
    compared = sum(found.compared for found in drawn)
    if compared:
        disagree = sum(found.disagree for found in drawn)
        tell(
            f"agreement {disagree} of {compared} scribbled pixels have another class in the dense mask "
            f"({100 * disagree / compared:.3f} %)"
        )
        if disagree > 0.05 * compared:
            cause = (
                "0 may have been used for 'not drawn', or the class values are in another order. Correct the labels"
                if covered
                else "the class values may be in another order. Correct the labels"
            )
            warnings.append(f"over 5 % of the scribbled pixels contradict the dense masks: {cause}")


def _warn_of_shares(dataset: Dataset, counts: np.ndarray, pixels: int, covered: bool, warnings: list[str]) -> None:
    """Warn where a class covers nearly everything, and where background is nearly missing: values may be mixed up."""
    for value, name in enumerate(dataset.classes):
        if counts[value] > MOST_OF_ALL * pixels and not covered:
            warnings.append(
                f"class {value} ({name}) covers {100 * counts[value] / pixels:.0f} % of all pixels, and strokes cover "
                f"a few percent. If {value} was written where nothing was drawn, write {dataset.ignore} (ignore) there."
            )
    if 0 < counts[0] < LEAST_BACKGROUND * counts.sum():
        warnings.append(
            f"class 0 ({dataset.classes[0]}) is only {100 * counts[0] / counts.sum():.1f} % of what is drawn. "
            f"If background was saved as {dataset.ignore} (ignore), write 0 there. Otherwise draw more of it."
        )


def _describe_splits(dataset: Dataset, train: list[Found], problems: list[str], warnings: list[str]) -> None:
    drawn, none = (
        {found.case: found.drawn for found in train if found.has_scribble},
        np.zeros(len(dataset.classes), int),
    )
    anywhere = sum(drawn.values(), none)
    if not dataset.splits():
        warnings.append(
            "no splits_final.json and no splits/: no case is held out for testing. "
            "`train --val-share .2` holds out a fifth of the patients"
        )
    by_split = {}
    for split in dataset.splits():
        try:
            by_split[split] = dataset.folds(split)
        except InputError as error:
            problems.append(str(error))
    if usual := by_split.get(_usual(dataset)):
        named = {name for fold in usual for name in (*fold.train, *fold.val, *fold.test)}
        if unused := [name for name in dataset.cases if name not in named]:
            warnings.append(
                f"split {_usual(dataset)}: {first_names(unused)}: in no fold, neither trained on nor tested"
            )
    tests = {split: [set(fold.test) for fold in folds] for split, folds in by_split.items()}
    for split, folds in by_split.items():
        twin = next((other for other in tests if split == "final" != other and tests[other] == tests[split]), None)
        names = [fold.name for fold in by_split[twin or split]]
        sizes = "; ".join(
            f"{name}: {len(fold.train)}/{len(fold.val)}/{len(fold.test)}" for name, fold in zip(names, folds)
        )
        alike = f", which tests on the folds of {twin}" if twin else ""
        tell(f"split     {split}{alike}, {counted(len(folds), 'fold')} (train/val/test cases): {sizes}")
        for fold in folds:
            if not any(dataset.case(name).scribble for name in fold.train):
                problems.append(
                    f"split {split}, fold '{fold.name}': no training case has a scribble file. "
                    "Correct the split, or draw some."
                )
                continue
            here = sum((drawn[name] for name in fold.train if name in drawn), none)
            lacking = [
                name for name, count, other in zip(dataset.classes, here, anywhere, strict=True) if other and not count
            ]
            if lacking:
                problems.append(
                    f"split {split}, fold '{fold.name}': no training case has a scribble of class "
                    f"{', '.join(lacking)}. Draw some, or correct the split."
                )


def _usual(dataset: Dataset) -> str:
    """The split that is trained on unless another one is named; "" where one has to be named."""
    try:
        return dataset.default_split()
    except InputError:
        return ""


def _range(values: Iterable[float]) -> str:
    values = list(values)
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    return low if low == high else f"{low} to {high}"
