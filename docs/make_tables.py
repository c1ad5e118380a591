"""Write the scores in the table of README.md anew from the committed CSV files: python docs/make_tables.py"""

import csv
import re
from pathlib import Path

from scribbleseg.bench.plan import Job
from scribbleseg.bench.store import difference, read_records, read_scores
from scribbleseg.config import Bench
from scribbleseg.evaluation.scores import summarise
from scribbleseg.methods import METHODS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quick"
FAST = ROOT / "benchmarks" / "results" / "fast" / "runs.csv"
PLACES = (("acdc", "cv5", 0), ("mscmr", "25-5-15", 0))
JOBS = {name: [Job(*place, name, name, (), 0, "quick") for place in PLACES] for name in METHODS}


def scores() -> dict[str, list[str]]:
    """Method → minutes of training on ACDC, mean Dice on ACDC and on MSCMR; `–`: not run.

    Budget `quick`, seed 0; of corral the preset fast, all seeds.
    """
    records, rows = read_records(RESULTS), read_scores(RESULTS)
    found = {}
    for name, (acdc, mscmr) in JOBS.items():
        dice = [
            f"{100 * summarise(rows[job.run])[-1]['dice']:.1f}" if job.run in rows else "–" for job in (acdc, mscmr)
        ]
        found[name] = [f"{records[acdc.run]['minutes']:.0f}" if acdc.run in records else "–", *dice]
    with open(FAST, newline="", encoding="utf-8") as file:
        runs = list(csv.DictReader(file))
    minutes, _ = means(runs, "minutes")
    found["corral"] = [f"{minutes:.0f}", *(f"{value:.1f}" for value in means(runs, "dice"))]
    return found


def means(runs: list[dict], column: str) -> list[float]:
    """The mean over the seeds of the preset fast, for each of PLACES."""
    values = [[float(run[column]) for run in runs if run["data"] == data] for data, *_ in PLACES]
    return [sum(found) / len(found) for found in values]


def notes() -> str:
    """The note on runs with outdated settings, with the line ends that belong around it."""
    records = read_records(RESULTS)
    old = [
        f"`{name}`"
        for name, jobs in JOBS.items()
        if any(job.run in records and difference(job, Bench(ROOT), records[job.run]) for job in jobs)
    ]
    return f"\n{', '.join(old)}: run before its defaults changed, see docs/results.md.\n" if old else ""


def filled(page: str) -> str:
    """The page with the last three cells of every method's row, and the notes below the table, written anew."""
    for name, cells in scores().items():
        row = rf"^(\| \[`{name}`\].*)( \| [^|]*){{3}} \|$"
        page, count = re.subn(row, lambda m, cells=cells: f"{m[1]} | {' | '.join(cells)} |", page, flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"README.md has {count} rows for {name}; expected one.")
    page, count = re.subn(r"(?s)(\n\|[^\n]*\n)[^|]*(<!-- end of scores -->)", lambda m: m[1] + notes() + m[2], page)
    if count != 1:
        raise SystemExit("README.md has no `<!-- end of scores -->` below the table. Put it there.")
    return page


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")
