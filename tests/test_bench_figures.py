"""The bench's figures: what is plotted is read back from the axes."""

import json
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from finished import Run, results_of
from matplotlib.figure import Figure
from small import save, small_dataset

from scribbleseg.bench import bench, charts, figures
from scribbleseg.bench.charts import NothingToDraw
from scribbleseg.bench.grid import Row, draw_contours, draw_grid
from scribbleseg.bench.grid import grid as grid_of
from scribbleseg.bench.plan import BenchPlan, Boxplot, Curves, Grid, Job, Sensitivity, read_bench_plan
from scribbleseg.config import Bench
from scribbleseg.core.errors import InputError
from scribbleseg.core.labels import UNLABELED
from scribbleseg.reporting.figures import colour

CASES = ("a", "b", "c")


def job(label="pce", fold=0, seed=0, method="pce", options=(), data="small") -> Job:
    return Job(data, "final", fold, label, method, options, seed, "quick")


def result(dice: dict[str, list[float]], loss=(2.0, 1.0), validated=(np.nan, np.nan), cases=CASES) -> Run:
    """`dice` per class, one value per case."""
    rows = [
        {
            "case": case,
            "class": name,
            "dice": values[i],
            "hd95": 1.0,
            "assd": 1.0,
            "unit": "mm",
            "missing": False,
            "spurious": False,
            "penalised_hd95": 1.0,
        }
        for i, case in enumerate(cases)
        for name, values in dice.items()
    ]
    return Run(
        {"plan": {}},
        rows,
        {"iteration": np.array([10.0, 20.0]), "loss": np.array(loss), "val_mean_dice": np.array(validated)},
    )


def of(jobs, runs):
    return results_of({j: runs[j] for j in jobs if j in runs})


def boxplot(jobs, runs):
    return charts.boxplot(jobs, of(jobs, runs))


def curves(jobs, runs):
    return charts.curves(jobs, of(jobs, runs))


def sensitivity(jobs, runs, option):
    return charts.sensitivity(jobs, of(jobs, runs), option)


def grid(jobs, runs, *args, **given):
    return grid_of(jobs, of(jobs, runs), *args, **given)


def line(ax, label):
    (found,) = [line for line in ax.lines if line.get_label() == label]
    return found


def words(figure: Figure) -> str:
    texts = [figure._suptitle, figure._supxlabel, *figure.texts, *(text for ax in figure.axes for text in ax.texts)]
    return " ".join(text.get_text().replace("\n", " ") for text in texts if text is not None)


def plan_of(*figures, jobs=None, name="plan") -> BenchPlan:
    jobs = jobs or (job(),)
    return BenchPlan(
        name,
        Path(f"{name}.toml"),
        "quick",
        tuple(dict.fromkeys(j.label for j in jobs)),
        tuple(jobs),
        name,
        (),
        None,
        figures,
    )


# --- what a plan may ask for


def plan_with(folder: Path, *figures: str) -> Bench:
    text = '[[data]]\nfolder = "small"\nsplit = "final"\nfolds = [0]\n[[row]]\nmethod = "effdnet"\n'
    (folder / "plan.toml").write_text(text + "".join(f"[[figure]]\n{figure}\n" for figure in figures), encoding="utf-8")
    return Bench(folder / "plan.toml")


@pytest.mark.parametrize(
    "figure, said",
    [
        ('kind = "boxplt"', "figure[0].kind = 'boxplt'; invalid value"),
        ("", "figure[0]: kind is missing"),
        ('kind = "grid"\ncase = ["a"]', "figure[0]: unknown key 'case'. Did you mean 'cases'"),
        ('kind = "curves"\noption = "lam"', "figure[0]: unknown key 'option'"),
        ('kind = ["grid"]', "figure[0].kind = ['grid']; expected a text in quotes, got a list"),
        ('kind = "sensitivity"', "figure[0]: option is missing"),
        ('kind = "sensitivity"\noption = ["delta"]', "figure[0].option = ['delta']; expected a text"),
        ('kind = "sensitivity"\noption = "detla"', "Did you mean 'delta'"),
        ('kind = "grid"\ncases = "a"', "figure[0].cases = 'a'; expected a list"),
        ('kind = "grid"\nslices = 0', "figure[0].slices = 0; expected a whole number >= 1"),
        ('kind = "grid"\nslices = true', "figure[0].slices = True; expected a whole number"),
    ],
)
def test_figures_that_a_plan_cannot_ask_for(tmp_path, figure, said):
    with pytest.raises(InputError, match=re.escape(said)):
        read_bench_plan(plan_with(tmp_path, figure))


def test_figures_that_a_plan_may_ask_for(tmp_path):
    both = [f'kind = "sensitivity"\noption = "{name}"' for name in ("delta", "blocks")]
    found = read_bench_plan(plan_with(tmp_path, 'kind = "grid"\ncases = ["a"]\nslices = 2', *both)).figures
    assert found == (Grid(cases=["a"], slices=2), Sensitivity(option="delta"), Sensitivity(option="blocks"))
    with pytest.raises(InputError, match="twice"):
        read_bench_plan(plan_with(tmp_path, both[0], both[0]))


def test_a_bad_figure_is_refused_before_anything_runs(tmp_path):
    text = '[[data]]\nfolder = "small"\nsplit = "final"\nfolds = [0]\n[[row]]\nmethod = "pce"\n[[figure]]\nkind = '
    (tmp_path / "plan.toml").write_text(text + '"pie"', encoding="utf-8")
    config = Bench(
        tmp_path / "plan.toml", datasets=tmp_path, runs=tmp_path / "runs", results=tmp_path / "results", table_only=True
    )
    with pytest.raises(InputError, match="figure.0..kind = .pie.; invalid value"):
        bench(config)
    assert not (tmp_path / "results").exists()


def test_nothing_was_run(tmp_path, capsys):
    text = (
        '[[data]]\nfolder = "small"\nsplit = "final"\nfolds = [0]\n[[row]]\nmethod = "pce"\n[[figure]]\nkind = "curves"'
    )
    (tmp_path / "plan.toml").write_text(text, encoding="utf-8")
    config = Bench(
        tmp_path / "plan.toml", datasets=tmp_path, runs=tmp_path / "runs", results=tmp_path / "results", table_only=True
    )
    assert not bench(config)
    assert "plan-quick-curves-small-final: figure not made, nothing was run" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "results").iterdir()} == {
        "plan-quick.md",
        "plan-quick.tex",
        "plan-quick.csv",
        "plan-quick-tests.csv",
    }


# --- box plots


def test_a_box_plot_shows_every_case_of_every_row():
    jobs = [job(label, seed=seed) for seed in (0, 1) for label in ("z first", "none", "later")]
    found = {
        jobs[0]: result({"RV": [0.2, 0.4, 0.9], "LV": [np.nan, np.nan, 0.7]}),
        jobs[3]: result({"RV": [0.4, 0.6, 0.9], "LV": [0.5, np.nan, 0.9]}),
    }
    found[jobs[2]] = result({"RV": [0.1, 0.1, 0.3], "LV": [1, 1, 1]})
    figure = boxplot(jobs, found)
    right, left = figure.axes
    assert [right.get_title(), left.get_title()] == ["RV", "LV"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["z first", "later"], (
        "a row without a run takes no room"
    )
    assert right.get_ylim()[0] > right.get_ylim()[1], "the plan's first row is on top"
    assert line(right, "z first").get_xdata() == pytest.approx([0.3, 0.5, 0.9])  # mean over the two seeds
    assert line(left, "z first").get_xdata() == pytest.approx([0.5, 0.8])  # a is defined for one seed, b for none
    assert np.all(np.abs(line(right, "later").get_ydata() - 1) < 0.3)
    assert line(right, "median of z first").get_xdata() == pytest.approx([0.5, 0.5])
    assert "Not run: none (seed 0 fold 0, seed 1 fold 0); later (seed 1 fold 0)." in words(
        figure
    ) and "3 held-out cases" in words(figure)
    assert "small, final, folds 0, seeds 0-1, budget quick" in words(figure)


@pytest.mark.parametrize("count", [5, 6])
def test_a_box_needs_six_cases(count):
    dice = [index / (count - 1) for index in range(count)]
    figure = boxplot([job()], {job(): result({"RV": dice}, cases=[f"case{index}" for index in range(count)])})
    (ax,) = figure.axes
    assert line(ax, "pce").get_xdata().tolist() == dice
    boxes = [(bar.get_x(), bar.get_width()) for bar in ax.patches]
    assert boxes == ([] if count < 6 else [pytest.approx((0.25, 0.5))])
    assert ("quartiles" in words(figure)) == (count >= 6)
    assert ax.get_xlim()[0] < -0.02 and ax.get_xlim()[1] > 1.02, "dots at 0 and 1 are whole"


# --- curves


def panel(figure, label):
    return next(ax for ax in figure.axes if ax.get_title() == label)


def test_curves_are_means_over_runs_with_their_range():
    jobs = [job(label, fold) for fold in (0, 1) for label in ("pce", "tv", "none")]
    runs = [result({"RV": [1, 1, 1]}, loss) for loss in ((4, 2), (8, 1), (6, 1), (2, 0.5))]
    figure = curves(jobs, dict(zip([jobs[0], jobs[1], jobs[3], jobs[4]], runs)))
    pce, tv = panel(figure, "pce"), panel(figure, "tv")
    assert line(pce, "pce").get_xdata().tolist() == [10, 20] and line(pce, "pce").get_ydata().tolist() == [5, 1.5]
    assert line(tv, "tv").get_ydata().tolist() == [5, 0.75]
    shade = pce.collections[0].get_paths()[0].vertices
    assert {tuple(point) for point in shade.tolist()} == {(10, 4), (10, 6), (20, 1), (20, 2)}
    assert "Not run: none (folds 0-1)." in words(figure) and "shade: range" in words(figure)


def test_validation_dice_has_its_panel_where_there_is_any():
    jobs = [job("pce"), job("tv")]
    found = {jobs[0]: result({"RV": [1, 1, 1]}, validated=(np.nan, 0.7)), jobs[1]: result({"RV": [1, 1, 1]})}
    shown = [ax for ax in curves(jobs, found).axes if ax.axison]
    assert [ax.get_title() for ax in shown] == ["pce", "tv", "pce"]
    assert line(shown[2], "pce").get_xydata().tolist() == [[20, 0.7]]
    assert "scribbled pixels" not in words(curves(jobs, found))
    found[jobs[0]].record["plan"]["val_on_scribbles"] = True
    assert "It is of scribbled pixels alone." in words(curves(jobs, found))


def test_every_row_has_a_panel_with_the_others_behind_it():
    labels = [f"row{index}" for index in range(7)]
    jobs = [job(label, fold) for label in [*labels, "none"] for fold in (0, 1)]
    found = {
        j: result({"RV": [1, 1, 1]}, (2 + i, 1), (np.nan, 0.7 if j.label == "row3" else np.nan))
        for i, j in enumerate(jobs)
        if j.label != "none"
    }
    figure = curves(jobs, found)
    shown = [ax for ax in figure.axes if ax.get_title() and ax.axison]
    assert [ax.get_title() for ax in shown] == [*labels, "row3"], "losses, then the one that was validated"
    for index, (label, ax) in enumerate(zip(labels, shown)):
        assert line(ax, label).get_ydata().tolist() == [2.5 + 2 * index, 1]
        assert len(ax.lines) == 8 and len(ax.collections) == 1 and ax.get_yscale() == "log"
        assert ax.get_xlim() == shown[0].get_xlim() and ax.get_ylim() == shown[0].get_ylim()
        assert {other.get_color() for other in ax.lines if other is not line(ax, label)} == {"#c9c9c9"}
    assert line(shown[7], "row3").get_ydata().tolist() == [0.7] and shown[7].get_yscale() == "linear"


# --- sensitivity


def test_sensitivity_takes_the_rows_that_differ_in_one_option():
    sets = {
        "none": ("delta=0",),
        "default": (),
        "more": ("delta=0.9",),
        "k": ("blocks=4",),
        "both": ("delta=0.5", "fadc=false"),
        "missing": ("delta=0.6",),
    }
    jobs = [
        job(label, fold, method="effdnet", options=options) for fold in (0, 1) for label, options in sets.items()
    ] + [job("pce")]
    dice = {"none": 0.5, "default": 0.7, "more": 0.4, "k": 0.9, "both": 0.1}
    found = {
        j: result({"RV": [dice[j.label] + 0.1 * j.fold] * 3, "LV": [0.2, 0.3, 0.4]}) for j in jobs if j.label in dice
    }
    figure = sensitivity(jobs, found, "delta")
    (ax,) = figure.axes
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.0", "0.3", "0.9"]
    assert ax.get_xlabel() == "delta of effdnet"
    bars = {container.get_label(): container for container in ax.containers}
    assert bars.keys() == {"RV", "LV", "mean"}
    assert bars["RV"].lines[0].get_xydata() == pytest.approx(np.array([(0, 0.55), (1, 0.75), (2, 0.45)]))
    assert bars["LV"].lines[0].get_ydata() == pytest.approx([0.3] * 3)
    assert bars["mean"].lines[0].get_ydata() == pytest.approx([0.425, 0.525, 0.375])
    low, high = bars["RV"].lines[2][0].get_segments()[0][:, 1]
    assert high - low == pytest.approx(2 * np.std([0.5, 0.6], ddof=1)) and (low + high) / 2 == pytest.approx(0.55)
    assert "Not run: missing (folds 0-1)." in words(figure)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["default", "RV", "LV", "mean"]


def test_sensitivity_of_one_fold_has_no_bars_and_values_are_spread_evenly():
    jobs = [job(f"K{k}", method="effdnet", options=(f"blocks={k}",)) for k in (16, 2, 4)] + [
        job("effdnet", method="effdnet")
    ]
    found = {j: result({"RV": [0.1 * i] * 3}) for i, j in enumerate(jobs)}
    (ax,) = sensitivity(jobs, found, "blocks").axes
    assert not ax.containers[0].has_yerr
    assert ax.containers[0].lines[0].get_xydata() == pytest.approx(np.array([(0, 0.1), (1, 0.2), (2, 0.3), (3, 0)]))
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_xticklabels()] == ["2", "4", "8", "16"]


def test_sensitivity_stays_between_0_and_1_and_hides_no_bar():
    jobs = [job(f"K{k}", fold, method="effdnet", options=(f"blocks={k}",)) for fold in (0, 1) for k in (2, 4)]
    found = {j: result({"RV": [0.9 * j.fold] * 3, "LV": [1 - 0.9 * j.fold] * 3}) for j in jobs}
    figure = sensitivity(jobs, found, "blocks")
    (ax,) = figure.axes
    assert ax.get_ylim() == (0, 1) and "does not begin at 0" not in words(figure)
    lines = [container.lines[0] for container in ax.containers]
    places = [line.get_transform().transform(line.get_xydata())[0, 0] * 72 / figure.dpi for line in lines]
    assert np.diff(places) == pytest.approx([4, 4])
    bar = ax.containers[0].lines[2][0]
    assert bar.get_transform().transform(bar.get_segments()[0])[0, 0] * 72 / figure.dpi == pytest.approx(places[0])


def test_sensitivity_needs_two_values():
    jobs = [job(), job("effdnet", method="effdnet")]
    for done, option, said in (
        (jobs, "delta", "fewer than two values of 'delta'"),
        (jobs[:1], "nothing", "no row has the option 'nothing'"),
    ):
        with pytest.raises(NothingToDraw, match=said):
            sensitivity(jobs, {j: result({"RV": [1, 1, 1]}) for j in done}, option)


# --- the grid


@pytest.fixture
def place(tmp_path):
    """Nine cases, three held out; the dense mask of the middle slice is the largest. Two rows with predictions, one
    without."""
    folder = small_dataset(tmp_path / "datasets" / "small", cases=9)
    for number in (6, 7, 8):
        path = folder / "labelsTr_dense" / f"case.{number} a.nii.gz"
        truth = np.asanyarray(nibabel.load(path).dataobj).copy()
        truth[:, :, 0] = np.where(truth[:, :, 0] == 2, 2, 0)
        truth[:, :, 2] = 0
        save(path, truth)
        for label, mask in (("pce", truth), ("tv", np.roll(truth, 2, 0))):
            save(
                tmp_path / "runs" / "quick" / "small" / "final-0" / f"{label}-s0" / "predictions" / path.name,
                mask.astype(np.uint8),
            )
    return Bench(
        tmp_path / "plan.toml", datasets=tmp_path / "datasets", runs=tmp_path / "runs", results=tmp_path / "results"
    )


JOBS = [job("rloss"), job("tv"), job("pce")]
DONE = {
    j: result({"square": [0.5] * 3, "core": [0.5] * 3}, cases=("case.6 a", "case.7 a", "case.8 a")) for j in JOBS[1:]
}


def outlines(ax) -> dict[str, np.ndarray]:
    return {line.get_label(): line.get_xydata() for line in ax.lines if line.get_label().startswith("class ")}


def test_a_grid_shows_the_same_slices_for_all(place):
    figure = grid(JOBS, DONE, place)
    axes = np.array(figure.axes).reshape(4, 3).T
    assert [ax.get_title() for ax in axes[0]] == ["image, scribble", "dense mask", "tv", "pce"], "the plan's order"
    assert [line[0].texts[0].get_text() for line in axes] == [f"case.{number} a\nslice 2 of 3" for number in (6, 7, 8)]
    assert "without predictions here: rloss." in words(figure)
    for scribble, dense, tv, pce in axes:
        shown = dense.images[0].get_array()
        assert np.array_equal(shown, tv.images[0].get_array()) and np.array_equal(shown, pce.images[0].get_array())
        assert (
            scribble.images[0].get_array().shape == shown.shape and len(scribble.images) == 2 and not outlines(scribble)
        )
        truth, same, moved = outlines(dense), outlines(pce), outlines(tv)
        assert truth.keys() == same.keys() == {"class 1", "class 2"}
        for name in truth:
            assert np.array_equal(truth[name], same[name], equal_nan=True)
        assert not np.array_equal(truth["class 2"], moved["class 2"], equal_nan=True)


def test_a_grid_of_several_seeds_says_that_it_shows_the_first(place):
    again = job("pce", seed=1)
    more = DONE | {
        again: result({"square": [1] * 3, "core": [1] * 3}, cases=[f"case.{number} a" for number in (6, 7, 8)])
    }
    assert "Pictures and numbers are of each method's first seed." in words(grid([*JOBS, again], more, place))
    assert "first seed" not in words(grid(JOBS, DONE, place))


def test_pixels_keep_their_shape(place):
    stored = [*place.datasets.rglob("case.6 a*.nii.gz"), *place.runs.rglob("case.6 a.nii.gz")]
    assert len(stored) == 5
    for path in stored:
        save(path, np.asanyarray(nibabel.load(path).dataobj), np.diag([1.0, 3, 8, 1]))
    figure = grid(JOBS, DONE, place, ["case.6 a"])
    assert [ax.get_aspect() for ax in figure.axes] == [3.0] * 4  # columns are 1 mm apart, rows 3


def test_predictions_are_shown_in_their_images_order(place):
    """By itself a prediction would be sliced across another axis: spacings lie on both sides of what counts as
    equal."""
    above, below = np.diag([1, 1, 0.999002, 1]), np.diag([1, 1, 0.998998, 1])
    for folder, affine in ((place.datasets, above), (place.runs, below)):
        for path in folder.rglob("case.6 a*.nii.gz"):
            save(path, np.asanyarray(nibabel.load(path).dataobj), affine)
    _, dense, _, pce = grid(JOBS, DONE, place, ["case.6 a"]).axes
    assert np.array_equal(outlines(dense)["class 2"], outlines(pce)["class 2"], equal_nan=True)


def test_named_cases_and_several_slices(place):
    figure = grid(JOBS, DONE, place, ["case.8 a", "case.0 a", "case.6 a"], 2)
    names = [text.get_text() for ax in figure.axes for text in ax.texts if "slice" in text.get_text()]
    assert names == [
        "case.8 a\nslice 1 of 3",
        "case.8 a\nslice 2 of 3",
        "case.6 a\nslice 1 of 3",
        "case.6 a\nslice 2 of 3",
    ]  # case.0 was trained on


def test_a_missing_prediction_leaves_its_place_blank(place):
    (place.runs / "quick" / "small" / "final-0" / "tv-s0" / "predictions" / "case.7 a.nii.gz").unlink()
    axes = np.array(grid(JOBS, DONE, place).axes).reshape(4, 3).T
    assert (
        [text.get_text() for text in axes[1, 2].texts] == ["no prediction"]
        and not axes[1, 2].images
        and axes[0, 2].images
    )


def test_a_panel_says_what_its_whole_case_scores_and_that_nothing_is_there(place):
    path = place.runs / "quick" / "small" / "final-0" / "tv-s0" / "predictions" / "case.7 a.nii.gz"
    save(path, np.zeros((40, 36, 3), np.uint8))
    scores = {
        "pce": {"square": [0.5, 0.6, 0.7], "core": [0.7, np.nan, 0.8]},
        "tv": {"square": [0.1, 0, 0.3], "core": [0.3, 0, 0.3]},
    }
    done = {j: result(scores[j.label], cases=("case.6 a", "case.7 a", "case.8 a")) for j in DONE}
    figure = grid(JOBS, done, place)
    axes = np.array(figure.axes).reshape(4, 3).T
    assert [[text.get_text() for text in ax.texts] for ax in axes[:, 2]] == [
        ["0.20"],
        ["nothing found\n0.00"],
        ["0.30"],
    ]
    assert [[text.get_text() for text in ax.texts] for ax in axes[:, 3]] == [["0.60"], ["0.60"], ["0.75"]]
    assert "mean Dice of the case's whole volume" in words(figure) and not axes[0, 1].texts


def test_a_grid_takes_the_folds_that_most_rows_have(place):
    names = [f"case.{number} a" for number in range(9)]
    (place.datasets / "small" / "splits_final.json").write_text(
        json.dumps([{"train": names[:6], "val": names[6:]}, {"train": names[3:], "val": names[:3]}]), encoding="utf-8"
    )
    more = job("pce", fold=1)
    done = DONE | {more: result({"square": [1] * 3, "core": [1] * 3}, cases=names[:3])}

    def shown(**given):
        return [
            text.get_text().split("\n")[0]
            for ax in grid([*JOBS, more], done, place, **given).axes
            for text in ax.texts
            if "slice" in text.get_text()
        ]

    assert shown() == names[6:]
    assert shown(names=[names[0], names[7]]) == [names[0], names[7]]


def test_many_methods_stand_in_bands():
    plane = np.zeros((8, 8), int)
    rows = [
        Row(
            name,
            plane / 1.0,
            np.full((8, 8), UNLABELED),
            plane,
            {f"m{index}": plane for index in range(9)},
            (1.0, 1.0),
            {},
        )
        for name in ("one", "two")
    ]
    axes = draw_grid(rows, ["background", "A"]).axes
    places = {ax.get_title(): ax.get_position() for ax in axes if ax.get_title()}
    assert len(axes) == 22 and list(places) == ["image", "dense mask", *(f"m{index}" for index in range(9))]
    assert (
        places["image"].x0 == pytest.approx(places["m4"].x0) and places["m3"].y0 == places["image"].y0 > places["m4"].y0
    )
    assert [text.get_text() for ax in axes for text in ax.texts].count("one") == 2, "named in each band"
    low = min(ax.get_position().y0 for ax in axes)
    assert low > 0 and max(ax.get_position().x1 for ax in axes) <= 1


@pytest.mark.parametrize("gone, said", [("datasets", "data set .* does not exist"), ("runs", "no predictions")])
def test_a_grid_needs_data_and_predictions(place, gone, said):
    setattr(place, gone, place.results / "nowhere")
    with pytest.raises(NothingToDraw, match=said):
        grid(JOBS, DONE, place)


def test_contours_run_between_pixels_in_the_class_colour_and_style():
    label = np.zeros((12, 10), int)
    label[3:6, 2:5], label[8, 8] = 1, 2
    ax = Figure((2, 2)).add_axes((0, 0, 1, 1))
    draw_contours(ax, np.zeros((12, 10)), label, (2.0, 1.0))
    found = outlines(ax)
    x, y = found["class 1"][~np.isnan(found["class 1"][:, 0])].T
    assert (x.min(), x.max(), y.min(), y.max()) == (1.5, 4.5, 2.5, 5.5) and np.nanmax(found["class 2"]) == 8.5
    one, two = line(ax, "class 1"), line(ax, "class 2")
    assert (one.get_color(), two.get_color()) == (
        colour(1),
        colour(2),
    ) and one._unscaled_dash_pattern != two._unscaled_dash_pattern
    assert ax.get_aspect() == 2 and ax.get_xlim() == (-0.5, 9.5) and ax.get_ylim() == (11.5, -0.5)


# --- files


def test_every_figure_has_its_file_and_repeats_to_the_byte(place, capsys):
    kinds = (Boxplot(), Curves(), Grid(), Sensitivity(option="weight"))
    jobs = [*JOBS, job("tv", data="elsewhere")]
    plan = plan_of(*kinds, jobs=jobs)
    written = figures.make_figures(plan, of(jobs, DONE), place)
    assert [path.name for path in written] == [
        f"plan-quick-{kind}-small-final.png" for kind in ("boxplot", "curves", "grid")
    ]
    said = capsys.readouterr().err
    assert "sensitivity-weight-small-final: figure not made, " in said and said.count("nothing was run") == 4
    files = [*written, *(path.with_suffix(".pdf") for path in written)]
    first = {path: path.read_bytes() for path in files}
    assert figures.make_figures(plan, of(jobs, DONE), place) == written
    assert {path: path.read_bytes() for path in files} == first
    assert sorted(place.results.iterdir()) == sorted(files), "no partial files"
    for path in files[3:]:
        assert (
            first[path].startswith(b"%PDF")
            and b"/FontType 3" not in first[path]
            and b"/Subtype /Type3" not in first[path]
        )
