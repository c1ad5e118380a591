import json
from pathlib import Path

import numpy as np
import pytest
from tiny import OBLIQUE, SHAPE, edit, image, save, scribble, tiny_set, truth

from scribbleseg.config import Check
from scribbleseg.core.errors import InputError
from scribbleseg.data.check import check
from scribbleseg.data.volume import read_volume


@pytest.fixture
def folder(tmp_path):
    return tiny_set(tmp_path / "set")


@pytest.fixture
def said(capsys):
    def run(folder: Path) -> tuple[bool, str]:
        usable = check(Check(folder))
        text = capsys.readouterr().out
        assert text.splitlines()[-1] == ("usable" if usable else "not usable")
        assert usable == ("problem: " not in text)
        return usable, text

    return run


def test_a_good_set_with_its_figures(folder, said):
    usable, text = said(folder)
    assert usable and "warning" not in text
    for words in (
        "tiny: 4 cases of 2 patients, 0 in imagesTs; channels: MR",
        "slices    16 in all, 4 a case, of 10 × 12 pixels",
        "spacing   4.997 mm between slices, 0.7434 to 0.7441 mm in plane",
        "4 cases with scribbles, 4 with dense masks, 4 with both",
        "0 background  5.625 % of the pixels, on 12 of 16 slices, 4 of 4 cases",  # 27 of 480
        "1 outer       3.125 % of the pixels",  # 15 of 480
        "2 inner       1.875 % of the pixels",  # 9 of 480
        "together 10.625 % of the pixels (204); 4 slices without scribble",
        "agreement 0 of 204 scribbled pixels have another class",
        "split     final, 2 folds (train/val/test cases): 0: 2/0/2; 1: 2/0/2",
    ):
        assert words in text, text


def test_every_problem_is_named_at_once(folder, said):
    broken = image(0).astype(np.float32)
    broken[0, 0, 0] = np.nan
    save(folder / "imagesTr" / "case0_0000.nii.gz", broken)
    save(folder / "imagesTr" / "case1_0000.nii.gz", np.full(SHAPE, 3, np.int16))
    save(folder / "labelsTr" / "case1.nii.gz", scribble() * 3)
    save(folder / "labelsTr" / "case2.nii.gz", scribble(), np.eye(4))
    save(folder / "labelsTr_dense" / "case3.nii.gz", truth()[:5])
    (folder / "imagesTs").mkdir()
    (folder / "imagesTs" / "far_0000.nii.gz").write_bytes(b"no")
    (folder / "splits_final.json").write_text(
        json.dumps([{"train": ["case0", "case2"], "val": ["case1"]}]), encoding="utf-8"
    )
    usable, text = said(folder)
    problems = [line for line in text.splitlines() if line.startswith("problem: ")]
    expected = ["case0_0000.nii.gz: 1 of 480", "constant", "has value 6", "case2.nii.gz: has another affine"]
    expected += ["case3.nii.gz: has another shape", "far_0000", "leaks"]
    assert not usable and len(problems) == len(expected), text
    for line, words in zip(problems, expected, strict=True):
        assert words in line
    assert (
        "no scribble" not in text.replace(problems[-1], "")
        and "4 with dense masks, 1 with both, 4 with unusable files" in text
    )


def test_a_class_that_nobody_drew(folder, said):
    lacking = np.where(scribble() == 2, 3, scribble()).astype(np.uint8)
    save(folder / "labelsTr" / "case0.nii.gz", lacking)
    usable, text = said(folder)
    assert usable and "warning: class 2 (inner) is missing from the scribbles of 1 of 4 cases: case0" in text
    for i in range(4):
        save(folder / "labelsTr" / f"case{i}.nii.gz", lacking)
    usable, text = said(folder)
    assert not usable and "problem: class 2 (inner) is in no scribble" in text and text.count("problem: ") == 1
    for i in range(4):
        save(folder / "labelsTr" / f"case{i}.nii.gz", np.where(scribble() == 0, 0, 3).astype(np.uint8))
    assert "problem: " + str(folder / "labelsTr") + ": the scribbles have only background" in said(folder)[1]


def test_background_is_never_to_be_removed(folder, said):
    for i in range(4):
        save(folder / "labelsTr" / f"case{i}.nii.gz", np.where(scribble() == 0, 3, scribble()).astype(np.uint8))
    assert "problem: class 0 (background) is in no scribble. Draw some.\n" in said(folder)[1]


def test_zero_written_where_nothing_was_drawn(folder, said):
    def zero(count: int) -> str:
        for i in range(count):
            save(folder / "labelsTr" / f"case{i}.nii.gz", np.where(scribble() == 3, 0, scribble()).astype(np.uint8))
        usable, text = said(folder)
        assert usable and "may be in another order" not in text
        return text

    assert (
        "warning: the labels of 1 of 4 cases cover every pixel and have no 3 (ignore): case0. "
        "0 means background, not 'not drawn'" in zero(1)
    )
    text = zero(4)
    assert "warning: the labels of 4 of 4 cases cover every pixel" in text
    assert (
        "warning: over 5 % of the scribbled pixels contradict the dense masks: 0 may have been used for 'not drawn', or"
        in text
    )


def test_final_has_the_names_of_the_folds_that_it_repeats(folder, said):
    (folder / "splits").mkdir()
    rows = [
        {"name": "old", "train": ["case0", "case1"], "test": ["case2", "case3"]},
        {"name": "young", "train": ["case2", "case3"], "test": ["case0", "case1"]},
    ]
    (folder / "splits" / "ages.json").write_text(json.dumps(rows), encoding="utf-8")
    assert (
        "split     final, which tests on the folds of ages, 2 folds (train/val/test cases): old: 2/0/2; young: 2/0/2\n"
        in said(folder)[1]
    )


def test_a_class_that_no_training_case_of_a_fold_has(folder, said):
    for i in range(2):
        save(folder / "labelsTr" / f"case{i}.nii.gz", np.where(scribble() == 2, 3, scribble()).astype(np.uint8))
    usable, text = said(folder)
    problems = [line for line in text.splitlines() if line.startswith("problem: ")]
    assert not usable and problems == [
        "problem: split final, fold '0': no training case has a scribble of class inner. "
        "Draw some, or correct the split."
    ]


def test_slices_of_another_plane_are_a_warning(folder, said):
    def turn(case: int, turned: np.ndarray) -> None:
        for name, array in (
            (f"imagesTr/case{case}_0000", image(case)),
            (f"labelsTr/case{case}", scribble()),
            (f"labelsTr_dense/case{case}", truth()),
        ):
            save(folder / f"{name}.nii.gz", array, turned)

    lies = np.diag([-1.0, 1, 1, 1]) @ OBLIQUE  # 90° from the others
    thin = OBLIQUE.copy()
    thin[:3, 2] *= 0.1  # cut across an axis in plane
    tilted = OBLIQUE.copy()
    tilted[:3, :3] = (
        np.array([[np.cos(0.7), -np.sin(0.7), 0], [np.sin(0.7), np.cos(0.7), 0], [0, 0, 1]]) @ OBLIQUE[:3, :3]
    )  # 39°
    turn(0, tilted)
    assert "45°" not in said(folder)[1]
    for case, affine in ((0, thin), (2, lies)):
        turn(case, affine)
        usable, text = said(folder)
        assert usable and f"warning: case{case}: the slices lie over 45° from those of the other cases." in text
        turn(case, OBLIQUE)


def test_strokes_that_are_flat_in_their_slices_need_no_warning_of_their_plane(folder, said):
    lies = np.diag([-1.0, 1, 1, 1]) @ OBLIQUE
    drawn = np.full(SHAPE, 3, np.uint8)
    for number in range(SHAPE[2]):  # strokes of another class, at another place, in each slice
        drawn[2 * number : 2 * number + 3, 2:7, number] = number % 3
    for case in range(4):
        save(folder / f"labelsTr/case{case}.nii.gz", drawn)
        (folder / f"labelsTr_dense/case{case}.nii.gz").unlink()
    for path, array in ((folder / "imagesTr/case2_0000.nii.gz", image(2)), (folder / "labelsTr/case2.nii.gz", drawn)):
        save(path, array, lies)
    assert "45°" not in said(folder)[1]


def test_cases_without_scribble_are_a_warning_and_none_at_all_a_problem(folder, said):
    (folder / "labelsTr" / "case3.nii.gz").unlink()
    save(folder / "labelsTr" / "case2.nii.gz", np.full(SHAPE, 3, np.uint8))  # a file, but nothing drawn
    usable, text = said(folder)
    assert not usable and "fold '1': no training case has a scribble of class background, outer, inner" in text
    (folder / "splits_final.json").write_text(
        json.dumps([{"train": ["case0", "case1"], "val": ["case2", "case3"]}]), encoding="utf-8"
    )
    usable, text = said(folder)
    assert (
        usable
        and "warning: 2 of 4 cases have no scribble: case2, case3. A scribble method cannot learn from these" in text
    )
    save(folder / "labelsTr" / "case3.nii.gz", scribble())
    assert "warning: 1 of 4 cases has no scribble: case2." in said(folder)[1]
    for i in range(4):
        save(folder / "labelsTr" / f"case{i}.nii.gz", np.full(SHAPE, 3, np.uint8))
    assert (
        f"problem: {folder / 'labelsTr'}: nothing is drawn. "
        f"Run: scribbleseg simulate {folder}. Or check that not all pixels have the ignore value (3)."
        in said(folder)[1]
    )
    for path in (folder / "labelsTr").iterdir():
        path.unlink()
    usable, text = said(folder)
    assert not usable and f"no scribbles in labelsTr. Run: scribbleseg simulate {folder}" in text
    assert "fold '0': no training case has a scribble file" in text


def test_scribbles_that_contradict_the_masks(folder, said):
    dense = truth()
    save(folder / "labelsTr_dense" / "case0.nii.gz", np.where(dense == 0, 0, 3 - dense).astype(np.uint8))
    usable, text = said(folder)
    assert usable and "agreement 24 of 204 scribbled pixels" in text and "warning: over 5 %" in text


def test_one_slice_stray_label_and_no_split(folder, said):
    flat = OBLIQUE.copy()
    flat[:3, 2] *= 0.1  # thinner than its pixels are wide
    for name, array in (
        ("imagesTr/case0_0000", image(0)),
        ("labelsTr/case0", scribble()),
        ("labelsTr_dense/case0", truth()),
    ):
        save(folder / f"{name}.nii.gz", array[..., :1], flat)
    save(folder / "labelsTr" / "who.nii.gz", scribble())
    (folder / "splits_final.json").unlink()
    usable, text = said(folder)
    assert usable and "slices    13 in all, 1 to 4 a case, of 10 × 12 pixels" in text
    assert "warning: case0: one slice only" in text and "warning: labelsTr: who.nii.gz has no image" in text
    assert "warning: no splits_final.json" in text


def test_voxels_instead_of_mm_and_a_folder_that_is_no_data_set(folder, tmp_path, said):
    edit(folder, spacing="voxels")
    assert "spacing   none in the files: distances are in voxels" in said(folder)[1]
    usable, text = said(tmp_path)
    assert not usable and "has no dataset.json" in text


def test_a_group_without_an_image_is_named_and_does_no_harm(folder, said):
    info = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    info["groups"] |= {"gone": "p9"}
    (folder / "dataset.json").write_text(json.dumps(info), encoding="utf-8")
    usable, text = said(folder)
    assert usable and "warning: groups of dataset.json names gone, for which there is no image" in text


def test_every_case_that_lacks_a_channel_is_named_and_the_rest_is_checked(folder, said):
    edit(folder, channel_names={"0": "T1", "1": "T2"})
    for i in range(4):
        save(folder / "imagesTr" / f"case{i}_0001.nii.gz", image(i))
    for name in ("case0_0000", "case1_0001"):
        (folder / "imagesTr" / f"{name}.nii.gz").unlink()
    save(folder / "labelsTr" / "case2.nii.gz", scribble() * 3)
    (folder / "labelsTr" / "case3.nii.gz").unlink()
    (folder / "splits_final.json").unlink()
    usable, text = said(folder)
    problems = [line for line in text.splitlines() if line.startswith("problem: ")]
    assert not usable and len(problems) == 2 and "has value 6" in problems[1]
    assert (
        "imagesTr: 2 of 4 cases lack channels" in problems[0]
        and "Add case0_0000.nii.gz, case1_0001.nii.gz, or" in problems[0]
    )
    assert "warning: 1 of 4 cases has no scribble: case3" in text and "has no image" not in text
    assert "slices    16 in all" in text and "2 cases with scribbles" in text


def test_an_image_whose_link_leads_to_nothing_is_named_once(folder, said):
    path = sorted((folder / "imagesTr").iterdir())[0]
    path.unlink()
    path.symlink_to("/there/scan.nii.gz")
    usable, text = said(folder)
    assert not usable and text.count(path.name) == 1
    assert f"problem: {path}: links to /there/scan.nii.gz, which is gone. Put the image there, or remove it." in text
    with pytest.raises(InputError, match="links to /there/scan.nii.gz, which is gone. Correct the path"):
        read_volume(path)


def test_files_of_another_ending_are_a_warning(folder, said):
    for part in ("imagesTr", "labelsTr"):
        for name in ("far", "near"):
            (folder / part / f"{name}.nrrd").touch()
    (folder / "imagesTr" / "off.NII.GZ").touch()
    (folder / "labelsTr" / "notes.txt").touch()
    usable, text = said(folder)
    assert usable and text.count("warning: ") == 2
    assert "warning: labelsTr: notes.txt: not a volume, and not read" in text
    assert (
        "warning: files that are not read: imagesTr 1 .NII.GZ, imagesTr 2 .nrrd, labelsTr 2 .nrrd. "
        "A data set has one file ending, here '.nii.gz' (dataset.json)" in text
    )


def test_another_number_of_cases_than_the_description_says_is_a_warning(folder, said):
    edit(folder, numTraining=10)
    usable, text = said(folder)
    assert (
        usable
        and "warning: numTraining of dataset.json is 10, and imagesTr has 4 cases." in text
        and text.count("warning: ") == 1
    )
    edit(folder, numTraining=None)
    assert "warning: " not in said(folder)[1]


def test_without_groups_and_splits_a_case_counts_as_a_patient(folder, said):
    edit(folder, groups=None)
    assert "tiny: 4 cases of 4 patients, 0 in imagesTs" in said(folder)[1]
    (folder / "splits_final.json").unlink()
    assert (
        "tiny: 4 cases of 4 patients (no groups in dataset.json: each case counts as a patient), 0 in imagesTs"
        in said(folder)[1]
    )


def test_a_class_that_covers_nearly_everything(folder, said):
    for i in range(4):
        drawn = np.where(scribble() == 3, 0, scribble()).astype(np.uint8)
        drawn[0] = 3  # not everything, so that it does not look like a complete mask
        save(folder / "labelsTr" / f"case{i}.nii.gz", drawn)
    usable, text = said(folder)
    assert (
        usable
        and "class 0 (background) covers 87 % of all pixels" in text
        and "strokes cover a few percent" in text
        and "write 3 (ignore) there" in text
    )


def test_background_that_was_saved_as_ignore(folder, said):
    for i in range(4):
        drawn = truth()
        drawn[drawn == 0] = 3
        drawn[0, 0, 0] = 0
        save(folder / "labelsTr" / f"case{i}.nii.gz", drawn)
    usable, text = said(folder)
    assert usable and "class 0 (background) is only 0.6 % of what is drawn" in text and "write 0 there" in text


def test_strokes_in_another_plane_than_the_slices(tmp_path, said):
    from test_preparation import ct_dataset

    folder = ct_dataset(tmp_path / "ct")
    usable, text = said(folder)
    assert usable and "plane     axial: the strokes are flat there" in text and "warning: ct" not in text
    assert "slices    48 in all, 12 a case, of 40 × 40 pixels" in text, "counted in that plane"
    assert "greys     CT: 1" in text and "sd 4" in text
    edit(folder, plane="coronal")
    usable, text = said(folder)
    assert usable and "plane     coronal: dataset.json says so" in text
    assert "ct0, ct1, ct2, ct3: the strokes are flatter in another plane than that of the slices (coronal)" in text


def test_the_training_that_would_follow(tmp_path, capsys):
    from small import small_dataset
    from test_preparation import ct_dataset

    from scribbleseg.training.outlook import check as whole

    assert whole(Check(ct_dataset(tmp_path / "ct")))
    text = capsys.readouterr().out
    for words in (
        "plan      --preset fast, 3 training cases of split final, fold 0: corral, 2300 iterations of 12 slices",
        "  greys   CT: 1",
        "  slices  axial; slices, cut to where rings lie (a small network learns it), resized to 80 × 80 pixels",
        "  bare    slices without strokes: not used by this method",
        "  strokes 0 of 18 drawn classes of slices are lost (0 %); the papers' way loses 0",
        "  time    about ",
    ):
        assert words in text, text
    assert text.endswith("usable\n")
    data = small_dataset(tmp_path / "small")
    for path in (data / "labelsTr").iterdir():
        path.unlink()
    assert not whole(Check(data)) and "plan " not in capsys.readouterr().out
