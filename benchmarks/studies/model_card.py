"""Write model cards: python benchmarks/studies/model_card.py RUN [RUN ...]

RUN is the folder of a run that `scribbleseg bench` has finished, such as runs/quick/acdc/cv5-0/scn-s0, with the
predictions of the held-out cases. The script reads the run, its data set (config.json has the path) and its scores
(benchmarks/results). It writes docs/models/DATA-SPLIT-ROW.md and .png for each run, and docs/models/README.md, the
index of these cards. If the licence of the data is not an open one (CC…), the picture stays in the run's folder, as
failures.png. The script is for short-axis stacks of the heart with a class RV. It chooses the slices to show by rules,
and the card states the rules.
"""

import dataclasses
import inspect
import io
import os
import shlex
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from far_field import MARGIN, boxes, mean_dice, measure
from matplotlib import rc_context
from PIL import Image

from scribbleseg.bench.grid import Row, cut_row, draw_grid
from scribbleseg.bench.store import read_records, read_scores
from scribbleseg.config import Train
from scribbleseg.core.atomic import atomic_file
from scribbleseg.core.errors import InputError, counted
from scribbleseg.core.json_file import read_json
from scribbleseg.data.case import load_volume
from scribbleseg.data.dataset import Case, Dataset
from scribbleseg.data.intensity import normalise
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.volume import read_label
from scribbleseg.evaluation.metrics import dice
from scribbleseg.evaluation.scores import summarise
from scribbleseg.methods import hyperparameters, method_class
from scribbleseg.reporting.figures import STYLE
from scribbleseg.reporting.page import rank_cases
from scribbleseg.training.plan import Plan, read_plan
from scribbleseg.training.recipe import BUDGETS

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table

CARDS = Path("docs/models")
THIRDS = ("base", "middle", "apex")


@dataclasses.dataclass(frozen=True)
class Scan:
    """A held-out case, its labels [D, H, W], and the slices with foreground in its dense mask, from base to apex."""

    case: Case
    truth: np.ndarray
    found: np.ndarray
    heart: np.ndarray


@dataclasses.dataclass(frozen=True)
class Failure:
    """A slice to show: the rule that chose it, and what is wrong there."""

    rule: str
    scan: Scan
    index: int
    text: str


@dataclasses.dataclass(frozen=True)
class Model:
    """The run, data set and scores of a card."""

    train: Train
    plan: Plan
    record: dict  # of runs.csv
    dataset: Dataset
    info: dict  # dataset.json
    scans: list[Scan]
    rows: list[dict]
    far: tuple  # far_field.measure of the run

    @property
    def title(self) -> str:
        name = f" ({self.plan.fold.name})" if self.plan.fold.name not in (self.plan.split, str(self.train.fold)) else ""
        return f"{self.plan.method} on {self.dataset.name}, {self.plan.split} fold {self.train.fold}{name}"

    @property
    def part(self) -> str:
        return self.dataset.held_out(self.plan.fold)[0]


def read_model(run: Path, results: Path) -> Model:
    """Read the run, its data set and its scores.

    Raises InputError if the data set has no class RV or no source and terms, and if the scores are not those of the
    run's predictions.
    """
    train, plan = read_plan(run)
    dataset = read_dataset(train.dataset)
    if "RV" not in plan.classes:
        raise InputError(
            f"{run}: has classes {plan.classes}; expected RV among them, because RV shows where the base of the heart "
            "is. Choose another run."
        )
    info = read_json(dataset.folder / "dataset.json")
    if lacking := [key for key in ("description", "reference", "licence") if key not in info]:
        raise InputError(
            f"{dataset.folder / 'dataset.json'}: has no {lacking[0]}. A card names source and terms: add "
            f"{', '.join(lacking)}."
        )
    budget, name = results / run.parts[-4], "/".join(run.parts[-3:])
    rows, record = read_scores(budget).get(name, []), read_records(budget).get(name, {})
    if not rows:
        raise InputError(f"{budget / 'scores.csv'}: has no scores of {name}. Run it with `scribbleseg bench` first.")
    scans = []
    for name in dict.fromkeys(row["case"] for row in rows):
        case = dataset.case(name)
        found, grid = read_label(run / "predictions" / f"{name}{dataset.file_ending}")
        truth, _ = read_label(case.truth, grid.order)
        scans.append(Scan(case, truth, found, base_to_apex(truth, plan.classes.index("RV"))))
    found = [dice(scan.found == value, scan.truth == value) for scan in scans for value in range(1, len(plan.classes))]
    for row, value in zip(rows, found, strict=True):
        if not np.isclose(row["dice"], value, equal_nan=True):
            got = f"{row['case']} {row['class']} has Dice {row['dice']:.4f}, its prediction in {run} has {value:.4f}"
            raise InputError(f"{budget / 'scores.csv'}: {got}. Score the run again.")
    return Model(train, plan, record, dataset, info, scans, rows, measure(run, dataset))


def base_to_apex(truth: np.ndarray, rv: int) -> np.ndarray:
    """The slices with foreground, starting at the end whose half has the larger area of RV."""
    heart = np.flatnonzero((truth > 0).any((1, 2)))
    area = (truth[heart] == rv).sum((1, 2))
    half = len(heart) // 2
    return heart if area[:half].sum() >= area[len(heart) - half :].sum() else heart[::-1]


def find_failures(scans: list[Scan], rows: list[dict], classes: tuple[str, ...]) -> list[Failure]:
    """The slices that the rules choose, in the order of the card.

    The rules for RV and for false foreground choose a slice only if something is wrong there.
    """
    rv = classes.index("RV")
    name, value = rank_cases(rows)[0]
    scan = next(scan for scan in scans if scan.case.id == name)
    wrong = (scan.found != scan.truth).sum((1, 2))
    rule = "the case with the lowest mean Dice; the slice of it with the most pixels of a wrong class"
    chosen = [
        Failure(rule, scan, int(wrong.argmax()), f"Dice of the case {percent(value)}, {wrong.max()} wrong pixels")
    ]

    for place, end in ((0, "basal"), (-1, "apical")):
        scored = []  # (Dice, −foreground, scan, slice)
        for n, scan in enumerate(scans):
            for i in scan.heart[place:][:1]:
                scored.append(
                    (mean_dice(scan.found[i], scan.truth[i], len(classes)), -int((scan.truth[i] > 0).sum()), n, int(i))
                )
        value, _, n, i = min(scored)
        rule = (
            f"the most {end} slices with foreground of all cases; the one with the lowest Dice, and if several have "
            "it, the one with the most foreground"
        )
        chosen.append(Failure(rule, scans[n], i, f"Dice of the slice {percent(value)}"))

    shares = []  # (share of RV found, −its area, scan, slice)
    far, empty = [], []  # (foreground where there is none, scan, slice)
    for n, scan in enumerate(scans):
        area = (scan.truth == rv).sum((1, 2))
        hit = ((scan.truth == rv) & (scan.found == rv)).sum((1, 2))
        shares += [(hit[i] / area[i], -int(area[i]), n, int(i)) for i in np.flatnonzero(area)]
        away = ((scan.found > 0) & ~boxes(scan.truth)).sum((1, 2))
        for i, pixels in enumerate(away):
            (far if i in scan.heart else empty).append((int(pixels), -n, -i))
    if shares and min(shares)[0] < 1:
        share, area, n, i = min(shares)
        rule = (
            "the slice with RV in the dense mask of which the smallest share is found; if several have it, the one "
            "with the most RV"
        )
        chosen.append(Failure(rule, scans[n], i, f"{percent(share)} of {-area} pixels of RV found"))
    for found, rule in (
        (
            far,
            "of the slices with a heart, the one with the most predicted foreground outside the box around the heart "
            f"(wider by {MARGIN} pixels on every side)",
        ),
        (empty, "of the slices without a heart, the one with the most predicted foreground"),
    ):
        if found and max(found)[0]:
            pixels, n, i = max(found)
            chosen.append(Failure(rule, scans[-n], -i, f"{pixels} pixels of foreground where there is none"))
    return chosen


def percent(share: float) -> str:
    return "–" if np.isnan(share) else f"{100 * share:.1f} %"


def mean(values) -> float:
    """The mean of the defined values; nan if there is none."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else np.nan


def score_table(rows: list[dict]) -> str:
    """Per class and mean: Dice (mean, sd, lowest case), HD95, missing and spurious structures."""
    summary = summarise(rows)
    unit = summary[0]["unit"]
    lines = []
    for entry in summary:
        scored = [row["dice"] for row in rows if row["class"] == entry["class"] and not np.isnan(row["dice"])]
        lowest = rank_cases(rows)[0][1] if entry is summary[-1] else min(scored, default=np.nan)
        numbers = (f"{100 * value:.1f}" for value in (entry["dice"], entry["dice_sd"], lowest))
        distances = (f"{entry[key]:.1f}" for key in ("hd95", "penalised_hd95"))
        lines.append(
            [entry["class"], *numbers, *distances, *(str(entry[key]) for key in ("n_missing", "n_spurious", "cases"))]
        )
    return markdown_table(
        [
            "class",
            "Dice mean (%)",
            "sd",
            "lowest case",
            f"HD95 ({unit})",
            f"HD95* ({unit})",
            "missing",
            "spurious",
            "cases",
        ],
        lines,
    )


def thirds_table(scans: list[Scan], classes: tuple[str, ...]) -> str:
    """Per third: Dice of its slices, taken together per case, mean over cases; slices whose RV was not found at all."""
    rv = classes.index("RV")
    lines = []
    for place, name in enumerate(THIRDS):
        parts = [(scan, np.array_split(scan.heart, 3)[place]) for scan in scans]
        scores = [
            mean(dice(scan.found[part] == value, scan.truth[part] == value) for scan, part in parts)
            for value in range(1, len(classes))
        ]
        there = [
            (scan.truth[i] == rv, scan.found[i] == rv)
            for scan, part in parts
            for i in part
            if (scan.truth[i] == rv).any()
        ]
        missed = sum(not (truth & found).any() for truth, found in there)
        cells = [f"{100 * value:.1f}" for value in (*scores, mean(scores))]
        lines.append([name, str(sum(len(part) for _, part in parts)), *cells, str(len(there)), str(missed)])
    return markdown_table(
        [
            "third",
            "slices",
            *(f"Dice {name} (%)" for name in (*classes[1:], "mean")),
            "slices with RV",
            "of these, RV not found at all",
        ],
        lines,
    )


def failure_rows(model: Model, failures: list[Failure]) -> list[Row]:
    """Every slice once, with the numbers of its rules.

    It is cropped to the heart of the whole case and the foreground predicted in the slice.
    """
    places: dict[tuple, list[int]] = {}
    for number, failure in enumerate(failures, 1):
        places.setdefault((failure.scan.case.id, failure.index), []).append(number)
    rows = []
    for (_, i), numbers in places.items():
        scan = failures[numbers[0] - 1].scan
        volume = load_volume(model.dataset, dataclasses.replace(scan.case, scribble=None))
        row = cut_row(
            model.dataset, volume, i, {"prediction": scan.found}, (scan.truth > 0).any(0) | (scan.found[i] > 0)
        )
        rows.append(dataclasses.replace(row, name=f"{', '.join(map(str, numbers))}. {row.name}"))
    return rows


def draw_failures(model: Model, rows: list[Row], path: Path) -> None:
    """One PNG of 256 colours: image, dense mask, prediction."""
    note = f"{model.title}. Images: {model.info['reference']}; {model.info['licence']}. Not for clinical use."
    buffer = io.BytesIO()
    with rc_context(STYLE):
        draw_grid(rows, model.plan.classes, note).savefig(buffer, format="png", dpi=120)
    with atomic_file(path) as partial:  # with all colours it would be more than twice as large
        Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(
            partial, format="png", optimize=True
        )


def patients(model: Model, names: tuple[str, ...]) -> str:
    """40 cases of 20 patients (dilated 20)."""
    strata = model.info.get("strata", {})
    who = sorted({model.dataset.patient(name) for name in names})
    groups = Counter(strata[patient] for patient in who if patient in strata)
    return f"{counted(len(names), 'case')} of {counted(len(who), 'patient')}" + (
        f" ({', '.join(f'{group} {count}' for group, count in groups.items())})" if groups else ""
    )


def card(model: Model, failures: list[Failure], picture: str | None, scores: str) -> str:
    """The page. `picture` is None if the data must not be shown. `scores` is the path from the page to scores.csv."""
    train, plan, record, dataset = model.train, model.plan, model.record, model.dataset
    recipe, environment = plan.recipe, record["environment"]
    words = shlex.split(record["command"])
    data, run = words[2:4]
    shown = (
        f"The terms of the data ({model.info['licence']}) do not allow us to show it here. The command above draws the "
        f"slices below into {run}/failures.png."
    )
    if picture:
        shown = f"![Failures by rule: image, dense mask, prediction]({picture})"
    info = model.info
    kind = method_class(plan.method)
    options = ", ".join(
        f"`{key}={value}`" for key, value in record.get("options", plan.options).items()
    )  # the oldest records name only what was set
    held = plan.fold.test or plan.fold.val
    strata = info.get("strata", {})
    unseen = sorted(
        {strata.get(dataset.patient(name)) for name in held}
        - {strata.get(dataset.patient(name)) for name in plan.fold.train}
    )
    first = sum(scan.heart.size > 0 and scan.heart[0] < scan.heart[-1] for scan in model.scans)
    empty = [
        (scan.found[i] > 0).any()
        for scan in model.scans
        for i in set(range(len(scan.truth))) - set(scan.heart.tolist())
    ]
    _, _, _, outside, elsewhere = model.far
    tall = f"{BUDGETS['paper']['size']} pixels, {kind.recipe.iterations} iterations"
    lines = [
        f"# {model.title}",
        "",
        "**Not for clinical use.** This model is for research. Nobody has tested it as a medical device. Do not use "
        "its output for the care of a patient.",
        "",
        f"Budget `{train.budget}`: {plan.size} pixels, {recipe.iterations} iterations"
        + (f"; the paper's is {tall}." if train.budget != "paper" else "."),
        f"Made by `python benchmarks/studies/model_card.py {run}`. Scores and settings are those of run "
        f"`{'/'.join(Path(run).parts[-3:])}` in [scores.csv]({scores}/scores.csv) and [runs.csv]({scores}/runs.csv).",
        "",
        "## The model",
        "",
        markdown_table(
            ["", ""],
            [
                [
                    "method",
                    f"[`{plan.method}`](../methods/{plan.method}.md): "
                    f"{inspect.getdoc(inspect.getmodule(kind)).splitlines()[0]}",
                ],
                [
                    "options",
                    options
                    or (f"defaults of commit {environment['commit']}" if hyperparameters(plan.method) else "none"),
                ],
                ["network", f"`{plan.network}`, 2-D, {record['parameters']} parameters"],
                [
                    "input",
                    f"{len(plan.channels)} channel ({', '.join(plan.channels)}), one slice at a time, resized to "
                    f"{plan.size} × {plan.size} pixels",
                ],
                [
                    "output",
                    "a class for every voxel of the volume: "
                    + ", ".join(f"{value} {name}" for value, name in enumerate(plan.classes)),
                ],
                [
                    "training",
                    f"{recipe.iterations} iterations of {recipe.batch} slices, {recipe.optimizer} from "
                    f"{recipe.lr:g}, schedule {recipe.schedule}, seed {train.seed}; weights of the last iteration",
                ],
                ["machine", f"{environment['device']}, {environment['precision']}; {record['minutes']:.0f} minutes"],
                [
                    "versions",
                    f"scribbleseg {environment['scribbleseg']}, commit {environment['commit']}, torch "
                    f"{environment['torch']}, Python {environment['python']}",
                ],
                ["command", f"`{record['command']}`"],
            ],
        ),
        "",
        "## The data",
        "",
        markdown_table(
            ["", ""],
            [
                ["data set", f"{dataset.name}. {info['description']}"],
                ["source", info["reference"]],
                ["licence", info["licence"] + ("; it also covers the pictures of this page" if picture else "")],
                ["protocol", f"[`{plan.split}`](../data.md#protocols), fold {train.fold}"],
                [
                    "trained on",
                    f"{patients(model, plan.fold.train)}; {'dense masks' if plan.method == 'fullsup' else 'scribbles'}",
                ],
                [
                    "held out",
                    f"{model.part}: {patients(model, held)}; scored on "
                    f"{counted(len(model.scans), 'case')} with a dense mask"
                    + (f". Not seen in training: {', '.join(unseen)}" if unseen else ""),
                ],
            ],
        ),
        "",
        "## Intended use",
        "",
        "Research on weakly supervised segmentation: to compare methods under one protocol, and to study the errors "
        "of training on scribbles. Do not use it for anything else.",
        f"The input must be short-axis stacks of the heart like those of the training ({', '.join(plan.channels)}; "
        f"{info['description'].partition('. ')[0]}). The slice axis is the axis with the largest spacing (the "
        "last one on a tie). The model segments every slice alone.",
        f"`predict` prepares the intensities of each volume: {normalise.__doc__.strip().splitlines()[0]}",
        "We did not test other views, sequences, scanners or centres.",
        "",
        "## Scores on held-out cases",
        "",
        score_table(model.rows),
        "",
        f"This is one run with seed {train.seed}; sd and lowest case are over cases. HD95 is the mean over structures "
        "that were found. HD95* counts a missing structure as the volume's diagonal. A missing structure is in the "
        "dense mask and not predicted at all; a spurious one is predicted and not in the dense mask."
        + (" The files have no spacing, so distances are in voxels." if dataset.spacing_unit == "voxels" else ""),
        *(
            [
                "These validation cases were also scored during training. The weights are those of the last iteration; "
                "they were not chosen by these scores."
            ]
            if model.part == "validation"
            else []
        ),
        "",
        "## By third of the ventricle",
        "",
        thirds_table(model.scans, plan.classes),
        "",
        "The slices with foreground in the dense mask are divided into three parts of equal size; if that is not "
        "possible, parts nearer the base are larger. For the Dice of a part, the slices of the part are taken "
        "together in each case. The table has the mean over the cases for which it is defined.",
        "The base is the end whose half of these slices has the larger area of RV in the dense mask. The orientation "
        f"in the file is not used. By this rule the base is the first slice of the file in {first} of "
        f"{len(model.scans)} cases.",
        "",
        "## What it fails at",
        "",
        shown,
        "",
        "The rules below choose these slices from the held-out cases; nobody chose them by eye. The numbers are those "
        "beside the rows of the picture. Dice of a slice is the mean over the classes that are in the dense mask or in "
        "the prediction.",
        "",
        *(
            f"{number}. {f.rule[0].upper()}{f.rule[1:]}: **{f.scan.case.id}, slice {f.index + 1} of "
            f"{len(f.scan.truth)}**. {f.text}."
            for number, f in enumerate(failures, 1)
        ),
        "",
        f"- Slices without a heart, that is with an empty dense mask, whatever the image shows: {len(empty)}; of them "
        f"with predicted foreground: {sum(empty)}. It is {percent(elsewhere)} of all predicted foreground (mean over "
        "cases).",
        f"- In slices with a heart, {percent(outside)} of the predicted foreground lies outside the box around the "
        f"heart, wider by {MARGIN} pixels on every side (mean over cases).",
        "",
        "## Use it",
        "",
        "The weights are not in the repository. The first command trains the model again on your copy of the data. "
        "Without `--deterministic` the numbers will not be the same.",
        "",
        "```",
        record["command"],
        f"scribbleseg predict {run} {data} {run}/predictions          # the held-out cases",
        f"scribbleseg evaluate {run}/predictions {data}/labelsTr_dense --out {run}/metrics.csv",
        f"scribbleseg predict {run} new_scans segmented          # a folder of volumes",
        "```",
        "",
        "```python",
        "from pathlib import Path",
        "",
        "from scribbleseg.training.plan import read_plan",
        "from scribbleseg.inference.models import load_network",
        "",
        f'run = Path("{run}")',
        "network = load_network(run, read_plan(run)[1])  # a torch module in eval mode: slices [N, channels, H, W] → "
        "logits [N, classes, H, W]",
        "```",
    ]
    return "\n".join(lines) + "\n"


def write_card(run: Path, results: Path, path: Path) -> Model:
    """Write the card of a run from the scores in RESULTS, and its picture beside it if the data's licence is open."""
    model = read_model(run, results)
    failures = find_failures(model.scans, model.rows, model.plan.classes)
    picture = path.with_suffix(".png") if model.info["licence"].startswith("CC") else run / "failures.png"
    draw_failures(model, failure_rows(model, failures), picture)
    scores = Path(os.path.relpath(results / run.parts[-4], path.parent)).as_posix()
    with atomic_file(path) as partial:
        partial.write_text(
            card(model, failures, picture.name if picture.parent == path.parent else None, scores), encoding="utf-8"
        )
    return model


def index(models: dict[str, Model]) -> str:
    """The page with a line per card. `models`: file name → model."""
    lines = []
    for name, model in models.items():
        scores = [f"{100 * entry['dice']:.1f}" for entry in summarise(model.rows)]
        plan = model.plan
        cells = [
            f"[{model.title}]({name})",
            model.train.budget,
            str(plan.size),
            str(plan.recipe.iterations),
            f"{len(model.scans)} {model.part}",
            *scores,
        ]
        lines.append(
            [*cells, f"{100 * rank_cases(model.rows)[0][1]:.1f}", str(sum(row["missing"] for row in model.rows))]
        )
    classes = next(iter(models.values())).plan.classes
    head = [
        "model",
        "budget",
        "pixels",
        "iterations",
        "cases scored",
        *(f"Dice {name} (%)" for name in (*classes[1:], "mean")),
        "lowest case",
        "missing",
    ]
    quick = [model for model in models.values() if model.train.budget == "quick"]
    runs = " ".join(shlex.split(model.record["command"])[3] for model in models.values())
    return "\n".join(
        [
            "# Model cards",
            "",
            "**Not for clinical use.** Each card says what a model was trained on, what it is for, how it scores on "
            "held-out cases, and where it fails. Rules choose the pictures of failures.",
            "",
            *(
                [
                    f"{len(quick)} of {len(models)} models were trained at budget `quick` ({BUDGETS['quick']['size']} "
                    f"pixels, {BUDGETS['quick']['iterations']} iterations), which is far below the papers' training. "
                    "They show how the method works. They do not reproduce its paper's number.",
                    "",
                ]
                if quick
                else []
            ),
            markdown_table(head, lines),
            "",
            "Dice is the mean over held-out cases. The lowest case is given by its mean over classes. Missing counts "
            "structures with no predicted voxel.",
            f"Made by `python benchmarks/studies/model_card.py {runs}`",
            "",
        ]
    )


if __name__ == "__main__":
    models = {}
    for run in map(Path, sys.argv[1:]):
        name = "-".join(run.parts[-3:]) + ".md"
        models[name] = write_card(run, RESULTS, CARDS / name)
        print(CARDS / name)
    with atomic_file(CARDS / "README.md") as partial:
        partial.write_text(index(models), encoding="utf-8")
