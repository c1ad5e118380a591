"""Figures of a bench: box plots, training curves, sensitivity and a qualitative grid, as PNG and SVG beside the table.

A plan asks for them with `[[figure]]` tables. What was not run is left out and named under the figure.
"""

import sys
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from ..config import Bench
from ..core.atomic import atomic_file
from ..core.errors import InputError, nearest
from ..methods import hyperparameters
from ..reporting.figures import STYLE
from .charts import NothingToDraw, boxplot, curves, sensitivity
from .grid import grid
from .jobs import BenchPlan, Job, Result

KEYS = {
    "boxplot": (),
    "curves": (),
    "sensitivity": ("option",),
    "grid": ("cases", "slices"),
}  # kind → what else its table may say


def check_figures(plan: BenchPlan) -> None:
    """Raises InputError for a `[[figure]]` of an unknown kind, with an unknown key or a value that cannot be meant, or one that is there twice."""
    seen = set()
    for entry in plan.figures:
        kind = entry.get("kind", "")
        if not isinstance(kind, str) or kind not in KEYS:
            raise InputError(
                f"{plan.path}: [[figure]] kind = {kind!r}; there is no such kind. {nearest(str(kind), KEYS)}"
            )
        where = f"{plan.path}: [[figure]] of kind '{kind}'"
        for key in entry.keys() - {"kind", *KEYS[kind]}:
            raise InputError(f"{where}: no key '{key}'. {nearest(key, ('kind', *KEYS[kind]))}")
        if kind == "sensitivity":
            known = {name for job in plan.jobs for name in hyperparameters(job.method)}
            option = entry.get("option", "")
            if not isinstance(option, str) or option not in known:
                raise InputError(
                    f"{where}: option = {option!r}; expected an option of the plan's methods. {nearest(str(option), known)}"
                )
        cases, slices = entry.get("cases", []), entry.get("slices", 1)
        if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
            raise InputError(f'{where}: cases = {cases!r}; expected a list of names, such as ["patient001_frame01"].')
        if type(slices) is not int or slices < 1:
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
    """STEM.png and STEM.svg (text as paths): the same bytes for the same figure."""
    paths = [stem.with_name(f"{stem.name}.{end}") for end in ("png", "svg")]
    for path, metadata in zip(paths, ({"Software": None}, {"Date": None, "Creator": None})):
        with atomic_file(path) as partial, rc_context({"svg.hashsalt": "scribbleseg", "svg.fonttype": "path"}):
            figure.savefig(partial, format=path.suffix[1:], dpi=150, metadata=metadata)
    return paths
