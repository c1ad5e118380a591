"""Write a data set in the nnU-Net raw layout."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..case import load_label, read_channels

END = ".nii.gz"


def case_paths(dst: Path, case: str, held_out: bool = False) -> tuple[Path, Path, Path]:
    """The paths of a case's image, scribble and dense mask. Those of a held-out case are in imagesTs and labelsTs."""
    images, truths = ("imagesTs", "labelsTs") if held_out else ("imagesTr", "labelsTr_dense")
    paths = dst / images / f"{case}_0000{END}", dst / "labelsTr" / f"{case}{END}", dst / truths / f"{case}{END}"
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    return paths


def copy_case(
    dst: Path, case: str, image: Path, scribble: Path | None, truth: Path | None, ignore: int, held_out: bool = False
) -> None:
    """Read NIfTI files to check them, then copy them byte for byte.

    Raises InputError for an unreadable or constant image, and for a label with another grid or with unlisted values.
    """
    _, grid = read_channels((image,))
    if scribble is not None:
        load_label(scribble, grid, image, ignore, ignored=True)
    if truth is not None:
        load_label(truth, grid, image, ignore, ignored=False)
    for source, path in zip((image, scribble, truth), case_paths(dst, case, held_out), strict=True):
        if source is not None:
            shutil.copyfile(source, path)


def write_description(
    folder: Path,
    name: str,
    channel: str,
    classes: Iterable[str],
    groups: Mapping[str, str],
    *,
    end: str = END,
    **more: object,
) -> None:
    """Write dataset.json. `classes`: names of the classes 1, 2, …; `ignore` comes last; groups: case → patient."""
    labels = {name: value for value, name in enumerate(("background", *classes, "ignore"))}
    description = {
        "name": name,
        "channel_names": {"0": channel},
        "labels": labels,
        "numTraining": len(list((folder / "imagesTr").glob(f"*{end}"))),
        "file_ending": end,
        **more,
        "groups": dict(sorted(groups.items())),
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
