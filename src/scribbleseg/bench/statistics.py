"""Statistics of a bench: summaries of the scores, bootstrap intervals, paired tests, best and second best.

Every table of scores has the columns of `store.Results.scores`, of one data set and split. Dice is in percent in what
they return.
"""

from collections.abc import Collection
from itertools import combinations

import numpy as np
import pandas as pd
from scipy.stats import bootstrap, wilcoxon

METRICS = {"dice": 100, "hd95": 1, "penalised_hd95": 1}  # column of the scores → factor
TESTED = ("dice", "hd95")
SAME = 12  # decimals: numbers that differ only by the order of a sum count as equal
MIN_PAIRS = 6  # with five the smallest two-sided p is 2/2⁵ = .0625
RESAMPLES = 2000


def table_of(scores: pd.DataFrame, metric: str, unit: list[str]) -> pd.DataFrame:
    """A row per unit, such as `["label", "fold", "case"]`, and a column per class: the mean of the defined values."""
    means = METRICS[metric] * scores.groupby([*unit, "class"])[metric].mean()
    return means.unstack("class")[list(dict.fromkeys(scores["class"]))]


def counts(scores: pd.DataFrame, flag: str) -> pd.DataFrame:
    """A row per label and a column per class: how many scores have the flag. `mean` is the sum."""
    table = scores.groupby(["label", "class"])[flag].sum().unstack("class")[list(dict.fromkeys(scores["class"]))]
    return table.assign(mean=table.sum(axis=1))


def with_mean(table: pd.DataFrame) -> pd.DataFrame:
    """The table with a last column `mean` over the classes."""
    return table.assign(mean=table.mean(axis=1))


def summarise(scores: pd.DataFrame) -> pd.DataFrame:
    """A row per (label, class or `mean`); columns as in the CSV file of a bench.

    Seeds are averaged first, for each case of a fold. Over cases: mean and sd over all cases; the mean of the classes
    is that of their means. Over folds: mean and sd over the folds' means. `low` and `high`: the bootstrap interval of
    the mean over patients. Undefined values are nan.
    """
    found: dict[str, pd.DataFrame] = {}
    for metric in METRICS:
        cases = table_of(scores, metric, ["label", "fold", "case"])
        folds = with_mean(cases.groupby(["label", "fold"]).mean())
        found |= {f"{metric}_over_folds": folds.groupby("label").mean()}
        found |= {f"{metric}_sd_over_folds": folds.groupby("label").std()}
        found |= {f"{metric}_over_cases": with_mean(cases.groupby("label").mean())}
        found |= {f"{metric}_sd_over_cases": with_mean(cases).groupby("label").std()}
        if metric in TESTED:
            patients = with_mean(table_of(scores, metric, ["label", "patient"])).groupby("label")
            ends = patients.agg(interval)
            found |= {f"{metric}_low": ends.map(lambda pair: pair[0]), f"{metric}_high": ends.map(lambda pair: pair[1])}
    for flag in ("missing", "spurious"):
        found[f"n_{flag}"] = counts(scores, flag)
    summary = pd.DataFrame({name: table.T.unstack() for name, table in found.items()})
    labels = summary.index.get_level_values("label")
    count = scores.groupby("label")[["fold", "case"]].apply(lambda part: len(part.drop_duplicates()))
    return summary.assign(cases=count.loc[labels].to_numpy(), unit=scores["unit"].iloc[0])


def interval(values: pd.Series) -> tuple:
    """The 95 % bootstrap interval (percentile) of the mean of the defined values. nan for fewer than two."""
    known = values.dropna().to_numpy()
    if len(known) < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(0)
    found = bootstrap((known,), np.mean, n_resamples=RESAMPLES, method="percentile", random_state=rng)
    return tuple(found.confidence_interval)


def seed_means(scores: pd.DataFrame) -> pd.Series:
    """Seed → mean Dice of one row over the cases of the folds that all of its seeds have. Empty if there is none."""
    runs = scores.groupby("fold")["seed"].nunique()
    shared = scores[scores["fold"].isin(runs.index[runs == scores["seed"].nunique()])]
    return table_of(shared, "dice", ["seed"]).mean(axis=1) if len(shared) else pd.Series(dtype=float)


def compare(scores: pd.DataFrame, labels: Collection[str]) -> pd.DataFrame:
    """Wilcoxon's tests of every two of these rows, for Dice and HD95 of each class and their mean.

    The pairs are the patients for whom both rows have a value; several cases of a patient are averaged first. HD95 is
    not tested for a row that misses such a structure. Columns: metric, class, row, other, patients, difference (mean of
    row − other), p, p_holm (corrected over the tests of that metric and class; nan for fewer than six pairs).
    """
    missed, tests = counts(scores, "missing"), []
    for metric in TESTED:
        values = with_mean(table_of(scores, metric, ["label", "patient"]))
        for name in values:
            able = [label for label in labels if metric == "dice" or not missed[name][label]]
            for row, other in combinations([values[name][label].rename(label) for label in able], 2):
                differences = (row - other).dropna().to_numpy()
                mean = differences.mean() if len(differences) else np.nan
                tests.append((metric, name, row.name, other.name, len(differences), mean, paired_p(differences)))
    table = pd.DataFrame(tests, columns=["metric", "class", "row", "other", "patients", "difference", "p"])
    return table.assign(p_holm=table.groupby(["metric", "class"])["p"].transform(holm))


def paired_p(differences: np.ndarray) -> float:
    """p of Wilcoxon's two-sided signed-rank test; 1 if all differences are zero, nan for fewer than six.

    Zero differences are dropped.
    """
    rounded = differences.round(SAME)
    if len(rounded) < MIN_PAIRS:
        return np.nan
    return float(wilcoxon(rounded).pvalue) if rounded.any() else 1.0


def holm(p: pd.Series) -> pd.Series:
    """Holm's correction: the i-th smallest of m gets max over j ≤ i of min(1, (m − j + 1) p_(j)). nan stays nan and is
    not counted in m."""
    known = p.dropna().sort_values()
    return (known * np.arange(len(known), 0, -1)).clip(upper=1).cummax().reindex(p.index)


def rank(values: pd.Series, higher: bool) -> pd.Series:
    """`best`, `second` or empty. Ties share a place, nan has none. All are empty if all values are the same."""
    places = values.rank(method="dense", ascending=not higher) * (values.nunique() > 1)
    return places.map({1: "best", 2: "second"}).fillna("")
