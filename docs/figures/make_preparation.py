"""docs/figures/preparation.png: a slice of the abdomen phantom at each stage between file and network."""

import tempfile
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.patches import Rectangle

from scribbleseg.config import Phantom
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.case import load_volume, read_channels
from scribbleseg.data.fitting import fit
from scribbleseg.data.intensity import normalise
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.preparation import content_box, resample_image, resample_label, resample_strokes
from scribbleseg.data.synthetic.phantom import phantom
from scribbleseg.training.augment import random_intensity, upright_affine, warp

matplotlib.use("Agg")
SIZE = 64  # pixels that a slice is resized to: small, so that strokes can be seen to survive
COLOURS = ListedColormap(["#ffffff", "#e6550d", "#3182bd", "#31a354", "#de2d26", "#ffd92f"])


def show(axes: Axes, grey: np.ndarray, strokes: np.ndarray | None, title: str, low: float, high: float) -> None:
    axes.imshow(grey, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    if strokes is not None:
        drawn = np.ma.masked_equal(strokes, UNLABELED)
        axes.imshow(drawn, cmap=COLOURS, vmin=0, vmax=5, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.axis("off")


def main() -> None:
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        phantom(Phantom(Path(folder) / "abdomen", anatomy="abdomen", cases=3))
        dataset = read_dataset(Path(folder) / "abdomen")
        case = dataset.case("abdomen001")
        fitted = fit(dataset, tuple(dataset.cases), by_data=True)
        (raw,), _ = read_channels(case.images, fitted.plane)
        volume = load_volume(dataset, case, fitted)
    scribble, prepared = volume.scribble, volume.image[0]
    index = int(np.argmax([len(np.unique(part)) for part in scribble]))
    small = resample_image(volume.image, (SIZE, SIZE))[index, 0].numpy()
    kept, nearest = (shrink(scribble, (SIZE, SIZE))[index].numpy() for shrink in (resample_strokes, resample_label))
    changed, moved = warp(
        random_intensity(torch.from_numpy(small)[None, None]),
        torch.from_numpy(kept).long()[None, None],
        upright_affine(1, torch.device("cpu")),
    )
    how = fitted.intensity[0]

    figure, grid = pyplot.subplots(2, 3, figsize=(9, 6.4))
    first, second = grid
    show(first[0], raw[index], scribble[index], "1. the file, −1000 to 1000 HU, with strokes", -1000, 1000)
    rows, columns = content_box([raw])
    corner, size = (columns.start, rows.start), (columns.stop - columns.start, rows.stop - rows.start)
    first[0].add_patch(Rectangle(corner, *size, fill=False, edgecolor="#ffd92f"))
    show(first[1], normalise(raw)[index], None, "2a. grey values as in the papers", 0, 1)
    show(first[2], prepared[index], None, f"2b. as CT: {how.low:.0f} to {how.high:.0f} HU", 0, 1)
    show(second[0], small, nearest, f"3a. {SIZE} × {SIZE}, strokes by nearest pixel", 0, 1)
    show(second[1], small, kept, "3b. every drawn pixel kept", 0, 1)
    show(second[2], changed[0, 0].numpy(), moved[0, 0].numpy(), "4. turned, scaled, other grey values", 0, 1)
    figure.tight_layout()
    figure.savefig(Path(__file__).with_name("preparation.png"), dpi=100)


if __name__ == "__main__":
    main()
