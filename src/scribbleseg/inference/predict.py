"""The verb `predict`. A prediction has its image's shape, affine and header; several runs are averaged."""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import torch

from ..config import Predict
from ..core.console import say
from ..core.device import pick_device, prepare_cpu
from ..core.errors import InputError, counted, first_names, some_failed
from ..core.parallel import ahead
from ..core.progress import Progress
from ..data.nifti import AS_ITK, two_places
from ..data.volume import Grid, check_room, write_volume
from .guard import check_outputs, output_files
from .inputs import Job, list_jobs
from .models import Model, load_models, trained_on
from .pieces import keep_largest
from .probabilities import Segmented, averaged, segment
from .provenance import MADE_BY, checksum, write_note
from .scan import Scan, read_scan

LARGE = 2**25  # voxels of a volume whose slices are counted while it is segmented: 128 of 512 × 512


def predict(config: Predict) -> list[Path]:
    """Segment a file, a folder or the held-out cases of a data set; returns the volumes written.

    A folder of predictions also gets made_by.json. Raises InputError, before anything is written, for runs that do not
    belong together and for files that must not be replaced. A case that cannot be read or segmented does not stop the
    others: nothing is written of it, and InputError names it after they are written.
    """
    source, output = Path(config.input), Path(config.output)
    if not config.runs:
        lacking = "OUTPUT" if (source / "config.json").is_file() else "RUN"
        raise InputError(f"{source}, {output}: {lacking} is missing. Expected RUN [RUN ...] INPUT OUTPUT.")
    if config.batch < 1:
        raise InputError(f"--batch {config.batch}: expected 1 or more slices.")
    device = pick_device(config.device)
    prepare_cpu()
    models = load_models(config.runs, config.weights, device, config.networks)
    jobs = list_jobs(source, output, [model.plan for model in models])
    _warn_of_known(jobs, trained_on(models))
    classes = models[0].plan.classes
    outputs = {job: output_files(job, classes, config.probabilities, config.uncertainty) for job in jobs}
    check_outputs(source, outputs, config.overwrite)
    folder = jobs[0].output.parent.resolve()
    noted = not source.is_file() or (folder / MADE_BY).is_file()  # no note beside a single file among the user's own
    said = {
        "runs": [str(run) for run in config.runs],
        "weights": config.weights,
        "iterations": [model.iteration for model in models],
        "tta": config.tta,
        "averaged": " and ".join(sorted({averaged(model.plan) for model in models})) if config.tta else "",
        "largest": config.largest,
        "weights_sha256": [model.sha256 for model in models],
    }
    twice: list[str] = []
    failed: list[str] = []
    written = _Writer(outputs, folder, said if noted else None)

    # reading, network and writing overlap; at most four volumes are in memory
    try:
        with (
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(1) as writer,
            Progress("predicting", len(jobs), "cases") as bar,
        ):
            writing: list[Future] = []
            for job, scan in zip(jobs, ahead(reader, partial(_read, models=models), jobs, 2)):
                try:
                    if isinstance(scan, InputError):
                        raise scan
                    found = _segment_scan(models, scan, job.images[0], device, config)
                except InputError as error:
                    failed.append(str(error))
                else:
                    if two_places(scan.grid.header):
                        twice.append(job.images[0].name)
                    if config.largest:
                        keep_largest(found.label)
                    written.begin()
                    writing.append(writer.submit(written.write, job, scan.placed(found), scan.grid))
                    if len(writing) > 1:
                        writing.pop(0).result()
                bar.advance()
            for future in writing:
                future.result()
    finally:
        if twice:
            say(f"{first_names(twice)}: {AS_ITK}. The masks keep both places")
        if 0 < len(written.done) < len(jobs) - len(failed):
            count = f"{len(written.done)} of {counted(len(jobs), 'case')}"
            say(f"predicted and written: {count}; the last one: {written.done[-1].output}")
    if failed:
        raise InputError(some_failed(failed, len(jobs), "predicted"))
    return [path for job in jobs for path in outputs[job]]


def _read(job: Job, models: Sequence[Model]) -> Scan | InputError:
    """The scan, or why there is none: raised later, so that the others are predicted."""
    try:
        scan = read_scan(job.images, models)
        check_room(job.output, scan.grid)
        return scan
    except InputError as error:
        return error


def _segment_scan(models: Sequence[Model], scan: Scan, image: Path, device: torch.device, config: Predict) -> Segmented:
    """The mask of a scan, and the maps that are asked for. Raises InputError for an output that is not finite."""
    large = scan.images[0][0].size > LARGE
    try:
        with Progress(image.name, scan.images[0].shape[1], "slices", shown=large) as counted:
            return segment(
                models,
                scan.images,
                scan.grid.spacing_mm,
                device,
                config.batch,
                config.tta,
                config.probabilities,
                config.uncertainty,
                counted.advance,
            )
    except ValueError as error:
        raise InputError(
            f"{image}: the network's output for it is {error}. Nothing was written of this case. "
            "Check the weights of the run, or try --device cpu."
        ) from error


class _Writer:
    """Writes mask and maps of one case after the other. `said`: the head of the note beside them; None: no note."""

    def __init__(self, outputs: Mapping[Job, Sequence[Path]], folder: Path, said: dict | None):
        self.outputs, self.folder, self.said = outputs, folder, said
        self.began_ns: int | None = None
        self.done: list[Job] = []

    def begin(self) -> None:
        """Write the note once, before the predictions that it is about."""
        if self.said is not None and self.began_ns is None:
            self.began_ns = write_note(self.folder, self.said)

    def write(self, job: Job, found: Segmented, grid: Grid) -> None:
        maps = [*(() if found.probs is None else found.probs), *(() if found.entropy is None else [found.entropy])]
        for path, array in zip(self.outputs[job], [found.label, *maps], strict=True):
            write_volume(path, array, grid, complete=partial(self._note, path.name))
        self.done.append(job)

    def _note(self, name: str, file: Path) -> None:
        if self.said is not None:
            write_note(self.folder, self.said, {name: checksum(file)}, self.began_ns)


def _warn_of_known(jobs: Sequence[Job], known: set[Path]) -> None:
    seen = [job.images[0] for job in jobs if any(path.resolve() in known for path in job.images)]
    if seen:
        count = f"{len(seen)} of {counted(len(jobs), 'case')}"
        say(f"the run was trained on {count} ({seen[0]}): scores on them say nothing about new scans")
