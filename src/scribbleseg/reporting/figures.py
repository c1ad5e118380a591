"""Pictures and charts: a label over an image on any axes, and the figures of a report as data URIs."""

import base64
import io
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from ..core.labels import UNLABELED
from ..data.volume import Grid

# class 0, 1, 2, …: colours that colour-blind readers can tell apart; the first four also differ in grey
COLOURS = ("#FFFFFF", "#1A80E6", "#EE6BA6", "#F7E94A", "#00A87E", "#6FD0F5", "#D55E00", "#A9A6F0")
OUTSIDE = "#E08A2E"  # of a mask
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#B0508A", "#7A6A00", "#3A3A8C")
LINE_STYLES = ("-", "--", ":", "-.")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e7eb",
    "axes.axisbelow": True,
    "text.parse_math": False,  # a class named $x$ is text, no formula
}


def colour(value: int) -> str:
    """The colour of a class, the same in every figure. Foreground class 8 has the colour of class 1 again."""
    return COLOURS[0] if value == 0 else COLOURS[1 + (value - 1) % (len(COLOURS) - 1)]


def draw_overlay(
    ax: Axes, image: np.ndarray, label: np.ndarray | None = None, spacing: tuple[float, float] = (1.0, 1.0)
) -> None:
    """Draw an image [H, W] in [0, 1] and a label [H, W] over it. `spacing` is the (row, column) distance.

    Dense label: classes are translucent and have contours, background is not coloured.
    Label with UNLABELED pixels: these are not coloured, background is white. If it consists of strokes (scribbles), it
    is opaque and has no contours.
    Bool mask: the pixels outside of it are orange.
    """
    shown = np.clip(image.astype(np.float32), 0, 1)
    if label is not None:
        shown = shown * 0.8  # colours stand out
    aspect = spacing[0] / spacing[1]
    ax.imshow(shown, cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="bilinear")
    ax.set_axis_off()
    if label is None:
        return
    if label.dtype == bool:
        layer = np.zeros((*label.shape, 4), np.float32)
        layer[~label] = to_rgba(OUTSIDE, 0.75)
        ax.imshow(layer, aspect=aspect, interpolation="nearest")
        return
    known = label != UNLABELED
    drawn = _strokes(known)
    values = [int(value) for value in np.unique(label[known]) if value or not known.all()]
    layer = np.zeros((*label.shape, 4), np.float32)
    for value in values:
        layer[label == value] = to_rgba(colour(value), 1.0 if drawn else 0.4 if value else 0.2)
    ax.imshow(layer, aspect=aspect, interpolation="nearest")
    if not drawn:
        for value in values:
            _contour(ax, label == value, colour(value))


def _strokes(known: np.ndarray) -> bool:
    """Whether few of the labelled pixels have labelled neighbours on all four sides."""
    inside = known[1:-1, 1:-1] & known[:-2, 1:-1] & known[2:, 1:-1] & known[1:-1, :-2] & known[1:-1, 2:]
    return bool(inside.sum() < 0.4 * known.sum())


def _contour(ax: Axes, mask: np.ndarray, line: str) -> None:
    if mask.any() and not mask.all():
        ax.contour(mask, [0.5], colors=line, linewidths=1.4)


def panel(image: np.ndarray, label: np.ndarray | None, spacing: tuple[float, float], inches: float = 2.4) -> str:
    """One picture without a frame, as PNG. A float `label` is drawn without the image, as a map."""
    height = inches * image.shape[0] * spacing[0] / (image.shape[1] * spacing[1])
    figure = Figure((inches, height), dpi=140)
    ax = figure.add_axes((0, 0, 1, 1))
    if label is not None and label.dtype.kind == "f":
        ax.imshow(label.astype(np.float32), cmap="cividis", aspect="auto")
        ax.set_axis_off()
    else:
        draw_overlay(ax, image, label, spacing)
    ax.set_aspect("auto")  # the figure has the right shape already
    return _encode(figure, "png")


def upright(plane: np.ndarray, grid: Grid) -> np.ndarray:
    """Turn a plane [H, W] of a grid to the radiological convention.

    Columns run to the patient's left (or back), rows to the back (or feet). An oblique axis counts as the direction
    that it is nearest to.
    """
    flips, swap = _turn(grid)
    plane = np.flip(plane, flips)
    return plane.T if swap else plane


def upright_spacing(grid: Grid) -> tuple[float, float]:
    """(row, column) distance of a plane that `upright` has turned."""
    spacing = grid.spacing_mm[1:]
    return spacing[::-1] if _turn(grid)[1] else spacing


def _turn(grid: Grid) -> tuple[tuple[int, ...], bool]:
    directions = grid.affine[:3, :3].T[list(grid.order[1:])]  # of rows and columns, RAS+
    nearest = np.abs(directions).argmax(1)
    flips = tuple(axis for axis in (0, 1) if directions[axis, nearest[axis]] > 0)
    return flips, bool(nearest[0] < nearest[1])


def crop(mask: np.ndarray, spacing: tuple[float, float], margin: float = 0.7) -> tuple[slice, slice]:
    """A square (in mm) around a mask [H, W]: its longer side plus `margin` of it. Empty mask: the whole plane."""
    if not mask.any():
        return slice(None), slice(None)
    ends = [np.flatnonzero(mask.any(axis))[[0, -1]] for axis in (1, 0)]
    side = max((high - low + 1) * step for (low, high), step in zip(ends, spacing)) * (1 + margin)
    box = []
    for (low, high), step, size in zip(ends, spacing, mask.shape):
        length = min(size, max(round(side / step), 16))
        start = int(np.clip((low + high + 1 - length) // 2, 0, size - length))
        box.append(slice(start, start + length))
    return box[0], box[1]


def curves(
    lines: dict[str, tuple[list[float], list[float]]],
    ylabel: str = "",
    colours: dict[str, str] | None = None,
    height: float = 3.1,
) -> str:
    """Lines over the iteration, {name: (iterations, values)}, as SVG. `height` is in inches.

    `total` and `mean` are black. With `colours` ({name: colour}, for classes) the lines have a dark edge and the axis
    is that of Dice, 0 to 1.
    """
    with rc_context(STYLE):
        figure = Figure((4.6, height), layout="constrained")
        ax = figure.add_subplot()
        for index, (name, (x, y)) in enumerate(lines.items()):
            look: dict[str, Any] = {
                "color": LINE_COLOURS[index % len(LINE_COLOURS)],
                "linestyle": LINE_STYLES[index // 2 % 4],
                "linewidth": 1.3,
            }
            if name in ("total", "mean"):
                look = {"color": "#111", "linewidth": 1.9}
            elif colours:
                look = {
                    "color": colours[name],
                    "linewidth": 1.8,
                    "path_effects": [withStroke(linewidth=3, foreground="#444")],
                }
            ax.plot(x, y, label=name, marker="o" if len(x) < 12 else None, markersize=3, **look)
        ax.set(xlabel="iteration", ylabel=ylabel)
        if colours:
            ax.set_ylim(0, 1)
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if len(lines) > 1:
            ax.legend(frameon=False, fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return _encode(figure, "svg")


def distribution(values: dict[str, np.ndarray], ylabel: str, top: float | None = None) -> str:
    """A box and one dot per case for each class, {class: values}, as SVG. nan is left out.

    The axis runs from 0 to `top`, or without it to a little above the highest value. Boxes: quartiles. Whiskers: all
    cases.
    """
    with rc_context(STYLE):
        figure = Figure((4.6, 3.1), layout="constrained")
        ax = figure.add_subplot()
        rng = np.random.default_rng(0)
        highest = max((scores[~np.isnan(scores)].max(initial=0) for scores in values.values()), default=0)
        for place, scores in enumerate(values.values(), 1):
            scores = scores[~np.isnan(scores)]
            if not scores.size:
                continue
            look: dict[str, Any] = {
                "boxprops": {"facecolor": colour(place), "alpha": 0.6},
                "medianprops": {"color": "#111", "linewidth": 2},
            }
            ax.boxplot(scores, positions=[place], widths=0.5, whis=(0, 100), patch_artist=True, **look)
            ax.plot(
                place + rng.uniform(-0.16, 0.16, scores.size),
                scores,
                "o",
                color="#111",
                alpha=0.45,
                markersize=3,
                markeredgewidth=0,
                clip_on=False,
            )
        ax.set(ylabel=ylabel, xlim=(0.4, len(values) + 0.6), ylim=(0, top or 1.06 * highest or 1))
        ax.set_xticks(range(1, len(values) + 1), list(values))
        ax.grid(False, axis="x")
        return _encode(figure, "svg")


def _encode(figure: Figure, kind: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    mime = {"png": "image/png", "svg": "image/svg+xml"}[kind]
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"
