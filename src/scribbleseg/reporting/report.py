"""The verb `report`: predict and score the held-out cases where needed, then write the page."""

from pathlib import Path

from ..config import Predict, Report
from ..core.atomic import atomic_file
from ..core.console import say
from ..evaluation.scores import score_cases, write_rows
from ..inference.predict import predict
from ..inference.provenance import MADE_BY
from .collect import Run, collect, not_found, open_run
from .page import render


def report(config: Report) -> Path:
    """Write RUN/report.html and return its path.

    Predictions and scores of the held-out cases are computed first where they are missing or outdated. Without dense
    masks predictions are shown without scores. What cannot be shown (no data set, no dense mask, no validation) is left
    out, and the page says why. Raises InputError for a folder that is not a run, and for files in it or in the data set
    that cannot be read.
    """
    path = write_report(config.run, config.run / "report.html")
    print(f"report: {path}")
    return path


def write_report(folder: Path, path: Path) -> Path:
    """The same with the page at `path`; returns it."""
    run = open_run(folder)
    if run.dataset is None:
        say(f"{folder}: {not_found(run)} The report shows no case, and no scores are computed.")
    elif run.finished and run.held_out and run.weights.is_file():
        update_scores(run)
    page = render(collect(run))
    with atomic_file(path) as partial:
        partial.write_text(page, encoding="utf-8")
    return path


def update_scores(run: Run) -> None:
    """Predict the held-out cases again if a prediction is missing or older than the weights or their note MADE_BY, and
    write metrics.csv again if it is missing or older than a prediction or a dense mask. Needs the data set."""
    assert run.dataset is not None
    judged = [case for case in run.held_out if case.truth is not None]
    folder, table = run.folder / "predictions", run.folder / "metrics.csv"
    newest = max(path.stat().st_mtime for path in (run.weights, folder / MADE_BY) if path.is_file())
    predictions = run.predictions()
    files = [predictions.get(case.id) for case in judged or run.held_out]
    if any(path is None or path.stat().st_mtime < newest for path in files):
        predict(Predict((run.folder,), run.dataset.folder, folder))
        predictions = run.predictions()
    sources = [path for case in judged for path in (predictions[case.id], case.truth) if path]
    if judged and not (table.is_file() and table.stat().st_mtime >= max(path.stat().st_mtime for path in sources)):
        write_rows(table, score_cases(run.dataset, judged, predictions))
