"""Pack a data set into one small file for a GPU machine without network: images in 7 bits, labels exact.

python benchmarks/pack.py pack DATASET FILE [--part 1/2]
python benchmarks/pack.py unpack FILE [FILE ...] DATASET

The script clips each image at its 99th percentile, as training does, rounds it to 128 steps, and stores it as JPEG 2000
without further loss. ACDC takes half a byte per voxel. With --part 1/2 and 2/2 each file holds half of the cases.
Results on the packed data set are not those on the originals: `unpack` notes this in dataset.json, and a bench notes it
with each of its runs.
"""

import argparse
import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from scribbleseg.core.atomic import atomic_file
from scribbleseg.core.errors import counted
from scribbleseg.core.progress import Progress
from scribbleseg.data.intensity import grey_range
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.nifti import read_nifti

STEPS = 127
NOTE = "images in 7 bits"
PICTURE = "JPEG2000"


def encode(stored: np.ndarray) -> bytes:
    """A volume of bytes as one picture, slice under slice, without loss."""
    file = io.BytesIO()
    Image.fromarray(np.moveaxis(stored, 2, 0).reshape(-1, stored.shape[1])).save(file, PICTURE, irreversible=False)
    return file.getvalue()


def decode(content: bytes, shape: tuple[int, ...]) -> np.ndarray:
    picture = np.asarray(Image.open(io.BytesIO(content), formats=[PICTURE]))
    return np.moveaxis(picture.reshape(shape[2], *shape[:2]), 0, 2)


def pack(folder: Path, target: Path, part: int, parts: int) -> None:
    """All files but the images and labels as they are; of these, every `parts`-th case from `part` on."""
    dataset = read_dataset(folder)
    cases = sorted({**dataset.cases, **dataset.tests})[part - 1 :: parts]
    wanted = [
        path
        for path in sorted(folder.rglob(f"[!.]*{dataset.file_ending}"))
        if any(path.name.startswith(case) for case in cases)
    ]

    def read(path: Path) -> tuple[str, bytes, bytes]:
        values, affine, _ = read_nifti(path)  # lengths in mm, whatever unit the header has
        low, high = grey_range(values)
        scale = (high - low) / STEPS or 1.0
        exact = path.parent.name.startswith("labels")
        stored = values.astype(np.uint8) if exact else np.round((values.clip(low, high) - low) / scale).astype(np.uint8)
        offset, scale = (0.0, 1.0) if exact else (low, scale)
        head = np.concatenate([[*values.shape, offset, scale, exact], affine.ravel()])
        return path.relative_to(folder).as_posix(), head.astype(np.float64).tobytes(), encode(stored)

    with (
        atomic_file(target) as partial,
        zipfile.ZipFile(partial, "w") as file,
        ThreadPoolExecutor() as pool,
        Progress("packing", len(wanted), "file") as bar,
    ):
        for path in [*sorted(folder.glob("[!.]*.json")), *sorted(folder.glob("splits/[!.]*.json"))]:
            file.writestr(path.relative_to(folder).as_posix(), path.read_bytes(), zipfile.ZIP_DEFLATED)
        for name, head, content in pool.map(read, wanted):
            file.writestr(name, head + content)
            bar.advance()
    print(f"{target}: {counted(len(cases), 'case')}, {target.stat().st_size / 2**20:.1f} MiB")


def unpack(sources: list[Path], folder: Path) -> None:
    for source in sources:
        with (
            zipfile.ZipFile(source) as file,
            ThreadPoolExecutor() as pool,
            Progress("unpacking", len(file.namelist()), "file") as bar,
        ):

            def write(item: tuple[str, bytes]) -> None:
                name, content = item
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if name == "dataset.json":
                    content = json.dumps({**json.loads(content), "scribbleseg_note": NOTE}, indent=1).encode()
                if path.suffix == ".json":
                    path.write_bytes(content)
                    return
                head = np.frombuffer(content[: 22 * 8])
                offset, scale, exact = head[3:6]
                stored = decode(content[22 * 8 :], tuple(head[:3].astype(int)))
                values = stored if exact else (stored * scale + offset).astype(np.float32)
                nibabel.save(nibabel.Nifti1Image(values, head[6:].reshape(4, 4)), path)

            for _ in pool.map(write, ((name, file.read(name)) for name in file.namelist())):
                bar.advance()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack")
    packing.add_argument("dataset", type=Path)
    packing.add_argument("file", type=Path, help="file to write")
    packing.add_argument("--part", default="1/1", help="K/N: pack only the K-th of N parts of the cases")
    unpacking = verbs.add_parser("unpack")
    unpacking.add_argument("files", type=Path, nargs="+", help="all parts of a packed data set")
    unpacking.add_argument("dataset", type=Path, help="folder to write")
    given = parser.parse_args()
    if given.verb == "pack":
        pack(given.dataset, given.file, *map(int, given.part.split("/")))
    else:
        unpack(given.files, given.dataset)


if __name__ == "__main__":
    main()
