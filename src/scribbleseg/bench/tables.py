"""Tables of a bench from the stored scores: `aggregate` them, `compare` the rows, prepare the tables for `formats`."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..evaluation.scores import summarise
from .plan import BenchPlan, Job, Published
from .statistics import MIN_PAIRS, SAME, average_seeds, case_means, holm, over_folds, paired_p, rank
from .store import Result

ON_DENSE_MASKS = "fullsup"  # the method that trains on dense masks
ALPHA = 0.05


@dataclass(frozen=True)
class Row:
    """A row of the plan on one data set and split, and the summary of its runs.

    If it has no run, `scores`, `cases` and `folds` are empty.
    """

    label: str
    method: str
    done: dict[Job, Result]
    missing: tuple[Job, ...]
    scores: list[dict]  # one per (fold, case) and class, averaged over seeds
    cases: list[dict]  # per class and `mean`, over all cases
    folds: list[dict]  # per class and `mean`, over folds

    @property
    def runs(self) -> set[tuple[int, int]]:
        return {(job.fold, job.seed) for job in self.done}

    @property
    def by_seed(self) -> dict[int, float]:
        """Seed → mean Dice over the cases of the folds that all of the row's seeds have. Empty if there is none."""
        folds = {seed: {fold for fold, other in self.runs if other == seed} for _, seed in sorted(self.runs)}
        shared = set.intersection(*folds.values())
        means = {}
        for seed in sorted(folds) if shared else ():
            runs = [item for item in self.done.items() if item[0].seed == seed and item[0].fold in shared]
            means[seed] = summarise([row for run in runs for row in of_fold(*run)])[-1]["dice"]
        return means


@dataclass(frozen=True)
class Section:
    """One data set and split of a plan. `complete`: the (fold, seed) pairs that a row needs to be ranked."""

    data: str
    split: str
    budget: str
    rows: list[Row]
    published: Published | None
    complete: set[tuple[int, int]]
    leader: str  # of the ranked rows, the one with the highest mean Dice over cases; "" if none or all have the same
    p: dict[str, tuple[float, int]]  # label → Holm-corrected p against the leader, number of pairs

    @property
    def done(self) -> list[Row]:
        return [row for row in self.rows if row.done]

    @property
    def ranked(self) -> list[Row]:
        return ranked(self.rows, self.complete)

    @property
    def classes(self) -> list[str]:
        return [entry["class"] for entry in self.done[0].cases]


@dataclass(frozen=True)
class Table:
    """A table as Markdown and LaTeX show it. Cells are (text, mark); a mark is `best`, `second` or empty."""

    title: str
    head: list[str]
    body: list[list[tuple[str, str]]]
    notes: list[str]


def aggregate(plan: BenchPlan, results: dict[Job, Result]) -> list[Section]:
    """A section per data set and split, in the plan's order."""
    sections = []
    for (data, split), jobs in plan.places.items():
        by_label = {label: [job for job in jobs if job.label == label] for label in plan.labels}
        rows = [_aggregate_row(own, results) for own in by_label.values() if own]
        complete = complete_runs(rows)
        published = plan.published if plan.published and plan.published.data == data else None
        compared = compare(rows, ranked(rows, complete))
        sections.append(Section(data, split, plan.budget, rows, published, complete, *compared))
    return sections


def _aggregate_row(jobs: list[Job], results: dict[Job, Result]) -> Row:
    done = {job: results[job] for job in jobs if job in results}
    by_fold: dict[int, list[list[dict]]] = {}
    for job, result in done.items():
        by_fold.setdefault(job.fold, []).append(of_fold(job, result))
    averaged = [average_seeds(runs) for runs in by_fold.values()]
    scores = [row for rows in averaged for row in rows]
    cases, folds = (summarise(scores), over_folds([summarise(rows) for rows in averaged])) if done else ([], [])
    missing = tuple(job for job in jobs if job not in results)
    return Row(jobs[0].label, jobs[0].method, done, missing, scores, cases, folds)


def of_fold(job: Job, result: Result) -> list[dict]:
    """The scores of a run with cases named by (fold, case), because a case may be held out in several folds."""
    return [row | {"case": f"{job.fold}/{row['case']}"} for row in result.rows]


def complete_runs(rows: list[Row]) -> set[tuple[int, int]]:
    """(fold, seed) of every run that any row has. The method on dense masks counts only if there is no other row."""
    competitors = [row for row in rows if row.done and row.method != ON_DENSE_MASKS]
    return set().union(*(row.runs for row in competitors or rows))


def ranked(rows: list[Row], complete: set[tuple[int, int]]) -> list[Row]:
    """The rows that have exactly these runs. The method on dense masks is not ranked."""
    return [row for row in rows if row.done and row.method != ON_DENSE_MASKS and row.runs == complete]


def compare(rows: list[Row], candidates: list[Row]) -> tuple[str, dict[str, tuple[float, int]]]:
    """The candidate with the highest mean Dice, and for every other row Holm's p against it and the number of pairs.

    Rows without a run and the method on dense masks are not tested. If several candidates all have the same mean Dice,
    there is no leader and no test.
    """
    means = {round(row.cases[-1]["dice"], SAME) for row in candidates}
    if not candidates or len(means) == 1 < len(candidates):
        return "", {}
    leader = max(candidates, key=lambda row: row.cases[-1]["dice"])
    best = case_means(leader.scores)
    others = [row for row in rows if row.done and row.method != ON_DENSE_MASKS and row is not leader]
    raw = {row.label: paired_p(best, case_means(row.scores)) for row in others}
    corrected = holm({label: p for label, (p, _) in raw.items()})
    return leader.label, {label: (corrected[label], pairs) for label, (_, pairs) in raw.items()}


def tables(section: Section) -> list[Table]:
    """A section's tables: over folds (if a row has two), over cases, cost. Published numbers are in the first one."""
    kinds = ["folds"] * any(len({fold for fold, _ in row.runs}) > 1 for row in section.rows) + ["cases"]
    return [score_table(section, kind, with_published=kind == kinds[0]) for kind in kinds] + [cost_table(section)]


def score_table(section: Section, kind: str, with_published: bool) -> Table:
    """Dice and HD95 per class and mean; `kind` is what the mean and sd are over, `folds` or `cases`."""
    unit = section.done[0].cases[0]["unit"]
    entries = {row.label: getattr(row, kind) for row in section.rows}
    columns = [(f"Dice {name}", "dice", at, 100) for at, name in enumerate(section.classes)]
    columns += [(f"HD95 {name} ({unit})", "hd95", at, 1) for at, name in enumerate(section.classes)]
    columns += [(f"HD95* mean ({unit})", "penalised_hd95", -1, 1)]
    places = []
    for _, key, at, scale in columns:
        competing = [row.label for row in section.ranked if key != "hd95" or not row.cases[at]["n_missing"]]
        places.append(rank({label: round(scale * entries[label][at][key], 2) for label in competing}, key == "dice"))
    tested = kind == "cases" and bool(section.p)
    printed = _published_columns(section) if with_published else []
    head = ["method", "folds", "seeds", "cases", *(name for name, *_ in columns), "missing"]
    head += [*(["p (Holm)", "pairs"] if tested else []), *(name for name, *_ in printed)]
    body = []
    for row in section.rows:
        line = [(row.label, ""), ("not run", "")] + [("", "")] * (len(columns) + 3 + 2 * tested)
        if row.done:
            folds, seeds = (spans(getattr(job, name) for job in row.done) for name in ("fold", "seed"))
            line = [(text, "") for text in (_label(row, section), folds, seeds, str(row.cases[-1]["cases"]))]
            for (_, key, at, scale), place in zip(columns, places):
                entry = entries[row.label][at]
                text = _number(scale * entry[key], scale * entry.get(f"{key}_sd", math.nan))
                line.append((text, place.get(row.label, "")))
            last = [str(row.cases[-1]["n_missing"]), *(_p_cells(row, section) if tested else [])]
            line += [(text, "") for text in last]
        numbers = section.published.rows.get(row.label, {}) if section.published and printed else {}
        known = [(numbers.get(name, {}), key) for _, name, key in printed]
        line += [(_number(of[key], of.get(f"{key}_sd", math.nan)) if key in of else "", "") for of, key in known]
        body.append(line)
    title = {"folds": "Mean over folds (sd over folds)", "cases": "Mean over cases (sd over cases)"}[kind]
    return Table(title, head, body, _score_notes(section, kind, tested, bool(printed)))


def _published_columns(section: Section) -> list[tuple[str, str, str]]:
    """(heading, class, key) of the columns that have a number for any row of the plan."""
    paper = section.published.rows if section.published else {}
    shown = [paper[row.label] for row in section.rows if row.label in paper]
    return [
        (f"published {title} {name}", name, key)
        for title, key in (("Dice", "dice"), ("HD95", "hd95"))
        for name in section.classes
        if any(key in numbers.get(name, {}) for numbers in shown)
    ]


def _label(row: Row, section: Section) -> str:
    return row.label if row.runs == section.complete else f"{row.label} †"


def _p_cells(row: Row, section: Section) -> tuple[str, str]:
    if row.label not in section.p:
        return "leading" if row.label == section.leader else "", ""
    p, pairs = section.p[row.label]
    text = "–" if math.isnan(p) else ("< 0.001" if p < 0.001 else f"{p:.3f}") + (" *" if p < ALPHA else "")
    return text, str(pairs)


def _score_notes(section: Section, kind: str, tested: bool, printed: bool) -> list[str]:
    notes = ["All held-out cases of the finished folds together; several seeds of a case are averaged first."]
    if kind == "folds":
        notes = ["First the mean over the cases of each fold, then mean and sd over folds; a single fold has no sd."]
    if by_seed := [
        f"{row.label} {', '.join(f'{100 * dice:.2f}' for dice in row.by_seed.values())} ({spans(row.by_seed)})"
        for row in section.done
        if len(row.by_seed) > 1
    ]:
        notes.append(
            "Mean Dice of each seed (seeds), over the folds that all of them have; sd and p do not include the "
            f"difference between seeds: {'; '.join(by_seed)}."
        )
    if len(section.ranked) > 1:
        notes.append(
            "Best and second best of each column, as printed, are bold and underlined, among the rows that have all "
            "runs; for HD95 among those that miss no such structure."
        )
    if any("†" in _label(row, section) for row in section.done):
        notes.append(
            "† has other folds or seeds than the other rows: its means are over other cases; it is not ranked."
        )
    if any(row.method == ON_DENSE_MASKS for row in section.done):
        notes.append(f"{ON_DENSE_MASKS} trains on dense masks, which the others do not see: neither ranked nor tested.")
    notes += outdated_notes({job: result.outdated for row in section.done for job, result in row.done.items()})
    if absent := [f"{row.label} ({_missing(row)})" for row in section.rows if row.missing]:
        notes.append(f"Not run: {'; '.join(absent)}.")
    m = sum(not math.isnan(p) for p, _ in section.p.values())
    if tested and m:
        notes.append(
            f"p: Wilcoxon signed-rank test against {section.leader}, which has the highest mean Dice of the ranked "
            "rows: two-sided, over the cases' mean Dice, paired by fold and case, zero differences dropped, "
            f"Holm-corrected over {m} {'comparison' if m == 1 else 'comparisons'}; * p < {ALPHA}. Cases count as "
            "independent, even if two are of one patient."
        )
    if tested and m < len(section.p):
        notes.append(
            f"p –: fewer than {MIN_PAIRS} pairs for Wilcoxon's signed-rank test against {section.leader}; with so few, "
            f"no difference can reach p < {ALPHA}."
        )
    if printed and (paper := section.published):
        other = f" Its split is of the kind of `{paper.ours}`, not of `{section.split}`."
        notes.append(
            f"Published: {paper.source} ({paper.split}), in the paper's own set-up; the other columns are ours, at "
            f"budget {section.budget}.{'' if section.split == paper.ours else other} {paper.note}".strip()
        )
    return notes


def outdated_notes(differences: dict[Job, str]) -> list[str]:
    """A sentence for each different text of `store.difference`, with the runs that it holds for."""
    runs: dict[str, list[str]] = {}
    for job, text in differences.items():
        if text:
            runs.setdefault(text, []).append(job.run)
    return [
        f"Outdated: {', '.join(names)} {'were' if len(names) > 1 else 'was'} run {text}."
        for text, names in runs.items()
    ]


def _missing(row: Row) -> str:
    """The runs that a row lacks: `folds 0-4`, or by seed if the plan has several."""
    seeds = {job.seed for job in (*row.done, *row.missing)}
    folds = {seed: [job.fold for job in row.missing if job.seed == seed] for seed in sorted(seeds)}
    names = {seed: f"fold{'s' * (len(part) > 1)} {spans(part)}" for seed, part in folds.items() if part}
    return ", ".join(name if len(seeds) == 1 else f"seed {seed} {name}" for seed, name in names.items())


def spans(numbers: Iterable[int]) -> str:
    """Whole numbers, as ranges: 0, 1, 2, 4 → `0-2, 4`."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][-1] + 1:
            parts[-1].append(number)
        else:
            parts.append([number])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def _number(mean: float, sd: float) -> str:
    if math.isnan(mean):
        return "–"
    return f"{mean:.2f}" + ("" if math.isnan(sd) else f" ({sd:.2f})")


def cost(row: Row) -> dict[str, object]:
    """The cost of a row's runs: median seconds per iteration, mean minutes, largest peak, settings as recorded.

    The peak is None if a record has none.
    """
    records = [result.record for result in row.done.values()]
    peaks: list[Any] = [record.get("peak_memory_mib") for record in records]
    recipes = [record["plan"]["recipe"] for record in records]

    def same(values: Iterable) -> str:
        return " / ".join(dict.fromkeys(map(str, values)))

    return {
        "parameters": same(record["parameters"] for record in records),
        "seconds_per_iteration": float(np.median([record["seconds_per_iteration"] for record in records])),
        "peak_memory_mib": None if None in peaks else max(peaks),
        "minutes_per_run": float(np.mean([record["minutes"] for record in records])),
        "size": same(record["plan"]["size"] for record in records),
        "iterations": same(recipe["iterations"] for recipe in recipes),
        "batch": same(recipe["batch"] for recipe in recipes),
        "optimiser": same(f"{recipe['optimizer']} {recipe['lr']:g} {recipe['schedule']}" for recipe in recipes),
    }


def cost_table(section: Section) -> Table:
    """The cost of each row, and the machines."""
    head = ["method", "parameters", "s per iteration", "peak memory (MiB)", "minutes per run"]
    head += ["size", "iterations", "batch", "optimiser"]
    body = []
    for row in section.done:
        values = cost(row)
        values["seconds_per_iteration"] = f"{values['seconds_per_iteration']:.3f}"
        values["minutes_per_run"] = f"{values['minutes_per_run']:.1f}"
        values["peak_memory_mib"] = "–" if values["peak_memory_mib"] is None else f"{values['peak_memory_mib']:.0f}"
        body.append([(str(cell), "") for cell in (row.label, *values.values())])
    machines = dict.fromkeys(_machine(result.record) for row in section.done for result in row.done.values())
    notes = [
        f"Runs on: {'; '.join(machines)}.",
        "Median seconds per iteration of the runs, mean minutes, largest peak.",
        "Seconds and minutes are those of the log; other work on the machine is included.",
    ]
    return Table("Cost", head, body, notes)


def _machine(record: dict) -> str:
    machine, note = record["environment"], record.get("data_note")  # the oldest records lack a note
    threads = "" if "thread" in machine["device"] else f", {machine['threads']} threads"
    return f"{machine['device']}{threads}, {machine['precision']}" + (f", {note}" if note else "")
