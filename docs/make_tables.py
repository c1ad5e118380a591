"""Write the scores in the table of README.md anew from the committed CSV files: python docs/make_tables.py"""

import re
from pathlib import Path

from scribbleseg.bench.store import read_records, read_scores
from scribbleseg.evaluation.scores import summarise
from scribbleseg.methods import METHODS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quick"
PLACES = ("acdc/cv5-0", "mscmr/25-5-15-0")


def scores() -> dict[str, list[str]]:
    """Method → minutes of training on ACDC, mean Dice on ACDC and on MSCMR; budget `quick`, seed 0; `–`: not run."""
    records, rows = read_records(RESULTS), read_scores(RESULTS)
    found = {}
    for name in METHODS:
        runs = [f"{place}/{name}-s0" for place in PLACES]
        dice = [f"{100 * summarise(rows[run])[-1]['dice']:.1f}" if run in rows else "–" for run in runs]
        found[name] = [f"{records[runs[0]]['minutes']:.0f}" if runs[0] in records else "–", *dice]
    return found


def filled(page: str) -> str:
    """The page with the last three cells of every method's row written anew."""
    for name, cells in scores().items():
        row = rf"^(\| \[`{name}`\].*)( \| [^|]*){{3}} \|$"
        page, count = re.subn(row, lambda m, cells=cells: f"{m[1]} | {' | '.join(cells)} |", page, flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"README.md has {count} rows for {name}; expected one.")
    return page


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(filled(readme.read_text(encoding="utf-8")), encoding="utf-8")
