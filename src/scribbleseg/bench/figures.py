"""Figures of a bench: box plots, training curves, sensitivity and a qualitative grid, as PNG and SVG beside the table.

A plan asks for them with `[[figure]]` tables. What was not run is left out and named under the figure.
"""

import io
import re
import sys
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from ..atomic import atomic_file
from ..config import Bench
from ..errors import InputError, nearest
from ..figures import COLOURS, LINE_COLOURS, STYLE
from ..methods import hyperparameters
from .charts import NothingToDraw, boxplot, curves, sensitivity
from .grid import grid
from .jobs import BenchPlan, Job, Result

KEYS = {"boxplot": (), "curves": (), "sensitivity": ("option",), "grid": ("cases", "slices")}  # kind → what else its table may say
DPI = 150
PNG_BYTES, SVG_BYTES = 300_000, 1_000_000


def check_figures(plan: BenchPlan) -> None:
    """Raises InputError for a `[[figure]]` of an unknown kind, with an unknown key or a value that cannot be meant, or one that is there twice."""
    seen = set()
    for entry in plan.figures:
        kind = entry.get("kind", "")
        where = f"{plan.path}: [[figure]] of kind '{kind}'"
        if kind not in KEYS:
            raise InputError(f"{where}: no such kind. {nearest(str(kind), KEYS)}")
        for key in entry.keys() - {"kind", *KEYS[kind]}:
            raise InputError(f"{where}: no key '{key}'. {nearest(key, ('kind', *KEYS[kind]))}")
        if kind == "sensitivity":
            known = {name for job in plan.jobs for name in hyperparameters(job.method)}
            if entry.get("option") not in known:
                raise InputError(f"{where}: option = {entry.get('option')!r}; expected an option of the plan's methods. {nearest(str(entry.get('option')), known)}")
        cases, slices = entry.get("cases", []), entry.get("slices", 1)
        if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
            raise InputError(f"{where}: cases = {cases!r}; expected a list of names, such as [\"patient001_frame01\"].")
        if not isinstance(slices, int) or slices < 1:
            raise InputError(f"{where}: slices = {slices!r}; expected 1 or more slices per case.")
        if (kind, entry.get("option")) in seen:
            raise InputError(f"{where}: is there twice; the second would replace the first. Remove one.")
        seen.add((kind, entry.get("option")))


def make_figures(plan: BenchPlan, results: dict[Job, Result], config: Bench) -> list[Path]:
    """Write every figure of the plan, for each data set and split, to RESULTS/NAME-BUDGET-KIND[-OPTION]-DATA-SPLIT.png and .svg.

    A figure that nothing can be shown in, or whose files cannot be read, is not made (an earlier one stays), and stderr says why. Returns the files written.
    """
    written = []
    for entry in plan.figures:
        kind, *rest = [entry[key] for key in ("kind", "option") if key in entry]
        for data, split in dict.fromkeys((job.data, job.split) for job in plan.jobs):
            jobs = [job for job in plan.jobs if (job.data, job.split) == (data, split)]
            stem = config.results / "-".join([plan.name, plan.budget, kind, *rest, data, split])
            try:
                if not any(job in results for job in jobs):
                    raise NothingToDraw("nothing was run")
                with rc_context(STYLE):
                    figure = {
                        "boxplot": lambda: boxplot(jobs, results),
                        "curves": lambda: curves(jobs, results),
                        "sensitivity": lambda: sensitivity(jobs, results, entry["option"]),
                        "grid": lambda: grid(jobs, results, config, entry.get("cases", []), entry.get("slices", 1)),
                    }[kind]()
                    written += write_figure(figure, stem)
            except (NothingToDraw, InputError) as reason:
                print(f"{stem.name}: figure not made, {reason}", file=sys.stderr)
    return written


def write_figure(figure: Figure, stem: Path) -> list[Path]:
    """STEM.png (150 dpi) and STEM.svg (text as paths): the same bytes for the same figure. Where photographs would make them larger than
    300 kB and 1 MB, the PNG has fewer greys and the SVG's pictures fewer pixels."""
    png, svg = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    picture = Image.open(png).convert("RGB")
    for greys in (160, 96, 64, 48, 32, 24, 16):
        if png.tell() <= PNG_BYTES:
            break
        png = io.BytesIO()
        indexed = picture.quantize(palette=_palette(greys), dither=Image.Dither.NONE)
        indexed.paste(greys - 1, mask=Image.fromarray((np.asarray(picture) == 255).all(2)))  # Pillow makes white a light grey
        indexed.save(png, "png", optimize=True, dpi=(DPI, DPI))
    for dpi in (DPI, 120, 96, 72, 48):
        if 0 < svg.tell() <= SVG_BYTES:
            break
        svg = io.BytesIO()
        with rc_context({"svg.hashsalt": "scribbleseg", "svg.fonttype": "path"}):
            figure.savefig(svg, format="svg", dpi=dpi, metadata={"Date": None, "Creator": None})
        outlines = re.compile(rb' d="[^"]*"')  # to a hundredth of a point
        svg = io.BytesIO(outlines.sub(lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), svg.getvalue()))
        svg.seek(0, io.SEEK_END)
    paths = [stem.with_name(f"{stem.name}.{end}") for end in ("png", "svg")]
    for path, content in zip(paths, (png, svg)):
        with atomic_file(path) as partial:
            partial.write_bytes(content.getvalue())
    return paths


def _palette(greys: int) -> Image.Image:
    """So many greys from black to white, every class colour at four brightnesses, every line colour at four tints."""
    shades = [[round(255 * level / (greys - 1))] * 3 for level in range(greys)]
    shades += [[round(255 * share * part) for part in to_rgb(name)] for name in COLOURS[1:] for share in (1, 0.75, 0.5, 0.25)]
    shades += [[round(255 * (1 - share * (1 - part))) for part in to_rgb(name)] for name in LINE_COLOURS for share in (1, 0.6, 0.3, 0.12)]
    image = Image.new("P", (1, 1))
    image.putpalette([part for shade in shades for part in shade])
    return image
