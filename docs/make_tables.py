"""Write the table of scores in README.md anew from the committed CSVs: python docs/make_tables.py"""

import json
from pathlib import Path

from scribbleseg.evaluation.scores import read_rows, summarise
from scribbleseg.methods import METHODS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "quick"
PLACES = ("acdc/cv5-0", "mscmr/25-5-15-0")  # where the methods are compared
START, END = "<!-- scores: made by docs/make_tables.py -->", "<!-- end of scores -->"


def tables() -> str:
    """A Markdown table per place at the `quick` budget, a line per method and seed."""
    blocks = []
    for place in (RESULTS / name for name in PLACES):
        files = [file for file in place.glob("*/metrics.csv") if method(file) in METHODS]
        lines = []
        for file in sorted(files, key=lambda file: (list(METHODS).index(method(file)), file)):
            *classes, mean = summarise(read_rows(file))
            dice = [f"{100 * entry['dice']:.1f}" for entry in (*classes, mean)]
            seed = file.parent.name.rpartition("-s")[2]
            cells = (
                f"`{method(file)}`",
                seed,
                *dice,
                f"{mean['hd95']:.1f}",
                f"{mean['penalised_hd95']:.1f}",
                str(mean["n_missing"]),
            )
            lines.append("| " + " | ".join(cells) + " |")
        if lines:
            names = [entry["class"] for entry in (*classes, mean)]
            head = [
                "method",
                "seed",
                *(f"Dice {name}" for name in names),
                f"HD95 ({mean['unit']})",
                f"HD95* ({mean['unit']})",
                "missing",
            ]
            record = json.loads((file.parent / "run.json").read_text(encoding="utf-8"))
            fold, recipe = record["plan"]["fold"], record["plan"]["recipe"]
            title = f"**{place.parent.name}, {place.name}** ({fold['name']}): trained on {len(fold['train'])} cases, "
            title += f"scored on {record['held_out_cases']} {'test' if fold['test'] else 'validation'} cases; "
            title += f"{record['plan']['size']} pixels, {recipe['iterations']} iterations."
            blocks.append("\n".join([title, "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head), *lines]))
    return "\n\n".join(blocks)


def method(file: Path) -> str:
    """RESULTS/DATA/SPLIT-FOLD/LABEL-sSEED/metrics.csv → LABEL."""
    return file.parent.name.rpartition("-s")[0]


if __name__ == "__main__":
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n{tables()}\n{END}{after}", encoding="utf-8")
