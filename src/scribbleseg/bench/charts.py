"""Charts of a bench: box plots, training curves, sensitivity. Each function returns a matplotlib Figure."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import ScaledTranslation

from ..methods import hyperparameters, parse_options
from ..reporting.figures import LINE_COLOURS, LINE_STYLES, colour
from .plan import Job
from .statistics import table_of, with_mean
from .store import Results
from .tables import not_run, run_spans

INK = "#222222"
BOX_CASES = 6  # with fewer there is no box, because its quartiles would be single cases
COLUMNS = 4  # of panels with curves
MARKERS = "osD^vPX<>p*"
QUANTITIES = {"loss": "training loss", "val_mean_dice": "validation Dice"}


class NothingToDraw(Exception):
    """The reason why a figure is not made."""


def boxplot(jobs: Sequence[Job], results: Results) -> Figure:
    """A panel per class, and a line per row that has a run.

    A dot is the Dice of a held-out case (mean over seeds). A bar marks the median. With six or more cases a box shows
    the quartiles.
    """
    cases = table_of(results.scores, "dice", ["label", "case"]) / 100
    labels = list(dict.fromkeys(results.scores["label"]))
    count = results.scores["case"].nunique()
    figure = Figure((1.3 + 2.3 * len(cases.columns), 1.4 + 0.3 * len(labels)), layout="constrained")
    panels = figure.subplots(1, len(cases.columns), sharey=True, squeeze=False)[0]
    rng = np.random.default_rng(0)
    for value, (ax, name) in enumerate(zip(panels, cases), 1):
        for place, label in enumerate(labels):
            dice = cases[name][label].dropna().to_numpy()
            if dice.size:
                _draw_cases(ax, place, dice, label, value, rng)
            else:
                ax.text(0.02, place, "no case", va="center", fontsize=8, style="italic", color="#666666")
        ax.set(xlim=(-0.04, 1.04), xlabel="Dice", ylim=(len(labels) - 0.4, -0.6), xticks=np.linspace(0, 1, 6))
        ax.set_title(name, fontsize=10)
        ax.set_yticks(range(len(labels)), labels)
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
    seeds = ", mean over seeds" if results.scores["seed"].nunique() > 1 else ""
    box = "; box: quartiles" if count >= BOX_CASES else ""
    text = f"{count} held-out cases. Dot: a case{seeds}{box}; bar and number: median; line: all cases."
    _describe(figure, jobs, results, text)
    return figure


def _draw_cases(ax: Axes, place: int, dice: np.ndarray, label: str, value: int, rng: np.random.Generator) -> None:
    """Draw one line of a box plot."""
    low, middle, high = np.quantile(dice, (0.25, 0.5, 0.75))
    ax.hlines(place, dice.min(), dice.max(), color=INK, linewidth=0.9)
    if dice.size >= BOX_CASES:
        ax.barh(place, high - low, 0.62, low, facecolor=colour(value), edgecolor=INK, linewidth=0.9, alpha=0.55)
    height = place + rng.uniform(-0.2, 0.2, dice.size)
    ax.plot(dice, height, "o", color=INK, label=label, alpha=0.6, markersize=3, markeredgewidth=0)
    rim = [withStroke(linewidth=3.2, foreground="white")]
    ends = [place - 0.36, place + 0.36]
    ax.plot([middle] * 2, ends, color="black", label=f"median of {label}", linewidth=2.2, path_effects=rim, zorder=3)
    ax.text(1.02, place, f"{middle:.2f}", transform=ax.get_yaxis_transform(), va="center", fontsize=7.5)


def curves(jobs: Sequence[Job], results: Results) -> Figure:
    """Training loss and, if there is any, validation Dice over the iteration: a small panel per row.

    The line is the mean over folds and seeds, the shade is the range. The other rows are grey behind it.
    """
    stacks = {key: lines for key in QUANTITIES if (lines := _stacks(results.curves, key))}
    columns = min(COLUMNS, max(map(len, stacks.values())))
    heights = [-(-len(lines) // columns) for lines in stacks.values()]
    figure = Figure((1 + 1.8 * columns, 0.9 + 0.3 * len(heights) + 1.4 * sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, rows, (key, lines) in zip(parts, heights, stacks.items()):
        panels = part.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        _scale(panels[0], key, lines)
        for ax, (label, line) in zip(panels, lines.items()):
            for other in lines.values():
                ax.plot(other.index, other["mean"], color="#c9c9c9", linewidth=0.7)
            ax.fill_between(line.index, line["min"], line["max"], color=INK, alpha=0.15, linewidth=0)
            ax.plot(line.index, line["mean"], label=label, color=INK, linewidth=1.7)
            ax.set_title(label, fontsize=9, pad=3)
        for ax, above in zip(panels[len(lines) :], panels[len(lines) - columns :]):
            ax.set_axis_off()
            above.tick_params(labelbottom=True)
        part.supxlabel("iteration", fontsize=9)
        part.supylabel(QUANTITIES[key], fontsize=9)
    text = "Losses are sums of each method's own terms: compare their course, not their height."
    if "val_mean_dice" in stacks:
        text += " Validation Dice is the mean of the classes."
    if any(record["plan"].get("val_on_scribbles") for record in results.records.values()):
        text += " It is of scribbled pixels alone."
    if results.curves.groupby("label")["run"].nunique().max() > 1:
        text += " Line: mean over folds and seeds; shade: range."
    _describe(figure, jobs, results, text + " Grey: the other rows.")
    return figure


def _stacks(curves: pd.DataFrame, key: str) -> dict[str, pd.DataFrame]:
    """Label → mean, min and max over the row's runs at the iterations of the first one, for rows that have values."""
    found = {}
    for label, rows in curves[np.isfinite(curves[key])].groupby("label", sort=False):
        runs = [run for _, run in rows.groupby("run", sort=False)]
        x = runs[0]["iteration"].to_numpy()
        values = pd.DataFrame([np.interp(x, run["iteration"], run[key]) for run in runs], columns=x)
        found[str(label)] = values.agg(["mean", "min", "max"]).T
    return found


def _scale(ax: Axes, key: str, lines: dict[str, pd.DataFrame]) -> None:
    """Set a logarithmic axis for losses if all are positive."""
    if key == "loss" and all((line["min"] > 0).all() for line in lines.values()):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def sensitivity(jobs: Sequence[Job], results: Results, option: str) -> Figure:
    """Mean Dice over cases against one option, per class and for their mean, for the rows that differ in nothing else.

    The values are evenly spaced. Error bars are the sd over folds and seeds, cut at 0 and 1. If there are bars, the
    classes are drawn a few points apart, so that no bar hides another.
    """
    given = _differing_in(option, jobs)
    shown = results.of(list(given))
    settings = {job.run: given[job] for job in shown.records}
    if len(set(settings.values())) < 2:
        raise NothingToDraw(f"fewer than two values of '{option}' were run")
    dice = with_mean(table_of(shown.scores, "dice", ["run"])) / 100
    groups = dice.groupby(dice.index.map(settings))
    means, spread = groups.mean(), groups.std().fillna(0)
    values, several = list(means.index), len(dice) > len(means)
    figure = Figure((5.2, 3.7), layout="constrained")
    ax = figure.subplots()
    for index, name in enumerate(means):
        look = {"color": INK, "linewidth": 2.2, "marker": "o"} if name == "mean" else _look(index)
        bars = ax.errorbar(
            range(len(values)),
            means[name],
            spread[name] if several else None,
            label=name,
            capsize=3,
            markersize=5,
            **look,
        )
        aside = several * (index - (len(means.columns) - 1) / 2) * 4 / 72
        for artist in bars.get_children():
            artist.set_transform(ax.transData + ScaledTranslation(aside, 0, figure.dpi_scale_trans))
    ax.set_xticks(range(len(values)), list(map(str, values)))
    method = next(iter(given)).method
    default: Any = hyperparameters(method)[option]
    if default in values:
        ax.axvline(values.index(default), color="#777777", linewidth=1, linestyle=":", zorder=0, label="default")
    ax.set(
        xlabel=f"{option} of {method}",
        ylabel="Dice, mean over cases, then folds" if several else "Dice, mean over cases",
    )
    ax.margins(0.06, 0.12)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, 0), min(high, 1))
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8, handlelength=3.5)
    bars_are = " Mean over folds and seeds; bars: sd over them." if several else ""
    begin = "The axis does not begin at 0." if low > 0 else ""
    _describe(figure, list(given), shown, f"{begin}{bars_are}".strip())
    return figure


def _differing_in(option: str, jobs: Sequence[Job]) -> dict[Job, Any]:
    """The largest set of jobs whose rows differ in the option only, each with its value (or the method's default)."""
    groups: dict[tuple, dict[Job, Any]] = {}
    for job in jobs:
        full = hyperparameters(job.method) | parse_options(job.method, job.set)
        if option in full:
            value = full.pop(option)
            groups.setdefault((job.method, *full.items()), {})[job] = value
    if not groups:
        raise NothingToDraw(f"no row has the option '{option}'")
    return max(groups.values(), key=lambda group: len(set(group.values())))


def _look(index: int) -> dict:
    return {
        "color": LINE_COLOURS[index % len(LINE_COLOURS)],
        "linestyle": LINE_STYLES[index % len(LINE_STYLES)],
        "marker": MARKERS[index % len(MARKERS)],
        "linewidth": 1.5,
    }


def _describe(figure: Figure, jobs: Sequence[Job], results: Results, text: str) -> None:
    """Write above the figure which runs it shows, and below it how to read it and which rows lack runs."""
    text = f"{text} {not_run(jobs, results.records)}".strip()
    figure.suptitle(which_runs(results), x=0.01, ha="left", fontsize=9, color="#444444")
    figure.supxlabel(wrap(text, figure.get_figwidth()), x=0.01, ha="left", fontsize=7.5, color="#444444")


def which_runs(results: Results) -> str:
    """Data, split, budget, and the folds and seeds that were run."""
    shown = ", ".join(f"{name} {numbers}" for name, numbers in run_spans(results.records).items())
    job = next(iter(results.records))
    return f"{job.data}, {job.split}, {shown}, budget {job.budget}"


def wrap(text: str, inches: float) -> str:
    return "\n".join(textwrap.wrap(text, int(inches * 17)))
