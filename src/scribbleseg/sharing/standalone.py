"""Segment a scan with the exported model beside this file: python predict.py IMAGE [IMAGE ...] MASK.

Needs numpy, nibabel and onnxruntime. Images are NIfTI files on one grid, one per channel.
"""

import gzip
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np


def load(path: str) -> tuple[Any, np.ndarray]:
    """A file and its voxels, read to its end: gzip checks its checksum there. nibabel alone stops at the last voxel."""
    try:
        packed = Path(path).read_bytes()
        content = gzip.decompress(packed) if path.lower().endswith(".gz") else packed
        kind: Any = nibabel.Nifti2Image if content[:4] in (b"\x1c\2\0\0", b"\0\0\2\x1c") else nibabel.Nifti1Image
        file = kind.from_bytes(content)
        return file, np.asanyarray(file.dataobj).astype(np.float32).reshape((*file.shape, 1, 1)[:3])
    except Exception as error:  # nibabel raises several kinds
        why = " ".join(str(error).split())
        sys.exit(f"{path}: cannot be read ({why}). Expected a 3-D volume in NIfTI. Export the scan again.")


def slice_axis(affine: np.ndarray, sizes: tuple[int, ...], plane: str) -> int:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes, names = ("first", "second", "third"), ("sagittal", "coronal", "axial")
    if plane in axes + names:
        return axes.index(plane) if plane in axes else int(np.abs(affine[names.index(plane), :3] / spacing).argmax())
    return max(range(3), key=lambda axis: (sizes[axis] == 1, spacing[axis] >= 0.999 * spacing.max(), axis))


def robust_range(image: np.ndarray) -> tuple[float, float]:
    border, counts = np.unique(np.r_[image[:, [0, -1]].ravel(), image[:, :, [0, -1]].ravel()], return_counts=True)
    rest = image.ravel()[:: math.ceil(image.size / 2**22)]
    for step in (1, -1):  # a lowest, then a highest value that is far from all others
        extreme, *_ = (rest.min(), rest.max())[::step]
        if (others := rest[rest != extreme]).size:
            near, far = (float(others.min()), float(others.max()))[::step]
            rest = others if abs(near - float(extreme)) > abs(far - near) else rest
    rest = rest[rest != border[counts.argmax()]] if counts.max() >= 0.25 * counts.sum() else rest
    low, high = map(float, np.percentile(rest, (0.5, 99))) if rest.size else (0.0, 0.0)
    return (low, high) if high > low else (float(image.min()), float(image.max()))


def normalised(image: np.ndarray, kind: str, low: float, high: float) -> np.ndarray:
    if kind in ("nonorm", "rgb_to_0_1"):
        return image if kind == "nonorm" else image / np.float32(255)
    if kind != "ct":
        low, high = robust_range(image) if kind == "robust" else (float(image.min()), float(image.max()))
    if kind == "papers" and (top := float(np.percentile(image, 99))) > low:
        high = top
    return (np.clip(image, low, high) - low) / (high - low) if high > low else np.zeros_like(image)


def content_box(channels: list[np.ndarray]) -> tuple[slice, ...]:
    ranges = [robust_range(image) for image in channels]
    full = np.any([image > low + 0.05 * (high - low) for image, (low, high) in zip(channels, ranges)], axis=0)
    busy = [np.nonzero(full.mean(axes) > 0.005)[0] for axes in ((0, 2), (0, 1))]
    return tuple(slice(max(0, at[0] - 4), at[-1] + 5) if len(at) else slice(None) for at in busy)


def predict(paths: list[str], target: str, folder: Path) -> None:
    import onnxruntime

    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    if len(paths) != len(about["channels"]):
        sys.exit(f"{__doc__}\nThe channels of this model: {', '.join(about['channels'])}.")
    if os.path.lexists(target):
        sys.exit(f"{target}: exists already. Choose another name for the mask.")
    if not target.lower().endswith((".nii", ".nii.gz")):
        sys.exit(f"{target}: expected a name for the mask that ends in .nii.gz or .nii.")
    if not os.access(place := Path(target).absolute().parent, os.W_OK | os.X_OK):
        sys.exit(f"{place}: is no folder that can be written to. Make it, or choose another place for the mask.")
    files, volumes = zip(*map(load, paths))
    affine, sizes = files[0].affine, volumes[0].shape
    for path, file, voxels in zip(paths, files, volumes):
        far = (np.abs(file.affine - affine) @ (*sizes, 1)).max()
        if voxels.shape != sizes or far > 0.05 * np.linalg.norm(affine[:3, :3], axis=0).min():
            found = f"has {voxels.shape} voxels, up to {far:.3g} mm from those of {paths[0]}"
            sys.exit(f"{path}: {found}; expected {sizes} in the same places. Resample one of them.")
    first = slice_axis(affine, sizes, about["plane"])
    order = (first, *(axis for axis in (2, 1, 0) if axis != first))
    channels = [voxels.transpose(order) for voxels in volumes]
    stack = np.stack([normalised(image, **how) for image, how in zip(channels, about["intensity"])], 1)
    box = content_box(channels) if about["crop"] else (slice(None), slice(None))
    if about["locate"]:
        ends = onnxruntime.InferenceSession(folder / "locator.onnx").run(None, {"image": stack})[0].tolist()
        box = tuple(slice(max(0, math.floor(a * n)), math.ceil(b * n)) for (a, b), n in zip(ends, stack.shape[2:]))
    model, cut = onnxruntime.InferenceSession(folder / "model.onnx"), np.ascontiguousarray(stack[:, :, *box])
    label = np.zeros(channels[0].shape, np.uint8)
    for at in range(0, len(cut), 16):
        probs = model.run(None, {"image": cut[at : at + 16]})[0]
        if not np.isfinite(probs).all():
            sys.exit(f"{paths[0]}: the network's output has values that are NaN or infinite.")
        label[at : at + 16, *box] = probs.argmax(1)
    label = label.transpose(np.argsort(order)).reshape(files[0].shape)
    partial = Path(target).with_name(f".partial-{Path(target).name}")
    try:
        nibabel.save(type(files[0])(label, affine, files[0].header, dtype=np.uint8), partial)
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


if __name__ == "__main__":
    predict(sys.argv[1:-1], sys.argv[-1], Path(__file__).parent)
