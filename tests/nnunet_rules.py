"""The rules of nnU-Net's integrity check, written anew, for tests of what our verbs make."""

import json
from pathlib import Path

import nibabel
import numpy as np


def faults(folder: Path) -> list[str]:
    """What nnU-Net v2 would refuse: keys, numbers, missing files, other grids, NaN, and values that are not listed."""
    said = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    if lacking := {"labels", "channel_names", "numTraining", "file_ending"} - said.keys():
        return [f"no {sorted(lacking)}"]
    end, values = said["file_ending"], list(said["labels"].values())
    images = [path.name.removesuffix(end) for path in (folder / "imagesTr").iterdir() if path.name.endswith(end)]
    names = {name[:-5] for name in images}
    found = []
    if len(names) != said["numTraining"]:
        found.append(f"numTraining {said['numTraining']} of {len(names)}")
    if sorted(values) != list(range(len(values))) or said["labels"].get("ignore", max(values)) != max(values):
        found.append(f"labels {values}")
    for name in sorted(names):
        path = folder / "labelsTr" / f"{name}{end}"
        if not path.is_file():
            found.append(f"{name} has no label")
            continue
        label = nibabel.load(path)
        if not set(np.unique(np.asarray(label.dataobj)).tolist()) <= set(values):
            found.append(f"{name} has other values")
        for channel in range(len(said["channel_names"])):
            image = nibabel.load(folder / "imagesTr" / f"{name}_{channel:04d}{end}")
            if np.isnan(np.asarray(image.dataobj)).any():
                found.append(f"{name} has NaN")
            if image.shape != label.shape or not np.allclose(image.affine, label.affine, atol=1e-3):
                found.append(f"{name} has another grid than its label")
    if (folder / "splits_final.json").is_file():
        for fold in json.loads((folder / "splits_final.json").read_text(encoding="utf-8")):
            if odd := {*fold["train"], *fold["val"]} - names:
                found.append(f"splits_final.json names {sorted(odd)}")
    return found
