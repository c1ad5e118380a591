"""Copy a data set of ours, such as one that was drawn on, so that every image has a label, as nnU-Net wants it."""

import json
import shutil
from pathlib import Path

from ...core.atomic import atomic_folder
from ...core.console import say
from ...core.errors import InputError, counted
from ...core.json_file import read_json
from ...core.parallel import for_each
from ..case import load_volume
from ..dataset import Case
from ..layout import read_dataset
from .write import write_blanks


def import_complete(src: Path, dst: Path) -> None:
    """Copy images, labels, splits and dataset.json of `src`, a data set in our layout, to the new data set `dst`.

    A case of imagesTr without a label gets one without strokes. `numTraining` becomes the number of cases; nnU-Net's
    list of files, `dataset`, is left out, as it may name files of `src`. Raises InputError for what is no data set, for
    one without cases in imagesTr, and for images and labels that training would refuse.
    """
    dataset = read_dataset(src)
    if not dataset.cases:
        raise InputError(f"{src}: no images in imagesTr. nnU-Net trains on those. Put the images there.")
    description = read_json(dataset.folder / "dataset.json", dict)
    description["numTraining"] = len(dataset.cases)
    description.pop("dataset", None)

    def copy(item: tuple[str, Case]) -> None:
        part, case = item
        load_volume(dataset, case)  # raises InputError for what cannot be read
        truths = "labelsTr_dense" if part == "Tr" else "labelsTs"
        for folder, files in ((f"images{part}", case.images), ("labelsTr", [case.scribble]), (truths, [case.truth])):
            for path in filter(None, files):
                shutil.copyfile(path, made / folder / path.name)

    with atomic_folder(dst) as made:
        parts = ("imagesTr", "labelsTr", "labelsTr_dense", "imagesTs", "labelsTs")
        for part in parts:
            (made / part).mkdir()
        cases = [("Tr", case) for case in dataset.cases.values()] + [("Ts", case) for case in dataset.tests.values()]
        for_each("copying", copy, cases)
        bare = write_blanks(made, dataset.ignore, dataset.file_ending)
        for part in parts:
            if not any((made / part).iterdir()):
                (made / part).rmdir()
        if (dataset.folder / "splits_final.json").is_file():
            shutil.copyfile(dataset.folder / "splits_final.json", made / "splits_final.json")
        if (dataset.folder / "splits").is_dir():
            shutil.copytree(dataset.folder / "splits", made / "splits")
        text = json.dumps(description, indent=1) + "\n"
        (made / "dataset.json").write_text(text, encoding="utf-8")
    if bare:
        say(f"without a label: {len(bare)} of {counted(len(dataset.cases), 'case')}; each got one without strokes")
