import base64
import dataclasses
import html
import json
import os
import re
import shlex
import shutil
import time

import nibabel
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file
from small import save, small_dataset

from scribbleseg import cli
from scribbleseg.config import Predict, Report, Train
from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.volume import Grid
from scribbleseg.evaluation.scores import COLUMNS, read_rows, summarise, write_rows
from scribbleseg.inference.predict import predict
from scribbleseg.inference.provenance import MADE_BY
from scribbleseg.reporting import collect, figures
from scribbleseg.reporting import page as module
from scribbleseg.reporting.collect import case_planes, open_run, pick_cases, rank_cases, repeat_command
from scribbleseg.reporting.report import report, write_report
from scribbleseg.training.train import train

SECTIONS = ("scores", "cases", "training", "course-of-training", "settings", "every-case")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished SCN run with validation, and its data set."""
    folder = tmp_path_factory.mktemp("report")
    dataset = small_dataset(folder / "data")
    return train(Train(dataset, folder / "run", method="scn", iterations=4, size=32, batch=4, val_share=0.3))


@pytest.fixture(scope="module")
def page(trained):
    return report(Report(trained)).read_text(encoding="utf-8")


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """A copy to spoil, without what a report had written; pictures are stubs."""
    for name in ("panel", "curves", "distribution"):
        monkeypatch.setattr(module, name, lambda *args, **more: "data:,")
    skip = shutil.ignore_patterns("report.html", "metrics.csv", "predictions", "resume.pt", "best*")
    return shutil.copytree(trained, tmp_path / "run", ignore=skip)


def section(page, name):
    return re.search(rf'<section id="{name}">.*?</section>', page, re.S)[0]


def body(page, name):
    """The cells of the first table of a section, unescaped."""
    table = re.search(r"<tbody>.*?</tbody>", section(page, name), re.S)[0]
    return [
        [html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", line)]
        for line in re.findall(r"<tr.*?</tr>", table)
    ]


def row(case, name, dice, hd95=1.0, missing=False):
    return dict(zip(COLUMNS, (case, name, dice, hd95, hd95 / 2, "mm", missing, False, hd95)))


def edit(run, change):
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    change(stored)
    (run / "config.json").write_text(json.dumps(stored), encoding="utf-8")


def test_one_self_contained_file_with_every_section(page):
    assert re.findall(r'<section id="(.*?)">', page) == list(SECTIONS)
    sources = re.findall(r'(?:src|href)\s*=\s*"(.*?)"', page)
    assert len(sources) > 12 and all(re.match(r"data:image/(png|svg\+xml);base64,", source) for source in sources)
    for source in sources:
        content = base64.b64decode(source.partition(",")[2])
        assert content.startswith((b"\x89PNG", b"<?xml"))
    assert not re.search(r"https?:|url\(|@import|<script|<link", re.sub(r"base64,[^\"]+", "", page))
    assert "not for clinical use" in page.lower() and "last checkpoint" in page
    assert "Left out" not in page


def test_numbers_are_those_of_metrics_csv(trained, page):
    rows = read_rows(trained / "metrics.csv")
    assert {row["case"] for row in rows} == {"case.4 a", "case.5 a"}
    table = {line[0]: line for line in body(page, "every-case")}
    for case in ("case.4 a", "case.5 a"):
        dice, hd95 = ([row[key] for row in rows if row["case"] == case] for key in ("dice", "hd95"))
        assert [cell.split(" ")[0] for cell in table[case][1:4]] == [f"{value:.4f}" for value in (np.mean(dice), *dice)]
        assert table[case][4:] == ["–" if np.isnan(value) else f"{value:.2f}" for value in hd95]
    summary = summarise(rows)
    assert [line[1].split(" ")[0] for line in body(page, "scores")] == [f"{entry['dice']:.4f}" for entry in summary]
    assert f"Mean Dice <strong>{summary[-1]['dice']:.4f}</strong>" in page and "over 2 held-out cases" in page


def test_the_course_shows_the_methods_maps_in_order(page):
    course = section(page, "course-of-training")
    heads = re.findall(r"<th>(.*?)</th>", course)
    assert heads[:7] == [
        "iteration",
        "image",
        "scribble",
        "M (orange: not in it)",
        "refined pseudo-label",
        "prediction",
        "truth",
    ]
    assert heads[7:] == ["1", "2", "3", "4"] and course.count("<img") == 24


def test_masks_of_a_method_stay_masks(trained):
    with np.load(trained / "pictures" / "000004.npz") as stored:
        assert stored["confident"].dtype == bool and stored["pseudo_label"].dtype == np.uint8


def test_training_section_has_every_term_and_validation(trained, monkeypatch):
    asked = {}
    monkeypatch.setattr(module, "curves", lambda lines, *args, **more: asked.update(lines) or "data:,")
    log = [json.loads(line) for line in (trained / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    module._charts(open_run(trained).plan, log)
    wanted = {"total", "mean", "square", "core", *log[0]["losses"], *log[0]["monitor"]}
    assert set(asked) == wanted
    assert asked["total"] == ([1, 2, 3, 4], [entry["loss"] for entry in log])
    assert asked["mean"][1] == [entry["val_mean_dice"] for entry in log]


def test_worst_median_and_best():
    rows = [
        row(case, name, dice)
        for case, dices in {"a": (0.9, 0.7), "b": (0.2, 0.4), "c": (0.5, np.nan), "d": (np.nan, np.nan)}.items()
        for name, dice in zip("xy", dices)
    ]
    ranked = rank_cases(rows)
    assert [case for case, _ in ranked] == ["b", "c", "a"]
    assert [dice for _, dice in ranked] == pytest.approx([0.3, 0.5, 0.8])
    assert {place: case for place, (case, _) in pick_cases(ranked).items()} == {
        "Worst": "b",
        "Median": "c",
        "Best": "a",
    }
    assert pick_cases([("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.4)])["Median"] == ("b", 0.2)
    assert pick_cases(ranked[:2]) == {"Worst": ranked[0], "Best": ranked[1]}
    assert pick_cases(ranked[:1]) == {"Only case": ranked[0]} and pick_cases([]) == {}


def test_a_table_that_is_there_is_believed(run):
    report(Report(run))
    write_rows(
        run / "metrics.csv",
        [
            row("case.4 a", "square", 0.75),
            row("case.4 a", "core", 0.25),
            row("case.5 a", "square", 0.125),
            row("case.5 a", "core", 0.0, np.nan, True),
        ],
    )
    before = (run / "metrics.csv").read_bytes()
    cases = section(report(Report(run)).read_text(encoding="utf-8"), "cases")
    assert (run / "metrics.csv").read_bytes() == before
    assert re.findall(r"<h3>(.*?)</h3>", cases) == [
        "Worst: case.5 a, mean Dice 0.0625",
        "Best: case.4 a, mean Dice 0.5000",
    ]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", cases) == ["image", "scribble", "prediction", "truth"] * 2
    assert body((run / "report.html").read_text(encoding="utf-8"), "every-case")[0] == [
        "case.5 a",
        "0.0625",
        "0.1250",
        "0.0000 (missing)",
        "1.00",
        "–",
    ]


def test_a_prediction_is_shown_in_its_images_order(run, tmp_path, monkeypatch):
    """By itself it would be sliced across another axis: spacings lie on both sides of what counts as equal."""
    shown = []
    monkeypatch.setattr(module, "panel", lambda image, label, spacing, inches=0: shown.append(label) or "data:,")
    data = shutil.copytree(open_run(run).train.dataset, tmp_path / "data")
    edit(run, lambda stored: stored["train"].update(dataset=str(data)))
    truth = data / "labelsTr_dense" / "case.5 a.nii.gz"
    for path in data.rglob("case.5 a*.nii.gz"):
        save(path, np.asanyarray(nibabel.load(path).dataobj), np.diag([1, 1, 0.999002, 1]))
    save(run / "predictions" / truth.name, np.asanyarray(nibabel.load(truth).dataobj), np.diag([1, 1, 0.998998, 1]))
    found = open_run(run)
    case = collect._show(
        collect.ShownCase("Worst", "case.5 a", 1.0),
        found.dataset,
        found.plan.fitted,
        [row("case.5 a", "square", 1.0)],
        found.predictions(),
    )
    module._case_panels(case, found.plan)
    assert len(shown) == 4 and np.array_equal(shown[2], shown[3]) and shown[3].any()


def test_the_slice_with_most_foreground_is_shown(run):
    dataset = open_run(run).dataset
    volume = collect.load_volume(dataset, dataset.case("case.5 a"))
    volume.truth[[0, 2]] = 0
    planes, spacing, position = case_planes(volume, volume.truth)
    assert position == "2 of 3" and list(planes) == ["image", "scribble", "prediction", "truth"]
    assert (planes["truth"] > 0).sum() == 256 and np.array_equal(planes["prediction"], planes["truth"])
    assert spacing == pytest.approx(figures.upright_spacing(volume.grid))
    stored, spacing, _ = case_planes(volume, volume.truth, located=False)
    assert spacing == volume.grid.spacing_mm[1:] and not np.array_equal(stored["image"], planes["image"])
    predicted = np.zeros_like(volume.truth)
    predicted[2, 3:9, 4:6] = 1
    planes, _, position = case_planes(dataclasses.replace(volume, truth=None), predicted)
    assert position == "3 of 3" and list(planes) == ["image", "scribble", "prediction"]
    assert (planes["prediction"] > 0).sum() == 12
    no_scribble = dataclasses.replace(volume, case=dataclasses.replace(volume.case, scribble=None))
    assert list(case_planes(no_scribble, volume.truth)[0]) == ["image", "prediction", "truth"]


def test_without_truth_data_set_or_end_of_training_the_report_says_so(run, tmp_path, capsys):
    def change(stored):
        stored["train"]["dataset"] = str(small_dataset(tmp_path / "undense", dense=False))

    edit(run, change)
    page = report(Report(run)).read_text(encoding="utf-8")
    assert "No scores: no held-out case has a dense mask." in page and not (run / "metrics.csv").exists()
    assert (
        re.findall(r'<section id="(.*?)">', page) == list(SECTIONS)
        and section(page, "course-of-training").count("<img") == 24
    )
    for name in ("scores", "every-case"):
        assert "Left out" in section(page, name) and "<img" not in section(page, name)
    shutil.copyfile(run / "predictions" / "case.4 a.nii.gz", run / "predictions" / "case.0 a.nii.gz")  # not held out
    paint(run / "predictions" / "case.4 a.nii.gz", 36)
    paint(run / "predictions" / "case.5 a.nii.gz", 0)
    shown = section(report(Report(run)).read_text(encoding="utf-8"), "cases")
    assert re.findall(r"<h3>(.*?)</h3>", shown) == [
        "Least: case.5 a, foreground in 0.00 % of its voxels",
        "Most: case.4 a, foreground in 0.83 % of its voxels",
    ]
    assert (
        re.findall(r"<figcaption>(.*?)</figcaption>", shown) == ["image", "scribble", "prediction"] * 2
        and "slice 2 of 3" in shown
    )
    assert "which of these are right (last checkpoint, iteration 4; 2 of 2 files changed since)" in shown
    paint(run / "predictions" / "case.4 a.nii.gz", 36, np.eye(4))
    assert "its prediction has another grid than its image" in section(
        report(Report(run)).read_text(encoding="utf-8"), "cases"
    )

    edit(run, lambda stored: stored["train"].update(dataset="elsewhere/acdc"))
    assert "was not found" not in capsys.readouterr().err
    before = (run / "report.html").read_bytes()
    assert report(Report(run)).read_bytes() == before, "with its pictures, which cannot be made again"
    assert "elsewhere/acdc was not found. The report that is there stays as it is." in capsys.readouterr().err
    (run / "report.html").unlink()
    page = report(Report(run)).read_text(encoding="utf-8")
    assert f"{run}: the data set elsewhere/acdc was not found." in capsys.readouterr().err
    assert "the data set elsewhere/acdc was not found." in page and "<h1>scn on acdc, final fold 0</h1>" in page


def paint(path, voxels, affine=None):
    """A prediction with so many voxels of foreground, in its first slice."""
    mask = np.zeros((40, 36, 3), np.uint8)
    mask[:6, : voxels // 6, 0] = 1
    nibabel.save(nibabel.Nifti1Image(mask, nibabel.load(path).affine if affine is None else affine), path)


def test_predictions_from_before_the_last_checkpoint_are_made_again(run):
    report(Report(run))
    kept = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(kept.replace(b"case.4 a", b"case.9 a"))
    report(Report(run))
    assert b"case.9 a" in (run / "metrics.csv").read_bytes(), "they are newer than the weights"
    for seconds in (-9e5, 9e5):  # the clock was set back, or the folder copied
        os.utime(run / "last.safetensors", (time.time() + seconds,) * 2)
        report(Report(run))
        assert b"case.9 a" in (run / "metrics.csv").read_bytes()
    weights = load_file(run / "last.safetensors")
    save_file(
        {name: value * 0 for name, value in weights.items()}, run / "last.safetensors", {"iteration": "4", "other": ""}
    )
    os.utime(run / "last.safetensors", (0, 0))
    report(Report(run))
    assert b"case.9 a" not in (run / "metrics.csv").read_bytes() and (run / "metrics.csv").read_bytes() != kept


def test_a_run_in_training_is_not_scored(run, tmp_path):
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(lines[:2]) + lines[2][:40], encoding="utf-8")
    save_file(load_file(run / "last.safetensors"), run / "last.safetensors", {"iteration": "2"})
    page = report(Report(run)).read_text(encoding="utf-8")
    assert "Training is not finished: iteration 2 of 4" in page and "training is at iteration 2 of 4" in page
    assert not (run / "predictions").exists() and not (run / "metrics.csv").exists()
    edit(run, lambda stored: stored["train"].update(dataset=str(small_dataset(tmp_path / "undense", dense=False))))
    assert "No scores: training is at iteration 2 of 4" in report(Report(run)).read_text(encoding="utf-8"), (
        "not the masks are what is missing first"
    )
    edit(run, lambda stored: stored["train"].update(dataset=str(small_dataset(tmp_path / "dense"))))
    predict(Predict(run, open_run(run).train.dataset, run / "predictions"))
    cases = section(report(Report(run)).read_text(encoding="utf-8"), "cases")
    assert "training is at iteration 2 of 4" in cases and "No dense mask" not in cases


def test_a_finished_run_that_lost_the_end_of_its_log_is_scored(run):
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (run / "log.jsonl").write_text("".join(lines[:-1]), encoding="utf-8")
    assert "not finished" not in report(Report(run)).read_text(encoding="utf-8") and (run / "metrics.csv").is_file()
    (run / "last.safetensors").unlink()
    assert "not finished: iteration 3 of 4" in report(Report(run)).read_text(encoding="utf-8")
    (run / "log.jsonl").write_text("".join(lines), encoding="utf-8")
    (run / "metrics.csv").unlink()
    assert "No scores: the weights, last.safetensors, are missing." in report(Report(run)).read_text(encoding="utf-8")


def test_the_page_says_what_made_the_predictions(run, trained):
    dataset = open_run(run).train.dataset
    assert "last checkpoint, iteration 4." in report(Report(run)).read_text(encoding="utf-8")
    weights = load_file(run / "last.safetensors")
    save_file({name: value * 0 for name, value in weights.items()}, run / "best.safetensors", {"iteration": "3"})
    kept = (run / "metrics.csv").read_bytes()
    predict(Predict(run, dataset, run / "predictions", weights="best", tta=True))
    assert "best checkpoint, iteration 3, mean over flips." in report(Report(run)).read_text(encoding="utf-8")
    assert (run / "metrics.csv").read_bytes() != kept, "scored anew, for the predictions are newer"
    predict(Predict(run, dataset / "imagesTr" / "case.4 a_0000.nii.gz", run / "predictions" / "case.4 a.nii.gz"))
    assert "last checkpoint, iteration 4." in report(Report(run)).read_text(encoding="utf-8")
    assert (run / "metrics.csv").read_bytes() == kept, "case.5 a was of the best checkpoint, so both are made anew"
    predict(Predict(run, dataset, run / "predictions", weights="best"))
    (run / "predictions" / MADE_BY).unlink()
    assert "it is not known what made the predictions." in report(Report(run)).read_text(encoding="utf-8")
    assert (run / "metrics.csv").read_bytes() != kept, "those of before there was a note are kept, too"
    predict(Predict((run, trained), dataset, run / "predictions", overwrite=True))
    assert f"last checkpoint of {run} and {trained}, iteration 4 and 4, mean over runs." in report(
        Report(run)
    ).read_text(encoding="utf-8")


def test_a_prediction_that_was_killed_before_its_first_volume_is_made_anew(run):
    (run / "predictions").mkdir()
    (run / "predictions" / MADE_BY).write_text("{}", encoding="utf-8")
    assert "last checkpoint, iteration 4." in report(Report(run)).read_text(encoding="utf-8")


def test_a_prediction_corrected_in_its_place_is_not_called_the_models_own(run):
    assert "changed since" not in report(Report(run)).read_text(encoding="utf-8")
    path = run / "predictions" / "case.4 a.nii.gz"
    shutil.copyfile(open_run(run).train.dataset / "labelsTr_dense" / path.name, path)
    page = report(Report(run)).read_text(encoding="utf-8")
    assert "last checkpoint, iteration 4; 1 of 2 files changed since." in page
    assert "case.4 a" == body(page, "every-case")[-1][0] and body(page, "every-case")[-1][1] == "1.0000"
    other = path.with_name("case.5 a.nii.gz")
    other.unlink()
    kept = path.read_bytes()
    with pytest.raises(InputError, match="case.4 a.nii.gz: exists already, and it was changed since"):
        report(Report(run))
    assert path.read_bytes() == kept and not other.exists()
    path.unlink()
    assert "changed since" not in report(Report(run)).read_text(encoding="utf-8") and path.exists() and other.exists()


def test_the_course_has_no_truth_where_the_slice_has_none(run):
    for file in (run / "pictures").glob("*.npz"):
        with np.load(file) as stored:
            maps = dict(stored)
        maps["truth"][0] = UNLABELED
        np.savez(file, **maps)
    course = section(report(Report(run)).read_text(encoding="utf-8"), "course-of-training")
    assert "<th>prediction</th>" in course and "<th>truth</th>" not in course and course.count("<img") == 20


def test_charts_say_that_a_batch_with_nothing_to_judge_counts_0(page):
    assert section(page, "training").count("(0 for a batch with nothing to judge)</figcaption>") == 2


def test_a_corrected_mask_is_scored_anew(run, tmp_path):
    dataset = small_dataset(tmp_path / "corrected")
    edit(run, lambda stored: stored["train"].update(dataset=str(dataset)))
    report(Report(run))
    before = read_rows(run / "metrics.csv")
    paint(dataset / "labelsTr_dense" / "case.4 a.nii.gz", 36)
    report(Report(run))
    after = read_rows(run / "metrics.csv")
    assert {one["case"] for one, other in zip(before, after) if one["dice"] != other["dice"]} == {"case.4 a"}


def test_without_validation(run):
    entries = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [{key: value for key, value in entry.items() if not key.startswith("val")} for entry in entries]
    (run / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
    training = section(report(Report(run)).read_text(encoding="utf-8"), "training")
    assert "The run had no validation cases" in training and "Validation Dice at" not in training


def test_the_mean_of_the_weights_is_among_the_settings(run):
    assert "mean of the weights" not in report(Report(run)).read_text(encoding="utf-8")
    edit(run, lambda stored: stored["plan"]["recipe"].update(ema=0.98))
    assert "mean of the weights with decay 0.98" in section(report(Report(run)).read_text(encoding="utf-8"), "settings")


def test_validation_on_scribbles_is_called_so(run):
    assert "Validation Dice at 32 × 32 pixels<" in section(report(Report(run)).read_text(encoding="utf-8"), "training")
    edit(run, lambda stored: stored["plan"].update(val_on_scribbles=True))
    assert "Validation Dice on scribbled pixels only<" in section(
        report(Report(run)).read_text(encoding="utf-8"), "training"
    )


def test_scores_of_validation_cases_are_called_so(run):
    edit(run, lambda stored: stored["plan"]["fold"].update(test=[]))
    page = report(Report(run)).read_text(encoding="utf-8")
    assert "over 1 validation case (" in page and "It was not trained on these cases" in page and "held-out" not in page


def test_some_held_out_cases_without_truth(run, tmp_path):
    dataset = small_dataset(tmp_path / "partly")
    (dataset / "labelsTr_dense" / "case.4 a.nii.gz").unlink()
    edit(run, lambda stored: stored["train"].update(dataset=str(dataset)))
    page = report(Report(run)).read_text(encoding="utf-8")
    assert "Held-out cases without a dense mask, not scored: 1 of 2." in page
    assert [line[0] for line in body(page, "every-case")] == ["case.5 a"] and "<h3>Only case: case.5 a" in page


def test_of_several_channels_the_one_shown_is_named(run):
    report(Report(run))  # predicts; afterwards the weights would not fit
    edit(run, lambda stored: stored["plan"].update(channels=["C<T", "PET"]))
    page = report(Report(run)).read_text(encoding="utf-8")
    assert "<figcaption>image (C&lt;T)</figcaption>" in section(page, "cases") and "<th>image (C&lt;T)</th>" in section(
        page, "course-of-training"
    )


def test_the_distances_are_defined_under_the_table(page):
    assert (
        "the mean is that of the classes' means, and the sd is that over cases of each case's mean over classes"
        in section(page, "scores")
    )
    assert "HD95: 95th percentile of the surface distances of both directions taken together" in section(page, "scores")


def test_a_chart_without_a_top_ends_above_its_highest_case(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "_encode", lambda figure, kind: shown.append(figure.axes[0].get_ylim()))
    for values, top in (([39.0, 40.0], None), ([np.nan], None), ([0.0], None), ([0.5], 1)):
        figures.distribution({"square": np.array(values)}, "HD95 (mm)", top)
    assert shown == [(0, pytest.approx(42.4)), (0, 1), (0, 1), (0, 1)]


def test_names_are_escaped(run):
    odd = "<b>a&b</b>"
    report(Report(run))
    write_rows(run / "metrics.csv", [row(odd, "square", 0.5), row(odd, "co<re", 0.5)])
    page = report(Report(run)).read_text(encoding="utf-8")
    assert odd not in page and "co<re" not in page
    assert html.escape(odd) in section(page, "cases") and body(page, "every-case")[0][0] == odd


def test_nothing_is_half_written(run):
    report(Report(run)).unlink()
    (run / "metrics.csv").write_text("case,dice\na,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="not a table of scores"):
        report(Report(run))
    assert not list(run.glob("*report.html"))
    (run / "metrics.csv").unlink()
    (run / "report.html").write_text("old", encoding="utf-8")
    (run / "log.jsonl").write_text("{broken\n", encoding="utf-8")
    with pytest.raises(InputError, match="log.jsonl: not the log of a run"):
        report(Report(run))
    assert (run / "report.html").read_text(encoding="utf-8") == "old"


def test_a_report_elsewhere(run, tmp_path):
    path = tmp_path / "elsewhere.html"
    assert write_report(run, path) == path and path.is_file() and not (run / "report.html").exists()


def test_the_command_repeats_the_settings():
    train = Train(
        "data set",
        "runs/a",
        method="scn",
        set=("cacl=False", "stride=4"),
        lr=0.003,
        val_share=0.2,
        deterministic=True,
        fold=2,
    )
    words = shlex.split(repeat_command(train))
    assert words[:2] == ["scribbleseg", "train"] and "--seed" not in words
    again = cli.parse(words[1:])
    assert again == train


def draw(image, label, size=100):
    figure = Figure((1, 1), dpi=size)
    ax = figure.add_axes((0, 0, 1, 1))
    figures.draw_overlay(ax, image, label)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3] / 255


def test_overlay_of_a_dense_label_a_scribble_and_a_mask():
    image = np.full((10, 10), 0.5)
    label = np.zeros((10, 10), np.uint8)
    label[:, 5:] = 2
    seen = draw(image, label)
    assert seen[50, 10] == pytest.approx([0.4] * 3, abs=0.02)  # background clear, image dimmed
    assert seen[50, 80] == pytest.approx(0.4 * np.array(to_rgb(figures.COLOURS[2])) + 0.6 * 0.4, abs=0.02)

    scribble = np.full((10, 10), UNLABELED, np.uint8)
    scribble[2, 2], scribble[7, 7] = 1, 0
    seen = draw(image, scribble)
    assert seen[25, 25] == pytest.approx(to_rgb(figures.COLOURS[1]), abs=0.02) and seen[75, 75] == pytest.approx(
        [1] * 3, abs=0.02
    )
    assert seen[50, 50] == pytest.approx([0.4] * 3, abs=0.02)

    seen = draw(image, label > 0)
    assert seen[50, 10] == pytest.approx(0.75 * np.array(to_rgb(figures.OUTSIDE)) + 0.25 * 0.4, abs=0.02), (
        "outside the mask"
    )
    assert seen[50, 90] == pytest.approx([0.4] * 3, abs=0.02)


def test_class_colours_differ_in_grey():
    grey = sorted(float(np.dot(to_rgb(figures.colour(value)), (0.299, 0.587, 0.114))) for value in range(4))
    assert min(np.diff(grey)) > 0.1
    assert figures.colour(8) == figures.colour(1) != figures.colour(0)


def test_crop_is_a_square_in_mm_and_stays_inside():
    mask = np.zeros((100, 200), bool)
    mask[40:60, 0:10] = True
    rows, columns = figures.crop(mask, (2.0, 1.0), margin=0.5)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (30, 60)
    assert (rows.start, columns.start) == (35, 0)
    assert figures.crop(mask & False, (1, 1)) == (slice(None), slice(None))


def test_pictures_are_upright():
    plane = np.arange(6).reshape(2, 3)  # rows along file axis y, columns along x

    def grid(affine):
        return Grid((3, 2, 9), np.array(affine, float), nibabel.Nifti1Header())

    lps = grid(np.diag([-2, -1, 8, 1]))  # columns run to the left, rows to the back: as it should be shown
    assert np.array_equal(figures.upright(plane, lps), plane) and figures.upright_spacing(lps) == (1, 2)
    assert np.array_equal(figures.upright(plane, grid(np.diag([2, 1, 8, 1]))), plane[::-1, ::-1])
    swapped = grid([[0, -1, 0, 0], [-2, 0, 0, 0], [0, 0, 8, 0], [0, 0, 0, 1]])  # x runs to the back, y to the left
    assert np.array_equal(figures.upright(plane, swapped), plane.T) and figures.upright_spacing(swapped) == (2, 1)


def test_a_panel_has_the_shape_of_the_patient():
    png = base64.b64decode(figures.panel(np.ones((20, 40)), None, (2.0, 0.5)).partition(",")[2])
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))
    assert height / width == pytest.approx(2, rel=0.02)


def test_a_map_of_another_image_is_drawn_over_it(monkeypatch):
    drawn = []
    monkeypatch.setattr(module, "panel", lambda image, label, *_: drawn.append((image[0, 0], label)) or "data:,")
    planes = {"image": np.zeros((2, 2)), "pseudo_label": "p", "fadc_image": np.ones((2, 2)), "fadc_scribble": "s"}
    for name in planes:
        module._picture(planes, name)
    assert drawn == [(0, None), (0, "p"), (1, None), (1, "s")]
