"""docs/figures/phantom.png: two slices of the phantom, from what `scribbleseg demo` leaves behind.

    python docs/figures/make_figures.py [runs/demo]

Columns: image, scribble, prediction of EFFDNet (where the demo has one), truth.
"""

import io
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from scribbleseg.config import Phantom
from scribbleseg.data.case import load_volume
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.synthetic.phantom import phantom
from scribbleseg.data.volume import read_label
from scribbleseg.reporting.figures import colour, crop, draw_overlay, upright, upright_spacing

CASES = ("heart001_ed", "heart010_es")  # held out in the demo's fold
PLACE = Path(__file__).with_name("phantom.png")


def make_figure(demo: Path, place: Path = PLACE) -> Path:
    """Draw the figure from DEMO/phantom, which is made if it is not there, and from DEMO/effdnet/predictions."""
    if not (demo / "phantom").is_dir():
        phantom(Phantom(demo / "phantom"))
    dataset = read_dataset(demo / "phantom")
    rows = [columns(dataset, name, demo / "effdnet" / "predictions" / f"{name}.nii.gz") for name in CASES]
    figure = Figure((2.1 * len(rows[0]), 2.1 * len(rows) + 0.55), dpi=100)
    axes = figure.subplots(len(rows), len(rows[0]))
    for ax, (_, image, label, spacing) in zip(axes.flat, (shown for row in rows for shown in row), strict=True):
        draw_overlay(ax, image, label, spacing)
    for ax, (title, *_) in zip(axes[0], rows[0], strict=True):
        ax.set_title(title, fontsize=10)
    key = [Patch(facecolor=colour(value), edgecolor="#444", label=name) for value, name in enumerate(dataset.classes)]
    figure.legend(handles=key, loc="lower center", ncols=len(key), frameon=False, fontsize=9)
    figure.subplots_adjust(0.005, 0.085, 0.995, 0.94, 0.02, 0.02)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.FASTOCTREE).save(
        place, optimize=True
    )  # a third of the size
    return place


def columns(dataset, name: str, predicted: Path) -> list:
    """(title, image, label, spacing) of one case's slice with the largest heart, turned upright and cut to its
    surroundings."""
    volume = load_volume(dataset, dataset.case(name))
    index = int((volume.truth > 0).sum((1, 2)).argmax())
    planes = {"image": None, "scribble": volume.scribble[index]}
    if predicted.is_file():
        planes["prediction"] = read_label(predicted)[0][index].astype(np.uint8)
    planes["truth"] = volume.truth[index]
    spacing = upright_spacing(volume.grid)
    window = crop(upright(volume.truth[index] > 0, volume.grid), spacing)
    image = upright(volume.image[0, index], volume.grid)[window]
    return [
        (title, image, None if plane is None else upright(plane, volume.grid)[window], spacing)
        for title, plane in planes.items()
    ]


if __name__ == "__main__":
    print(make_figure(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")))
