"""Time of a training step of every method and of its parts.

python benchmarks/timing/speed.py [--size 256] [--methods effdnet scn ...] [--compile] [--kernels]

The script measures each method in a process of its own, so that its peak memory is its own. It uses the phantom's
slices and the method's batch size and optimiser, and takes the step as `scribbleseg train` does (on CUDA recorded as a
graph; with --compile also compiled). One more process times the reference: the step of plain PyTorch (float32,
contiguous, eager). On a CPU only the ratios count: run the script on a machine that does nothing else.

After each method it writes benchmarks/results/speed-DEVICE-SIZE.csv and .md. The cost of single parts of SCN and
EFFDNet goes into speed-parts-DEVICE-SIZE.csv. Rows of methods that were not asked for, or that failed, stay there with
their commit. --kernels also writes the time of each kernel of a step, by PyTorch's profiler (CUDA's kernels; on a CPU
PyTorch's operations), into speed-kernels-DEVICE-SIZE-METHOD.csv.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from scribbleseg.config import Phantom
from scribbleseg.core.device import peak_memory_mib, pick_device, pick_precision, prepare_cpu
from scribbleseg.core.environment import environment
from scribbleseg.data.layout import read_dataset
from scribbleseg.data.reading import build_slices
from scribbleseg.data.synthetic.phantom import phantom
from scribbleseg.losses import correlation as scn
from scribbleseg.losses.separation import foreground_augmentation, foreground_background_separation
from scribbleseg.methods import METHODS, method_class
from scribbleseg.methods.targets import kept_targets
from scribbleseg.networks import build_network
from scribbleseg.training.optimizer import make_optimizer
from scribbleseg.training.sampling import make_sampler
from scribbleseg.training.step import Step

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, read_csv, slug, write_csv, write_page

PARTS = ("data", "networks", "terms", "backward", "optimizer")
COLUMNS = (
    "method",
    "commit",
    "batch",
    "kind",
    "seconds",
    "p95",
    "slowest",
    "images_per_second",
    *PARTS,
    "reference_seconds",
    "eager_seconds",
    "compiled_seconds",
    "compile_warm_up",
    "peak_memory_mib",
)


class Steps:
    """One method on one device: steps, and how long their parts take."""

    def __init__(
        self,
        name: str,
        dataset: Path,
        size: int,
        device: torch.device,
        dtype: torch.dtype,
        layout=torch.channels_last,
        **kind,
    ):
        torch.manual_seed(0)
        method_kind = method_class(name)
        data = read_dataset(dataset)
        self.name, self.recipe, self.device = name, method_kind.recipe, device
        self.method = method_kind(build_network(method_kind.network_name, len(data.channels), len(data.classes)))
        slices, _ = build_slices(data, tuple(data.cases), kept_targets(self.method, data.folder / ".scribbleseg"), size)
        self.method.to(device, memory_format=layout).train()
        self.step = Step(
            self.method,
            make_optimizer(self.recipe, self.method, device),
            slices.to(device),
            dtype,
            layout=layout,
            **kind,
        )
        self.sampler = make_sampler(slices, self.recipe.batch, 0)

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def take(self):
        self.step(self.sampler(self.step.taken), 0.5, self.recipe.lr)

    def seconds(self, steps: int, together: int) -> list[float]:
        """Seconds of a step, `together` of them between two looks at the clock."""
        times = []
        for _ in range(steps):
            start = self.now()
            for _ in range(together):
                self.take()
            times.append((self.now() - start) / together)
        return times

    def parts(self, steps: int) -> dict[str, float]:
        """Mean seconds of each part: in all networks' forward passes, in what the method computes beside them, and so
        on."""
        spent = dict.fromkeys(PARTS, 0.0)
        for _ in range(steps):
            clock = [self.now()]
            batch = self.step.draw(0.5)
            clock.append(self.now())
            with self.inside_networks() as networks:
                loss = torch.stack(list(self.step.forward(batch, 0.5).values())).sum()
                clock.append(self.now())
            loss.backward()
            clock.append(self.now())
            self.step.update()
            self.step.optimizer.zero_grad()
            clock.append(self.now())
            data, forward, backward, optimizer = (after - before for before, after in pairwise(clock))
            for part, value in zip(PARTS, (data, networks[0], forward - networks[0], backward, optimizer)):
                spent[part] += value / steps
        return spent

    @contextmanager
    def inside_networks(self):
        """Adds up the time spent in the forward passes of `method.network` and its like (a teacher, a second
        network)."""
        kind, total, depth = type(self.method.network), [0.0], [0]
        names = [
            name
            for name in ("forward", "encode", "decoder_maps", "features_and_logits", "branches")
            if name in vars(kind)
        ]
        kept = {name: vars(kind)[name] for name in names}

        def timed(function):
            def call(*given, **named):
                depth[0] += 1
                start = self.now() if depth[0] == 1 else 0.0
                try:
                    return function(*given, **named)
                finally:
                    depth[0] -= 1
                    if not depth[0]:
                        total[0] += self.now() - start

            return call

        for name, function in kept.items():
            setattr(kind, name, timed(function))
        try:
            yield total
        finally:
            for name, function in kept.items():
                setattr(kind, name, function)


def single_parts(steps: Steps, times: int) -> dict[str, float]:
    """Median seconds of what SCN and EFFDNet compute beside the networks, on the inputs of a step; a loss with its
    backward pass."""
    if steps.name not in ("scn", "effdnet"):
        return {}
    method, batch = steps.method, steps.step.draw(0.5)

    def loss(function, *given):
        leaf = given[0].detach().requires_grad_()
        terms = function(leaf, *given[1:])
        sum(terms if isinstance(terms, tuple) else (terms,)).backward()

    with torch.autocast(steps.device.type, steps.step.dtype, enabled=steps.step.dtype != torch.float32):
        features, logits = method.network.features_and_logits(batch.image)
        probs = logits.detach().softmax(1)
        pseudo = probs.max(1).indices
        if steps.name == "scn":
            maps, *_ = method.network.maps_features_and_logits(batch.image)
            own = maps[method.stride]
            correlation = method.correlation(maps).detach()
            size = [side // method.stride for side in batch.label.shape[1:]]
            threshold = torch.full((), 0.5, device=steps.device)  # at .85 an untrained network has no confident pixel
            mask = probs.amax(1) > threshold
            pieces = {
                "correlation map": lambda: scn.correlation_map(method.query(own), method.key(own)),
                "PAP": lambda: scn.propagate(correlation, torch.nn.functional.avg_pool2d(probs, method.stride)),
                "RSR": lambda: scn.region_refinement(
                    scn.draw_rows(correlation, method.rows).unflatten(2, size), pseudo, mask, threshold, logits.shape[1]
                ),
                "CGTM": lambda: scn.update_threshold(threshold, probs),
                "CACL": lambda: loss(scn.class_contrast, features, batch.label, pseudo, logits.shape[1]),
            }
        else:
            pieces = {
                "FBSL": lambda: loss(
                    foreground_background_separation, features, batch.label, method.blocks, method.temperature
                ),
                "FADC": lambda: foreground_augmentation(batch.image, batch.label, pseudo),
            }
        found = {}
        for name, piece in pieces.items():
            spent = []
            for _ in range(times + 1):
                start = steps.now()
                piece()
                spent.append(steps.now() - start)
            found[name] = statistics.median(spent[1:])
    return found


def kernels(steps: Steps, times: int) -> list[dict]:
    """What a step's time is spent in, the longest first: seconds and calls of a step; the last line is the step by the
    clock, with the sum of the calls."""
    cuda = steps.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        whole = statistics.mean(steps.seconds(1, times))
    time_of = "self_device_time_total" if cuda else "self_cpu_time_total"
    found = [
        {"name": event.key, "seconds": getattr(event, time_of) / 1e6 / times, "calls": event.count / times}
        for event in profiler.key_averages()
    ]
    found = sorted((line for line in found if line["seconds"]), key=lambda line: -line["seconds"])
    return [*found, {"name": "by the clock", "seconds": whole, "calls": sum(line["calls"] for line in found)}]


def measure(
    name: str, dataset: Path, size: int, device: torch.device, steps: int, compiled: bool, profiled: bool = False
) -> dict:
    """A line of the table."""
    cuda = device.type == "cuda"
    together, dtype = 20 if cuda else 1, pick_precision("auto", device)

    def median(count, warm_up=3, **kind):
        """The middle step of `count`, and what the first one took."""
        bench = Steps(name, dataset, size, device, **{"dtype": dtype, **kind})
        first = bench.seconds(1, 1)[0]
        bench.seconds(1, warm_up + 2 * cuda)  # a recording is the fourth step
        return bench, sorted(bench.seconds(count, together)), first

    prepare_cpu()
    torch.backends.cudnn.benchmark = True  # as in training
    bench, times, _ = median(steps, recorded=cuda)
    line = {"method": name, "batch": bench.recipe.batch, "kind": bench.step.kind}
    line |= {"seconds": statistics.median(times), "p95": times[round(0.95 * (steps - 1))], "slowest": times[-1]}
    line["images_per_second"] = bench.recipe.batch / line["seconds"]
    line["peak_memory_mib"] = peak_memory_mib(device)
    if cuda:
        bench, times, _ = median(max(3, steps // 3))
        line["eager_seconds"] = statistics.median(times)
    line |= bench.parts(max(3, steps // 3))
    line["single_parts"] = single_parts(bench, max(3, steps // 3))
    if compiled:
        bench, times, line["compile_warm_up"] = median(steps, compiled=True, recorded=cuda)
        line["compiled_seconds"] = statistics.median(times)
    elif profiled and cuda:
        bench, _, _ = median(1, recorded=True)
    if profiled:
        line["kernels"] = [{"step": bench.step.kind, **part} for part in kernels(bench, 20 if cuda else 3)]
    return line


def measure_plain(name: str, dataset: Path, size: int, device: torch.device, steps: int) -> float:
    """Median seconds of the step as plain PyTorch has it: float32, contiguous, eager, memory and denormals as they
    are."""
    bench = Steps(name, dataset, size, device, torch.float32, torch.contiguous_format)
    together = 20 if device.type == "cuda" else 1
    bench.seconds(1, 2)
    return statistics.median(bench.seconds(max(3, steps // 3), together))


def eager(line: dict) -> float:
    """Seconds of the step that the parts are of: on CUDA `seconds` is a recording's."""
    return line.get("eager_seconds", line["seconds"])


def table(lines: list[dict]) -> str:
    """Markdown: seconds, the parts as shares of a step, and how many times faster than the plain step."""
    head = ["method", "commit", "batch", "step", "s / step", "95 %", "slowest", "images / s"]
    head += [*(f"{part} %" for part in PARTS), "plain fp32 s", "times faster", "eager s"]
    rows = []
    for line in lines:
        whole = sum(line[part] for part in PARTS)
        cells = [line["method"], line["commit"] or "–", line["batch"], line["kind"]]
        cells += [f"{line[key]:.3g}" for key in ("seconds", "p95", "slowest", "images_per_second")]
        cells += [f"{100 * line[part] / whole:.1f}" for part in PARTS]
        cells += [f"{line['reference_seconds']:.3g}", f"{line['reference_seconds'] / line['seconds']:.1f}"]
        cells += [f"{line['eager_seconds']:.3g}" if "eager_seconds" in line else "–"]
        compiled = "compiled_seconds" in line
        cells += [f"{line['compiled_seconds']:.3g} ({line['compile_warm_up']:.0f})" if compiled else "–"]
        rows.append([*cells, round(line["peak_memory_mib"])])
    text = markdown_table([*head, "compiled s (warm-up)", "peak MiB"], rows)
    singles = [
        [line["method"], part, f"{s:.4f}", f"{100 * s / eager(line):.1f}"]
        for line in lines
        for part, s in line["single_parts"].items()
    ]
    if singles:
        below = markdown_table(["method", "part", "s", "% of an eager step"], singles)
        text += f"\n\nWhat single parts take (a loss with its backward pass), eager:\n\n{below}"
    return text


def read(results: Path, place: str) -> list[dict]:
    """The rows that are there already."""
    lines: list[dict] = [
        {
            key: value if key in ("method", "commit", "kind") else float(value)
            for key, value in row.items()
            if value or key == "commit"
        }
        for row in read_csv(results / f"speed-{place}.csv")
    ]
    singles = read_csv(results / f"speed-parts-{place}.csv")
    for line in lines:
        line["batch"] = int(line["batch"])
        own = [single for single in singles if single["method"] == line["method"]]
        line["single_parts"] = {single["part"]: float(single["seconds"]) for single in own}
    return lines


def write(results: Path, place: str, lines: list[dict], about: str) -> None:
    """The CSV files and the table, after each method, because what comes after may be cut off."""
    write_csv(results / f"speed-{place}.csv", lines, COLUMNS)
    singles = [
        {"method": line["method"], "part": part, "seconds": f"{s:.5f}", "share_of_step": f"{s / eager(line):.4f}"}
        for line in lines
        for part, s in line["single_parts"].items()
    ]
    write_csv(results / f"speed-parts-{place}.csv", singles, ("method", "part", "seconds", "share_of_step"))
    write_page(results / f"speed-{place}.md", "# Time of a training step", about, table(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="rows and columns of a slice, pixels")
    parser.add_argument("--steps", type=int, default=12, help="steps to time")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS, help="methods to measure")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--compile", action="store_true", help="also measure with torch.compile")
    parser.add_argument(
        "--kernels", action="store_true", help="also profile the step (the compiled one, with --compile)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the tables")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # the data set, in the process of one method
    parser.add_argument("--plain", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = pick_device(given.device)
    if given.worker and given.plain:
        print(measure_plain(given.methods[0], given.worker, given.size, device, given.steps))
        return
    if given.worker:
        print(
            json.dumps(
                measure(given.methods[0], given.worker, given.size, device, given.steps, given.compile, given.kernels)
            )
        )
        return
    machine = environment(device, pick_precision("auto", device))
    name = machine["device"]
    about = (
        f"{name}, {machine['precision']}, torch {machine['torch']}, {given.size}². Median of {given.steps} × "
        f"{20 if device.type == 'cuda' else 1} steps; parts from steps of their own. Made by `python "
        f"{shlex.join(sys.argv[:1])} --size {given.size}`. `networks`: forward passes of student and teacher; `terms`: "
        "what the method computes beside them; `plain fp32`: the same step in float32 (on CUDA with PyTorch's default, "
        "convolutions in TF32), contiguous, eager, in a process of its own that leaves memory and denormals to the "
        "defaults; on CUDA the parts are of the eager step; memory on a CPU is the process's."
    )
    place = f"{slug(name)}-{given.size}"
    kept, failed = {line["method"]: line for line in read(given.results, place)}, []
    with tempfile.TemporaryDirectory() as folder:
        dataset = Path(folder) / "phantom"
        phantom(Phantom(dataset, cases=12))
        for name in given.methods:
            command = [sys.executable, __file__, "--worker", dataset, "--methods", name, "--size", given.size]
            command += ["--steps", given.steps, "--device", given.device]
            try:
                ours, plain = (
                    json.loads(
                        subprocess.run(
                            [*map(str, command), *flags], stdout=subprocess.PIPE, text=True, check=True
                        ).stdout
                    )
                    for flags in (["--compile"] * given.compile + ["--kernels"] * given.kernels, ["--plain"])
                )
            except subprocess.CalledProcessError as error:
                failed.append(f"{name} (exit code {error.returncode})")
                continue
            kept[name] = {**ours, "reference_seconds": plain, "commit": machine["commit"]}
            print(
                f"{name}: {ours['seconds']:.3g} s a step, {plain / ours['seconds']:.1f} times faster than plain fp32",
                flush=True,
            )
            if given.kernels:
                path = given.results / f"speed-kernels-{place}-{name}.csv"
                write_csv(path, ours["kernels"], ("step", "name", "seconds", "calls"))
            write(given.results, place, [kept[method] for method in METHODS if method in kept], about)
    if kept:
        print(f"table: {given.results / f'speed-{place}.md'}")
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
