"""The verb `report`: predict and score the held-out cases where needed, then write the page."""

import json
from pathlib import Path

from ..config import Predict, Report
from ..core.atomic import atomic_file
from ..core.console import say, tell
from ..core.json_file import read_json
from ..evaluation.scores import score_cases, write_rows
from ..inference.predict import predict
from ..inference.provenance import MADE_BY, checksum, is_folder, read_note
from ..training.run_folder import RunFolder
from .card import card
from .collect import Run, collect, not_found, open_run
from .page import render


def report(config: Report) -> Path:
    """Write RUN/report.html and RUN/model_card.md, and return the path of the page.

    Predictions and scores of the held-out cases are computed first where they are missing or outdated. Without dense
    masks predictions are shown without scores. What cannot be shown (no data set, no dense mask, no validation) is left
    out, and the page says why. Raises InputError for a folder that is not a run, and for files in it or in the data set
    that cannot be read.
    """
    path = write_report(config.run, config.run / "report.html", config.network)
    with atomic_file(config.run / "model_card.md") as partial:
        partial.write_text(card(open_run(config.run)), encoding="utf-8", errors="backslashreplace")
    tell(f"report: {path}")
    return path


def write_report(folder: Path, path: Path, network: str | None = None) -> Path:
    """The same with the page at `path`; returns it. network: as in `Report`."""
    run = open_run(folder)
    RunFolder(folder).check_links()
    if run.dataset is None and path.is_file():
        say(f"{folder}: {not_found(run)} The report that is there stays as it is.")
        return path
    if run.dataset is None:
        say(f"{folder}: {not_found(run)} The report shows no case, and no scores are computed.")
    elif run.finished and run.held_out and run.weights.is_file():
        update_scores(run, network)
    page = render(collect(run))
    with atomic_file(path) as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")  # a name that is no text
    return path


def update_scores(run: Run, network: str | None = None) -> None:
    """Predict the held-out cases again if a prediction is missing or of other weights than the run has now, and write
    metrics.csv again if it is missing or of other predictions or dense masks, as metrics.json says. Needs the data set.

    Predictions without a note are somebody's own; they and tables without metrics.json are compared by time.
    """
    assert run.dataset is not None
    judged = [case for case in run.held_out if case.truth is not None]
    folder, table = run.folder / "predictions", run.folder / "metrics.csv"
    predictions = run.predictions()
    files = [predictions.get(case.id) for case in judged or run.held_out]
    if not all(path is not None and _is_fresh(path, run) for path in files):
        named = () if network is None else (network,)
        predict(Predict((run.folder,), run.dataset.folder, folder, networks=named))
        predictions = run.predictions()
    sources = {case.id: [path for path in (predictions[case.id], case.truth) if path] for case in judged}
    scored = {case: [checksum(path) for path in paths] for case, paths in sources.items()}
    note = run.folder / "metrics.json"
    if note.is_file():
        known = table.is_file() and read_json(note, dict).get("scored") == scored
    else:
        newest = max((path.stat().st_mtime for paths in sources.values() for path in paths), default=0)
        known = table.is_file() and table.stat().st_mtime >= newest
    if judged and not known:
        rows = score_cases(run.dataset, judged, predictions)
        note.unlink(missing_ok=True)
        write_rows(table, rows)
    if judged and not (known and note.is_file()):
        with atomic_file(note) as partial:
            partial.write_text(json.dumps({"scored": scored}, indent=1) + "\n", encoding="utf-8")


def _is_fresh(path: Path, run: Run) -> bool:
    """Whether a prediction in RUN/predictions is of the weights that its note names, and these are those of now."""
    note = read_note(path.parent)
    if not note.weights_sha256:
        newest = max(file.stat().st_mtime for file in (run.weights, path.parent / MADE_BY) if file.is_file())
        return path.stat().st_mtime >= newest
    if path.name in note.made and note.made[path.name] != note.maker:
        return False
    weights = run.folder / f"{note.weights}.safetensors"
    of_now = [checksum(weights) if weights.is_file() else ""]
    own = [known for name, known in zip(note.runs, note.weights_sha256) if is_folder(name, run.folder)]
    return own in ([], of_now)
