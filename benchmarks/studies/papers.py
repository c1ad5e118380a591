"""Train at the papers' length, one run after the other: python benchmarks/studies/papers.py [--minutes N] [--status]

SCN on MSCMR, SCN on ACDC's split 622, EFFDNet on fold 0 of ACDC. The script carries on the first that is not finished
and says how far each one is. A finished run is predicted and scored, and its scores go to benchmarks/results/paper.

At each fifth of a run the script also writes a small state to benchmarks/results/paper/state, which is committed: what
the method holds, in half precision, without the optimiser's moments and without teachers, which start again as copies
of the network. On a machine without the run's folder it is carried on from there.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from scribbleseg.bench.plan import Job, read_bench_plan
from scribbleseg.bench.run import run_job
from scribbleseg.bench.store import read_records
from scribbleseg.config import Bench
from scribbleseg.core.atomic import atomic_file
from scribbleseg.data.layout import read_dataset
from scribbleseg.methods import method_class
from scribbleseg.networks import build_network
from scribbleseg.training.average import Average
from scribbleseg.training.checkpoint import read_checkpoint, write_checkpoint
from scribbleseg.training.optimizer import make_optimizer
from scribbleseg.training.plan import Plan, write_plan
from scribbleseg.training.settings import make_plan

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, SCRIBBLESEG

RUNS = (("scn-table2", "mscmr", 0), ("scn-table1", "acdc", 0), ("effdnet-table2", "acdc", 0))
FIFTHS = 5
LARGEST = 4 * 2**20  # bytes of a small state


def jobs(config: Bench) -> list[Job]:
    """The runs, in order."""
    found = []
    for name, data, fold in RUNS:
        plan = read_bench_plan(Bench(Path(f"benchmarks/plans/{name}.toml"), "paper", results=config.results))
        method = name.partition("-")[0]
        found.append(next(job for job in plan.jobs if (job.label, job.data, job.fold) == (method, data, fold)))
    return found


def state_file(job: Job, config: Bench) -> Path:
    return config.results / "paper" / "state" / (job.run.replace("/", "-") + ".safetensors")


def iteration_of(path: Path) -> int:
    """The iteration of a safetensors file that we wrote; 0 where there is none."""
    if not path.is_file():
        return 0
    with safe_open(path, "pt") as file:
        return int((file.metadata() or {})["iteration"])


def small_state(stored: dict) -> dict[str, Tensor]:
    """Of a checkpoint what the method holds, in half precision, without a teacher."""
    return {
        key: (value.half() if value.is_floating_point() and value.dim() else value).contiguous()
        for key, value in stored["method"].items()
        if not key.startswith("teacher.")
    }


def keep_small(job: Job, config: Bench, total: int) -> None:
    """Write the small state if the run has reached another fifth since the last one."""
    run, path = config.runs / job.place, state_file(job, config)
    reached = iteration_of(run / "last.safetensors")
    if FIFTHS * reached // total <= FIFTHS * iteration_of(path) // total:
        return
    stored = read_checkpoint(run)
    notes = {"iteration": str(stored["iteration"]), "best": str(stored["best"])}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save(small_state(stored), notes)
    if len(content) > LARGEST:
        print(f"{path}: would have over {LARGEST >> 20} MiB, so it is not kept. The run's own folder is complete.")
        return
    with atomic_file(path) as partial:
        partial.write_bytes(content)
    print(f"{path}: iteration {stored['iteration']}, {path.stat().st_size / 2**20:.1f} MiB")


def checkpoint_of(small: dict[str, Tensor], plan: Plan) -> dict:
    """A checkpoint from a small state, without its iteration and best: the optimiser and the mean of the weights begin
    anew."""
    network = build_network(plan.network, len(plan.channels), len(plan.classes))
    method = method_class(plan.method)(network, **plan.options)
    load_small(method, small)
    optimizer = make_optimizer(plan.recipe, method, torch.device("cpu"))
    stored = {"method": method.state_dict(), "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}
    if plan.recipe.ema:
        stored["average"] = Average(method.network, plan.recipe.ema).state_dict()
    return stored


def restore_small(job: Job, config: Bench) -> None:
    """Make the run's folder from the small state, so that it can be carried on."""
    path, settings = state_file(job, config), job.settings(config)
    dataset = read_dataset(settings.dataset)
    plan = make_plan(settings, dataset)
    with safe_open(path, "pt") as file:
        notes = file.metadata()
        stored = checkpoint_of({key: file.get_tensor(key) for key in file.keys()}, plan)
    stored |= {"iteration": int(notes["iteration"]), "best": float(notes["best"])}
    write_plan(settings, plan)
    write_checkpoint(Path(settings.run), stored)
    print(f"{settings.run}: made from {path}, iteration {notes['iteration']}")


def load_small(method: nn.Module, small: dict[str, Tensor]) -> None:
    """Load a small state; a teacher becomes a copy of the network."""
    whole = method.state_dict()
    for key in whole:
        source = key if key in small else key.replace("teacher.", "network.", 1)
        whole[key] = small[source].to(whole[key].dtype)
    method.load_state_dict(whole)


def carry_on(job: Job, config: Bench, until: float) -> bool:
    """Train the run until it is finished, or until the time of the clock; returns whether it is finished."""
    run, settings = config.runs / job.place, job.settings(config)
    if not (run / "config.json").is_file() and state_file(job, config).is_file():
        restore_small(job, config)
    total = make_plan(settings, read_dataset(settings.dataset)).recipe.iterations
    words = ["train", str(run), "--resume"] if (run / "config.json").is_file() else None
    words = words or job.command(config).split()[1:]
    process = subprocess.Popen([*SCRIBBLESEG, *words])
    try:
        while process.poll() is None and time.monotonic() < until:
            time.sleep(1)
            if (run / "resume.pt").is_file():
                keep_small(job, config, total)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait()
    keep_small(job, config, total)
    return iteration_of(run / "last.safetensors") == total


def status(config: Bench) -> list[str]:
    """A line per run: done, or how far it is."""
    done, lines = read_records(config.results / "paper"), []
    for job in jobs(config):
        run = config.runs / job.place
        reached = max(iteration_of(run / "last.safetensors"), iteration_of(state_file(job, config)))
        total = make_plan(settings := job.settings(config), read_dataset(settings.dataset)).recipe.iterations
        log = run / "log.jsonl"
        entries = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        left = ""
        if entries:
            hours = (total - reached) * json.loads(entries[-1])["seconds_per_iteration"] / 3600
            machine = json.loads((run / "environment.json").read_text(encoding="utf-8"))
            left = (
                f", {hours:.1f} hours left at its last rate ({[machine, *machine.get('continued', [])][-1]['device']})"
            )
        lines.append(f"{job.run}: " + ("done" if job.run in done else f"iteration {reached} of {total}{left}"))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop at a checkpoint after this time")
    parser.add_argument("--status", action="store_true", help="only say how far the runs are")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    config = Bench(Path("benchmarks/plans"), "paper", datasets=given.datasets, runs=given.runs, results=given.results)
    until = time.monotonic() + 60 * given.minutes
    for job in () if given.status else jobs(config):
        if job.run in read_records(config.results / "paper"):
            continue
        if not carry_on(job, config, until):
            break
        run_job(job, config)
        state_file(job, config).unlink(missing_ok=True)
    print("\n".join(status(config)))


if __name__ == "__main__":
    main()
