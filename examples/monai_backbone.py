"""A network of MONAI under a scribble method, from data to scores, in Python.

    pip install '.[monai]'
    python examples/monai_backbone.py

The same on the command line: scribbleseg train DATASET RUN --network monai:AttentionUnet
"""

import tempfile
from pathlib import Path

from scribbleseg.config import Evaluate, Phantom, Predict, Train
from scribbleseg.data.synthetic.phantom import phantom
from scribbleseg.evaluation.scores import evaluate
from scribbleseg.inference.predict import predict
from scribbleseg.training.train import train


def main(
    folder: Path, network: str = "monai:AttentionUnet", cases: int = 6, size: int = 64, iterations: int = 60
) -> list[dict]:
    """Train on a small phantom, predict the held-out cases, print the table; returns its rows."""
    data, run = folder / "phantom", folder / "run"
    phantom(Phantom(data, cases=cases))
    train(Train(data, run, method="effdnet", network=network, size=size, iterations=iterations, batch=6, lr=0.03))
    predict(Predict(run, data, run / "predictions"))
    return evaluate(Evaluate(run / "predictions", data / "labelsTr_dense", out=run / "metrics.csv"))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
