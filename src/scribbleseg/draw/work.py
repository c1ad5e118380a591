"""One update in a process of its own, `python -m scribbleseg.draw FOLDER`: train, then predict the cases one by one."""

import json
from functools import partial
from pathlib import Path

from ..config import Predict, Train
from ..core.atomic import atomic_file
from ..core.console import say
from ..core.errors import InputError
from ..core.json_file import read_json
from ..data.layout import read_description
from ..data.volume import read_volume
from ..inference.predict import predict
from ..training.locate import seconds_of
from ..training.machine import Machine
from ..training.outlook import time_step
from ..training.plan import Plan, read_plan
from ..training.train import train
from .folder import link_or_copy
from .predictions import FAILED

FEWEST = 50  # iterations


def main(folder: Path) -> int:
    """Do the update that FOLDER/job.json describes. Exit code 0, 2 (bad input) or 130 (stopped)."""
    job = read_json(folder / "job.json")
    try:
        config = Train(folder / "data", folder / "run", **job["train"])
        seconds = job["seconds"]
        how = partial(affordable, seconds=seconds, continued=config.init is not None)
        train(config, None if seconds is None else how)
        failed = {}
        for case, images in job["images"].items():
            try:
                predict_case(folder, case, [Path(path) for path in images])
            except InputError as error:
                failed[case] = str(error)
        _write_json(folder / FAILED, failed)
    except InputError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def affordable(plan: Plan, machine: Machine, seconds: float, continued: bool = False) -> int:
    """How many iterations this machine makes in `seconds`: at least FEWEST, at most those of the plan.

    A step of the plan is timed before. Where slices are cut to rings, what finds them is trained in these seconds too;
    a run that is `continued` trains it a quarter as long.
    """
    if plan.fitted.locate:
        seconds -= seconds_of(len(plan.channels), plan.recipe.iterations) / (4 if continued else 1)
    step = time_step(plan, machine)
    return min(max(int(seconds / step), FEWEST), plan.recipe.iterations)


def predict_case(folder: Path, case: str, images: list[Path]) -> None:
    """Write the mask, the entropy map and, last of all, the mean entropy of each slice."""
    place = folder / "images" / case
    place.mkdir(parents=True)
    for path in images:
        link_or_copy(path, place / path.name)
    *_, entropy = predict(Predict((folder / "run",), place, folder / "predictions", uncertainty=True))
    shown = read_description(read_plan(folder / "run")[0].dataset / "dataset.json")[0].plane or "spacing"
    means = [float(plane.mean()) for plane in read_volume(entropy, plane=shown)[0]]
    _write_json(folder / "uncertainty" / f"{case}.json", means)


def _write_json(path: Path, value: object) -> None:
    with atomic_file(path) as partial:
        partial.write_text(json.dumps(value) + "\n", encoding="utf-8")
