"""benchmarks/studies/model_card.py: its rules on drawn hearts, and the committed cards against the committed scores."""

import json
import re
from pathlib import Path

import model_card
import numpy as np
import pytest
from PIL import Image
from small import plan_of, save

from scribbleseg.bench.plan import Job
from scribbleseg.bench.store import add_run, read_records, read_scores
from scribbleseg.config import Train
from scribbleseg.core.errors import InputError
from scribbleseg.data.layout import read_dataset
from scribbleseg.evaluation.scores import COLUMNS, list_masks, score_cases, summarise
from scribbleseg.training.plan import write_plan

ROOT = Path(__file__).parents[1]
CLASSES = ("background", "RV", "Myo", "LV")
JOB = Job("drawn", "final", 0, "pce", "pce", (), 0, "quick")
CURVE_ROWS = [{"iteration": "1", "loss": "0.5", "val_mean_dice": "nan"}]
NAME = "quick/drawn/final-0/pce-s0"
CARDS = sorted(path for path in (ROOT / "docs" / "models").glob("*.md") if path.name != "README.md")


def heart() -> np.ndarray:
    """[7, 96, 96]: slice 0 empty, then from base to apex an LV of 8 × 8 in a Myo of 12 × 12, and beside it an RV that
    thins: 8 × 10, 8, 6, 4, 2, 0.
    """
    truth = np.zeros((7, 96, 96), np.uint8)
    for k, plane in enumerate(truth[1:]):
        plane[30:42, 30:42], plane[32:40, 32:40] = 2, 3
        plane[32:40, 30 - (10 - 2 * k) : 30] = 1
    return truth


def drawn() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Case → (truth, prediction). The base of a and b is slice 1, that of c slice 5: c lies the other way round."""
    pairs = {name: (heart(), heart()) for name in "abc"}
    a, b, c = (found for _, found in pairs.values())
    a[1][32:40, 20:25] = 0  # base: half of the RV
    a[4][80:86, 80:86] = 3  # 36 pixels far from the heart
    a[6][30:42, 30:36] = 0  # apex: half of it
    b[0][10:15, 10:15] = 3  # 25 pixels in a slice without heart
    b[2:5][b[2:5] == 3] = 2  # LV is Myo in three slices
    b[3][32:40, 24:27] = 3  # the one with most wrong pixels
    c[6] = 0  # apex: nothing found
    c[4][c[4] == 1] = 0  # 4 columns of RV, none found
    pairs["c"] = tuple(np.ascontiguousarray(array[::-1]) for array in pairs["c"])
    return pairs


def scans_of(pairs):
    return [
        model_card.Scan(Case(name), truth, found, model_card.base_to_apex(truth, 1))
        for name, (truth, found) in pairs.items()
    ]


class Case:
    def __init__(self, name):
        self.id = name


def rows_of(pairs):
    """Dice alone, by its definition."""
    rows = []
    for name, (truth, found) in pairs.items():
        for value, structure in enumerate(CLASSES[1:], 1):
            score = 2 * ((truth == value) & (found == value)).sum() / ((truth == value).sum() + (found == value).sum())
            rows.append(dict.fromkeys(COLUMNS, 0) | {"case": name, "class": structure, "dice": score})
    return rows


def chosen(pairs):
    return [
        (f.scan.case.id, f.index, f.text) for f in model_card.find_failures(scans_of(pairs), rows_of(pairs), CLASSES)
    ]


def test_the_base_is_where_the_rv_is_large():
    truth = heart()
    assert model_card.base_to_apex(truth, 1).tolist() == [1, 2, 3, 4, 5, 6]
    assert model_card.base_to_apex(truth[::-1], 1).tolist() == [5, 4, 3, 2, 1, 0]
    truth[1][truth[1] == 1] = 0  # above the ventricle there may be none
    assert model_card.base_to_apex(truth, 1).tolist() == [1, 2, 3, 4, 5, 6]


def test_each_rule_chooses_its_slice():
    basal = (2 * 40 / 120 + 1 + 1) / 3
    worst = {row["class"]: row["dice"] for row in rows_of(drawn()) if row["case"] == "b"}
    assert chosen(drawn()) == [
        ("b", 3, f"Dice of the case {100 * sum(worst.values()) / 3:.1f} %, {64 + 24} wrong pixels"),
        ("a", 1, f"Dice of the slice {100 * basal:.1f} %"),
        ("c", 0, "Dice of the slice 0.0 %"),
        ("c", 2, "0.0 % of 32 pixels of RV found"),
        ("a", 4, "36 pixels of foreground where there is none"),
        ("b", 0, "25 pixels of foreground where there is none"),
    ]


def test_of_slices_without_any_rv_found_the_one_with_most_is_shown():
    pairs = drawn()
    pairs["a"][1][2][pairs["a"][1][2] == 1] = 0  # 64 pixels of RV
    assert ("a", 2, "0.0 % of 64 pixels of RV found") in chosen(pairs)


def test_of_an_rv_found_in_part_the_share_is_told():
    pairs = drawn()
    truth, found = pairs["c"]
    found[2][32:34] = truth[2][32:34]  # 2 of its 8 rows
    assert ("c", 2, "25.0 % of 32 pixels of RV found") in chosen(pairs)


def test_a_box_is_as_much_wider_on_every_side():
    truth = np.zeros((2, 9, 12), np.uint8)
    truth[1, 4, 5:7] = 2
    rows, columns = np.nonzero(model_card.boxes(truth, 3)[1])
    assert (rows.min(), rows.max(), columns.min(), columns.max(), len(rows)) == (
        1,
        7,
        2,
        9,
        7 * 8,
    ) and not model_card.boxes(truth, 3)[0].any()


def test_foreground_near_the_heart_is_not_far():
    pairs = drawn()
    pairs["c"][1][3][42 + 19, 35] = 1  # 20 pixels below the last row of Myo
    pairs["a"][1][4][80:86, 80:86] = 0
    assert [text for *_, text in chosen(pairs)][4:] == ["25 pixels of foreground where there is none"]
    pairs["c"][1][3][42 + 20, 35] = 1
    assert ("c", 3, "1 pixels of foreground where there is none") in chosen(pairs)


def test_nothing_is_shown_where_nothing_is_wrong():
    perfect = {name: (truth, truth) for name, (truth, _) in drawn().items()}
    assert [text for *_, text in chosen(perfect)] == [
        "Dice of the case 100.0 %, 0 wrong pixels",
        *["Dice of the slice 100.0 %"] * 2,
    ]


def cells(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]


def test_thirds():
    base, middle, apex = cells(model_card.thirds_table(scans_of(drawn()), CLASSES))
    assert (base[:2], middle[:2], apex[:2]) == (["base", "6"], ["middle", "6"], ["apex", "6"])
    assert [line[6:] for line in (base, middle, apex)] == [["6", "0"], ["6", "1"], ["3", "0"]]
    rv = 2 * 104 / (144 + 104)  # a: 40 of 80 and all of 64 found
    assert base[2] == f"{100 * (rv + 1 + 1) / 3:.1f}"
    lv = [2 * (64 + 32) / (128 + 96), 1, 2 * 64 / (128 + 64)]  # a: half of one slice; c: one of two slices
    assert apex[4] == f"{100 * sum(lv) / 3:.1f}"


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder as training, prediction and scoring leave it, of the drawn cases; RESULTS beside it."""
    data, run = tmp_path / "data", tmp_path / "runs" / NAME
    rng = np.random.default_rng(0)
    for name, (truth, found) in (drawn() | {"t": (heart(), heart())}).items():
        save(
            data / "imagesTr" / f"{name}_0000.nii.gz",
            (rng.normal(100, 9, truth.shape) + 20 * truth).T.astype(np.int16),
            np.diag([1.0, 1, 8, 1]),
        )
        save(data / "labelsTr_dense" / f"{name}.nii.gz", truth.T, np.diag([1.0, 1, 8, 1]))
        save(run / "predictions" / f"{name}.nii.gz", found.T, np.diag([1.0, 1, 8, 1]))
    (run / "predictions" / "t.nii.gz").unlink()
    info = {
        "name": "Drawn",
        "labels": {name: value for value, name in enumerate((*CLASSES, "ignore"))},
        "file_ending": ".nii.gz",
        "channel_names": {"0": "MR"},
    }
    info |= {
        "description": "Squares",
        "reference": "nobody",
        "licence": "CC0",
        "groups": {"a": "one", "b": "one"},
        "strata": {"one": "ill", "c": "ill", "t": "well"},
    }
    (data / "dataset.json").write_text(json.dumps(info), encoding="utf-8")
    (data / "splits_final.json").write_text(json.dumps([{"train": ["t"], "val": ["a", "b", "c"]}]), encoding="utf-8")
    settings = Train(data, run, method="pce", budget="quick", device="cpu")
    write_plan(settings, plan_of(settings))
    dataset = read_dataset(data)
    rows = score_cases(dataset, [dataset.case(name) for name in "abc"], list_masks(run / "predictions"))
    environment = {
        "device": "a machine",
        "precision": "float32",
        "scribbleseg": "0",
        "commit": "abc1234",
        "torch": "2",
        "python": "3",
    }
    record = {
        "plan": json.loads((run / "config.json").read_text(encoding="utf-8"))["plan"],
        "command": "scribbleseg train datasets/drawn runs/quick/drawn/final-0/pce-s0 --method pce --budget quick",
        "environment": environment,
        "held_out_cases": 3,
        "parameters": 7,
        "seconds_per_iteration": 0.26,
        "minutes": 2.6,
    }
    rows = [row | {"patient": dataset.patient(row["case"])} for row in rows]
    add_run(tmp_path / "results" / "quick", JOB, record, rows, CURVE_ROWS)
    return run


def test_a_card_says_what_the_run_is_and_shows_its_failures(run, tmp_path):
    model = model_card.write_card(run, tmp_path / "results", tmp_path / "cards" / "drawn.md")
    page = (tmp_path / "cards" / "drawn.md").read_text(encoding="utf-8")
    for part in (
        "# pce on Drawn, final fold 0\n", "**Not for clinical use.**", "128 pixels, 600 iterations", "a machine, "
        "float32; 3 minutes", "commit abc1234",
        "| source | nobody |", "| licence | CC0;", "1 case of 1 patient (well 1); scribbles", "test: "
        "3 cases of 2 patients (ill 2); scored on 3 cases with", "Not seen in training: ill",
        "the first slice of the file in 2 of 3 cases", "whatever the image shows: 3; of them with predicted "
        "foreground: 1. It",
        "**c, slice 3 of 7**. 0.0 % of 32 pixels of RV found.", "run `drawn/final-0/pce-s0` in "
        "[scores.csv](../results/quick/scores.csv)", "scribbleseg predict runs/quick/drawn/final-0/pce-s0 new_scans "
        "segmented",
    ):  # fmt: skip
        assert part in page, part
    assert str(tmp_path) not in page, "no path of a machine"
    assert model_card.score_table(read_scores(tmp_path / "results" / "quick")[JOB.run]) in page
    with Image.open(tmp_path / "cards" / "drawn.png") as picture:
        assert picture.height > 900
    assert "| [pce on Drawn, final fold 0](drawn.md) | quick | 128 | 600 | 3 test |" in model_card.index(
        {"drawn.md": model}
    )


def test_data_without_an_open_licence_is_not_shown(run, tmp_path):
    path = tmp_path / "data" / "dataset.json"
    path.write_text(path.read_text(encoding="utf-8").replace("CC0", "research use"), encoding="utf-8")
    model_card.write_card(run, tmp_path / "results", tmp_path / "cards" / "drawn.md")
    assert [file.name for file in (tmp_path / "cards").iterdir()] == ["drawn.md"] and (run / "failures.png").is_file()
    page = (tmp_path / "cards" / "drawn.md").read_text(encoding="utf-8")
    assert "![" not in page and "(research use) do not allow us to show it here" in page


def test_a_slice_that_two_rules_choose_is_drawn_once(run, tmp_path):
    model = model_card.read_model(run, tmp_path / "results")
    first, second, *_ = model_card.find_failures(model.scans, model.rows, CLASSES)
    rows = model_card.failure_rows(model, [first, second, first])
    assert (rows[0].truth == 3).sum() == 64 and (rows[0].predictions["prediction"] == 3).sum() == 24
    assert [row.name.partition("\n")[0] for row in rows] == ["1, 3. b", "2. a"]


def test_scores_of_another_run_are_refused(run, tmp_path):
    budget = tmp_path / "results" / "quick"
    rows, record = read_scores(budget)[JOB.run], read_records(budget)[JOB.run]
    rows[4]["dice"] += 0.01
    add_run(budget, JOB, record, rows, CURVE_ROWS)
    with pytest.raises(InputError, match="b Myo has Dice .* Score the run again"):
        model_card.read_model(run, tmp_path / "results")


def test_a_data_set_without_terms_is_refused(run, tmp_path):
    path = tmp_path / "data" / "dataset.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"licence"', '"license"'), encoding="utf-8")
    with pytest.raises(InputError, match="dataset.json: has no licence"):
        model_card.read_model(run, tmp_path / "results")


@pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)
def test_a_committed_card_shows_the_committed_scores(card):
    page = card.read_text(encoding="utf-8")
    name, path = re.search(r"run `(.+?)` in \[scores.csv\]\((.+?)\)", page).groups()
    rows = read_scores((card.parent / path).parent)[name]
    assert model_card.score_table(rows) in page, "run benchmarks/studies/model_card.py again"
    line = next(
        line
        for line in (card.parent / "README.md").read_text(encoding="utf-8").splitlines()
        if f"]({card.name})" in line
    )
    dice = [f"{100 * entry['dice']:.1f}" for entry in summarise(rows)]
    assert f"| {' | '.join(dice)} |" in line
    assert "**Not for clinical use.**" in page
    assert f"]({card.stem}.png)" not in page or card.with_suffix(".png").stat().st_size <= 300_000


def test_cards_are_committed():
    assert CARDS
