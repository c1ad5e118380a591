"""Write the table of scores in README.md anew from the committed CSV files: python docs/make_tables.py"""

from pathlib import Path

from scribbleseg.bench.formats import pipe_table
from scribbleseg.bench.store import read_records, read_scores
from scribbleseg.evaluation.scores import summarise
from scribbleseg.methods import METHODS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quick"
PLACES = {"acdc/cv5-0": "ACDC, test cases of fold 0", "mscmr/25-5-15-0": "MSCMR, validation cases"}
START, END = "<!-- scores: made by docs/make_tables.py -->", "<!-- end of scores -->"


def table() -> str:
    """Mean Dice of each method at budget `quick`, seed 0, and the minutes of training on ACDC; `–`: not run."""
    records, scores = read_records(RESULTS), read_scores(RESULTS)
    rows = []
    for name in METHODS:
        runs = [f"{place}/{name}-s0" for place in PLACES]
        dice = [f"{100 * summarise(scores[run])[-1]['dice']:.1f}" if run in scores else "–" for run in runs]
        minutes = f"{records[runs[0]]['minutes']:.0f}" if runs[0] in records else "–"
        rows.append([f"`{name}`", minutes, *dice])
    return pipe_table(["method", "minutes on a CPU core", *(f"mean Dice, {about}" for about in PLACES.values())], rows)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n{table()}\n{END}{after}", encoding="utf-8")
