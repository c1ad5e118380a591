"""Time of prediction, import and random walker, on one core and on all cores.

python benchmarks/timing/throughput.py --source NAME FOLDER [--dataset datasets/acdc]

NAME and FOLDER are those of `scribbleseg import`, such as acdc or wsl4mis. Every line comes from a process of its own
that is bound to that number of cores. If a network is needed, it is an untrained U-Net at 256². Run the script on a
machine that does nothing else. Writes benchmarks/results/throughput-DEVICE.csv and .md.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from scribbleseg.config import Import, Predict, Train
from scribbleseg.core.device import pick_device, pick_precision
from scribbleseg.core.environment import environment
from scribbleseg.data.case import load_image
from scribbleseg.data.importers import import_dataset
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.reading import build_slices
from scribbleseg.data.volume import Grid, write_volume
from scribbleseg.inference.models import Model, load_models
from scribbleseg.inference.predict import predict
from scribbleseg.inference.probabilities import mean_probs
from scribbleseg.methods.rw import RandomWalker
from scribbleseg.methods.targets import kept_targets
from scribbleseg.networks import build_network
from scribbleseg.training.train import train

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, slug, write_csv, write_page

FOLDER, REPEATS, WALKED = 100, 7, 20  # volumes in the folder; predictions of one volume; cases for the random walker
COLUMNS = ("what", "cores", "items", "seconds", "per_item", "times_faster", "note")


def timed(function, *given):
    start = time.perf_counter()
    result = function(*given)
    return time.perf_counter() - start, result


def one_volume(run: Path, images: Path, out: Path) -> dict:
    """A volume of ten slices, file to file, weights read anew each time, after a first one."""
    volume = next(path for path in sorted(images.iterdir()) if len(load_image((path,))[0][0]) == 10)
    times = [timed(predict, Predict(run, volume, out / "one.nii.gz", overwrite=True))[0] for _ in range(REPEATS + 1)][
        1:
    ]
    return {
        "what": "predict a volume of 10 slices",
        "items": 1,
        "seconds": statistics.median(times),
        "note": f"slowest of {REPEATS}: {max(times):.2f} s",
    }


def all_probs(model: Model, image: np.ndarray, grid: Grid) -> list[np.ndarray]:
    return list(mean_probs([model], [image], grid.spacing_mm, pick_device("cpu")))


def folder(run: Path, images: Path, out: Path) -> dict:
    """A folder of volumes; and what reading, network and writing take of it one after the other."""
    some = out / "images"
    some.mkdir()
    for path in sorted(images.iterdir())[:FOLDER]:
        shutil.copyfile(path, some / path.name)
    predict(Predict(run, next(some.iterdir()), out / "warm.nii.gz"))
    whole, _ = timed(predict, Predict(run, some, out / "found"))
    (model,) = load_models((run,), "last", pick_device("cpu"))
    spent = np.zeros(3)
    for path in sorted(some.iterdir()):
        reading, (image, grid) = timed(load_image, (path,))
        network, parts = timed(all_probs, model, image, grid)
        writing, _ = timed(write_volume, out / path.name, np.concatenate(parts, 1).argmax(0).astype(np.uint8), grid)
        spent += reading, network, writing
    parts = " + ".join(f"{seconds:.1f}" for seconds in spent)
    return {
        "what": "predict a folder of volumes",
        "items": len(list(some.iterdir())),
        "seconds": whole,
        "note": f"one after the other: reading {parts} writing = {spent.sum():.1f} s",
    }


def walker(dataset_folder: Path, out: Path) -> dict:
    """Reading and solving, nothing in the cache."""
    dataset = replace(read_dataset(dataset_folder), folder=out)
    cases = tuple(sorted(dataset.cases))[:WALKED]
    method = RandomWalker(build_network("unet", 1, len(dataset.classes)))
    seconds, (slices, _) = timed(build_slices, dataset, cases, kept_targets(method, out / ".scribbleseg"), 256)
    return {
        "what": "read cases and solve the random walker",
        "items": len(slices.label),
        "seconds": seconds,
        "note": f"items: slices, of {len(cases)} cases",
    }


def importing(name: str, source: str, out: Path) -> dict:
    seconds, _ = timed(import_dataset, Import(name, Path(source), out / name))
    dataset = read_dataset(out / name)
    count = len(dataset.cases | dataset.tests)
    return {
        "what": f"import {name}",
        "items": count,
        "seconds": seconds,
        "note": "every file is read, checked and copied",
    }


def write(path: Path, lines: list[dict], about: str) -> None:
    """The CSV file and the table of what is measured so far."""
    write_csv(path.with_suffix(".csv"), lines, COLUMNS)
    rows = []
    for line in lines:
        numbers = [f"{line['seconds']:.3g}", f"{line['per_item']:.3g}", f"{line['times_faster']:.2f}"]
        rows.append([line["what"], line["items"], line["cores"], *numbers, line["note"]])
    head = ["what", "items", "cores", "s", "s per item", "faster than one core", "note"]
    write_page(path, "# Prediction, import, random walker", about, markdown_table(head, rows))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", nargs=2, metavar=("NAME", "FOLDER"), required=True, help="a source to import")
    parser.add_argument("--dataset", type=Path, default=Path("datasets/acdc"), help="data set to predict")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the tables")
    parser.add_argument("--worker", nargs=3, metavar=("WHAT", "CORES", "RUN"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    images = given.dataset / "imagesTr"
    if given.worker:
        what, cores, run = given.worker[0], int(given.worker[1]), Path(given.worker[2])
        torch.set_num_threads(cores)
        with tempfile.TemporaryDirectory(dir=run.parent) as out:
            out = Path(out)
            line = {
                "volume": lambda: one_volume(run, images, out),
                "folder": lambda: folder(run, images, out),
                "walker": lambda: walker(given.dataset, out),
                "import": lambda: importing(*given.source, out),
            }[what]()
        print(json.dumps({**line, "cores": cores}))
        return
    machine = environment(pick_device("cpu"), pick_precision("auto", pick_device("cpu")))
    about = (
        f"{machine['device']}, {machine['precision']}, torch {machine['torch']}, commit {machine['commit']}. Made by "
        f"`python {shlex.join(sys.argv[:1])} --source {given.source[0]} FOLDER`."
    )
    path = given.results / f"throughput-{slug(machine['device'])}.md"
    lines, allowed = [], sorted(os.sched_getaffinity(0))
    for source in Path(given.source[1]).rglob("*"):
        if source.is_file():
            source.read_bytes()  # into the page cache, for the first worker as for the last
    with tempfile.TemporaryDirectory() as scratch:
        run = train(Train(given.dataset, Path(scratch) / "run", method="pce", iterations=1, batch=2, split="cv5"))
        for what in ("volume", "folder", "walker", "import"):
            for cores in dict.fromkeys((1, len(allowed))):
                command = [
                    sys.executable,
                    __file__,
                    "--source",
                    *given.source,
                    "--dataset",
                    given.dataset,
                    "--worker",
                    what,
                    cores,
                    run,
                ]
                bind = partial(os.sched_setaffinity, 0, allowed[:cores])
                found = subprocess.run(
                    list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True, preexec_fn=bind
                )
                line = json.loads(found.stdout.splitlines()[-1])
                alone = line if cores == 1 else lines[-1]
                lines.append(
                    {
                        **line,
                        "per_item": line["seconds"] / line["items"],
                        "times_faster": alone["seconds"] / line["seconds"],
                    }
                )
                print(lines[-1], flush=True)
                write(path, lines, about)
    print(f"table: {path}")


if __name__ == "__main__":
    main()
