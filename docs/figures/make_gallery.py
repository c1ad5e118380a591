"""docs/figures/gallery-*.png: the pictures of docs/gallery.md, from phantoms that are made for them.

    python docs/figures/make_gallery.py [FOLDER]

Writes them into FOLDER, without one beside this file. Nothing is trained.
"""

import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from scribbleseg.config import Phantom
from scribbleseg.data.case import Volume, load_volume
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.synthetic.phantom import phantom
from scribbleseg.data.synthetic.simulate import simulate_scribbles
from scribbleseg.methods.rw import walk
from scribbleseg.reporting.figures import crop, draw_overlay, upright, upright_spacing
from scribbleseg.training.augment import random_affine, random_intensity, upright_affine, warp

Panel = tuple[str, np.ndarray, np.ndarray | None]  # title, image and label [H, W]


def make_gallery(place: Path) -> list[Path]:
    """The pictures, in the order of the page."""
    with tempfile.TemporaryDirectory() as name:
        heart, abdomen = Path(name) / "heart", Path(name) / "abdomen"
        phantom(Phantom(heart, cases=3))
        phantom(Phantom(abdomen, anatomy="abdomen", cases=4, pet=True))
        hearts, bellies = load(heart, "heart001_ed"), load(abdomen, "abdomen003")
    return [
        draw(place / "gallery-heart.png", stages(hearts, 0), hearts),
        draw(place / "gallery-abdomen.png", [*stages(bellies, 0), *stages(bellies, 1)[:1]], bellies),
        draw(place / "gallery-strokes.png", strokes(hearts), hearts),
        draw(place / "gallery-walker.png", walker(hearts), hearts),
        draw(place / "gallery-augmentation.png", augmented(hearts), hearts, cut=False),
    ]


def load(folder: Path, case: str) -> Volume:
    dataset = read_dataset(folder)
    return load_volume(dataset, dataset.case(case))


def largest(volume: Volume) -> int:
    """The slice with most foreground."""
    return int((volume.truth > 0).sum((1, 2)).argmax())


def stages(volume: Volume, channel: int) -> list[Panel]:
    index = largest(volume)
    image = volume.image[channel, index]
    return [
        (("image", "second channel")[channel], image, None),
        ("scribbles", image, volume.scribble[index]),
        ("dense mask", image, volume.truth[index]),
    ]


def strokes(volume: Volume) -> list[Panel]:
    index = largest(volume)
    found = []
    for coverage, thickness in ((1.0, 1), (0.85, 1), (0.3, 1), (0.85, 3)):
        drawn = simulate_scribbles(
            volume.truth[index][None], volume.classes, coverage=coverage, thickness=thickness, seed=1
        )
        found.append((f"coverage {coverage:g}, {thickness} px", volume.image[0, index], drawn[0]))
    return found


def walker(volume: Volume) -> list[Panel]:
    index = largest(volume)
    image, drawn = volume.image[:, index], volume.scribble[index]
    spread = [(f"rw, β {beta}", image[0], walk(image, drawn, volume.classes, beta, "present")) for beta in (10, 100)]
    return [("scribbles", image[0], drawn), *spread, ("dense mask", image[0], volume.truth[index])]


def augmented(volume: Volume) -> list[Panel]:
    torch.manual_seed(3)
    index = largest(volume)
    image = torch.from_numpy(volume.image[:, index].copy())[None].expand(2, -1, -1, -1)
    label = torch.from_numpy(volume.scribble[index].astype(np.int64))[None, None].expand(2, -1, -1, -1)
    found = [("as it is", volume.image[0, index], volume.scribble[index])]
    for name, affine in (("papers", random_affine), ("upright", upright_affine)):
        moved, drawn = warp(image, label, affine(2, torch.device("cpu")))
        moved = moved if name == "papers" else random_intensity(moved)
        found += [(name, moved[n, 0].numpy(), drawn[n, 0].numpy().astype(np.uint8)) for n in (0, 1)]
    return found


def draw(path: Path, panels: Sequence[Panel], volume: Volume, cut: bool = True) -> Path:
    """A row of panels, upright and cut to the surroundings of what the dense mask has, in 128 colours."""
    spacing = upright_spacing(volume.grid)
    window = crop(upright(volume.truth[largest(volume)] > 0, volume.grid), spacing) if cut else ...
    figure = Figure((1.9 * len(panels), 2.1), dpi=100)
    for ax, (title, image, label) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        shown = None if label is None else upright(label, volume.grid)[window]
        draw_overlay(ax, upright(image, volume.grid)[window], shown, spacing)
        ax.set_title(title, fontsize=9)
    figure.subplots_adjust(0.005, 0.01, 0.995, 0.88, 0.03, 0)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    reduced = Image.open(buffer).convert("RGB").quantize(128, Image.Quantize.FASTOCTREE)
    reduced.save(path, format="png", optimize=True)
    return path


if __name__ == "__main__":
    for picture in make_gallery(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent):
        print(picture)
