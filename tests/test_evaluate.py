"""Files in, table out: names, units, missing structures, bad input."""

import json
import math
import shutil

import nibabel
import numpy as np
import pytest

from scribbleseg.config import Evaluate
from scribbleseg.core.errors import InputError, counted, some_failed
from scribbleseg.data.layout import read_dataset
from scribbleseg.evaluation.scores import (
    evaluate,
    format_table,
    list_masks,
    read_rows,
    score_cases,
    score_files,
    score_volume,
    summarise,
    write_rows,
)
from scribbleseg.inference.provenance import MADE_BY, checksum


def mask(*boxes: tuple[int, int]) -> np.ndarray:
    """[x, y, z] = 12×10×4; box (value, x) is 3 voxels wide in x from there, 4 in y, 2 in z."""
    label = np.zeros((12, 10, 4), np.uint8)
    for value, x in boxes:
        label[x : x + 3, 2:6, 1:3] = value
    return label


def save(path, label, spacing_mm=(1.5, 1.5, 8.0), shift_mm=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([*spacing_mm, 1.0])
    affine[0, 3] = shift_mm
    nibabel.save(nibabel.Nifti1Image(label, affine), path)


@pytest.fixture
def folders(tmp_path):
    """Masks a, b, c; predictions of a (moved by one voxel) and b (class ring missing, class disc where none is)."""
    truth, predictions = tmp_path / "set" / "labelsTr_dense", tmp_path / "predictions"
    save(truth / "a.nii.gz", mask((1, 0), (2, 5)))
    save(truth / "b.nii.gz", mask((1, 0)))
    save(truth / "c.nii.gz", mask((1, 0), (2, 5)))
    save(predictions / "a.nii.gz", mask((1, 1), (2, 5)))
    save(predictions / "b.nii.gz", mask((2, 5)))
    (tmp_path / "set" / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "ring": 1, "disc": 2, "ignore": 3}}), encoding="utf-8"
    )
    return predictions, truth


def by_key(rows):
    return {(row["case"], row["class"]): row for row in rows}


def test_a_folder_is_scored_in_mm_and_by_name(folders):
    rows, unpredicted, unscored, _ = score_files(*folders)
    assert [(row["case"], row["class"]) for row in rows] == [("a", "ring"), ("a", "disc"), ("b", "ring"), ("b", "disc")]
    table = by_key(rows)
    assert table["a", "ring"]["dice"] == pytest.approx(2 / 3)
    assert table["a", "ring"]["hd95"] == pytest.approx(1.5) and table["a", "ring"]["unit"] == "mm"
    assert table["a", "disc"]["dice"] == 1
    assert (unpredicted, unscored) == (["c"], [])


def test_a_misnamed_prediction_is_said_in_both_lists(folders, tmp_path, capsys):
    predictions, truth = folders
    (predictions / "b.nii.gz").rename(predictions / "d.nii.gz")
    rows = evaluate(Evaluate(predictions, truth, out=tmp_path / "scores.csv"))
    assert {row["case"] for row in rows} == {row["case"] for row in read_rows(tmp_path / "scores.csv")} == {"a"}
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said == [
        "masks without a prediction, not scored: 2 of 3 (first: b)",
        "predictions without a mask, not scored: 1 of 2 (first: d)",
    ]


def test_changed_predictions_are_counted(folders, capsys):
    predictions, truth = folders
    sums = {path.name: checksum(path) for path in predictions.iterdir()}
    (predictions / MADE_BY).write_text(json.dumps({"sha256": sums}), encoding="utf-8")
    evaluate(Evaluate(predictions, truth))
    assert "changed" not in capsys.readouterr().out
    shutil.copyfile(truth / "b.nii.gz", predictions / "b.nii.gz")
    for given in ((predictions, truth), (predictions / "b.nii.gz", truth / "b.nii.gz")):
        evaluate(Evaluate(*given))
        count = len(list_masks(given[0]))
        assert (
            capsys.readouterr()
            .out.splitlines()
            .count(f"predictions changed after predict wrote them: 1 of {count} (first: b.nii.gz)")
            == 1
        )
    evaluate(Evaluate(predictions / "a.nii.gz", truth / "a.nii.gz"))
    assert "changed" not in capsys.readouterr().out


def test_swapped_folders_are_noticed_by_what_predict_left(folders):
    predictions, truth = folders
    (predictions / MADE_BY).write_text("{}", encoding="utf-8")
    with pytest.raises(
        InputError, match=f"The order is PREDICTIONS TRUTH: scribbleseg evaluate {predictions} {truth}."
    ):
        score_files(truth, predictions)
    corrected = shutil.copytree(predictions, predictions.with_name("corrected"))
    rows, *_ = score_files(predictions, corrected)
    assert {row["case"] for row in rows} == {"a", "b"} and len(score_files(predictions, truth)[0]) == 4


def test_cases_of_a_data_set_are_scored_in_mm(folders):
    predictions, truth = folders
    for path in truth.iterdir():
        save(
            truth.parent / "imagesTr" / path.name.replace(".", "_0000.", 1),
            np.arange(480, dtype=np.int16).reshape(12, 10, 4),
        )
    info = {"labels": {"background": 0, "ring": 1, "disc": 2, "ignore": 3}, "file_ending": ".nii.gz"}
    (truth.parent / "dataset.json").write_text(json.dumps(info), encoding="utf-8")
    dataset = read_dataset(truth.parent)
    assert_same_rows(
        score_cases(dataset, [dataset.case("a"), dataset.case("b")], list_masks(predictions)), score_files(*folders)[0]
    )


def test_missing_structure_is_penalised_with_the_diagonal_and_spurious_is_not(folders):
    table = by_key(score_files(*folders)[0])
    ring, disc = table["b", "ring"], table["b", "disc"]
    assert ring["missing"] and not ring["spurious"] and ring["dice"] == 0 and math.isnan(ring["hd95"])
    assert ring["penalised_hd95"] == pytest.approx(math.sqrt((12 * 1.5) ** 2 + (10 * 1.5) ** 2 + (4 * 8) ** 2))
    assert disc["spurious"] and not disc["missing"] and disc["dice"] == 0 and math.isnan(disc["penalised_hd95"])


def test_summary_of_hand_made_rows():
    def row(case, name, dice, hd95, missing=False):
        return {"case": case, "class": name, "dice": dice, "hd95": hd95, "assd": hd95 / 2, "unit": "mm",
                "missing": missing, "spurious": False, "penalised_hd95": 90.0 if missing else hd95}  # fmt: skip

    nan = math.nan
    first, second, mean = summarise(
        [row("a", "x", 0.8, 2), row("a", "y", 0.6, 4), row("b", "x", 0.6, 4), row("b", "y", 0.0, nan, True)]
    )
    assert (first["dice"], first["dice_sd"]) == pytest.approx((0.7, math.sqrt(0.02)))
    assert (first["hd95"], first["assd"], first["penalised_hd95"], first["n_missing"]) == pytest.approx((3, 1.5, 3, 0))
    assert (second["hd95"], second["penalised_hd95"], second["n_missing"]) == (4, 47, 1) and math.isnan(
        second["hd95_sd"]
    )
    assert (mean["class"], mean["cases"], mean["n_missing"]) == ("mean", 2, 1)
    assert (mean["dice"], mean["dice_sd"]) == pytest.approx((0.5, math.sqrt(2 * 0.2**2)))  # case means .7 and .3
    assert mean["hd95_sd"] == pytest.approx(math.sqrt(0.5))  # case means 3 and 4
    assert mean["hd95"] == pytest.approx(3.5) and mean["penalised_hd95"] == pytest.approx(25)
    nothing = summarise([row("a", "x", 0.0, nan, True), row("a", "y", 0.0, nan, True)])[-1]
    assert nothing["n_missing"] == 2 and math.isnan(nothing["hd95"]) and nothing["penalised_hd95"] == 90


def test_a_structure_that_is_nowhere_does_not_count():
    label = mask((1, 0)).transpose(2, 1, 0)
    present, absent, mean = summarise(score_volume("a", label, label, (8, 1.5, 1.5), ("ring", "disc")))
    assert math.isnan(absent["dice"]) and mean["dice"] == present["dice"] == 1
    assert (mean["n_missing"], mean["n_spurious"]) == (0, 0)
    assert "–" in format_table([present, absent, mean]).splitlines()[3]


def test_the_printed_table_and_the_masks_left_out(folders, tmp_path, capsys):
    rows = evaluate(Evaluate(*folders, out=tmp_path / "new" / "scores.csv"))
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:5]]
    assert cells[0] == [
        "class",
        "Dice",
        "HD95 (mm)",
        "HD95 penalised (mm)",
        "ASSD (mm)",
        "missing",
        "spurious",
        "cases",
    ]
    assert [line[0] for line in cells[2:]] == ["ring", "disc", "mean"]
    assert cells[2][1] == "0.3333 (0.4714)" and cells[2][2] == "1.50" and cells[2][5:] == ["1", "0", "2"]
    assert len({len(line) for line in lines[:5]}) == 1
    assert lines[5] == "masks without a prediction, not scored: 1 of 3 (first: c)"
    assert_same_rows(read_rows(tmp_path / "new" / "scores.csv"), rows)


def assert_same_rows(one, other):
    assert [{key: str(value) for key, value in row.items()} for row in one] == [
        {key: str(value) for key, value in row.items()} for row in other
    ]


def test_file_against_file_of_any_name(folders, tmp_path):
    predictions, truth = folders
    (predictions / "a.nii.gz").rename(tmp_path / "mine.nii.gz")
    rows, *left_out = score_files(tmp_path / "mine.nii.gz", truth / "a.nii.gz")
    assert [(row["case"], row["class"]) for row in rows] == [("mine", "ring"), ("mine", "disc")]
    assert rows[0]["dice"] == pytest.approx(2 / 3) and left_out == [[], [], {}]


def test_another_format_of_the_same_case(folders):
    itk = pytest.importorskip("SimpleITK")
    predictions, truth = folders
    for path in sorted(predictions.iterdir()):
        itk.WriteImage(itk.ReadImage(str(path)), str(predictions / path.name.replace(".nii.gz", ".mha")))
        path.unlink()
    assert score_files(predictions, truth)[0][0]["dice"] == pytest.approx(2 / 3)


def test_maps_beside_a_prediction_are_passed_over(folders):
    predictions, truth = folders
    expected = score_files(predictions, truth)[0]
    for name in ("a_entropy", "a_prob_ring", "b_prob_left_prob_x"):
        save(predictions / f"{name}.nii.gz", np.full((12, 10, 4), 0.5, np.float32))
    assert_same_rows(score_files(predictions, truth)[0], expected)


def test_class_names_given_or_numbered(folders):
    predictions, truth = folders
    (truth.parent / "dataset.json").unlink()
    assert [row["class"] for row in score_files(predictions, truth)[0][:2]] == ["class_1", "class_2"]
    assert [row["class"] for row in score_files(predictions, truth, ("u", "v", "w"))[0][:3]] == ["u", "v", "w"]


@pytest.mark.parametrize(
    "says, spacing_mm, unit", [(True, (1, 1, 1), "voxel"), (False, (1, 1, 1), "mm"), (True, (1, 1, 2), "mm")]
)
def test_voxels_only_where_the_data_set_says_so_and_the_file_agrees(tmp_path, says, spacing_mm, unit):
    truth = tmp_path / "labelsTs" / "a.nii.gz"
    save(truth, mask((1, 0)), spacing_mm)
    info = {"labels": {"background": 0, "ring": 1, "ignore": 2}} | ({"spacing": "voxels"} if says else {})
    (tmp_path / "dataset.json").write_text(json.dumps(info), encoding="utf-8")
    rows, *_ = score_files(truth, truth)
    assert rows[0]["unit"] == unit
    assert f"HD95 ({unit})" in format_table(summarise(rows))


def break_shape(predictions, truth):
    save(predictions / "a.nii.gz", mask()[:, :, :3])


def break_affine(predictions, truth):
    save(predictions / "a.nii.gz", mask((1, 0)), shift_mm=3.0)


def break_truth_value(predictions, truth):
    save(truth / "b.nii.gz", mask((3, 0)))


def break_prediction_value(predictions, truth):
    save(predictions / "b.nii.gz", mask((7, 0)))


def break_names(predictions, truth):
    for name in "ab":
        (predictions / f"{name}.nii.gz").rename(predictions / f"x{name}.nii.gz")


def break_twins(predictions, truth):
    save(predictions / "a.nii", mask((1, 0)))


def break_truncated(predictions, truth):
    (truth / "a.nii.gz").write_bytes((truth / "a.nii.gz").read_bytes()[:60])


def break_labels(predictions, truth):
    (truth.parent / "dataset.json").write_text(
        json.dumps({"labels": {"background": 0, "heart": [1, 2]}}), encoding="utf-8"
    )


def break_emptied(predictions, truth):
    for path in predictions.iterdir():
        path.unlink()


def break_gone(predictions, truth):
    predictions.rename(predictions.with_name("elsewhere"))


@pytest.mark.parametrize(
    "damage, words, left",
    [
        (break_shape, r"a\.nii\.gz: has another shape \(12 × 10 × 3 and not 12 × 10 × 4\) than", "b"),
        (break_affine, r"a\.nii\.gz: has another affine \(largest difference 3\)", "b"),
        (break_truth_value, r"labelsTr_dense/b\.nii\.gz: has value 3; expected 0 background, 1 ring, 2 disc\.", "a"),
        (break_prediction_value, r"predictions/b\.nii\.gz: has value 7", "a"),
        (break_truncated, r"labelsTr_dense/a\.nii\.gz: cannot be read", "b"),
    ],
)
def test_a_bad_case_is_named_and_the_others_are_scored(folders, tmp_path, damage, words, left):
    damage(*folders)
    said = rf"^1 of 2 cases could not be scored \(the other was\). Not scored:\n.*{words}"
    with pytest.raises(InputError, match=said):
        evaluate(Evaluate(*folders, out=tmp_path / "scores.csv"))
    assert {row["case"] for row in read_rows(tmp_path / "scores.csv")} == {left}


def test_a_number_has_the_noun_that_it_asks_for():
    assert [counted(number, "case") for number in (0, 1, 2)] == ["0 cases", "1 case", "2 cases"]


def test_of_many_failures_five_are_told_a_line_each():
    assert some_failed(["a: bad"], 1, "scored") == "a: bad"
    assert some_failed(["a", "b"], 2, "scored") == "2 of 2 cases could not be scored:\na\nb"
    said = some_failed(list("abcdefg"), 9, "scored")
    assert said == "7 of 9 cases could not be scored (the others were). Not scored:\na\nb\nc\nd\ne\n… and 2 more"


@pytest.mark.parametrize(
    "damage, words",
    [
        (
            break_names,
            r"predictions: no prediction has the name of a mask in .*labelsTr_dense "
            r"\(first prediction: xa, first mask: a\)",
        ),
        (break_twins, r"a\.nii and a\.nii\.gz are the same case"),
        (break_labels, r"dataset\.json: labels are .*--class-name"),
        (break_emptied, "no masks in this folder"),
        (break_gone, "no such file or folder"),
    ],
)
def test_bad_input_is_named_and_nothing_is_written(folders, tmp_path, damage, words):
    damage(*folders)
    with pytest.raises(InputError, match=words):
        evaluate(Evaluate(*folders, out=tmp_path / "scores" / "scores.csv"))
    assert not (tmp_path / "scores").exists()


def test_no_foreground_in_any_mask(tmp_path):
    save(tmp_path / "truth" / "a.nii.gz", mask())
    with pytest.raises(InputError, match="no mask has any foreground"):
        score_files(tmp_path / "truth", tmp_path / "truth")


def test_a_table_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    label = mask((1, 0))
    rows = score_volume("a", label, label, (1, 1, 1), ("ring",))
    write_rows(tmp_path / "scores.csv", rows)
    with pytest.raises(ValueError):
        write_rows(tmp_path / "scores.csv", [*rows, {"surprise": 1}])
    assert_same_rows(read_rows(tmp_path / "scores.csv"), rows)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.csv"]


def test_units_are_not_mixed():
    label = mask((1, 0))
    rows = [row for unit in ("mm", "voxel") for row in score_volume(unit, label, label, (1, 1, 1), ("ring",), unit)]
    with pytest.raises(InputError, match="mm and voxel"):
        summarise(rows)


def test_a_file_that_is_no_table(tmp_path):
    (tmp_path / "scores.csv").write_text("case,dice\na,0.5\n", encoding="utf-8")
    with pytest.raises(InputError, match="not a table of scores"):
        read_rows(tmp_path / "scores.csv")
