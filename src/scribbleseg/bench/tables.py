"""Tables of a bench, made from the committed scores: `aggregate` them, `compare` the rows, lay them out. `formats` writes them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..evaluation.scores import summarise
from .jobs import BenchPlan, Job, Published, Result
from .statistics import MIN_PAIRS, SAME, average_seeds, case_means, holm, over_folds, paired_p, rank

ON_DENSE_MASKS = "fullsup"  # the method that trains on dense masks
ALPHA = 0.05


@dataclass(frozen=True)
class Row:
    """A row of the plan on one data set and split: its runs, and what they come to. Without a run `scores`, `cases` and `folds` are empty."""

    label: str
    method: str
    done: dict[Job, Result]
    missing: tuple[Job, ...]
    scores: list[dict]  # one per (fold, case) and class, seeds averaged
    cases: list[dict]  # per class and `mean`, over all cases
    folds: list[dict]  # per class and `mean`, over folds

    @property
    def runs(self) -> set[tuple[int, int]]:
        return {(job.fold, job.seed) for job in self.done}

    @property
    def by_seed(self) -> dict[int, float]:
        """Seed → mean Dice over the held-out cases of the folds that all of the row's seeds have; empty where there is no such fold."""
        folds = {
            seed: {job.fold for job in self.done if job.seed == seed} for seed in sorted(job.seed for job in self.done)
        }
        shared = set.intersection(*folds.values())
        means = {}
        for seed in folds if shared else ():
            scores = [
                row
                for job, result in self.done.items()
                if job.seed == seed and job.fold in shared
                for row in of_fold(job, result)
            ]
            means[seed] = summarise(scores)[-1]["dice"]
        return means


@dataclass(frozen=True)
class Section:
    """One data set and split of a plan. `complete`: the folds and seeds that a row needs to be ranked."""

    data: str
    split: str
    budget: str
    rows: list[Row]
    published: Published | None
    complete: set[tuple[int, int]]
    leader: str  # of the ranked, the highest mean Dice over cases; "" when nothing is ranked or all have the same
    p: dict[str, tuple[float, int]]  # label → Holm-corrected p against the leader, pairs

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
    """What Markdown and LaTeX write alike: cells are (text, mark), mark is `best`, `second` or nothing."""

    title: str
    head: list[str]
    body: list[list[tuple[str, str]]]
    notes: list[str]


def aggregate(plan: BenchPlan, results: dict[Job, Result]) -> list[Section]:
    """A section per data set and split, in the plan's order."""
    sections = []
    for data, split in dict.fromkeys((job.data, job.split) for job in plan.jobs):
        part = [job for job in plan.jobs if (job.data, job.split) == (data, split)]
        rows = [
            _aggregate_row([job for job in part if job.label == label], results)
            for label in plan.labels
            if any(job.label == label for job in part)
        ]
        complete = complete_runs(rows)
        published = plan.published if plan.published and plan.published.data == data else None
        sections.append(
            Section(data, split, plan.budget, rows, published, complete, *compare(rows, ranked(rows, complete)))
        )
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
    """The scores of a run under names of (fold, case): a case may be held out in several folds."""
    return [row | {"case": f"{job.fold}/{row['case']}"} for row in result.rows]


def complete_runs(rows: list[Row]) -> set[tuple[int, int]]:
    """(fold, seed) of every run that any row has; the method on dense masks counts only where it stands alone."""
    competitors = [row for row in rows if row.done and row.method != ON_DENSE_MASKS]
    return set().union(*(row.runs for row in competitors or rows))


def ranked(rows: list[Row], complete: set[tuple[int, int]]) -> list[Row]:
    """The rows that have exactly these runs; the method on dense masks is no competitor."""
    return [row for row in rows if row.done and row.method != ON_DENSE_MASKS and row.runs == complete]


def compare(rows: list[Row], candidates: list[Row]) -> tuple[str, dict[str, tuple[float, int]]]:
    """The leader of the candidates and, for every other row that has a run (the method on dense masks aside), Holm's p against it and the number of pairs.

    Several candidates of the same mean Dice have no leader among them, and nothing is tested.
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
    """What a section shows: over folds (where a row has two), over cases, cost. The published numbers stand in the first."""
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

    body = []
    for row in section.rows:
        if row.done:
            cells = [
                _label(row, section),
                spans(job.fold for job in row.done),
                spans(job.seed for job in row.done),
                str(row.cases[-1]["cases"]),
            ]
            line = [(cell, "") for cell in cells]
            for (_, key, at, scale), place in zip(columns, places):
                entry = entries[row.label][at]
                line.append(
                    (_number(scale * entry[key], scale * entry.get(f"{key}_sd", math.nan)), place.get(row.label, ""))
                )
            line += [(str(row.cases[-1]["n_missing"]), "")] + (
                [(cell, "") for cell in _p_cells(row, section)] if tested else []
            )
        else:
            line = [(row.label, ""), ("not run", "")] + [("", "")] * (len(columns) + 3 + 2 * tested)
        numbers = section.published.rows.get(row.label, {}) if printed else {}
        for _, name, key in printed:
            known = numbers.get(name, {})
            line.append((_number(known[key], known.get(f"{key}_sd", math.nan)) if key in known else "", ""))
        body.append(line)
    head = [
        "method",
        "folds",
        "seeds",
        "cases",
        *(name for name, *_ in columns),
        "missing",
        *(["p (Holm)", "pairs"] if tested else []),
    ]
    title = {"folds": "Mean over folds (sd over folds)", "cases": "Mean over cases (sd over cases)"}[kind]
    return Table(title, head + [name for name, *_ in printed], body, _score_notes(section, kind, tested, bool(printed)))


def _published_columns(section: Section) -> list[tuple[str, str, str]]:
    """(heading, class, key) of the columns that have a number for any row of the plan."""
    if section.published is None:
        return []
    shown = [numbers for row in section.rows for numbers in [section.published.rows.get(row.label, {})]]
    wanted = [
        (f"published {title} {name}", name, key)
        for title, key in (("Dice", "dice"), ("HD95", "hd95"))
        for name in section.classes
    ]
    return [column for column in wanted if any(column[2] in numbers.get(column[1], {}) for numbers in shown)]


def _label(row: Row, section: Section) -> str:
    return row.label if row.runs == section.complete else f"{row.label} †"


def _p_cells(row: Row, section: Section) -> tuple[str, str]:
    if row.label == section.leader:
        return "leading", ""
    if row.label not in section.p:
        return "", ""
    p, pairs = section.p[row.label]
    text = "–" if math.isnan(p) else ("< 0.001" if p < 0.001 else f"{p:.3f}") + (" *" if p < ALPHA else "")
    return text, str(pairs)


def _score_notes(section: Section, kind: str, tested: bool, printed: bool) -> list[str]:
    notes = []
    if kind == "folds":
        notes.append(
            "The mean over cases within each fold first, then mean and sd over folds; no sd for a single fold."
        )
    else:
        notes.append("All held-out cases of the folds done, pooled; several seeds of a case are averaged first.")
    if by_seed := [
        f"{row.label} {', '.join(f'{100 * dice:.2f}' for dice in row.by_seed.values())} ({spans(row.by_seed)})"
        for row in section.done
        if len(row.by_seed) > 1
    ]:
        notes.append(
            f"Mean Dice seed by seed (seeds), over the folds that these share; neither the sd nor p knows of it: {'; '.join(by_seed)}."
        )
    if len(section.ranked) > 1:
        notes.append(
            "Best and second best of each column, as printed, are bold and underlined, among the rows with the same complete set of runs; of HD95 among those that miss no such structure."
        )
    if any("†" in _label(row, section) for row in section.done):
        notes.append(
            "† not the same folds and seeds as the other rows: its means are over other cases, and it is not ranked."
        )
    if any(row.method == ON_DENSE_MASKS for row in section.done):
        notes.append(f"{ON_DENSE_MASKS} trains on dense masks, which the others do not see: neither ranked nor tested.")
    if absent := [f"{row.label} ({_missing(row)})" for row in section.rows if row.missing]:
        notes.append(f"Not run: {'; '.join(absent)}.")
    if tested:
        m = sum(not math.isnan(p) for p, _ in section.p.values())
    if tested and m:
        notes.append(
            f"p: Wilcoxon signed-rank test against {section.leader}, the highest mean Dice of the ranked rows: two-sided, over the cases' mean Dice, "
            f"paired by fold and case, zero differences dropped, Holm-corrected over {m} {'comparison' if m == 1 else 'comparisons'}; * p < {ALPHA}. "
            "Cases count as independent, also two of one patient."
        )
    if tested and m < len(section.p):
        notes.append(
            f"p –: fewer than {MIN_PAIRS} pairs for Wilcoxon's signed-rank test against {section.leader}, of which no difference could reach p < {ALPHA}."
        )
    if printed:
        paper = section.published
        note = f"Published: {paper.source} ({paper.split}), in the paper's own set-up; the other columns are ours, at budget {section.budget}."
        if section.split != paper.ours:
            note += f" Its split is of the kind of `{paper.ours}`, not of `{section.split}`."
        notes.append(f"{note} {paper.note}".strip())
    return notes


def _missing(row: Row) -> str:
    """The runs that a row lacks: `folds 0-4`, or by seed where the plan has several."""
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
    """What the runs of a row took: medians and means over runs, the largest peak (None when a record has none), settings as they were."""
    records = [result.record for result in row.done.values()]
    peaks = [record.get("peak_memory_mib") for record in records]
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
    """What each row that was run took, and on what."""
    head = [
        "method",
        "parameters",
        "s per iteration",
        "peak memory (MiB)",
        "minutes per run",
        "size",
        "iterations",
        "batch",
        "optimiser",
    ]
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
    ]
    notes.append("Seconds and minutes as the log has them; other work on the machine included.")
    return Table("Cost", head, body, notes)


def _machine(record: dict) -> str:
    machine = record["environment"]
    threads = "" if "thread" in machine["device"] else f", {machine['threads']} threads"
    return f"{machine['device']}{threads}, {machine['precision']}"
