import json

import pytest

from scribbleseg.data.importers.protocols import ACDC_GROUPS, acdc_protocols, consecutive_fifths, write_splits

CASES = {patient: [f"patient{patient:03}_frame01", f"patient{patient:03}_frame09"] for patient in range(1, 101)}


def patients(names):
    assert len(names) == len(set(names)) and len(names) % 2 == 0  # both frames of every patient
    return {int(name[7:10]) for name in names}


@pytest.mark.parametrize("name", ["cv5", "strat5", "622", "tuning", "maag35", "maag70"])
def test_no_patient_is_in_two_parts_and_nobody_is_lost(name):
    used = {"cv5": 100, "strat5": 100, "622": 100, "tuning": 80, "maag35": 65, "maag70": 100}
    for row in acdc_protocols(CASES)[name]:
        train, val, test = (patients(row[part]) for part in ("train", "val", "test"))
        assert not train & val and not train & test and not val & test
        assert len(train | val | test) == used[name]


def test_cv5_leaves_one_pathology_out():
    rows = acdc_protocols(CASES)["cv5"]
    assert [row["name"] for row in rows] == [
        "1-20 dilated",
        "21-40 hypertrophic",
        "41-60 infarct",
        "61-80 normal",
        "81-100 abnormal RV",
    ]
    for index, row in enumerate(rows):
        assert patients(row["test"]) == set(range(20 * index + 1, 20 * index + 21))
        held_out = {ACDC_GROUPS[p] for p in patients(row["test"])}
        assert len(held_out) == 1 and not held_out & {ACDC_GROUPS[p] for p in patients(row["train"])}


def count(names):
    found = [ACDC_GROUPS[p] for p in patients(names)]
    return [found.count(group) for group in sorted(set(ACDC_GROUPS.values()))]


def test_mixed_protocols_hold_every_group():
    protocols = acdc_protocols(CASES)
    assert all(count(row["test"]) == [4] * 5 for row in protocols["strat5"])
    assert set.union(*(patients(row["test"]) for row in protocols["strat5"])) == set(range(1, 101))
    (row,) = protocols["622"]
    assert (count(row["train"]), count(row["val"]), count(row["test"])) == ([12] * 5, [4] * 5, [4] * 5)


def test_tuning_never_sees_a_test_case_of_fold_0():
    protocols = acdc_protocols(CASES)
    (row,) = protocols["tuning"]
    assert row["test"] == [] and count(row["val"]) == [4, 0, 4, 4, 4]
    assert patients(row["train"] + row["val"]) == patients(protocols["cv5"][0]["train"])


def test_the_mixed_draw_is_the_one_of_seed_0_for_ever():
    assert sorted(patients(acdc_protocols(CASES)["622"][0]["test"])) == SIX22_TEST
    assert acdc_protocols(CASES, seed=1)["622"] != acdc_protocols(CASES)["622"]


SIX22_TEST = [6, 7, 8, 15, 21, 28, 35, 40, 45, 46, 47, 49, 61, 64, 73, 75, 81, 84, 93, 96]


def test_maag_lists():
    protocols = acdc_protocols(CASES)
    (small,), (large,) = protocols["maag35"], protocols["maag70"]
    assert [len(patients(row[part])) for row in (small, large) for part in ("train", "val", "test")] == [
        35,
        15,
        15,
        70,
        15,
        15,
    ]
    assert patients(small["train"]) < patients(large["train"]) and small["test"] == large["test"]
    assert {37, 50, 90} <= patients(small["train"]) and {2, 15} <= patients(large["train"]) - patients(small["train"])
    assert {84, 95} <= patients(small["val"]) and {5, 72} <= patients(small["test"])


def test_groups_that_info_cfg_names_decide_the_mixed_draw():
    swapped = ACDC_GROUPS | {1: "normal", 61: "dilated"}
    for row in acdc_protocols(CASES, swapped)["strat5"]:
        assert sum(swapped[p] == "normal" for p in patients(row["test"])) == 4


def test_a_partial_source_keeps_the_patients_where_they_belong(tmp_path, capsys):
    some = {p: CASES[p] for p in (1, 2, 21)} | {101: ["patient101_frame01"]}
    protocols = acdc_protocols(some)
    whole = acdc_protocols(CASES)
    for name, rows in protocols.items():
        for row, full in zip(rows, whole[name], strict=True):
            for part in ("train", "val", "test"):
                assert set(row[part]) == set(full[part]) & {case for cases in some.values() for case in cases}
    write_splits(tmp_path, protocols, "cv5")
    assert (
        "split cv5: left out '41-60 infarct', '61-80 normal', '81-100 abnormal RV', because" in capsys.readouterr().out
    )
    final = json.loads((tmp_path / "splits_final.json").read_text(encoding="utf-8"))
    assert final == [
        {"train": CASES[21], "val": CASES[1] + CASES[2]},
        {"train": CASES[1] + CASES[2], "val": CASES[21]},
    ]
    assert [row["name"] for row in json.loads((tmp_path / "splits" / "cv5.json").read_text(encoding="utf-8"))] == [
        "1-20 dilated",
        "21-40 hypertrophic",
    ]


def test_final_holds_out_validation_cases_where_there_are_any(tmp_path):
    write_splits(tmp_path, {"25-5-15": [{"name": "25-5-15", "train": ["a"], "val": ["b"], "test": ["c"]}]}, "25-5-15")
    assert json.loads((tmp_path / "splits_final.json").read_text(encoding="utf-8")) == [{"train": ["a"], "val": ["b"]}]


def test_eighty_cases_in_sixteens():
    names = [f"Prostate3T-01-{i:04}" for i in range(40)] + [f"ProstateDx-01-{i:04}" for i in range(40)]
    rows = consecutive_fifths(reversed(names))
    assert [row["test"] for row in rows] == [names[i : i + 16] for i in range(0, 80, 16)]
    assert all(sorted(row["train"] + row["test"]) == names for row in rows)
    assert rows[0]["name"] == "Prostate3T-01-0000 to Prostate3T-01-0015"
    assert sum(row["test"] == [] for row in consecutive_fifths(names[:3])) == 2
