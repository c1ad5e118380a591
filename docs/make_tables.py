"""Write the tables of scores in README.md and docs/methods/README.md anew: python docs/make_tables.py"""

import csv
import re
from pathlib import Path
from statistics import mean

from scribbleseg.bench.plan import Job
from scribbleseg.bench.store import difference, read_records, read_scores
from scribbleseg.config import Bench
from scribbleseg.evaluation.scores import summarise
from scribbleseg.methods import METHODS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quick"
PRESETS = {name: ROOT / "benchmarks" / "results" / name / "runs.csv" for name in ("fast", "best")}
MINUTES = ROOT / "benchmarks" / "results" / "minutes.csv"
RELEASED = ROOT / "benchmarks" / "results" / "released.csv"
PLACES = (("acdc", "cv5", 0), ("acdc", "strat5", 0), ("mscmr", "25-5-15", 0))
SEEDS = (0, 1, 2)
JOBS = {name: [[Job(*place, name, name, (), seed, "quick") for seed in SEEDS] for place in PLACES] for name in METHODS}


def scores() -> dict[str, list[str]]:
    """Method → mean Dice of each place, budget `quick`; of corral the preset fast."""
    rows = read_scores(RESULTS)
    found = {
        name: [average([100 * summarise(rows[job.run])[-1]["dice"] for job in jobs if job.run in rows]) for jobs in own]
        for name, own in JOBS.items()
    }
    return found | {"corral": [of_preset("fast", *place) for place in PLACES]}


def of_preset(preset: str, *place: object) -> str:
    """The mean Dice of a preset on a fold of a data set."""
    runs = [run for run in read(PRESETS[preset]) if (run["data"], run["split"], int(run["fold"])) == place]
    return average([float(run["dice"]) for run in runs])


def average(dice: list[float]) -> str:
    """Over the seeds; `–`: not run."""
    return f"{mean(dice):.1f}" if dice else "–"


def minutes() -> list[list[str]]:
    """What is trained, its minutes on two cores and its Dice on two folds of ACDC, the highest first on the first one;
    `–`: not measured."""
    measured = {line["recipe"]: line["minutes"] for line in read(MINUTES)}
    methods = scores()
    found = [
        [f"`--preset {name}`", measured.get(name, "–"), *(of_preset(name, *place) for place in PLACES[:2])]
        for name in PRESETS
    ]
    for name in ("scn", "effdnet", "pce"):
        found.append([f"`--method {name} --budget quick`", measured.get(name, "–"), *methods[name][:2]])
    found += [[line["code"], line["minutes"], line["dice"], "–"] for line in read(RELEASED)]
    return sorted(found, key=lambda cells: cells[2], reverse=True)


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV file."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def notes() -> str:
    """The note on runs with outdated settings, with the line ends that belong around it."""
    records = read_records(RESULTS)
    old = [
        f"`{name}`"
        for name, own in JOBS.items()
        if any(job.run in records and difference(job, Bench(ROOT), records[job.run]) for jobs in own for job in jobs)
    ]
    return f"\n{', '.join(old)}: run before its defaults changed, see [results.md](../results.md).\n" if old else ""


def with_minutes(page: str) -> str:
    """README.md with its table written anew."""
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in minutes())
    place = r"(?s)(<!-- minutes.*?\n\|---[^\n]*\n).*?(?=\n<!-- end of minutes -->)"
    page, count = re.subn(place, rf"\g<1>{table}", page)
    if count != 1:
        raise SystemExit("README.md has no table between `<!-- minutes` and `<!-- end of minutes -->`. Put it there.")
    return page


def with_scores(page: str) -> str:
    """The page of the methods with the last three cells of each row, and the notes below the table, written anew."""
    for name, cells in scores().items():
        row = rf"^(\| \[`{name}`\].*)( \| [^|]*){{3}} \|$"
        page, count = re.subn(row, lambda m, cells=cells: f"{m[1]} | {' | '.join(cells)} |", page, flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"docs/methods/README.md has {count} rows for {name}; expected one.")
    page, count = re.subn(r"(?s)(\n\|[^\n]*\n)[^|]*(<!-- end of scores -->)", lambda m: m[1] + notes() + m[2], page)
    if count != 1:
        raise SystemExit("docs/methods/README.md has no `<!-- end of scores -->` below the table. Put it there.")
    return page


if __name__ == "__main__":
    for page, write in (("README.md", with_minutes), ("docs/methods/README.md", with_scores)):
        text = (ROOT / page).read_text(encoding="utf-8")
        (ROOT / page).write_text(write(text), encoding="utf-8")
