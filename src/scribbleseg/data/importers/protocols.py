"""Named splits: which patients are for training, validation and test."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from ...core.console import tell

ACDC_FOLDS = {  # the challenge orders its hundred training patients by pathology
    "1-20 dilated": range(1, 21),
    "21-40 hypertrophic": range(21, 41),
    "41-60 infarct": range(41, 61),
    "61-80 normal": range(61, 81),
    "81-100 abnormal RV": range(81, 101),
}
ACDC_GROUPS = {patient: fold.split(" ", 1)[1] for fold, patients in ACDC_FOLDS.items() for patient in patients}


# MAAGNet's split (Valvano et al.), ACDC patient numbers
def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


MAAG_TRAIN35 = _numbers(
    "37 50 53 100 38 19 61 74 97 31 91 35 56 94 26 69 46 59 4 89 71 6 52 43 45 63 93 14 98 88 21 28 99 54 90"
)
MAAG_TRAIN70 = MAAG_TRAIN35 + _numbers(
    "2 76 34 85 70 86 3 8 51 40 7 13 47 55 12 58 87 9 65 62 33 42 23 92 29 11 83 68 75 67 16 48 66 20 15"
)
MAAG_VAL = (84, 32, 27, 96, 17, 18, 57, 81, 79, 22, 1, 44, 49, 25, 95)
MAAG_TEST = (5, 39, 77, 82, 78, 10, 64, 24, 30, 73, 80, 41, 36, 60, 72)

Row = dict  # {"name": str, "train": [case], "val": [case], "test": [case]}, as in splits/NAME.json


def acdc_protocols(
    cases: Mapping[int, list[str]], groups: Mapping[int, str] = ACDC_GROUPS, seed: int = 0
) -> dict[str, list[Row]]:
    """ACDC's protocols for the patients that exist; cases: patient number → case names, groups: number → pathology.

    - cv5: groups of twenty consecutive patients. They are ordered by pathology, so every fold tests on a pathology that
      training never saw.
    - strat5: a fifth of every pathology (4 of 20 patients) in each fold, seeded.
    - 622: 12 / 4 / 4 patients of every pathology, seeded.
    - tuning, for choosing settings: of the pathologies that fold 0 of cv5 trains on, 16 patients each for training and
      4 for validation, seeded; no test cases.
    - maag35, maag70: MAAGNet's lists.

    A patient that is not among the hundred is in no fold.
    """

    def row(name: str, train: Iterable[int], val: Iterable[int], test: Iterable[int]) -> Row:
        parts = {"train": train, "val": val, "test": test}
        return {"name": name} | {
            part: [case for patient in sorted(numbers) for case in cases.get(patient, ())]
            for part, numbers in parts.items()
        }

    everyone = set(ACDC_GROUPS)
    random = np.random.RandomState(seed)  # the legacy stream is frozen: the same split with every NumPy
    shuffled = [
        random.permutation([p for p in sorted(everyone) if groups[p] == group])
        for group in sorted(set(groups.values()))
    ]
    fifths = [[p for order in shuffled for p in np.array_split(order, 5)[fold].tolist()] for fold in range(5)]
    seen = everyone - set(ACDC_FOLDS["1-20 dilated"])
    chosen = {
        p
        for group in sorted({groups[p] for p in seen})
        for p in random.permutation([p for p in sorted(seen) if groups[p] == group])[:4].tolist()
    }
    return {
        "cv5": [row(name, everyone - set(test), (), test) for name, test in ACDC_FOLDS.items()],
        "strat5": [row(f"mixed {index}", everyone - set(test), (), test) for index, test in enumerate(fifths)],
        "622": [row("622", [*fifths[0], *fifths[1], *fifths[2]], fifths[3], fifths[4])],
        "tuning": [row("tuning", seen - chosen, chosen, ())],
        "maag35": [row("maag35", MAAG_TRAIN35, MAAG_VAL, MAAG_TEST)],
        "maag70": [row("maag70", MAAG_TRAIN70, MAAG_VAL, MAAG_TEST)],
    }


def consecutive_fifths(cases: Iterable[str]) -> list[Row]:
    """Five folds of consecutive cases in sorted order: NCI-ISBI's 80 cases give sixteens."""
    cases = sorted(cases)
    rows = []
    for part in np.array_split(np.arange(len(cases)), 5):
        test = [cases[i] for i in part]
        rows.append(
            {
                "name": f"{test[0]} to {test[-1]}" if test else "",
                "train": [c for c in cases if c not in test],
                "val": [],
                "test": test,
            }
        )
    return rows


def write_splits(folder: Path, protocols: Mapping[str, list[Row]], final: str) -> None:
    """Write splits/NAME.json, and the folds of `final` as nnU-Net's splits_final.json (its `val` is held out).

    A fold without training cases or without held-out cases is left out, and a message names it. In splits_final.json a
    fold holds out its validation cases if it has any, otherwise its test cases.
    """
    (folder / "splits").mkdir()
    for name, rows in protocols.items():
        kept = [row for row in rows if row["train"] and (row["val"] or row["test"])]
        if len(kept) < len(rows):
            dropped = ", ".join(f"'{row['name']}'" for row in rows if row not in kept)
            tell(f"split {name}: left out {dropped}, because the source has no patients for training or for testing")
        if not kept:
            continue
        _write_json(folder / "splits" / f"{name}.json", kept)
        if name == final:
            _write_json(
                folder / "splits_final.json",
                [{"train": row["train"], "val": row["val"] or row["test"]} for row in kept],
            )


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
