"""Statistics for the tables of a bench: mean over seeds, spread over folds, paired tests, best and second best."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import wilcoxon

SAME = 12  # decimals: numbers that differ only by the order of a sum count as equal
MIN_PAIRS = 6  # with five the smallest two-sided p is 2/2⁵ = .0625


def average_seeds(runs: Sequence[list[dict]]) -> list[dict]:
    """One row per case and class from the rows of several runs (`evaluate.COLUMNS`).

    A value is the mean over the seeds for which it is defined. A flag becomes a count over seeds.
    """
    groups: dict[tuple, list[dict]] = {}
    for rows in runs:
        for row in rows:
            groups.setdefault((row["case"], row["class"]), []).append(row)
    averaged = []
    for same in groups.values():
        row = dict(same[0])
        row |= {key: mean_sd([one[key] for one in same])[0] for key in ("dice", "hd95", "assd", "penalised_hd95")}
        row |= {key: sum(one[key] for one in same) for key in ("missing", "spurious")}
        averaged.append(row)
    return averaged


def mean_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation of the defined values. nan if there is none; sd is nan for fewer than two."""
    defined = [value for value in values if not math.isnan(value)]
    mean = float(np.mean(defined)) if defined else math.nan
    return mean, float(np.std(defined, ddof=1)) if len(defined) > 1 else math.nan


def over_folds(summaries: Sequence[list[dict]]) -> list[dict]:
    """Per class, and for `mean`: mean and sd over folds of the means over cases (`evaluate.summarise` of each fold)."""
    lines = []
    for entries in zip(*summaries, strict=True):
        line = {"class": entries[0]["class"], "unit": entries[0]["unit"]}
        for key in ("dice", "hd95", "penalised_hd95"):
            line[key], line[f"{key}_sd"] = mean_sd([entry[key] for entry in entries])
        lines.append(line)
    return lines


def case_means(rows: Sequence[dict]) -> dict[str, float]:
    """Case → mean Dice over its classes. Cases whose Dice is never defined are left out."""
    dice: dict[str, list[float]] = {}
    for row in rows:
        dice.setdefault(row["case"], []).append(row["dice"])
    means = {case: mean_sd(values)[0] for case, values in dice.items()}
    return {case: mean for case, mean in means.items() if not math.isnan(mean)}


def paired_p(one: Mapping[str, float], other: Mapping[str, float]) -> tuple[float, int]:
    """p of Wilcoxon's two-sided signed-rank test over the cases that both have, and the number of these cases.

    Zero differences are dropped. p = 1 if all are zero, nan for fewer than six pairs.
    """
    shared = [case for case in one if case in other]
    differences = np.round([one[case] - other[case] for case in shared], SAME)
    if len(shared) < MIN_PAIRS:
        return math.nan, len(shared)
    return (float(wilcoxon(differences).pvalue) if differences.any() else 1.0), len(shared)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction: the i-th smallest of m gets max over j ≤ i of min(1, (m − j + 1) p_(j)). nan stays nan and is
    not counted in m."""
    order = sorted((name for name in p if not math.isnan(p[name])), key=lambda name: p[name])
    corrected, largest = dict(p), 0.0
    for index, name in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - index) * p[name]))
        corrected[name] = largest
    return corrected


def rank(values: Mapping[str, float], higher: bool) -> dict[str, str]:
    """Which names are `best` and which `second`. Ties share a place, nan has none. Empty if all values are the same."""
    defined = {name: value for name, value in values.items() if not math.isnan(value)}
    if len(set(defined.values())) < 2:
        return {}
    places = dict(zip(sorted(set(defined.values()), reverse=higher), ("best", "second")))
    return {name: places[value] for name, value in defined.items() if value in places}
