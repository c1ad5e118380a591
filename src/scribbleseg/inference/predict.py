"""The verb `predict`. A prediction has its image's shape, affine and header; several runs are averaged."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from ..config import Predict
from ..core.console import say
from ..core.device import pick_device, prepare_cpu
from ..core.errors import InputError, first_names
from ..core.parallel import ahead
from ..core.progress import Progress
from ..data.nifti import AS_ITK, two_places
from ..data.volume import Grid, write_volume
from .guard import check_outputs, output_files
from .inputs import Job, list_jobs
from .models import load_models, trained_on
from .pieces import keep_largest
from .probabilities import Segmented, segment
from .provenance import MADE_BY, checksum, write_note
from .scan import read_scan

LARGE = 2**25  # voxels of a volume whose slices are counted while it is segmented: 128 of 512 × 512


def predict(config: Predict) -> list[Path]:
    """Segment a file, a folder or the held-out cases of a data set; returns the volumes written.

    A folder of predictions also gets made_by.json. Raises InputError, before anything is written, for runs that do not
    belong together and for files that must not be replaced; and for an image that cannot be read, before anything of
    that case is written.
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
        "largest": config.largest,
        "weights_sha256": [model.sha256 for model in models],
    }
    done: list[Job] = []
    twice: list[str] = []

    def write(job: Job, found: Segmented, grid: Grid, began_ns: int | None) -> None:
        maps = [*(() if found.probs is None else found.probs), *(() if found.entropy is None else [found.entropy])]
        for path, array in zip(outputs[job], [found.label, *maps], strict=True):

            def note(partial: Path, name: str = path.name) -> None:
                write_note(folder, said, {name: checksum(partial)}, began_ns)

            if noted:
                write_volume(path, array, grid, complete=note)
            else:
                write_volume(path, array, grid)
        done.append(job)

    # reading, network and writing overlap; at most four volumes are in memory
    try:
        with (
            ThreadPoolExecutor(1) as reader,
            ThreadPoolExecutor(1) as writer,
            Progress("predicting", len(jobs), "cases") as bar,
        ):
            writing: list[Future] = []
            began_ns = None
            for job, scan in zip(jobs, ahead(reader, lambda job: read_scan(job.images, models), jobs, 2)):
                try:
                    large = scan.images[0][0].size > LARGE
                    name, slices = job.images[0].name, scan.images[0].shape[1]
                    with Progress(name, slices, "slices", shown=large) as counted:
                        found = segment(
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
                        f"{job.images[0]}: the network's output for it is {error}. Nothing was written of this case. "
                        "Check the weights of the run, or try --device cpu."
                    ) from error
                if two_places(scan.grid.header):
                    twice.append(job.images[0].name)
                if config.largest:
                    keep_largest(found.label)
                if noted and job is jobs[0]:  # the note is older than the predictions that it is about
                    began_ns = write_note(folder, said)
                writing.append(writer.submit(write, job, scan.placed(found), scan.grid, began_ns))
                if len(writing) > 1:
                    writing.pop(0).result()
                bar.advance()
            for future in writing:
                future.result()
    finally:
        if twice:
            say(f"{first_names(twice)}: {AS_ITK}. The masks keep both places")
        if 0 < len(done) < len(jobs):
            say(f"{len(done)} of {len(jobs)} cases were predicted and written, the last one to {done[-1].output}")
    return [path for job in jobs for path in outputs[job]]


def _warn_of_known(jobs: Sequence[Job], known: set[Path]) -> None:
    images = {path.resolve() for job in jobs for path in job.images}
    if seen := images & known:
        count = f"{len(seen)} of {len(images)} image{'s' * (len(images) != 1)}"
        say(f"the run was trained on {count} ({min(seen)}): scores on them say nothing about new scans")
