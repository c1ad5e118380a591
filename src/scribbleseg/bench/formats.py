"""The tables of a bench as Markdown, LaTeX and CSV."""

import re
import shlex
from pathlib import Path

import pandas as pd
from tabulate import DataRow, TableFormat, tabulate

from ..config import Bench
from ..core.atomic import atomic_file
from ..core.errors import counted
from ..evaluation.tables import as_cell
from .plan import BenchPlan
from .store import Results
from .tables import Section, Table, aggregate, all_tests, spans, tables, tidy

MARKDOWN_MARKS = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}
LATEX_MARKS = {"best": r"\textbf{{{}}}", "second": r"\underline{{{}}}", "": "{}"}
LATEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}",
    "–": "--", "†": r"\textdagger{}",
}  # fmt: skip
PIPES = DataRow("| ", " | ", " |")
UNPADDED = TableFormat(None, lambda widths, _: "|" + " --- |" * len(widths), None, None, PIPES, PIPES, 0, None)
ABOUT = (
    "Weights of the last iteration, held-out cases, Dice in percent. HD95 is the mean over found structures; missing "
    "counts structures with no predicted voxel, over all folds and seeds; HD95* counts each of those as the volume's "
    "diagonal."
)


def write_tables(plan: BenchPlan, results: Results, folder: Path) -> Path:
    """Write FOLDER/NAME-BUDGET.md, .tex and .csv, and the tests as NAME-BUDGET-tests.csv. Returns the first path."""
    sections, path = aggregate(plan, results), Path(folder) / f"{plan.name}-{plan.budget}.md"
    texts = {
        ".tex": latex(plan, sections),
        ".csv": to_csv(tidy(sections)),
        "-tests.csv": to_csv(all_tests(sections)),
        ".md": markdown(plan, sections, folder),
    }
    for ending, text in texts.items():
        with atomic_file(path.with_name(path.stem + ending)) as partial:
            partial.write_text(text, encoding="utf-8", newline="")
    return path


def to_csv(table: pd.DataFrame) -> str:
    """Ten digits: the last ones depend on the order of sums. No text is a formula for a spreadsheet."""
    quoted = table.map(lambda value: as_cell(value) if isinstance(value, str) else value)
    return quoted.infer_objects().to_csv(index=False, lineterminator="\n", float_format="%.10g")


def pipe_table(head: list[str], body: list[list[str]]) -> str:
    """A Markdown table of texts, without padding."""
    rows = [[cell.replace("|", "\\|") for cell in line] for line in body]
    return tabulate(rows, head, UNPADDED, disable_numparse=True, stralign=None, preserve_whitespace=True)


def markdown(plan: BenchPlan, sections: list[Section], results: Path) -> str:
    """The page: the command that makes it and, per section, its folds and its tables with notes."""
    made = ["scribbleseg", "bench", plan.path, "--budget", plan.budget]
    made += [word for fold in plan.folds for word in ("--fold", fold)]
    made += [] if results == Bench(plan.path).results else ["--results", results]
    words = shlex.join(map(str, [*made, "--table-only"]))
    runs = f"[{plan.budget}/runs.csv]({plan.budget}/runs.csv)"
    blocks = [
        f"# {plan.title}, budget `{plan.budget}`",
        f"Made by `{words}` from the stored scores. {about(plan)} Commands, commits and machines of the runs: {runs}.",
    ]
    for section in sections:
        blocks.append(f"## {section.data}, {section.split}")
        if not section.done:
            blocks.append("not run")
            continue
        blocks.append("\n".join(f"- {line}" for line in fold_lines(section)))
        for table in tables(section):
            body = [[MARKDOWN_MARKS[mark].format(text) for text, mark in line] for line in table.body]
            notes = [note.replace("*", "\\*") for note in table.notes]
            blocks += [f"### {table.title}", pipe_table(table.head, body), "  \n".join(notes)]
    return "\n\n".join(blocks) + "\n"


def about(plan: BenchPlan) -> str:
    """The note that holds for all tables of a page."""
    return ABOUT + (f" Only folds {spans(plan.folds)} of the plan." if plan.folds else "")


def fold_lines(section: Section) -> list[str]:
    """A line per fold: its name and the numbers of training and scored cases."""
    records = {job.fold: record for job, record in section.results.records.items()}
    lines = []
    for number, record in sorted(records.items()):
        fold, held = record["plan"]["fold"], record["held_out_cases"]
        kind = "test" if fold["test"] else "validation"
        name = "" if fold["name"] == str(number) else f" ({fold['name']})"
        lines.append(
            f"fold {number}{name}: trained on {counted(len(fold['train']), 'case')}, "
            f"scored on {counted(held, f'{kind} case')}"
        )
    return lines


def latex(plan: BenchPlan, sections: list[Section]) -> str:
    """booktabs tables for `\\input` in a paper, one per table of each section, each with a label."""
    lines = [
        f"% {escape(' '.join(plan.title.split()))}, budget {plan.budget}",
        rf"% \usepackage{{adjustbox,booktabs}}, then \input{{{plan.name}-{plan.budget}}}",
        f"% {escape(about(plan))}",
    ]
    for section in sections:
        place = f"{section.data}, {section.split}"
        label = "tab:" + re.sub(r"[^A-Za-z0-9.]+", "-", f"{plan.name}-{section.data}-{section.split}")
        if section.done:
            lines += [
                _latex_table(table, place, f"{label}-{number}") for number, table in enumerate(tables(section), 1)
            ]
        else:
            lines.append(f"% {escape(place)}: not run")
    return "\n".join([*lines, ""])


def _latex_table(table: Table, place: str, label: str) -> str:
    body = [[LATEX_MARKS[mark].format(escape(text)) for text, mark in line] for line in table.body]
    style = pd.DataFrame(body, columns=[escape(name) for name in table.head]).style.hide(axis="index")
    tabular = style.to_latex(hrules=True, column_format="l" + "r" * (len(table.head) - 1))
    return (
        "\n\\begin{table}[ht]\n\\centering\\small\\setlength{\\tabcolsep}{4pt}\n"
        f"\\caption{{{escape(f'{place}. {table.title}.')}}}\n\\label{{{label}}}\n"
        f"\\begin{{adjustbox}}{{max width=\\textwidth}}\n"
        f"{tabular}\\end{{adjustbox}}\n\n{escape(' '.join(table.notes))}\n\\end{{table}}"
    )


def escape(text: str) -> str:
    """Escape a text so that LaTeX prints every character as it is."""
    return "".join(LATEX.get(char, char) for char in text)
