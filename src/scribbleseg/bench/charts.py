"""Charts of a bench: box plots, training curves, sensitivity; each function takes finished runs and returns a matplotlib Figure."""

import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from ..evaluate import summarise
from ..figures import LINE_COLOURS, LINE_STYLES, colour
from ..methods import hyperparameters, parse_options
from .jobs import Job, Result
from .statistics import mean_sd

INK = "#222222"
MARKERS = "osD^vPX<>p*"  # eleven: with six colours and four styles no two of 132 rows look the same


class NothingToDraw(Exception):
    """Why a figure is not made."""


# --- box plots


def boxplot(jobs: Sequence[Job], results: dict[Job, Result]) -> Figure:
    """A panel per class, a row per method: the Dice of every held-out case (mean over seeds) as a dot, quartiles, median, range."""
    scores = {label: _case_dice([results[job] for job in runs]) for label, runs in _by_label(jobs, results).items()}
    classes = list(dict.fromkeys(name for found in scores.values() for name in found))
    figure = Figure((1.3 + 2.3 * len(classes), 1.35 + 0.3 * len(scores)), layout="constrained")
    panels = figure.subplots(1, len(classes), sharey=True, squeeze=False)[0]
    rng = np.random.default_rng(0)
    for value, (ax, name) in enumerate(zip(panels, classes), 1):
        for place, (label, found) in enumerate(scores.items()):
            dice = np.array([v for v in found.get(name, {}).values() if not np.isnan(v)])
            if not dice.size:
                ax.text(0.02, place, "not run" if not found else "no case", va="center", fontsize=8, style="italic", color="#666666")
                continue
            low, middle, high = np.quantile(dice, (0.25, 0.5, 0.75))
            ax.hlines(place, dice.min(), dice.max(), color=INK, linewidth=0.9)
            ax.barh(place, high - low, 0.62, low, facecolor=colour(value), edgecolor=INK, linewidth=0.9, alpha=0.55)
            ax.plot(dice, place + rng.uniform(-0.2, 0.2, dice.size), "o", color=INK, alpha=0.5, markersize=2.6, markeredgewidth=0, clip_on=False, label=label)
            ax.plot([middle] * 2, [place - 0.36, place + 0.36], color="#000000", linewidth=2.2, solid_capstyle="butt", label=f"median of {label}", path_effects=[withStroke(linewidth=3.2, foreground="white")])
            ax.text(1.02, place, f"{middle:.2f}", transform=ax.get_yaxis_transform(), va="center", fontsize=7.5)
        ax.set(xlim=(0, 1), xlabel="Dice", ylim=(len(scores) - 0.4, -0.6))
        ax.set_title(name, fontsize=10)
        ax.set_yticks(range(len(scores)), list(scores))
        ax.grid(False, axis="y")
        ax.tick_params(axis="y", length=0)
    count = len({case for found in scores.values() for cases in found.values() for case in cases})
    _describe(figure, jobs, f"{count} held-out cases. Dot: a case{_over_seeds(jobs)}; box: quartiles; bar and number: median; line: all cases.{_lacking(jobs, results)}")
    return figure


def _case_dice(runs: Sequence[Result]) -> dict[str, dict[str, float]]:
    """{class: {case: Dice, the mean over the runs that held the case out and where it is defined}}."""
    found: dict[str, dict[str, list[float]]] = {}
    for run in runs:
        for row in run.rows:
            found.setdefault(row["class"], {}).setdefault(row["case"], []).append(row["dice"])
    return {name: {case: mean_sd(values)[0] for case, values in cases.items()} for name, cases in found.items()}


# --- training curves


def curves(jobs: Sequence[Job], results: dict[Job, Result]) -> Figure:
    """Training loss, and validation Dice where there is any, over the iteration: a line per row, its mean over folds and seeds, the range shaded."""
    by_label = {label: [results[job].curve for job in runs] for label, runs in _by_label(jobs, results).items()}
    found = [curve for runs in by_label.values() for curve in runs]
    keys = ["loss"] + ["val_mean_dice"] * any(np.isfinite(curve["val_mean_dice"]).any() for curve in found)
    figure = Figure((1.2 + 4.9 * len(keys), 3.9), layout="constrained")
    for ax, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys):
        if key == "loss" and all((curve["loss"] > 0).all() for curve in found):
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            ax.yaxis.set_minor_formatter(NullFormatter())
        ends = []
        for index, (label, runs) in enumerate(by_label.items()):
            x, values = _stack(runs, key)
            if not len(x):
                continue
            look = _look(index)
            y = values.mean(0)
            if len(values) > 1:
                ax.fill_between(x, values.min(0), values.max(0), color=look["color"], alpha=0.15, linewidth=0)
            every = max(1, len(x) // 7)
            ax.plot(x, y, label=label, markevery=(index * 2 % every, every), markersize=4.5, **look)
            ends.append((x[-1], y[-1], label, look))
        ax.set(xlabel="iteration", ylabel={"loss": "training loss", "val_mean_dice": "validation Dice (mean of the classes)"}[key])
        ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        _label_ends(ax, ends, 3.1)
    several = max(len(runs) for runs in by_label.values()) > 1
    shade = " Line: mean over folds and seeds; shade: range." if several else ""
    _describe(figure, jobs, f"Losses are sums of each method's own terms: compare their course, not their height.{shade}{_lacking(jobs, results)}")
    return figure


def _stack(runs: Sequence[dict[str, np.ndarray]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """(iterations, values [runs, iterations]) of the runs that have any, at the first one's iterations."""
    known = [(run["iteration"][mask], run[key][mask]) for run in runs if (mask := np.isfinite(run[key])).any()]
    if not known:
        return np.array([]), np.array([])
    x = known[0][0]
    return x, np.stack([np.interp(x, *pair) for pair in known])


# --- sensitivity


def sensitivity(jobs: Sequence[Job], results: dict[Job, Result], option: str) -> Figure:
    """Mean Dice over cases against one option, for the rows that differ in nothing else: per class and their mean; error bars: sd over folds and seeds."""
    runs = _differing_in(option, jobs)
    dice: dict[object, dict[str, list[float]]] = {}  # option's value → class → one mean per fold and seed
    for job, value in runs.items():
        for entry in summarise(results[job].rows) if job in results else ():
            dice.setdefault(value, {}).setdefault(entry["class"], []).append(entry["dice"])
    if len(dice) < 2:
        raise NothingToDraw(f"fewer than two values of '{option}' were run")
    values = sorted(dice)
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    x = values if numbers else range(len(values))
    figure = Figure((5.2, 3.7), layout="constrained")
    ax = figure.subplots()
    ends = []
    several = any(len(means) > 1 for found in dice.values() for means in found.values())
    for index, name in enumerate(dice[values[0]]):
        means = [float(np.mean(dice[value][name])) for value in values]
        spread = [float(np.std(dice[value][name], ddof=1)) if len(dice[value][name]) > 1 else 0.0 for value in values] if several else None
        look = {"color": INK, "linestyle": "-", "linewidth": 2.2, "marker": "o"} if name == "mean" else _look(index)
        ax.errorbar(x, means, spread, label=name, capsize=3, markersize=5, **look)
        ends.append((x[-1], means[-1], name, look))
    if numbers and values[0] > 0 and _unevenness(np.log(values)) < _unevenness(values):
        ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(list(x)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda _, place: str(values[place]) if place is not None and place < len(values) else ""))
    method = next(iter(runs)).method
    default = hyperparameters(method)[option]
    if default in values:
        at = default if numbers else values.index(default)
        ax.axvline(at, color="#777777", linewidth=1, linestyle=(0, (1, 2)), zorder=0)
        ax.annotate("default", (at, 1), xycoords=ax.get_xaxis_transform(), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7.5, color="#555555")
    ax.set(xlabel=f"{option} of {method}", ylabel="Dice, mean over cases")
    ax.margins(0.06, 0.12)
    _label_ends(ax, ends, 2.8)
    bars = " Mean over folds and seeds; bars: sd over them." if several else ""
    _describe(figure, list(runs), f"The axis does not begin at 0.{bars}{_lacking(list(runs), results)}")
    return figure


def _unevenness(values: Sequence[float]) -> float:
    steps = np.diff(values)
    return float(steps.std() / steps.mean())


def _differing_in(option: str, jobs: Sequence[Job]) -> dict[Job, object]:
    """The largest set of jobs whose rows differ in nothing but the option, each with its value there (the method's default where it says none)."""
    groups: dict[tuple, dict[Job, object]] = {}
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
    """The finished runs of each row, in the plan's order; an empty list where none is."""
    return {label: [job for job in jobs if job.label == label and job in results] for label in dict.fromkeys(job.label for job in jobs)}


def _look(index: int) -> dict:
    return {"color": LINE_COLOURS[index % len(LINE_COLOURS)], "linestyle": LINE_STYLES[index % len(LINE_STYLES)], "marker": MARKERS[index % len(MARKERS)], "linewidth": 1.5}


def _label_ends(ax: Axes, ends: Sequence[tuple[float, float, str, dict]], height: float) -> None:
    """Names (x, y, text, look) beside the right ends of lines, pushed apart, each with its line's marker; `height` of the axes in inches."""
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
        ax.plot([1.03], [place], transform=ax.transAxes, clip_on=False, color=look["color"], marker=look["marker"], markersize=4.5)
        ax.text(1.05, place, text, transform=ax.transAxes, va="center", fontsize=8, color=look["color"])


def _describe(figure: Figure, jobs: Sequence[Job], text: str) -> None:
    """Which runs above, how to read them below."""
    figure.suptitle(which_runs(jobs), x=0.01, ha="left", fontsize=9, color="#444444")
    figure.supxlabel(wrap(text, figure.get_figwidth()), x=0.01, ha="left", fontsize=7.5, color="#444444")


def which_runs(jobs: Sequence[Job]) -> str:
    folds, seeds = (", ".join(map(str, dict.fromkeys(values))) for values in ([job.fold for job in jobs], [job.seed for job in jobs]))
    return f"{jobs[0].data}, {jobs[0].split} fold {folds}, seed {seeds}, budget {jobs[0].budget}"


def wrap(text: str, inches: float) -> str:
    return "\n".join(textwrap.wrap(text, int(inches * 17)))


def _over_seeds(jobs: Sequence[Job]) -> str:
    return ", mean over seeds" if len({job.seed for job in jobs}) > 1 else ""


def _lacking(jobs: Sequence[Job], results: dict[Job, Result]) -> str:
    """Which rows were not run, or not in every fold and seed."""
    parts = []
    for label, done in _by_label(jobs, results).items():
        wanted = sum(job.label == label for job in jobs)
        if len(done) < wanted:
            parts.append(f"{label} ({len(done)} of {wanted} runs)" if done else label)
    return f" Not run: {', '.join(parts)}." if parts else ""
