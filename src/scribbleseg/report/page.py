"""RUN/report.html: settings, scores, pictures and curves of a run in one file."""

import dataclasses
import html
import json
import shlex
import sys
from pathlib import Path

import numpy as np

from .. import __version__
from ..config import Predict, Report, Train
from ..core.atomic import atomic_file
from ..core.errors import InputError
from ..core.json_file import read_json
from ..core.labels import UNLABELED
from ..data.case import load_volume
from ..data.dataset import Dataset
from ..data.layout import read_dataset
from ..data.volume import read_label
from ..evaluation.scores import list_masks, read_rows, score_cases, summarise, table_cells, write_rows
from ..inference.predict import predict
from ..inference.provenance import MADE_BY, changed
from ..training.checkpoint import weights_iteration
from ..training.plan import Plan, read_plan
from .figures import colour, crop, curves, distribution, panel, upright, upright_spacing

TITLES = {
    "confident": "M (orange: not in it)",
    "pseudo_label": "refined pseudo-label",
    "pseudo_accuracy": "pseudo accuracy (a batch with nothing to judge counts 0)",
    "pseudo_accuracy_foreground": "pseudo accuracy foreground (a batch with nothing to judge counts 0)",
}
STYLE = """
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1b1f24; background: #fff; margin: 0 auto; max-width: 1020px; padding: 20px; }
h1 { font-size: 1.6em; line-height: 1.25; margin: .2em 0; } h2 { font-size: 1.2em; margin: 2em 0 .5em; padding-top: .6em; border-top: 1px solid #d5dae0; }
h3 { font-size: 1em; margin: 1.2em 0 .4em; } p { margin: .4em 0; } code, pre { font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; }
pre { background: #f3f5f7; padding: 10px 12px; border-radius: 6px; white-space: pre-wrap; overflow-wrap: anywhere; }
.lead { font-size: 1.1em; } .warn { color: #8a3b00; font-weight: 600; } .small { color: #57606a; font-size: .88em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 12px 4px 0; text-align: left; vertical-align: top; border-bottom: 1px solid #e6e9ed; }
.numbers td, .numbers th { text-align: right; white-space: nowrap; padding: 4px 9px; } .numbers td:first-child, .numbers th:first-child { text-align: left; padding-left: 0; }
.numbers thead th { white-space: normal; vertical-align: bottom; border-bottom: 1.5px solid #57606a; } .mean td { font-weight: 650; border-top: 1.5px solid #57606a; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(300px, 100%), 1fr)); gap: 14px; } .charts img { max-width: 460px; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 8px; } figure { margin: 0; break-inside: avoid; }
figcaption { font-size: .85em; color: #57606a; } img { width: 100%; display: block; } .block { break-inside: avoid; }
.course td, .course th { padding: 2px 4px 2px 0; border: 0; font-size: .85em; font-weight: 500; } .course { width: 100%; } .course th { text-align: left; padding-right: 12px; } .course img { min-width: 92px; }
.key span { display: inline-block; margin-right: 14px; } .key i { display: inline-block; width: 14px; height: 14px; border: 1px solid #444; border-radius: 3px; margin-right: 5px; vertical-align: -2px; }
* { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
@media (max-width: 600px) { body { padding: 14px; } .panels { grid-template-columns: 1fr 1fr; } .settings th, .settings td { display: block; border: 0; padding: 0; } .settings td { padding-bottom: 8px; } .settings th { font-size: .85em; color: #57606a; } }
@media print { body { font-size: 10.5pt; max-width: none; padding: 0; } .wide { overflow: visible; } .panels { grid-template-columns: repeat(4, 1fr); } .charts { grid-template-columns: 1fr 1fr; } .course img { min-width: 0; } .cases { font-size: 8pt; } }
"""


def report(config: Report) -> Path:
    """Write RUN/report.html and return its path; predictions and scores of the held-out cases are made first where they are missing or outdated.

    Without dense masks predictions are shown without scores. What cannot be shown (no data set, no dense mask, no validation) is left out, and the report says why.
    Raises InputError for a folder that is not a run, and for files in it or in the data set that cannot be read.
    """
    path = write_report(Path(config.run), Path(config.run) / "report.html")
    print(f"report: {path}")
    return path


def write_report(run: Path, path: Path) -> Path:
    """The same for any place of the file; returns `path`."""
    train, plan = read_plan(run)
    log = _read_log(run)
    dataset = read_dataset(train.dataset) if (train.dataset / "dataset.json").is_file() else None
    if dataset is None:
        print(
            f"{run}: the data set {train.dataset} is not to be found from here; no case is shown and none is scored anew",
            file=sys.stderr,
        )
    done = _iterations_done(run, plan, log)
    rows, note = _scores(run, train, plan, dataset, done)
    title = f"{plan.method} on {dataset.name if dataset else train.dataset.name}, {_fold(train, plan)}"
    content = "\n".join(
        [
            _header(title, run, plan, rows, note, done),
            _scores_section(rows, note),
            _pictures_section(run, train, plan, dataset, rows, note),
            _curves_section(plan, log),
            _course_section(run, plan),
            _settings_section(run, train, plan, log),
            _cases_section(rows),
        ]
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n{content}\n"
        f'<p class="small">Written by scribbleseg {__version__}. Research software, not for clinical use.</p>\n</body></html>\n'
    )
    with atomic_file(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def _read_log(run: Path) -> list[dict]:
    path = run / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    try:
        return [
            json.loads(line) for line in lines if line.endswith("\n")
        ]  # a running training may be in the middle of one
    except ValueError as error:
        raise InputError(f"{path}: not a run's log ({error}). Was it edited? Remove the broken line.") from error


def _iterations_done(run: Path, plan: Plan, log: list[dict]) -> int:
    """The iteration of the last checkpoint; of a run whose weights were taken away, of the last line of its log."""
    weights = run / "last.safetensors"
    if weights.is_file():
        return weights_iteration(weights, plan.recipe.iterations)
    return log[-1]["iteration"] if log else 0


def _scores(run: Path, train: Train, plan: Plan, dataset: Dataset | None, done: int) -> tuple[list[dict], str]:
    """The rows of metrics.csv, and why there are none or not of all cases; predicts and scores where these files are missing or outdated."""
    table, weights, finished = run / "metrics.csv", run / "last.safetensors", done == plan.recipe.iterations
    kind = "held-out" if plan.fold.test else "validation"
    held, judged = [], []
    if dataset is not None:
        _, held = dataset.held_out(plan.fold)
        judged = [case for case in held if case.truth is not None]
    if finished and held and weights.is_file():
        note = run / "predictions" / MADE_BY
        since = max(
            path.stat().st_mtime for path in (weights, note) if path.is_file()
        )  # what is older is of other weights
        predictions = _predictions(run)
        found = [predictions.get(case.id) for case in judged or held]
        if any(path is None or path.stat().st_mtime < since for path in found):
            predict(Predict(run, dataset.folder, run / "predictions"))
        predictions = _predictions(run)
        scored = [path.stat().st_mtime for case in judged for path in (predictions[case.id], case.truth)]
        if judged and not (table.is_file() and table.stat().st_mtime >= max(scored)):
            write_rows(table, score_cases(dataset, judged, predictions))
    if table.is_file():
        lacking = len(held) - len(judged)
        return read_rows(
            table
        ), f"{kind.capitalize()} cases without a dense mask, not scored: {lacking} of {len(held)}." if lacking else ""
    if dataset is None:
        return [], f"the data set {train.dataset} is not to be found from here."
    if not held:
        return [], "the fold holds out no case."
    if not judged and finished:
        return [], f"no {kind} case has a dense mask."
    if finished:
        return [], f"its weights, {weights.name}, are not there."
    return [], f"training stands at iteration {done} of {plan.recipe.iterations}; write the report again at its end."


def _predictions(run: Path) -> dict[str, Path]:
    folder = run / "predictions"
    begun = folder.is_dir() and any(path.name != MADE_BY and not path.name.startswith(".") for path in folder.iterdir())
    return list_masks(folder) if begun else {}


def _maker(run: Path) -> str:
    """What RUN/predictions are of, as `predict` noted it, and how many are no longer what it wrote."""
    path = run / "predictions" / MADE_BY
    if not path.is_file():
        return "what made the predictions is not known"
    made = read_json(path)
    others = (
        ""
        if [Path(name).resolve() for name in made["runs"]] == [run.resolve()]
        else f" of {' and '.join(made['runs'])}"
    )
    means = [name for name, taken in (("runs", len(made["runs"]) > 1), ("flips", made["tta"])) if taken]
    mean = f", mean over {' and '.join(means)}" if means else ""
    altered = changed(path.parent)
    since = f"; {len(altered)} of {len(made['sha256'])} files changed since" if altered else ""
    return f"{made['weights']} checkpoint{others}, iteration {' and '.join(map(str, made['iterations']))}{mean}{since}"


def rank_cases(rows: list[dict]) -> list[tuple[str, float]]:
    """(case, its Dice averaged over the classes where it is defined), the worst first; a case where none is defined is left out."""
    dice: dict[str, list[float]] = {}
    for row in rows:
        if not np.isnan(row["dice"]):
            dice.setdefault(row["case"], []).append(row["dice"])
    return sorted(
        ((case, float(np.mean(values))) for case, values in dice.items()), key=lambda pair: (pair[1], pair[0])
    )


def rank_predictions(predictions: dict[str, Path]) -> list[tuple[str, float]]:
    """(case, share of its voxels that are predicted as foreground), the smallest first."""
    shares = {case: float((read_label(path)[0] > 0).mean()) for case, path in predictions.items()}
    return sorted(shares.items(), key=lambda pair: (pair[1], pair[0]))


def pick_cases(
    ranked: list[tuple[str, float]], first: str = "Worst", last: str = "Best"
) -> dict[str, tuple[str, float]]:
    """The first, the median (of an even number the lower one) and the last; each case once."""
    if len(ranked) < 2:
        return {"Only case": pair for pair in ranked}
    middle = {"Median": ranked[(len(ranked) - 1) // 2]} if len(ranked) > 2 else {}
    return {first: ranked[0], **middle, last: ranked[-1]}


def repeat_command(train: Train) -> str:
    """The command line that trains this run again; options at their defaults are left out."""
    words = ["scribbleseg", "train", str(train.dataset), str(train.run)]
    for field in dataclasses.fields(Train)[2:]:
        value = getattr(train, field.name)
        if value != field.default:
            values = value if isinstance(value, tuple) else () if value is True else (value,)
            words += [f"--{field.name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def _fold(train: Train, plan: Plan) -> str:
    if plan.split == "all":
        return "all cases"
    name = f" ({plan.fold.name})" if plan.fold.name != str(train.fold) else ""
    return f"{plan.split} fold {train.fold}{name}"


def _kind(rows: list[dict], plan: Plan) -> str:
    cases = {row["case"] for row in rows}
    parts = {"held-out": plan.fold.test, "validation": plan.fold.val, "training": plan.fold.train}
    return next((kind for kind, names in parts.items() if cases <= set(names)), "other")


def _header(title, run, plan, rows, note, done):
    if rows:
        mean, classes = summarise(rows)[-1], list(dict.fromkeys(row["class"] for row in rows))
        spread = "" if np.isnan(mean["dice_sd"]) else f" (sd {mean['dice_sd']:.4f})"
        kind = _kind(rows, plan)
        seen = " These cases were looked at during training." if kind in ("validation", "training") else ""
        result = f"Mean Dice <strong>{mean['dice']:.4f}</strong>{spread} over {mean['cases']} {kind} case{'s' * (mean['cases'] != 1)} (classes {html.escape(', '.join(classes))}); {html.escape(_maker(run))}.{seen}"
    else:
        result = f"No scores: {html.escape(note)}"
    state = (
        ""
        if done == plan.recipe.iterations
        else f'<p class="warn">Training is not finished: iteration {done} of {plan.recipe.iterations}.</p>'
    )
    return (
        f'<h1>{html.escape(title)}</h1>\n<p class="lead">{result}</p>\n{state}<p class="warn">Not for clinical use.</p>'
    )


def _section(name, *parts):
    return f'<section id="{name.lower().replace(" ", "-")}">\n<h2>{name}</h2>\n' + "\n".join(parts) + "\n</section>"


def _left_out(why):
    return f'<p class="small">Left out: {html.escape(why)}</p>'


def _image(uri, text):
    return f'<img src="{uri}" alt="{html.escape(text)}">'


def _table(head, lines, kind="numbers", last=""):
    cells = ["".join(f"<td>{html.escape(cell)}</td>" for cell in line) for line in lines]
    body = "".join(f"<tr{last if line is cells[-1] else ''}>{line}</tr>\n" for line in cells)
    heading = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    return f'<div class="wide"><table class="{kind}"><thead><tr>{heading}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _scores_section(rows, note):
    if not rows:
        return _section("Scores", _left_out(note))
    head, *lines = table_cells(summarise(rows))
    unit, classes = rows[0]["unit"], list(dict.fromkeys(row["class"] for row in rows))
    charts = []
    for key, name, top in (("dice", "Dice", 1), ("hd95", f"HD95 ({unit})", None)):
        values = {label: np.array([row[key] for row in rows if row["class"] == label]) for label in classes}
        charts.append(
            f"<figure>{_image(distribution(values, name, top), f'Distribution of {name} per class')}</figure>"
        )
    legend = (
        "Mean (sd) over cases. In the last line the mean is that of the classes' means, the sd that over cases of each case's mean over classes. Boxes: quartiles, whiskers: all cases, dots: cases. "
        "HD95: 95th percentile of the surface distances of both directions taken together (MONAI's is the larger of the two directions'); ASSD: their mean. "
        "HD95 is undefined where a structure is missing from the prediction; penalised: the volume's diagonal stands in for it."
    )
    more = f'<p class="small">{html.escape(note)}</p>' if note else ""
    return _section(
        "Scores",
        _table(head, lines, last=' class="mean"'),
        f'<p class="small">{legend}</p>{more}',
        f'<div class="charts">{"".join(charts)}</div>',
    )


def _key(classes, background=True):
    names = [(value, name) for value, name in enumerate(classes) if value or background]
    return (
        '<p class="key">'
        + "".join(
            f'<span><i style="background:{colour(value)}"></i>{html.escape(name)}</span>' for value, name in names
        )
        + "</p>"
    )


def _pictures_section(run, train, plan, dataset, rows, note):
    if dataset is None:
        return _section("Cases", _left_out(f"the data set {train.dataset} is not to be found from here."))
    predictions, (_, held) = _predictions(run), dataset.held_out(plan.fold)
    picked, text = (
        pick_cases(rank_cases(rows)),
        "Of each case the slice with most foreground, cropped to truth and prediction.",
    )
    if not rows and not any(case.truth for case in held):
        picked = pick_cases(
            rank_predictions({case.id: predictions[case.id] for case in held if case.id in predictions}),
            "Least",
            "Most",
        )
        text = f"No dense mask says which of these are right ({html.escape(_maker(run))}). Of each case the slice where most is predicted, cropped to that."
    if not picked:
        return _section("Cases", _left_out("no Dice is defined." if rows else note))
    parts = [_key(plan.classes), f'<p class="small">{text}</p>']
    for place, (name, value) in picked.items():
        scores = [
            f"{row['class']} {row['dice']:.4f}" for row in rows if row["case"] == name and not np.isnan(row["dice"])
        ]
        heading = f"<h3>{place}: {html.escape(name)}, {f'mean Dice {value:.4f}' if rows else f'foreground in {100 * value:.2f} % of its voxels'}</h3>"
        case = dataset.case(name) if name in dataset.cases or name in dataset.tests else None
        if case is None or (rows and case.truth is None) or name not in predictions:
            parts.append(f"{heading}{_left_out('its image, dense mask or prediction is not there any more.')}")
            continue
        volume = load_volume(dataset, case)
        prediction, grid = read_label(predictions[name], volume.grid.order)
        if not grid.same_place(volume.grid):
            parts.append(f"{heading}{_left_out('its prediction is on another grid than its image.')}")
            continue
        panels, position = _case_panels(volume, prediction, dataset.spacing_unit == "mm")
        titles = {key: _title(key, plan) for key in panels}
        figures = "".join(
            f"<figure>{_image(uri, f'{titles[key]} of {name}')}<figcaption>{html.escape(titles[key])}</figcaption></figure>"
            for key, uri in panels.items()
        )
        where = "; ".join([*filter(None, [", ".join(scores)]), f"slice {position}"])
        parts.append(
            f'<div class="block">{heading}<p class="small">{html.escape(where)}</p><div class="panels">{figures}</div></div>'
        )
    return _section("Cases", *parts)


def _title(key, plan):
    """Of a picture or a monitored value; of several channels the first is shown."""
    if key == "image" and len(plan.channels) > 1:
        return f"image ({plan.channels[0]})"
    return TITLES.get(key, key.replace("_", " "))


def _case_panels(volume, prediction, located=True):
    """{column: picture} of the slice with most foreground in truth (without one: in the prediction; the middle slice where there is none),
    and its position as text; as stored when the file is not `located`."""
    shown = prediction if volume.truth is None else volume.truth
    counts = (shown > 0).sum((1, 2))
    index = int(counts.argmax()) if counts.any() else len(counts) // 2
    layers = {
        "image": volume.image[0, index],
        "scribble": volume.scribble[index],
        "prediction": prediction[index],
        "truth": shown[index],
    }
    if volume.case.scribble is None:
        del layers["scribble"]
    if volume.truth is None:
        del layers["truth"]
    spacing = volume.grid.spacing_mm[1:]
    if located:
        layers, spacing = (
            {key: upright(plane, volume.grid) for key, plane in layers.items()},
            upright_spacing(volume.grid),
        )
    box = crop((layers.get("truth", 0) > 0) | (layers["prediction"] > 0), spacing)
    image = layers["image"][box]
    panels = {key: panel(image, None if key == "image" else plane[box], spacing) for key, plane in layers.items()}
    return panels, f"{index + 1} of {len(prediction)}"


def _curves_section(plan, log):
    if not log:
        return _section("Training", _left_out("nothing was logged yet."))
    x = [entry["iteration"] for entry in log]
    losses = {"total": (x, [entry["loss"] for entry in log])}
    losses |= (
        {name: (x, [entry["losses"][name] for entry in log]) for name in log[-1]["losses"]}
        if len(log[-1]["losses"]) > 1
        else {}
    )
    charts = {"Losses, weighted as they are added": curves(losses, "loss")}
    checked = [entry for entry in log if "val_dice" in entry]
    notes = []
    if checked:
        at, classes = [entry["iteration"] for entry in checked], list(checked[0]["val_dice"])
        lines = {name: (at, [entry["val_dice"][name] for entry in checked]) for name in classes}
        lines["mean"] = (at, [entry["val_mean_dice"] for entry in checked])
        shades = {name: colour(value) for value, name in enumerate(classes, 1)}
        where = "on scribbled pixels alone" if plan.val_on_scribbles else f"at {plan.size} × {plan.size} pixels"
        charts[f"Validation Dice {where}"] = curves(lines, "Dice", shades)
    else:
        notes.append(_left_out("validation Dice; the run had no validation cases."))
    for name in log[-1]["monitor"]:
        charts[f"Monitored: {_title(name, plan)}"] = curves(
            {name: (x, [entry["monitor"][name] for entry in log])}, height=2.1
        )
    figures = "".join(
        f"<figure>{_image(uri, title)}<figcaption>{html.escape(title)}</figcaption></figure>"
        for title, uri in charts.items()
    )
    return _section("Training", f'<div class="charts">{figures}</div>', *notes)


def _course_section(run, plan):
    files = sorted((run / "pictures").glob("*.npz"))
    if not files:
        return _section("Course of training", _left_out("no pictures were saved yet."))
    pages = {}
    for file in files:
        with np.load(file) as stored:
            pages[int(file.stem)] = {name: stored[name][0] for name in stored.files}
    last = pages[max(pages)]
    known = "truth" in last and bool((last["truth"] != UNLABELED).any())
    ends = ["prediction", *["truth"] * known]
    columns = [
        "image",
        "scribble",
        *(name for name in last if name not in ("image", "scribble", "prediction", "truth")),
        *ends,
    ]
    box = crop((last["scribble"] > 0) & (last["scribble"] < len(plan.classes)), (1, 1))
    lines = []
    for iteration, page in pages.items():
        cells = []
        for name in columns:
            plane = None if name == "image" else page[name][box]
            cells.append(
                f"<td>{_image(panel(page['image'][box], plane, (1, 1), 1.5), f'{name} at iteration {iteration}')}</td>"
            )
        lines.append(f"<tr><th>{iteration}</th>{''.join(cells)}</tr>\n")
    heading = "".join(f"<th>{html.escape(_title(name, plan))}</th>" for name in ("iteration", *columns))
    text = f'<p class="small">One training slice, cropped, at the network\'s {plan.size} × {plan.size} pixels (stretched to a square, oriented as stored).</p>'
    return _section(
        "Course of training",
        _key(plan.classes),
        text,
        f'<div class="wide"><table class="course"><tr>{heading}</tr>\n{"".join(lines)}</table></div>',
    )


def _settings_section(run, train, plan, log):
    recipe, fold = plan.recipe, plan.fold
    options = ", ".join(f"{name} = {value}" for name, value in plan.options.items()) or "as in its paper"
    schedule = (
        f"{recipe.optimizer}, learning rate {recipe.lr:g} ({recipe.schedule}), weight decay {recipe.weight_decay:g}"
    )
    if recipe.ema:
        schedule += f", mean of the weights with decay {recipe.ema:g}"
    lines = {
        "Method": f"{plan.method}; hyperparameters: {options}",
        "Data set": f"{train.dataset}; channels: {', '.join(plan.channels)}; classes: {', '.join(plan.classes)}",
        "Fold": f"{_fold(train, plan)}: {len(fold.train)} case{'s' * (len(fold.train) != 1)} for training, {len(fold.val)} for validation, {len(fold.test)} held out",
        "Network": f"{plan.network} on slices of {plan.size} × {plan.size} pixels",
        "Optimisation": f"{schedule}; {recipe.iterations} iterations of {recipe.batch} slice{'s' * (recipe.batch != 1)}; seed {train.seed}",
    }
    if log:
        steps = np.diff([0, *(entry["iteration"] for entry in log)])
        seconds = float(steps @ [entry["seconds_per_iteration"] for entry in log])
        lines["Time"] = f"{seconds / 60:.1f} min of training steps, {seconds / log[-1]['iteration']:.3f} s each"
    path = run / "environment.json"
    if path.is_file():
        lines["Environment"] = ", ".join(
            f"{name} {value}"
            for name, value in json.loads(path.read_text(encoding="utf-8")).items()
            if value is not None
        )
    body = "".join(f"<tr><th>{name}</th><td>{html.escape(text)}</td></tr>\n" for name, text in lines.items())
    command = f"{repeat_command(train)}\n{shlex.join(['scribbleseg', 'report', str(train.run)])}"
    return _section(
        "Settings",
        f'<table class="settings">{body}</table>',
        f"<h3>To repeat it</h3>\n<pre>{html.escape(command)}</pre>",
    )


def _cases_section(rows):
    if not rows:
        return _section("Every case", _left_out("there are no scores."))
    unit, classes = rows[0]["unit"], list(dict.fromkeys(row["class"] for row in rows))
    by_place = {(row["case"], row["class"]): row for row in rows}
    means = dict(rank_cases(rows))
    order = [*means, *dict.fromkeys(row["case"] for row in rows if row["case"] not in means)]
    lines = []
    for case in order:
        found = [by_place.get((case, name)) for name in classes]
        dice = [
            "–"
            if row is None
            else _number(row["dice"], 4)
            + (" (missing)" if row["missing"] else " (spurious)" if row["spurious"] else "")
            for row in found
        ]
        lines.append(
            (
                case,
                _number(means.get(case, np.nan), 4),
                *dice,
                *("–" if row is None else _number(row["hd95"], 2) for row in found),
            )
        )
    head = ("case", "mean Dice", *(f"Dice {name}" for name in classes), *(f"HD95 {name} ({unit})" for name in classes))
    return _section(
        "Every case",
        _table(head, lines, "numbers cases"),
        '<p class="small">The worst first. Missing: in truth, not predicted; spurious: predicted, not in truth.</p>',
    )


def _number(value, digits):
    return "–" if np.isnan(value) else f"{value:.{digits}f}"
