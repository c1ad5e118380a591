"""Figures of a bench, PNG and PDF beside the tables: box plots, training curves, sensitivity, a grid of segmentations.

A plan asks for them with `[[figure]]` tables. A figure leaves out runs that are not done and names them below.
"""

import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from ..config import Bench
from ..core.atomic import atomic_file
from ..core.console import say
from ..core.errors import InputError
from ..reporting.figures import STYLE
from .charts import NothingToDraw, boxplot, curves, sensitivity
from .grid import grid
from .plan import BenchPlan, Boxplot, Curves, FigureEntry, Grid, Job, Sensitivity
from .store import Results


def make_figures(plan: BenchPlan, results: Results, config: Bench) -> list[Path]:
    """Write every figure of the plan, per data set and split, to RESULTS/NAME-BUDGET-KIND[-OPTION]-DATA-SPLIT.png
    and .pdf.

    If a figure cannot be drawn, stderr says why, and an earlier one is kept. Returns the PNG files written.
    """
    written = []
    for entry in plan.figures:
        kind = [str(entry.__struct_config__.tag), *([entry.option] if isinstance(entry, Sensitivity) else [])]
        for (data, split), jobs in plan.places.items():
            path = config.results / ("-".join([plan.name, plan.budget, *kind, data, split]) + ".png")
            try:
                with rc_context(STYLE):
                    figure = _draw(entry, jobs, results.of(jobs), config)
                    write_figure(figure, path)
                    write_pdf(figure, path.with_suffix(".pdf"))
                written.append(path)
            except (NothingToDraw, InputError) as reason:
                say(f"{path.stem}: figure not made, {reason}")
    return written


def _draw(entry: FigureEntry, jobs: list[Job], results: Results, config: Bench) -> Figure:
    if not results.records:
        raise NothingToDraw("nothing was run")
    match entry:
        case Boxplot():
            return boxplot(jobs, results)
        case Curves():
            return curves(jobs, results)
        case Sensitivity():
            return sensitivity(jobs, results, entry.option)
        case Grid():
            return grid(jobs, results, config, entry.cases, entry.slices)


def write_figure(figure: Figure, path: Path) -> None:
    """Write a PNG with 64 colours, a third of the size with all colours. The same figure gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=96, metadata={"Software": None})
    with atomic_file(path) as partial:
        reduced = Image.open(buffer).convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE)
        reduced.save(partial, format="png", optimize=True)


def write_pdf(figure: Figure, path: Path) -> None:
    """The same for a paper: lines and text as such, with fonts that publishers take. Equal figures give equal bytes."""
    with atomic_file(path) as partial, rc_context({"pdf.fonttype": 42}):
        figure.savefig(partial, format="pdf", metadata={"CreationDate": None})
