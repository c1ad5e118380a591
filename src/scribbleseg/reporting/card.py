"""The model card of a run as Markdown, with the header that model hubs read."""

import json

from ..core.errors import counted
from ..core.json_file import read_json
from ..evaluation.scores import format_table, summarise
from .collect import Run, fold_name, part_of_fold, read_scores

POOR = 0.5  # Dice below which a case counts as failed


WITH_SCRIBBLESEG = (
    "scribbleseg predict MODEL IMAGES MASKS",
    "MODEL: the run folder, or the zip file that `scribbleseg pack` made of it.",
)


def card(run: Run, use: tuple[str, str] = WITH_SCRIBBLESEG) -> str:
    """The card, from config.json, the log, metrics.csv and dataset.json, as far as they exist.

    use: the command that segments images with what lies beside the card, and a sentence about it. The card names no
    case and no folder of the machine. Raises InputError for a file of these that cannot be read.
    """
    plan, about = run.plan, _about(run)
    rows, note = read_scores(run)
    seen = part_of_fold(rows, plan)
    title = f"{plan.method} on {about['name']}"
    parts = [
        _header(run, about, rows),
        f"# {title}",
        f"Segments {', '.join(plan.classes[1:])} in {', '.join(plan.channels)} images. Made with scribbleseg.",
        "**Not a medical device. Its output must not guide the care of a patient.**",
        "## The model",
        _list(
            ("method", f"`{plan.method}`{_options(plan.options)}"),
            ("network", f"`{plan.network}`"),
            ("input", f"{counted(len(plan.channels), 'channel')}: {', '.join(plan.channels)}"),
            ("output", ", ".join(f"{value} {name}" for value, name in enumerate(plan.classes))),
            (
                "training",
                f"{run.done} of {counted(plan.recipe.iterations, 'iteration')} of {plan.recipe.batch}, "
                f"{plan.recipe.optimizer} from {plan.recipe.lr:g}, schedule {plan.recipe.schedule}, "
                f"seed {run.train.seed}; {plan.preparation} of {plan.size} × {plan.size} pixels",
            ),
            ("versions", _versions(run)),
        ),
        "## The data",
        _list(
            ("data set", about["name"] + (f". {about['description']}" if about["description"] else "")),
            ("source", about["reference"] or "not named in dataset.json"),
            (
                "licence",
                about["licence"] or "not named in dataset.json; ask who made the data before you share the model",
            ),
            (
                "cases",
                f"{len(plan.fold.train)} for training, {len(plan.fold.val)} for validation, {len(plan.fold.test)} held "
                f"out ({fold_name(run)})",
            ),
        ),
        "## Intended use",
        f"Research on images like those of the training: {', '.join(plan.channels)}, with the structures "
        f"{', '.join(plan.classes[1:])}. Other sequences, scanners, centres, views and diseases than those of the data "
        "above were not tested. The terms of the data also hold for what is derived from them.",
        "## Scores",
        *([f"No scores: {note}"] if not rows else [f"Of the {seen} cases.", format_table(summarise(rows)), note]),
        "## Where it fails",
        _failures(rows, seen),
        "## Use it",
        f"```\n{use[0]}\n```",
        use[1],
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _about(run: Run) -> dict[str, str]:
    """What dataset.json says about the data: name, description, reference and licence, empty where it does not."""
    said: dict = {} if run.dataset is None else read_json(run.dataset.folder / "dataset.json")
    keys = {"description": ("description",), "reference": ("reference",), "licence": ("licence", "license")}
    found = {key: next((_line(said[name]) for name in names if said.get(name)), "") for key, names in keys.items()}
    return found | {"name": _line(run.dataset.name if run.dataset else run.train.dataset.name)}


def _line(text: object) -> str:
    return " ".join(str(text).split())


def _header(run: Run, about: dict[str, str], rows: list[dict]) -> str:
    """YAML, whose values are written as JSON, which is YAML too."""
    values: dict[str, object] = {
        "library_name": "scribbleseg",
        "pipeline_tag": "image-segmentation",
        "license": "other",
        "license_name": about["licence"] or "not named",
        "tags": ["medical-imaging", "segmentation", "weakly-supervised", "scribbles", run.plan.method],
    }
    if rows:
        dice = summarise(rows)[-1]["dice"]
        result = {
            "task": {"type": "image-segmentation"},
            "dataset": {"name": about["name"], "type": "nnunet-raw"},
            "metrics": [{"type": "dice", "name": "mean Dice", "value": round(dice, 4) if dice == dice else None}],
        }
        values["metrics"] = ["dice"]
        values["model-index"] = [{"name": f"{run.plan.method} on {about['name']}", "results": [result]}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items()]
    return "\n".join(["---", *lines, "---"])


def _list(*entries: tuple[str, str]) -> str:
    return "\n".join(f"- {name}: {text}" for name, text in entries)


def _options(options: dict) -> str:
    return f" with {', '.join(f'{name} = {value}' for name, value in options.items())}" if options else ""


def _versions(run: Run) -> str:
    path = run.folder / "environment.json"
    said = read_json(path, dict) if path.is_file() else {}
    shown = [f"{name} {said[name]}" for name in ("scribbleseg", "commit", "torch", "python") if said.get(name)]
    return ", ".join(shown) or "not known"


def _failures(rows: list[dict], seen: str) -> str:
    """A line per class with its lowest Dice, the poor cases, and what was missed or invented."""
    if not rows:
        return "Not known: no case was scored. Look at its masks before you trust them."
    lines = []
    for name in dict.fromkeys(row["class"] for row in rows):
        own = [row for row in rows if row["class"] == name]
        dice = [row["dice"] for row in own if row["dice"] == row["dice"]]
        lowest = (
            f"lowest Dice {min(dice):.3f}, below {POOR} in {sum(value < POOR for value in dice)}" if dice else "no Dice"
        )
        missing, spurious = (sum(row[flag] for row in own) for flag in ("missing", "spurious"))
        lines.append(
            f"- {name}: {lowest}, missed in {missing} and found where there is none in {spurious} of "
            f"{counted(len(own), 'case')}"
        )
    return "\n".join(lines) + (f"\n\nThese are {seen} cases. Look at masks of your own images before you trust them.")
