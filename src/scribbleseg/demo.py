"""From nothing to a scored model in a few minutes: phantom, training, prediction, scores, report."""

from pathlib import Path
from typing import Any

from .config import Demo, Phantom, Predict, Train
from .core.console import tell
from .core.errors import InputError
from .data.synthetic.phantom import phantom
from .evaluation.scores import format_table, score_files, summarise, write_rows
from .inference.predict import predict
from .reporting.report import write_report
from .training.train import resume, train

METHODS = ("pce", "effdnet")
BUDGET: dict[str, Any] = {"iterations": 300, "size": 96, "optimizer": "adamw", "lr": 2e-3}


def demo(config: Demo) -> Path:
    """Train pCE and EFFDNet on the phantom with the same budget, print their table, return the path of the report.

    A demo that was stopped is continued. Raises InputError for a folder that holds a finished one, or anything else.
    """
    folder = config.run
    paths = folder.iterdir() if folder.exists() else ()
    held = {path.name for path in paths if not path.name.startswith(".")}
    if held - {"phantom", *METHODS}:
        raise InputError(
            f"{folder}: exists and is not empty. Remove it (`make demo` removes runs/demo), or choose another folder: "
            "scribbleseg demo --run FOLDER"
        )
    dataset = folder / "phantom"
    if not dataset.exists():
        phantom(Phantom(dataset))
    tables = {}
    for method in METHODS:
        run = folder / method
        if (run / "config.json").is_file():
            resume(run)
        else:
            train(Train(dataset, run, method=method, device=config.device, **BUDGET))
        predict(Predict((run,), dataset, run / "predictions", device=config.device))
        rows, *_ = score_files(run / "predictions", dataset / "labelsTr_dense")
        write_rows(run / "metrics.csv", rows)
        tables[method] = summarise(rows)
    for method, table in tables.items():
        tell(f"\n{method}, {table[0]['cases']} held-out cases, mean (sd):\n{format_table(table)}")
    path = write_report(folder / "effdnet", folder / "report.html")
    tell(f"\nreport: {path}")
    return path
