"""Time of a training step against the number of training slices.

python benchmarks/timing/growth.py [--size 256] [--method pce] [--times 1 10]

The slices are synthetic: as many as ACDC has (1902), and that number times each of --times, in memory and in a mapped
file. The script times the steps and not the reading of the slices. Writes growth-DEVICE-SIZE.csv and .md into
benchmarks/results.
"""

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch

from scribbleseg.core.device import peak_memory_mib, pick_device, pick_precision, prepare_cpu
from scribbleseg.core.environment import environment
from scribbleseg.core.labels import UNLABELED
from scribbleseg.data.voxels import Slices, Stack
from scribbleseg.methods import method_class
from scribbleseg.networks import build_network
from scribbleseg.training.optimizer import make_optimizer
from scribbleseg.training.sampling import make_sampler
from scribbleseg.training.step import Step

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, slug, write_csv, write_page

ACDC = 1902  # slices
COLUMNS = ("slices", "gib", "where", "seconds", "p95", "gather_seconds", "peak_memory_mib")


def make_slices(count: int, size: int, mapped: bool, folder: Path) -> Slices:
    """Noise with scribbles on a twentieth of the pixels."""
    generator = torch.Generator().manual_seed(0)
    stacks = [Stack(folder, 0 if mapped else float("inf")) for _ in range(2)]
    for at in range(0, count, 100):
        rows = min(100, count - at)
        image = torch.rand(rows, 1, size, size, generator=generator)
        label = torch.where(
            torch.rand(rows, size, size, generator=generator) < 0.05, (4 * image[:, 0]).long(), UNLABELED
        )
        for stack, part in zip(stacks, (image, label.to(torch.uint8))):
            stack.append(part)
    return Slices(*(stack.tensor() for stack in stacks), {}, None)


def measure(slices: Slices, where: str, method: str, device: torch.device, steps: int) -> dict:
    torch.manual_seed(0)
    kind = method_class(method)
    trained = kind(build_network(kind.network_name, 1, 4)).to(device, memory_format=torch.channels_last).train()
    step = Step(trained, make_optimizer(kind.recipe, trained, device), slices, pick_precision("auto", device))
    sampler = make_sampler(slices, kind.recipe.batch, 0)
    times, gathering = [], []
    for number in range(steps + 2):
        index, start = sampler(number), time.perf_counter()
        step(index, 0.5, 1e-3)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        middle = time.perf_counter()
        slices.take(sampler(steps + 2 + number))
        times.append(middle - start)
        gathering.append(time.perf_counter() - middle)
    times = sorted(times[2:])
    return {
        "slices": len(slices.label),
        "gib": round(sum(layer.nbytes for layer in slices.layers()) / 2**30, 2),
        "where": where,
        "seconds": statistics.median(times),
        "p95": times[round(0.95 * (steps - 1))],
        "gather_seconds": statistics.median(gathering),
        "peak_memory_mib": round(peak_memory_mib(device)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="rows and columns of a slice, pixels")
    parser.add_argument("--method", default="pce", help="method whose step is timed")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 10], help="numbers of slices, as multiples of 1902")
    parser.add_argument("--steps", type=int, default=20, help="steps to time")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="folder for the mapped file")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the tables")
    given = parser.parse_args()
    device = pick_device(given.device)
    prepare_cpu()
    torch.backends.cudnn.benchmark = True  # as in training
    given.folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for times in given.times:
        for where in ("mapped file", "memory"):  # the peak of memory only grows
            with tempfile.TemporaryDirectory(dir=given.folder) as folder:
                slices = make_slices(ACDC * times, given.size, where == "mapped file", Path(folder))
                if where == "memory":
                    slices = slices.to(device)
                lines.append(measure(slices, where, given.method, device, given.steps))
                print(lines[-1], flush=True)
                del slices
    machine = environment(device, pick_precision("auto", device))
    about = (
        f"{given.method}, {machine['device']}, {machine['precision']}, torch {machine['torch']}, {given.size}², commit "
        f"{machine['commit']}. Made by `python {shlex.join(sys.argv)}`. Median and 95 % of {given.steps} steps; "
        "gather: "
        "the slices of one batch, copied."
    )
    path = given.results / f"growth-{slug(machine['device'])}-{given.size}.md"
    write_csv(path.with_suffix(".csv"), lines, COLUMNS)
    rows = [[f"{line[key]:.3g}" if isinstance(line[key], float) else line[key] for key in COLUMNS] for line in lines]
    write_page(path, "# Time of a step against the number of slices", about, markdown_table(COLUMNS, rows))
    print(f"table: {path}")


if __name__ == "__main__":
    main()
