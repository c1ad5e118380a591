"""Tables of a bench from the stored scores: `aggregate` makes the numbers, `tables` what Markdown and LaTeX show."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..core.environment import devices
from .plan import BenchPlan, Job, Published
from .statistics import METRICS, MIN_PAIRS, TESTED, compare, rank, seed_means, summarise
from .store import Difference, Results

ON_DENSE_MASKS = "fullsup"  # the method that trains on dense masks
ALPHA = 0.05
TITLES = {"dice": "Dice", "hd95": "HD95", "penalised_hd95": "HD95*"}
COST = {
    "parameters": "parameters",
    "seconds_per_iteration": "s per iteration",
    "peak_memory_mib": "peak memory (MiB)",
    "minutes_per_run": "minutes per run",
    "size": "size",
    "iterations": "iterations",
    "batch": "batch",
    "optimiser": "optimiser",
}
COLUMNS = (
    *("data", "split", "budget", "row", "class", "unit", "status", "folds", "seeds", "cases"),
    *(f"{metric}_{part}over_folds" for metric in METRICS for part in ("", "sd_")),
    *(f"{metric}_{part}" for metric in TESTED for part in ("over_cases", "sd_over_cases", "low", "high")),
    *("penalised_hd95_over_cases", "n_missing", "n_spurious", "dice_by_seed"),
    *("published_dice", "published_dice_sd", "published_hd95", "published_better", *COST),
)


@dataclass(frozen=True)
class Section:
    """One data set and split of a plan.

    `summary` is `statistics.summarise`, `cost` has a row per label. `part`: the rows that lack a (fold, seed) that
    another row has. `ranked`: the others, without those on dense masks. `tests` is `statistics.compare` of the ranked
    rows. All are empty if nothing was run.
    """

    data: str
    split: str
    budget: str
    jobs: list[Job]
    results: Results
    paper: Published | None
    summary: pd.DataFrame
    cost: pd.DataFrame
    dense: set[str]
    part: set[str]
    ranked: list[str]
    tests: pd.DataFrame

    @property
    def rows(self) -> dict[str, list[Job]]:
        """Label → its jobs, in the plan's order."""
        return by_label(self.jobs)

    @property
    def done(self) -> dict[str, list[Job]]:
        """Label → its finished jobs, for the rows that have any."""
        return by_label(self.results.records)

    @property
    def classes(self) -> list[str]:
        """The classes and `mean`. Empty if nothing was run."""
        return list(self.summary.index.unique("class")) if self.done else []

    @property
    def unit(self) -> str:
        return self.summary["unit"].iloc[0]

    @property
    def own(self) -> str:
        """The label of the paper's own method. Empty without a paper."""
        return self.paper.own if self.paper else ""

    @property
    def tested(self) -> bool:
        """Whether any two rows could be tested."""
        return len(self.tests) > 0 and bool(self.tests["p"].notna().any())

    def published(self, label: str) -> dict[str, dict[str, float | bool]]:
        """Class → what the paper prints. Its HD95 is left out where ours is in voxels."""
        found = self.paper.rows.get(label, {}) if self.paper else {}
        voxels = bool(self.classes) and self.unit != "mm"
        return {
            name: {key: value for key, value in numbers.items() if key != "hd95" or not voxels}
            for name, numbers in found.items()
        }


@dataclass(frozen=True)
class Table:
    """A table as Markdown and LaTeX show it. Cells are (text, mark); a mark is `best`, `second` or empty."""

    title: str
    head: list[str]
    body: list[list[tuple[str, str]]]
    notes: list[str]


def by_label(jobs: Iterable[Job]) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.label, []).append(job)
    return found


def aggregate(plan: BenchPlan, results: Results) -> list[Section]:
    """A section per data set and split, in the plan's order."""
    sections = []
    for (data, split), jobs in plan.places.items():
        own, empty = results.of(jobs), pd.DataFrame()
        paper = plan.published if plan.published and plan.published.data == data else None
        done = by_label(own.records)
        runs = {label: {(job.fold, job.seed) for job in part} for label, part in done.items()}
        dense = {label for label, part in done.items() if part[0].method == ON_DENSE_MASKS}
        every = set().union(*(runs[label] for label in (runs.keys() - dense or runs)))
        part = {label for label, has in runs.items() if has != every}
        ranked = [label for label in runs if label not in dense | part]
        tables = (summarise(own.scores), cost(own)) if done else (empty, empty)
        tests = compare(own.scores, ranked) if done else empty
        sections.append(Section(data, split, plan.budget, jobs, own, paper, *tables, dense, part, ranked, tests))
    return sections


def cost(results: Results) -> pd.DataFrame:
    """Label → median seconds per iteration, mean minutes, largest peak, settings as recorded.

    The peak is nan if a record has none.
    """
    lines = []
    for job, record in results.records.items():
        recipe = record["plan"]["recipe"]
        line = {key: recipe[key] for key in ("iterations", "batch")} | {"size": record["plan"]["size"]}
        line |= {"optimiser": f"{recipe['optimizer']} {recipe['lr']:g} {recipe['schedule']}"}
        line |= {key: record[key] for key in ("parameters", "seconds_per_iteration", "minutes")}
        lines.append({"label": job.label, "peak_memory_mib": record.get("peak_memory_mib")} | line)
    runs = pd.DataFrame(lines).astype({"peak_memory_mib": float}).groupby("label", sort=False)
    numbers = {
        "seconds_per_iteration": runs["seconds_per_iteration"].median(),
        "peak_memory_mib": runs["peak_memory_mib"].agg(lambda peaks: peaks.max(skipna=False)),
        "minutes_per_run": runs["minutes"].mean(),
    }
    texts = ("parameters", "size", "iterations", "batch", "optimiser")
    return pd.DataFrame({key: runs[key].agg(_same) for key in texts} | numbers)[list(COST)]


def _same(values: Iterable) -> str:
    return " / ".join(dict.fromkeys(map(str, values)))


def tidy(sections: list[Section]) -> pd.DataFrame:
    """A row per data set, split, row of the plan and class (and `mean`).

    Numbers are not rounded, Dice is in percent, and undefined values are empty. The status is complete, incomplete
    (only some of the plan's folds or seeds were run) or not run.
    """
    lines: list[dict] = []
    for section in sections:
        place = {key: getattr(section, key) for key in ("data", "split", "budget")}
        for label, jobs in section.rows.items():
            published, done = section.published(label), section.done.get(label, [])
            for name in section.classes or published or [""]:
                line = place | {"row": label, "class": name, "status": "not run"}
                line |= {f"published_{key}": value for key, value in published.get(name, {}).items()}
                if done:
                    line |= {"status": "complete" if len(done) == len(jobs) else "incomplete"} | run_spans(done)
                    line |= section.summary.loc[label, name].to_dict() | section.cost.loc[label].to_dict()
                if name == "mean" and len(seeds := _seed_means(section, label)) > 1:
                    line["dice_by_seed"] = " / ".join(map(str, seeds))
                lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS), dtype=object)


def all_tests(sections: list[Section]) -> pd.DataFrame:
    """The tests of all sections that had enough patients."""
    table = pd.concat([section.tests.assign(data=section.data, split=section.split) for section in sections])
    return table.dropna(subset=["p"])[["data", "split", *table.columns[:-2]]] if "p" in table else table


def _seed_means(section: Section, label: str) -> pd.Series:
    return seed_means(section.results.scores[section.results.scores["label"] == label])


def tables(section: Section) -> list[Table]:
    """The tables over folds (if a row has two), over cases, of tests, of cost. The first has the published numbers."""
    several = any(len({job.fold for job in jobs}) > 1 for jobs in section.done.values())
    kinds = [*(["folds"] if several else []), "cases"]
    scores = [score_table(section, kind, with_published=kind == kinds[0]) for kind in kinds]
    return [*scores, *([test_table(section)] if section.tested else []), cost_table(section)]


def score_table(section: Section, kind: str, with_published: bool) -> Table:
    """Dice and HD95 per class and mean; `kind` is what the mean and sd are over, `folds` or `cases`."""
    columns = [(metric, name) for metric in TESTED for name in section.classes] + [("penalised_hd95", "mean")]
    printed = _published_columns(section) if with_published else []
    head = ["method", "folds", "seeds", "cases", *(_title(section, *column) for column in columns), "missing"]
    head += [f"published {TITLES[metric]} {name}" for metric, name in printed]
    marks = {(metric, name): _marks(section, metric, name, kind) for metric, name in columns}
    worse = worse_than_own(section) if with_published else set()
    body = []
    for label in section.rows:
        line = [(label, ""), ("not run", ""), *[("", "")] * (len(columns) + 3)]
        if label in section.done:
            means = section.summary.loc[label]
            about = [
                f"{label} †" if label in section.part else label,
                *run_spans(section.done[label]).values(),
                str(means["cases"].iloc[0]),
            ]
            line = [(text, "") for text in about]
            for metric, name in columns:
                text = number(means.loc[name, f"{metric}_over_{kind}"], means.loc[name, f"{metric}_sd_over_{kind}"])
                if kind == "cases" and metric in TESTED and not np.isnan(means.loc[name, f"{metric}_low"]):
                    text += f" [{means.loc[name, f'{metric}_low']:.2f}, {means.loc[name, f'{metric}_high']:.2f}]"
                text += "*" * ((label, metric, name) in worse)
                line.append((text, marks[metric, name].get(label, "")))
            line.append((str(means.loc["mean", "n_missing"]), ""))
        for metric, name in printed:
            paper = section.published(label).get(name, {})
            star = "*" if metric == "dice" and paper.get("better") else ""
            line.append((number(paper.get(metric), paper.get(f"{metric}_sd"), absent="") + star, ""))
        body.append(line)
    title = f"Mean over {kind} (sd over {kind})" + (" [95 % interval over patients]" if kind == "cases" else "")
    return Table(title, head, body, _score_notes(section, kind, printed, bool(worse)))


def worse_than_own(section: Section) -> set[tuple[str, str, str]]:
    """(label, metric, class) where the row of the paper's own method is significantly better, uncorrected, on the folds
    and seeds that both rows have."""
    own, found = section.done.get(section.own, []), set()
    for label, jobs in section.done.items():
        shared = {(job.fold, job.seed) for job in own} & {(job.fold, job.seed) for job in jobs}
        if shared and label not in section.dense | {section.own}:
            pair = [job for job in (*own, *jobs) if (job.fold, job.seed) in shared]
            tests = compare(section.results.of(pair).scores, [section.own, label])
            found |= {(label, metric, name) for better, _, metric, name in _significant(tests, "p") if better != label}
    return found


def _significant(tests: pd.DataFrame, p: str) -> Iterator[tuple[str, str, str, str]]:
    """(better label, other label, metric, class) of the tests whose `p`, or `p_holm`, is below ALPHA."""
    for test in tests[tests[p] < ALPHA].itertuples():
        ahead = (test.difference > 0) == (test.metric == "dice")
        yield (*((test.row, test.other) if ahead else (test.other, test.row)), test.metric, test[2])


def _title(section: Section, metric: str, name: str) -> str:
    return f"{TITLES[metric]} {name}" + ("" if metric == "dice" else f" ({section.unit})")


def _marks(section: Section, metric: str, name: str, kind: str) -> pd.Series:
    """Label → best, second or empty, by the printed numbers. HD95 ranks only rows that miss no such structure."""
    column = section.summary.xs(name, level="class").loc[section.ranked]
    if metric == "hd95":
        column = column[column["n_missing"] == 0]
    return rank(column[f"{metric}_over_{kind}"].round(2), higher=metric == "dice")


def _published_columns(section: Section) -> list[tuple[str, str]]:
    """(metric, class) of the columns that have a number for any row of the plan."""
    shown = [section.published(label) for label in section.rows]
    pairs = [(metric, name) for metric in TESTED for name in section.classes]
    return [(m, name) for m, name in pairs if any(m in numbers.get(name, {}) for numbers in shown)]


def test_table(section: Section) -> Table:
    """For each ranked row and column the rows, by number, that are significantly worse than it."""
    columns = [(metric, name) for metric in TESTED for name in section.classes]
    places = {label: place for place, label in enumerate(section.ranked, 1)}
    worse: dict[tuple, list[int]] = {}
    for better, other, metric, name in _significant(section.tests, "p_holm"):
        worse.setdefault((better, metric, name), []).append(places[other])
    body = [
        [(f"{place} {label}", ""), *((spans(worse.get((label, *column), ())) or "–", "") for column in columns)]
        for label, place in places.items()
    ]
    note = (
        f"A cell has the numbers of the rows that are significantly worse: Wilcoxon signed-rank test, two-sided, p < "
        f"{ALPHA} after Holm's correction over the pairs of rows in the column. The pairs of a test are the patients: "
        "their cases are averaged first. HD95 is not tested for a row that misses such a structure."
    )
    head = ["method", *(_title(section, *column) for column in columns)]
    return Table("Significant differences", head, body, [note])


def _score_notes(section: Section, kind: str, printed: list[tuple[str, str]], starred: bool) -> list[str]:
    notes = ["All held-out cases of the finished folds together; several seeds of a case are averaged first."]
    if kind == "folds":
        notes = ["First the mean over the cases of each fold, then mean and sd over folds; a single fold has no sd."]
    means = {label: seeds for label in section.done if len(seeds := _seed_means(section, label)) > 1}
    if means:
        shown = [f"{label} {', '.join(f'{m:.2f}' for m in s)} ({spans(s.index)})" for label, s in means.items()]
        notes.append(
            "Mean Dice of each seed (seeds), over the folds that all of them have; sd and tests do not include the "
            f"difference between seeds: {'; '.join(shown)}."
        )
    if len(section.ranked) > 1:
        notes.append(
            "Best and second best of each column, as printed, are bold and underlined, among the rows that have all "
            "runs; for HD95 among those that miss no such structure."
        )
    if section.part:
        notes.append(
            "† has other folds or seeds than the other rows: its means are over other cases; it is not ranked."
        )
    if section.dense:
        notes.append(f"{ON_DENSE_MASKS} trains on dense masks, which the others do not see: neither ranked nor tested.")
    if len(section.ranked) > 1 and not section.tested:
        notes.append(f"No tests: with fewer than {MIN_PAIRS} patients no difference can reach p < {ALPHA}.")
    if starred:
        notes.append(
            f"* after a number of ours: {section.own} is significantly better than this row: Wilcoxon signed-rank "
            f"test over patients, two-sided, p < {ALPHA}, uncorrected. The table of significant differences corrects."
            + " A row with † is tested on the folds and seeds that both have."
            * bool(section.part)
        )
    notes += outdated_notes(section.results.outdated)
    if absent := not_run(section.jobs, section.results.records):
        notes.append(absent)
    if printed and (paper := section.paper):
        other = f" Its split is of the kind of `{paper.ours}`, not of `{section.split}`."
        notes.append(
            f"Published: {paper.source} ({paper.split}), in the paper's own set-up; the other columns are ours, at "
            f"budget {section.budget}.{'' if section.split == paper.ours else other} {paper.note}".strip()
        )
        if any(numbers.get("better") for label in section.rows for numbers in section.published(label).values()):
            notes.append(
                "* after a published number: the paper prints its own method as significantly better, p < .05."
            )
    return notes


def outdated_notes(differences: dict[Job, Difference]) -> list[str]:
    """A note for each reason why runs are outdated. It says what to do, and which settings the runs had."""
    notes: dict[str, dict[str, list[str]]] = {}
    for job, found in differences.items():
        reason = (
            "these runs used each method's own settings. The plan now has one recipe for all rows, and the next bench "
            "will repeat the runs with it."
            if found.stands_in
            else f"these runs were made before {found.changed} changed. To repeat one, delete its row in runs.csv and "
            "its run folder, and start the bench again."
        )
        notes.setdefault(reason, {}).setdefault(found.had, []).append(job.run)
    return [
        " ".join([f"Outdated: {reason}", *(f"{', '.join(names)} had {had}." for had, names in runs.items())])
        for reason, runs in notes.items()
    ]


def not_run(jobs: Collection[Job], done: Collection[Job]) -> str:
    """A sentence with the runs that each row lacks: `pce (folds 0-4)`, by seed if there are several. Empty if none."""
    several, parts = len({job.seed for job in jobs}) > 1, []
    for label, wanted in by_label(jobs).items():
        folds: dict[int, list[int]] = {}
        for job in (job for job in wanted if job not in done):
            folds.setdefault(job.seed, []).append(job.fold)
        names = {seed: f"fold{'s' * (len(part) > 1)} {spans(part)}" for seed, part in folds.items()}
        shown = ", ".join(f"seed {seed} {name}" if several else name for seed, name in names.items())
        parts += [f"{label} ({shown})"] if shown else []
    return f"Not run: {'; '.join(parts)}." if parts else ""


def run_spans(jobs: Iterable[Job]) -> dict[str, str]:
    """The folds and seeds of jobs."""
    return {f"{name}s": spans(getattr(job, name) for job in jobs) for name in ("fold", "seed")}


def spans(numbers: Iterable[int]) -> str:
    """Whole numbers, as ranges: 0, 1, 2, 4 → `0-2, 4`."""
    parts: list[list[int]] = []
    for value in sorted(set(numbers)):
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts)


def number(mean: float | None, sd: float | None, absent: str = "–") -> str:
    """`70.00 (14.14)`; without an sd where it is undefined."""
    if mean is None or np.isnan(mean):
        return absent
    return f"{mean:.2f}" + ("" if sd is None or np.isnan(sd) else f" ({sd:.2f})")


def cost_table(section: Section) -> Table:
    """The cost of each row, and the machines."""
    look = {"seconds_per_iteration": "{:.3f}", "minutes_per_run": "{:.1f}", "peak_memory_mib": "{:.0f}"}
    texts = section.cost.assign(**{key: section.cost[key].map(form.format) for key, form in look.items()})
    lines = texts.replace("nan", "–").reindex(list(section.done)).itertuples()
    machines = dict.fromkeys(map(_machine, section.results.records.values()))
    notes = [
        f"Runs on: {'; '.join(machines)}.",
        "Median seconds per iteration of the runs, mean minutes, largest peak.",
        "Seconds and minutes are those of the log; other work on the machine is included.",
    ]
    return Table("Cost", ["method", *COST.values()], [[(str(cell), "") for cell in line] for line in lines], notes)


def _machine(record: dict) -> str:
    machine, note = record["environment"], record.get("data_note")  # the oldest records lack a note
    named = "thread" in machine["device"] or machine.get("threads") is None
    threads = "" if named else f", {machine['threads']} threads"
    return f"{devices(machine)}{threads}, {machine['precision']}" + (f", {note}" if note else "")
