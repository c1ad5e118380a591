"""From nothing to a scored model in a few minutes: phantom, training, prediction, scores, report."""

from pathlib import Path

from .config import Demo, Evaluate, Phantom, Predict, Train
from .data.phantom import phantom
from .errors import InputError
from .evaluate import evaluate, format_table, summarise
from .predict import predict
from .report import write_report
from .train import train

METHODS = ("pce", "effdnet")
ITERATIONS, SIZE = 200, 96


def demo(config: Demo) -> Path:
    """Train pCE and EFFDNet on the phantom with the same budget, print both tables, return the report's path."""
    folder = Path(config.run)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: exists already and is not empty. Remove it, or choose another place: scribbleseg demo --run FOLDER")
    dataset = folder / "phantom"
    phantom(Phantom(dataset))
    for method in METHODS:
        run = folder / method
        train(Train(dataset, run, method=method, iterations=ITERATIONS, size=SIZE, device=config.device))
        predict(Predict(run, dataset, run / "predictions", device=config.device))
        evaluate(Evaluate(run / "predictions", dataset / "labelsTr_dense", out=run / "metrics.csv"))
    path = write_report(folder / "effdnet", folder / "report.html")
    print(f"report: {path}")
    return path
