"""The tables of a bench as Markdown, LaTeX and CSV."""

import csv
import io
import math
import shlex
from pathlib import Path

from ..config import Bench
from ..core.atomic import atomic_file
from .jobs import BenchPlan, Job, Result
from .tables import Row, Section, aggregate, cost, spans, tables

MARKDOWN_MARKS = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}
LATEX_MARKS = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"}
LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "–": "--", "†": r"\textdagger{}",
}  # fmt: skip
SCORES = ("dice", "hd95", "penalised_hd95")
COSTS = (
    "parameters",
    "seconds_per_iteration",
    "peak_memory_mib",
    "minutes_per_run",
    "size",
    "iterations",
    "batch",
    "optimiser",
)
COLUMNS = (
    *("data", "split", "budget", "row", "class", "unit", "status", "folds", "seeds", "cases"),
    *(f"{key}{part}_over_folds" for key in SCORES for part in ("", "_sd")),
    *(
        "dice_over_cases",
        "dice_sd_over_cases",
        "hd95_over_cases",
        "hd95_sd_over_cases",
        "penalised_hd95_over_cases",
        "n_missing",
        "n_spurious",
    ),
    "dice_by_seed",
    *("p_holm", "pairs", "leader", "published_dice", "published_dice_sd", "published_hd95", *COSTS),
)


def write_tables(plan: BenchPlan, results: dict[Job, Result], folder: Path) -> Path:
    """Write FOLDER/NAME-BUDGET.md, .tex and .csv; returns the first."""
    sections = aggregate(plan, results)
    stem = f"{plan.name}-{plan.budget}"
    for ending, text in (
        (".tex", latex(plan, sections)),
        (".csv", tidy_csv(sections)),
        (".md", markdown(plan, sections, folder)),
    ):
        with atomic_file(Path(folder) / (stem + ending)) as partial:
            partial.write_text(text, encoding="utf-8", newline="")
    return Path(folder) / f"{stem}.md"


def markdown(plan: BenchPlan, sections: list[Section], results: Path) -> str:
    """A page: the command that makes it, per section its folds, tables with notes, and the commands of its runs."""
    made = [
        "scribbleseg",
        "bench",
        plan.path,
        "--budget",
        plan.budget,
        *(["--folds", *plan.folds] if plan.folds else []),
    ]
    made += ["--table-only"] if results == Bench(plan.path).results else ["--results", results, "--table-only"]
    blocks = [
        f"# {plan.title}, budget `{plan.budget}`",
        f"Made by `{shlex.join(map(str, made))}` from the CSVs of the runs. {about(plan)}",
    ]
    for section in sections:
        blocks.append(f"## {section.data}, {section.split}")
        if not section.done:
            blocks.append("not run")
            continue
        blocks.append("\n".join(f"- {line}" for line in fold_lines(section)))
        for table in tables(section):
            lines = [table.head, ["---"] * len(table.head)]
            lines += [
                [MARKDOWN_MARKS[mark].format(text.replace("|", "\\|")) for text, mark in line] for line in table.body
            ]
            notes = [note.replace("*", "\\*") for note in table.notes]
            blocks += [f"### {table.title}", "\n".join(f"| {' | '.join(line)} |" for line in lines), "  \n".join(notes)]
        blocks.append("<details><summary>Commands, commits and devices of the runs</summary>")
        blocks += ["\n".join(["```", *run_lines(section), "```"]), "</details>"]
    return "\n\n".join(blocks) + "\n"


def about(plan: BenchPlan) -> str:
    """What holds for all tables of a page."""
    text = "Last checkpoint, held-out cases, Dice in percent. HD95 is the mean over found structures; missing counts structures with no predicted voxel, "
    text += "over all folds and seeds; HD95* counts each of those as the volume's diagonal."
    return text + (f" Only folds {spans(plan.folds)} of the plan." if plan.folds else "")


def fold_lines(section: Section) -> list[str]:
    """Fold by fold: its name, and how many cases were trained on and scored."""
    records = {job.fold: result.record for row in section.done for job, result in row.done.items()}
    lines = []
    for number, record in sorted(records.items()):
        fold, held = record["plan"]["fold"], record["held_out_cases"]
        kind = "test" if fold["test"] else "validation"
        name = "" if fold["name"] == str(number) else f" ({fold['name']})"
        lines.append(f"fold {number}{name}: trained on {len(fold['train'])} cases, scored on {held} {kind} cases")
    return lines


def run_lines(section: Section) -> list[str]:
    """Device, precision, commit (and what changed when a run was carried on) and command of every run."""
    lines = []
    for row in section.done:
        for result in row.done.values():
            machine = result.record["environment"]
            changes = [
                ", ".join(f"{key} {value}" for key, value in part.items()) for part in machine.get("continued", [])
            ]
            note = result.record.get("data_note")  # the oldest records lack it
            lines += [
                f"# {machine['device']}, {machine['precision']}, commit {machine['commit'] or 'not known'}"
                + "".join(f"; carried on with {part}" for part in changes)
                + (f"; {note}" if note else "")
            ]
            lines.append(result.record["command"])
    return lines


def latex(plan: BenchPlan, sections: list[Section]) -> str:
    """A document of booktabs tabulars, one per table of each section, to compile or to take them from."""
    lines = [
        r"\documentclass{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage{adjustbox,booktabs}",
        r"\usepackage[landscape,margin=1cm]{geometry}",
    ]
    lines.append(r"\begin{document}")
    lines += [rf"\section*{{{escape(plan.title)}, budget {plan.budget}}}", escape(about(plan))]
    for section in sections:
        place = f"{section.data}, {section.split}"
        if not section.done:
            lines += ["", escape(f"{place}: not run.")]
            continue
        for table in tables(section):
            lines += [
                "",
                r"\begin{table}[ht]",
                r"\centering\small\setlength{\tabcolsep}{4pt}",
                rf"\caption{{{escape(f'{place}. {table.title}.')}}}",
            ]
            lines += [
                r"\begin{adjustbox}{max width=\textwidth}",
                rf"\begin{{tabular}}{{l{'r' * (len(table.head) - 1)}}}",
            ]
            lines += [r"\toprule", " & ".join(map(escape, table.head)) + r" \\", r"\midrule"]
            lines += [
                " & ".join(LATEX_MARKS[mark].format(escape(text)) for text, mark in line) + r" \\"
                for line in table.body
            ]
            lines += [
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{adjustbox}",
                "",
                escape(" ".join(table.notes)),
                r"\end{table}",
            ]
        lines.append(r"\clearpage")
    return "\n".join([*lines, r"\end{document}", ""])


def escape(text: str) -> str:
    """Text whose every character LaTeX prints as it is."""
    return "".join(LATEX.get(char, char) for char in text)


def tidy_csv(sections: list[Section]) -> str:
    """A line per data set, split, row and class (and `mean`): numbers unrounded, Dice in percent, empty where undefined.

    Status: complete, incomplete (some of the plan's folds or seeds), not run.
    """
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for section in sections:
        for row in section.rows:
            place = {"data": section.data, "split": section.split, "budget": section.budget, "row": row.label}
            for line in _csv_lines(row, section):
                numbers = {
                    key: "" if value is None or isinstance(value, float) and math.isnan(value) else value
                    for key, value in line.items()
                }
                writer.writerow(place | numbers)
    return file.getvalue()


def _csv_lines(row: Row, section: Section) -> list[dict]:
    published = section.published.rows.get(row.label, {}) if section.published else {}
    printed = {
        name: {f"published_{key}": value for key, value in numbers.items()} for name, numbers in published.items()
    }
    if not row.done:
        return [
            {"status": "not run", "class": name} | printed.get(name, {})
            for name in (section.classes if section.done else printed or [""])
        ]
    shared = {
        "status": "incomplete" if row.missing else "complete",
        "folds": spans(job.fold for job in row.done),
        "seeds": spans(job.seed for job in row.done),
        "leader": section.leader,
    }
    lines = []
    for cases, folds in zip(row.cases, row.folds, strict=True):
        scale = {"dice": 100, "dice_sd": 100}
        line = shared | {key: cases[key] for key in ("class", "unit", "cases", "n_missing", "n_spurious")} | cost(row)
        line |= {
            f"{key}_over_folds": folds[key] * scale.get(key, 1) for score in SCORES for key in (score, f"{score}_sd")
        }
        line |= {
            f"{key}_over_cases": cases[key] * scale.get(key, 1)
            for key in ("dice", "dice_sd", "hd95", "hd95_sd", "penalised_hd95")
        }
        if cases["class"] == "mean" and len(row.by_seed) > 1:
            line["dice_by_seed"] = " / ".join(str(100 * dice) for dice in row.by_seed.values())
        if cases["class"] == "mean" and row.label in section.p:
            line["p_holm"], line["pairs"] = section.p[row.label]
        lines.append(line | printed.get(cases["class"], {}))
    return lines
