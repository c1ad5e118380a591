"""Charts of a bench: box plots, training curves, sensitivity. Each function returns a matplotlib Figure."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from ..evaluation.scores import summarise
from ..methods import hyperparameters, parse_options
from ..reporting.figures import LINE_COLOURS, LINE_STYLES, colour
from .plan import Job
from .statistics import mean_sd
from .store import Result
from .tables import spans

INK = "#222222"
FEW_CASES = 10  # up to this number dots are drawn over the box
BOX_CASES = 6  # with fewer there is no box, because its quartiles would be single cases
TOGETHER = 6  # most rows whose curves share a panel
MARKERS = "osD^vPX<>p*"  # eleven: with six colours and four styles no two of 132 rows look the same


QUANTITIES = {"loss": "training loss", "val_mean_dice": "validation Dice (mean of the classes)"}
Stacks = dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]  # quantity → row → (iterations, values [runs, iterations])


class NothingToDraw(Exception):
    """The reason why a figure is not made."""


# --- box plots


def boxplot(jobs: Sequence[Job], results: dict[Job, Result]) -> Figure:
    """A panel per class, and a line per row that has a run.

    A dot is the Dice of a held-out case (mean over seeds). A bar marks the median. With six or more cases a box shows
    the quartiles.
    """
    scores = {
        label: _case_dice([results[job] for job in runs]) for label, runs in _by_label(jobs, results).items() if runs
    }
    classes = list(dict.fromkeys(name for found in scores.values() for name in found))
    count = len({case for found in scores.values() for cases in found.values() for case in cases})
    figure = Figure((1.3 + 2.3 * len(classes), 1.4 + 0.3 * len(scores)), layout="constrained")
    panels = figure.subplots(1, len(classes), sharey=True, squeeze=False)[0]
    rng = np.random.default_rng(0)
    for value, (ax, name) in enumerate(zip(panels, classes), 1):
        for place, (label, found) in enumerate(scores.items()):
            dice = np.array([v for v in found.get(name, {}).values() if not np.isnan(v)])
            if dice.size:
                _draw_cases(ax, place, dice, label, value, rng)
            else:
                ax.text(0.02, place, "no case", va="center", fontsize=8, style="italic", color="#666666")
        ax.set(xlim=(-0.04, 1.04), xlabel="Dice", ylim=(len(scores) - 0.4, -0.6))
        ax.set_title(name, fontsize=10)
        ax.set_xticks(np.linspace(0, 1, 6))
        ax.set_yticks(range(len(scores)), list(scores))
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
    box = "; box: quartiles" if count >= BOX_CASES else ""
    text = (
        f"{count} held-out cases. Dot: a case{_over_seeds(jobs)}{box}; bar and number: median; line: all "
        f"cases.{_lacking(jobs, results)}"
    )
    _describe(figure, jobs, results, text)
    return figure


def _draw_cases(ax: Axes, place: int, dice: np.ndarray, label: str, value: int, rng: np.random.Generator) -> None:
    """Draw one line of a box plot.

    Few dots are large with a rim, in the order of the cases from above, over box and median. Many dots are faint and
    below the median.
    """
    low, middle, high = np.quantile(dice, (0.25, 0.5, 0.75))
    ax.hlines(place, dice.min(), dice.max(), color=INK, linewidth=0.9)
    if dice.size >= BOX_CASES:
        ax.barh(place, high - low, 0.62, low, facecolor=colour(value), edgecolor=INK, linewidth=0.9, alpha=0.55)
    few = dice.size <= FEW_CASES
    look: dict[str, Any] = (
        {"markersize": 4.6, "markeredgecolor": "white", "markeredgewidth": 0.6, "zorder": 4}
        if few
        else {"alpha": 0.5, "markersize": 2.6, "markeredgewidth": 0}
    )
    height = np.linspace(-0.24, 0.24, dice.size) if few else rng.uniform(-0.2, 0.2, dice.size)
    ax.plot(dice, place + height, "o", color=INK, label=label, **look)
    bar: dict[str, Any] = {
        "color": "#000000",
        "linewidth": 2.2,
        "solid_capstyle": "butt",
        "path_effects": [withStroke(linewidth=3.2, foreground="white")],
    }
    ax.plot([middle] * 2, [place - 0.36, place + 0.36], label=f"median of {label}", zorder=3, **bar)
    ax.text(1.02, place, f"{middle:.2f}", transform=ax.get_yaxis_transform(), va="center", fontsize=7.5)


def _case_dice(runs: Sequence[Result]) -> dict[str, dict[str, float]]:
    """{class: {case: mean Dice over the runs that held the case out and have a defined value}}."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for row in run.rows:
            found.setdefault(row["class"], {}).setdefault(row["case"], []).append(row["dice"])
    return {name: {case: mean_sd(values)[0] for case, values in cases.items()} for name, cases in found.items()}


# --- training curves


def curves(jobs: Sequence[Job], results: dict[Job, Result]) -> Figure:
    """Training loss and, if there is any, validation Dice over the iteration: a line per row.

    The line is the mean over folds and seeds, the shade is the range. With more than six rows each has a small panel,
    with the other rows in grey behind it.
    """
    by_label = {label: [results[job].curve for job in runs] for label, runs in _by_label(jobs, results).items() if runs}
    stacks = {
        key: {label: stack for label, runs in by_label.items() if len((stack := _stack(runs, key))[0])}
        for key in QUANTITIES
    }
    figure = (_curves_apart if len(by_label) > TOGETHER else _curves_together)(
        {key: lines for key, lines in stacks.items() if lines}
    )
    several = max(len(runs) for runs in by_label.values()) > 1
    shade = " Line: mean over folds and seeds; shade: range." if several else ""
    behind = " Grey: the other rows." if len(by_label) > TOGETHER else ""
    blind = (
        " Validation Dice is of scribbled pixels alone."
        if any(results[job].record["plan"].get("val_on_scribbles") for job in jobs if job in results)
        else ""
    )
    text = (
        "Losses are sums of each method's own terms: compare their course, not their "
        f"height.{blind}{shade}{behind}{_lacking(jobs, results)}"
    )
    _describe(figure, jobs, results, text)
    return figure


def _curves_together(stacks: Stacks) -> Figure:
    figure = Figure((1.2 + 4.9 * len(stacks), 3.9), layout="constrained")
    looks = {
        label: _look(index)
        for index, label in enumerate(dict.fromkeys(label for lines in stacks.values() for label in lines))
    }
    for ax, (key, lines) in zip(figure.subplots(1, len(stacks), squeeze=False)[0], stacks.items()):
        _scale(ax, key, lines, 6)
        ends = []
        for index, (label, (x, values)) in enumerate(lines.items()):
            every = max(1, len(x) // 7)
            _draw_curve(ax, label, x, values, markevery=(index * 2 % every, every), markersize=4.5, **looks[label])
            ends.append((x[-1], values.mean(0)[-1], label, looks[label]))
        ax.set(xlabel="iteration", ylabel=QUANTITIES[key])
        _label_ends(ax, ends, 3.1)
    return figure


def _curves_apart(stacks: Stacks) -> Figure:
    columns = 4
    heights = [-(-len(lines) // columns) for lines in stacks.values()]
    figure = Figure((1 + 1.8 * columns, 0.9 + 0.3 * len(heights) + 1.4 * sum(heights)), layout="constrained")
    parts = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, rows, (key, lines) in zip(parts, heights, stacks.items()):
        panels = part.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        _scale(panels[0], key, lines, 3)
        for ax, (label, line) in zip(panels, lines.items()):
            for x, values in lines.values():
                ax.plot(x, values.mean(0), color="#c9c9c9", linewidth=0.7)
            _draw_curve(ax, label, *line, color=INK, linewidth=1.7)
            ax.set_title(label, fontsize=9, pad=3)
        for ax, above in zip(panels[len(lines) :], panels[len(lines) - columns :]):
            ax.set_axis_off()
            above.tick_params(labelbottom=True)
        part.supxlabel("iteration", fontsize=9)
        part.supylabel(QUANTITIES[key], fontsize=9)
    return figure


def _draw_curve(ax: Axes, label: str, x: np.ndarray, values: np.ndarray, color: str, **look: Any) -> None:
    if len(values) > 1:
        ax.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)
    ax.plot(x, values.mean(0), label=label, color=color, **look)


def _scale(ax: Axes, key: str, lines: dict[str, tuple[np.ndarray, np.ndarray]], ticks: int) -> None:
    """Set a logarithmic axis for losses if all are positive."""
    if key == "loss" and all((values > 0).all() for _, values in lines.values()):
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))


def _stack(runs: Sequence[dict[str, np.ndarray]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(iterations, values [runs, iterations]) of the runs that have values, at the iterations of the first run."""
    known = [(run["iteration"][mask], run[key][mask]) for run in runs if (mask := np.isfinite(run[key])).any()]
    if not known:
        return np.array([]), np.array([])
    x = known[0][0]
    return x, np.stack([np.interp(x, *pair) for pair in known])


# --- sensitivity


def sensitivity(jobs: Sequence[Job], results: dict[Job, Result], option: str) -> Figure:
    """Mean Dice over cases against one option, per class and for their mean, for the rows that differ in nothing else.

    Error bars are the sd over folds and seeds, cut at 0 and 1. If there are bars, the classes are drawn a few points
    apart, so that no bar hides another.
    """
    runs = _differing_in(option, jobs)
    dice: dict[Any, dict[str, list[float]]] = {}  # option's value → class → one mean per fold and seed
    for job, value in runs.items():
        for entry in summarise(results[job].rows) if job in results else ():
            dice.setdefault(value, {}).setdefault(entry["class"], []).append(entry["dice"])
    if len(dice) < 2:
        raise NothingToDraw(f"fewer than two values of '{option}' were run")
    values = sorted(dice)
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    x = values if numbers else list(range(len(values)))
    figure = Figure((5.2, 3.7), layout="constrained")
    ax = figure.subplots()
    ends = []
    several = any(len(means) > 1 for found in dice.values() for means in found.values())
    for index, name in enumerate(dice[values[0]]):
        means = [float(np.mean(dice[value][name])) for value in values]
        spread = (
            [float(np.std(dice[value][name], ddof=1)) if len(dice[value][name]) > 1 else 0.0 for value in values]
            if several
            else None
        )
        look = {"color": INK, "linestyle": "-", "linewidth": 2.2, "marker": "o"} if name == "mean" else _look(index)
        aside = ScaledTranslation(
            several * (index - (len(dice[values[0]]) - 1) / 2) * 4 / 72, 0, figure.dpi_scale_trans
        )
        for artist in ax.errorbar(x, means, spread, label=name, capsize=3, markersize=5, **look).get_children():
            artist.set_transform(ax.transData + aside)
        ends.append((x[-1], means[-1], name, look))
    if numbers and values[0] > 0 and _unevenness(np.log(values)) < _unevenness(values):
        ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(list(x)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda _, place: str(values[place]) if place is not None and place < len(values) else "")
    )
    method = next(iter(runs)).method
    default: Any = hyperparameters(method)[option]
    if default in values:
        at = default if numbers else values.index(default)
        ax.axvline(at, color="#777777", linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        ax.annotate(
            "default",
            (at, 1),
            xycoords=ax.get_xaxis_transform(),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
            color="#555555",
        )
    ax.set(
        xlabel=f"{option} of {method}",
        ylabel="Dice, mean over cases, then folds" if several else "Dice, mean over cases",
    )
    ax.margins(0.06, 0.12)
    low, high = ax.get_ylim()
    ax.set_ylim(max(low, 0), min(high, 1))
    _label_ends(ax, ends, 2.8)
    bars = " Mean over folds and seeds; bars: sd over them." if several else ""
    begin = "The axis does not begin at 0." if low > 0 else ""
    _describe(figure, list(runs), results, f"{begin}{bars}{_lacking(list(runs), results)}".strip())
    return figure


def _unevenness(values: Sequence[float] | np.ndarray) -> float:
    steps = np.diff(values)
    return float(steps.std() / steps.mean())


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


# --- what they share


def _by_label(jobs: Sequence[Job], results: dict[Job, Result]) -> dict[str, list[Job]]:
    """The finished runs of each row, in the plan's order. The list is empty for a row that was not run."""
    return {
        label: [job for job in jobs if job.label == label and job in results]
        for label in dict.fromkeys(job.label for job in jobs)
    }


def _look(index: int) -> dict:
    return {
        "color": LINE_COLOURS[index % len(LINE_COLOURS)],
        "linestyle": LINE_STYLES[index % len(LINE_STYLES)],
        "marker": MARKERS[index % len(MARKERS)],
        "linewidth": 1.5,
    }


def _label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, dict]], height: float) -> None:
    """Write names (x, y, text, look) beside the right ends of lines, each with the marker of its line.

    The names are moved apart so that they do not overlap. `height` of the axes is in inches.
    """
    gap = 9.5 / (72 * height)
    ax.set(xlim=ax.get_xlim(), ylim=ax.get_ylim())
    ends = sorted(ends, key=lambda end: end[1])
    starts = [ax.transAxes.inverted().transform(ax.transData.transform((x, y))) for x, y, _, _ in ends]
    places = [start[1] for start in starts]
    for index in range(1, len(places)):
        places[index] = max(places[index], places[index - 1] + gap)
    for index in range(len(places) - 1, -1, -1):
        places[index] = min(places[index], (places[index + 1] if index + 1 < len(places) else 1 + gap) - gap)
    for (x, y), place, (_, _, text, look) in zip(starts, places, ends):
        ax.plot([x, 1.03], [y, place], transform=ax.transAxes, clip_on=False, color=look["color"], linewidth=0.6)
        ax.plot(
            [1.03],
            [place],
            transform=ax.transAxes,
            clip_on=False,
            color=look["color"],
            marker=look["marker"],
            markersize=4.5,
        )
        ax.text(1.05, place, text, transform=ax.transAxes, va="center", fontsize=8, color=look["color"])


def _describe(figure: Figure, jobs: Sequence[Job], results: dict[Job, Result], text: str) -> None:
    """Write above the figure which runs it shows, and below it how to read it."""
    figure.suptitle(which_runs(jobs, results), x=0.01, ha="left", fontsize=9, color="#444444")
    figure.supxlabel(wrap(text, figure.get_figwidth()), x=0.01, ha="left", fontsize=7.5, color="#444444")


def which_runs(jobs: Sequence[Job], results: dict[Job, Result]) -> str:
    """Data, split, budget, and the folds and seeds that were run."""
    done = [job for job in jobs if job in results]
    folds, seeds = (_counted(word, {getattr(job, word) for job in done}) for word in ("fold", "seed"))
    return f"{jobs[0].data}, {jobs[0].split} {folds}, {seeds}, budget {jobs[0].budget}"


def _counted(word: str, numbers: set[int]) -> str:
    return f"{word}{'s' * (len(numbers) > 1)} {spans(numbers)}"


def wrap(text: str, inches: float) -> str:
    return "\n".join(textwrap.wrap(text, int(inches * 17)))


def _over_seeds(jobs: Sequence[Job]) -> str:
    return ", mean over seeds" if len({job.seed for job in jobs}) > 1 else ""


def _lacking(jobs: Sequence[Job], results: dict[Job, Result]) -> str:
    """The rows that were run in only some of the plan's folds and seeds, and those that were not run."""
    by_label = _by_label(jobs, results)
    parts: dict[str, list[str]] = {}
    for label, done in by_label.items():
        wanted = [job for job in jobs if job.label == label]
        if 0 < len(done) < len(wanted):
            parts.setdefault(_part(done, wanted), []).append(label)
    incomplete = "; ".join(f"{', '.join(labels)} ({part})" for part, labels in parts.items())
    absent = ", ".join(label for label, done in by_label.items() if not done)
    return (f" Incomplete: {incomplete}." if incomplete else "") + (f" Not run: {absent}." if absent else "")


def _part(done: Sequence[Job], wanted: Sequence[Job]) -> str:
    """`fold 0 of 0-4`, `seed 0 of 0-1` or both; the number of runs if they are not all of some folds and seeds."""
    numbers = {
        word: ({getattr(job, word) for job in done}, {getattr(job, word) for job in wanted})
        for word in ("fold", "seed")
    }
    if len(done) < math.prod(len(has) for has, _ in numbers.values()):
        return f"{len(done)} of {len(wanted)} runs"
    return ", ".join(
        f"{_counted(word, has)} of {spans(every)}" for word, (has, every) in numbers.items() if has != every
    )
