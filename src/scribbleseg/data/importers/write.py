"""Write a data set in the nnU-Net raw layout."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...core.console import say
from ...core.labels import UNLABELED
from ...core.parallel import for_each
from ..case import load_label, read_channels, recode
from ..volume import Grid, read_components, read_label, write_volume

END = ".nii.gz"


def case_paths(dst: Path, case: str, held_out: bool = False) -> tuple[Path, Path, Path]:
    """The paths of a case's image, scribble and dense mask. Those of a held-out case are in imagesTs and labelsTs."""
    images, truths = ("imagesTs", "labelsTs") if held_out else ("imagesTr", "labelsTr_dense")
    paths = dst / images / f"{case}_0000{END}", dst / "labelsTr" / f"{case}{END}", dst / truths / f"{case}{END}"
    for path in paths:
        path.parent.mkdir(exist_ok=True)
    return paths


def copy_case(
    dst: Path,
    case: str,
    image: Path,
    scribble: Path | None,
    truth: Path | None,
    ignore: int,
    held_out: bool = False,
    same_voxels: bool = False,
) -> list[Path]:
    """Read NIfTI files to check them, then copy them byte for byte.

    same_voxels: a label of the image's shape that lies elsewhere gets the image's geometry, voxel for voxel. Returns
    these labels. Raises InputError for an unreadable or constant image, and for a label with another grid or with
    unlisted values.
    """
    _, grid = read_channels((image,))
    paths = case_paths(dst, case, held_out)
    shutil.copyfile(image, paths[0])
    moved = []
    for source, path, ignored in ((scribble, paths[1], True), (truth, paths[2], False)):
        if source is None:
            continue
        own = read_label(source, grid.order)[1]
        if same_voxels and own.sizes == grid.sizes and not own.same_place(grid):
            label = recode(read_label(source, grid.order)[0], ignore, source, ignored)
            write_volume(path, np.where(label == UNLABELED, ignore, label).astype(np.uint8), grid)
            moved.append(source)
        else:
            load_label(source, grid, image, ignore, ignored)
            shutil.copyfile(source, path)
    return moved


def write_blanks(folder: Path, ignore: int, end: str = END) -> list[str]:
    """Write a label without strokes for each case of imagesTr that has no label, as nnU-Net wants one; returns these.

    `end` is the ending of the files, `ignore` the value of "not drawn".
    """
    images = sorted((folder / "imagesTr").glob(f"*_0000{end}"))
    labels = {path: folder / "labelsTr" / f"{path.name.removesuffix(f'_0000{end}')}{end}" for path in images}
    bare = {path: label for path, label in labels.items() if not label.is_file()}
    if bare:
        for_each("labels without strokes", lambda path: write_blank(bare[path], read_components(path)[1], ignore), bare)
    return [label.name.removesuffix(end) for label in bare.values()]


def write_blank(label: Path, grid: Grid, ignore: int) -> None:
    """Write a label without strokes on the grid of its image."""
    write_volume(label, np.full([grid.sizes[axis] for axis in grid.order], ignore, np.uint8), grid)


def say_moved(labels: Iterable[Path]) -> None:
    """Name each label that got the geometry of its image."""
    for path in labels:
        say(f"{path}: lies elsewhere than its image and has the same shape; read voxel by voxel (--same-voxels)")


def write_description(
    folder: Path,
    name: str,
    channels: Sequence[str],
    classes: Iterable[str],
    groups: Mapping[str, str],
    *,
    end: str = END,
    **more: object,
) -> None:
    """Write dataset.json. `classes`: names of the classes 1, 2, …; `ignore` comes last; groups: case → patient."""
    assert not isinstance(channels, str)
    labels = {name: value for value, name in enumerate(("background", *classes, "ignore"))}
    description = {
        "name": name,
        "channel_names": {str(number): channel for number, channel in enumerate(channels)},
        "labels": labels,
        "numTraining": len(list((folder / "imagesTr").glob(f"*{end}"))),
        "file_ending": end,
        **more,
        "groups": dict(sorted(groups.items())),
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
