"""The HTML page of a run, from what `collect` found: one file that needs nothing else."""

from importlib.resources import files

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from .. import __version__
from ..evaluation.scores import summarise, table_cells
from ..training.plan import Plan
from .collect import Content, ShownCase, rank_cases
from .figures import colour, curves, distribution, panel

TITLES = {
    "confident": "M (orange: not in it)",
    "pseudo_label": "refined pseudo-label",
    "foreground_block": "R (orange: blocks without foreground stroke)",
    "teacher_label": "the teacher's label",
    "fadc_image": "FADC sample",
    "fadc_scribble": "its scribble",
    "fadc_label": "its pseudo-label",
    "pseudo_accuracy": "pseudo accuracy (0 for a batch with nothing to judge)",
    "pseudo_accuracy_foreground": "pseudo accuracy foreground (0 for a batch with nothing to judge)",
}


def render(content: Content) -> str:
    """The page. All text is escaped, and pictures are part of the file."""
    environment = Environment(
        loader=PackageLoader("scribbleseg.reporting", ""), autoescape=True, undefined=StrictUndefined
    )
    plan, rows = content.run.plan, content.rows
    return environment.get_template("template.html").render(
        content=content,
        plan=plan,
        style=Markup(files("scribbleseg.reporting").joinpath("style.css").read_text(encoding="utf-8")),
        version=__version__,
        classes=[(colour(value), name) for value, name in enumerate(plan.classes)],
        mean=_mean(rows),
        scores=table_cells(summarise(rows)) if rows else [],
        distributions=_distributions(rows),
        cases=[(case, _case_panels(case, plan)) for case in content.cases],
        charts=_charts(plan, content.run.log),
        validated=any("val_dice" in entry for entry in content.run.log),
        course=_course(content.course, plan),
        every_case=_every_case(rows),
    )


def _classes(rows: list[dict]) -> list[str]:
    return list(dict.fromkeys(row["class"] for row in rows))


def _mean(rows: list[dict]) -> dict | None:
    if not rows:
        return None
    mean = summarise(rows)[-1]
    return {
        "dice": f"{mean['dice']:.4f}",
        "sd": "" if np.isnan(mean["dice_sd"]) else f" (sd {mean['dice_sd']:.4f})",
        "cases": mean["cases"],
        "classes": ", ".join(_classes(rows)),
    }


def _distributions(rows: list[dict]) -> list[tuple[str, str]]:
    if not rows:
        return []
    charts = []
    for key, name, top in (("dice", "Dice", 1), ("hd95", f"HD95 ({rows[0]['unit']})", None)):
        values = {label: np.array([row[key] for row in rows if row["class"] == label]) for label in _classes(rows)}
        charts.append((name, distribution(values, name, top)))
    return charts


def _title(key: str, plan: Plan) -> str:
    """Of a picture or a monitored value. Of several channels the first is shown."""
    if key == "image" and len(plan.channels) > 1:
        return f"image ({plan.channels[0]})"
    return TITLES.get(key, key.replace("_", " "))


def _case_panels(case: ShownCase, plan: Plan) -> list[tuple[str, str]]:
    return [
        (_title(key, plan), panel(case.planes["image"], None if key == "image" else plane, case.spacing))
        for key, plane in case.planes.items()
    ]


def _charts(plan: Plan, log: list[dict]) -> list[tuple[str, str]]:
    if not log:
        return []
    x = [entry["iteration"] for entry in log]
    losses = {"total": (x, [entry["loss"] for entry in log])}
    if len(log[-1]["losses"]) > 1:
        losses |= {name: (x, [entry["losses"][name] for entry in log]) for name in log[-1]["losses"]}
    charts = [("Losses, weighted as they are added", curves(losses, "loss"))]
    checked = [entry for entry in log if "val_dice" in entry]
    if checked:
        at, classes = [entry["iteration"] for entry in checked], list(checked[0]["val_dice"])
        lines = {name: (at, [entry["val_dice"][name] for entry in checked]) for name in classes}
        lines["mean"] = (at, [entry["val_mean_dice"] for entry in checked])
        shades = {name: colour(value) for value, name in enumerate(classes, 1)}
        seen = f"at {plan.size} × {plan.size} pixels" if plan.preparation == "slices" else "at the network's pixel size"
        where = "on scribbled pixels only" if plan.val_on_scribbles else seen
        charts.append((f"Validation Dice {where}", curves(lines, "Dice", shades)))
    for name in log[-1]["monitor"]:
        values = [entry["monitor"][name] for entry in log]
        charts.append((f"Monitored: {_title(name, plan)}", curves({name: (x, values)}, height=2.1)))
    return charts


def _course(pages: dict[int, dict[str, np.ndarray]], plan: Plan) -> tuple[list[str], list] | None:
    """(titles, [(iteration, [(name, picture)])]), or None where nothing was saved."""
    if not pages:
        return None
    names = list(next(iter(pages.values())))
    lines = []
    for iteration, page in pages.items():
        lines.append((iteration, [(name, _picture(page, name)) for name in names]))
    return [_title(name, plan) for name in ("iteration", *names)], lines


def _picture(page: dict[str, np.ndarray], name: str) -> str:
    """A map over the image, or `x_y` over `x_image` where there is one."""
    image = page.get(f"{name.partition('_')[0]}_image", page["image"])
    return panel(image, None if name.endswith("image") else page[name], (1, 1), 1.5)


def _every_case(rows: list[dict]) -> list[tuple[str, ...]]:
    """A heading and a line per case, the worst first; cases without a defined Dice come last."""
    if not rows:
        return []
    unit, classes = rows[0]["unit"], _classes(rows)
    by_place = {(row["case"], row["class"]): row for row in rows}
    means = dict(rank_cases(rows))
    order = [*means, *dict.fromkeys(row["case"] for row in rows if row["case"] not in means)]
    head = ("case", "mean Dice", *(f"Dice {name}" for name in classes), *(f"HD95 {name} ({unit})" for name in classes))
    lines = [head]
    for case in order:
        found = [by_place.get((case, name)) for name in classes]
        dice = [_number(row, "dice", 4) + _remark(row) for row in found]
        hd95 = [_number(row, "hd95", 2) for row in found]
        lines.append((case, f"{means[case]:.4f}" if case in means else "–", *dice, *hd95))
    return lines


def _number(row: dict | None, key: str, digits: int) -> str:
    return "–" if row is None or np.isnan(row[key]) else f"{row[key]:.{digits}f}"


def _remark(row: dict | None) -> str:
    if row is None:
        return ""
    return " (missing)" if row["missing"] else " (spurious)" if row["spurious"] else ""
