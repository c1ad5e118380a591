"""Run the papers' experiments in order of value, and write the tables of docs/results.md.

python benchmarks/studies/results.py                   budget paper on CUDA, quick on a CPU; does the missing runs
python benchmarks/studies/results.py --minutes 9       stops at a checkpoint after nine minutes; run again to continue
python benchmarks/studies/results.py --table-only      runs nothing, makes the tables of the finished runs

A run leaves its scores, curve and settings in benchmarks/results. At budget paper it also leaves its settings, log and
last weights in half precision in benchmarks/models, as a run folder that `scribbleseg predict` takes. That folder is
not committed, and weights of over 8 MiB are not copied. A run that was made with other settings than its method has now
stays as it is, and the tables say so; to run it again, delete its row in runs.csv.
"""

import argparse
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.torch import save

from scribbleseg.bench.engines import run_jobs
from scribbleseg.bench.formats import fold_lines
from scribbleseg.bench.plan import BenchPlan, Job, Published, read_bench_plan
from scribbleseg.bench.statistics import table_of
from scribbleseg.bench.store import Results, done_jobs, read_records, read_results
from scribbleseg.bench.tables import Section, aggregate, number, outdated_notes, spans
from scribbleseg.config import Bench
from scribbleseg.core.atomic import atomic_file
from scribbleseg.core.device import pick_device
from scribbleseg.core.environment import devices
from scribbleseg.core.errors import first_names
from scribbleseg.methods import hyperparameters, method_class, parse_options

sys.path.append(str(Path(__file__).parents[1]))

from common import RESULTS, markdown_table, read_csv

PLANS = Path("benchmarks/plans")
QUEUE = (  # plan, and which of its rows: none named are all of them
    ("effdnet-table2", ("effdnet",)),
    ("scn-table1", ("scn",)),
    ("scn-table2", ("scn",)),
    ("effdnet-table2", ()),
    ("effdnet-table1", ("pce", "dmpls", "fullsup")),
    ("effdnet-table1", ()),
    ("scn-table3", ()),
    ("open-choices", ()),
    ("scn-table2", ()),
    ("scn-table1", ()),
    ("comparison", ()),
    ("seeds", ()),
    ("strat5", ("effdnet", "scn")),
    ("strat5", ()),
    ("effdnet-figure5", ()),
    ("effdnet-table2-nci-isbi", ()),
    ("effdnet-table1-nci-isbi", ()),
)
NOT_HERE = {"nci-isbi": "not run: data not public here"}  # data set that need not be there → what its rows say
PRINTED = {"acdc": ("effdnet-table1", "scn-table1"), "mscmr": ("scn-table2",)}  # where papers print rows of comparison
SHOWN = (
    "effdnet-table2",
    "scn-table1",
    "scn-table2",
    "scn-table3",
    "effdnet-table1",
    "comparison",
    "strat5",
    "seeds",
    "open-choices",
    "effdnet-figure5",
    "effdnet-table2-nci-isbi",
    "effdnet-table1-nci-isbi",
)  # in docs/results.md
LARGEST = 8 * 2**20


def queue(plans: dict[str, BenchPlan]) -> list[Job]:
    """All runs, the most valuable first, each once."""
    jobs = [job for name, rows in QUEUE for job in plans[name].jobs if not rows or job.label in rows]
    return list(dict.fromkeys(jobs))


def parted(jobs: list[Job], plans: dict[str, BenchPlan], config: Bench) -> tuple[list[Job], list[Job], list[Job]]:
    """The jobs that are done, those that are done with settings that are outdated, and the others."""
    outdated = {job for plan in plans.values() for job in read_results(plan, config).outdated}
    done = set(done_jobs([job for job in jobs if job not in outdated], config))
    others = [job for job in jobs if job not in done | outdated]
    return [job for job in jobs if job in done], [job for job in jobs if job in outdated], others


@contextmanager
def stopped_after(minutes: float | None) -> Iterator[None]:
    """Ends the block as Ctrl-C would, without the error."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 60 * (minutes or 0))
    try:
        yield
    except KeyboardInterrupt:
        print("stopped at a checkpoint; the same command continues", file=sys.stderr)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def keep_small(job: Job, config: Bench, models: Path) -> None:
    """Copy a finished run to MODELS, where it is here: config.json, environment.json, log.jsonl, and last.safetensors
    in half precision."""
    run, kept = config.runs / job.place, models / job.place
    if not (run / "last.safetensors").is_file():
        return
    with safe_open(run / "last.safetensors", "pt") as file:
        notes = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}
    content = save(
        {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}, notes
    )
    if len(content) <= LARGEST:
        with atomic_file(kept / "last.safetensors") as partial:
            partial.write_bytes(content)
        for name in ("environment.json", "log.jsonl", "config.json"):
            shutil.copyfile(run / name, kept / name)


def section_text(section: Section, mixed: Section | None = None) -> str:
    """A line per row that was run or that the paper prints: folds and seeds, scores, minutes, device; with a paper also
    its mean Dice and the difference to it. `mixed`: the same data on mixed folds, whose mean Dice stands in the last
    column, and whose rows have a line in any case.
    """
    classes = section.classes or ["mean"]
    unit = f" ({section.unit})" if section.done else ""
    head = ["method", "folds", "seeds", "cases", *(f"Dice {name}" for name in classes), f"HD95 mean{unit}"]
    head += [*(["paper", "short by"] if section.paper else []), "min / run", "device"]
    head += [f"Dice mean on `{mixed.split}`"] if mixed else []
    how = "Mean (sd over folds, where there are two)." if section.done else "Nothing was run."
    held = [f"- {line}" for line in fold_lines(section)] if section.done else []
    run = {*section.done, *(mixed.done if mixed else ())}
    shown = [label for label in section.rows if label in run or printed_dice(label, section.paper)]
    beside = {label: [on_mixed(label, mixed)] if mixed else [] for label in shown}
    table = markdown_table(head, [row_cells(label, section) + beside[label] for label in shown]) if shown else ""
    bare = [f"`{label}`" for label in section.rows if label not in shown]
    notes = [f"Not run: {', '.join(bare)}."] if bare else []
    notes += outdated_notes(section.results.outdated)
    return "\n".join(
        [f"Budget `{section.budget}`. {how}", *held, "", table, *(["", "  \n".join(notes)] if notes else [])]
    )


def on_mixed(label: str, mixed: Section) -> str:
    """The row's mean Dice on mixed folds, with the folds and seeds that were run."""
    if label not in mixed.done:
        return "not run"
    mean = mixed.summary.loc[(label, "mean")]
    run = []
    for name in ("fold", "seed"):
        many = len({getattr(job, name) for job in mixed.done[label]}) > 1
        run.append(f"{name}{'s' * many} {_and_missing(mixed.done[label], mixed.rows[label], name)}")
    return ", ".join([number(mean["dice_over_folds"], mean["dice_sd_over_folds"]), *run])


def _and_missing(done: list[Job], wanted: list[Job], name: str) -> str:
    """The folds or seeds that were run, and those of which nothing was."""
    has, every = ({getattr(job, name) for job in jobs} for jobs in (done, wanted))
    return spans(has) + (f" ({spans(every - has)} not run)" if every - has else "")


def effects(section: Section) -> str:
    """A line per row that sets options: its mean Dice less that of the method's own row with the same fold and seed."""
    dice = mean_dice(section.results)
    own = {(job.method, job.fold, job.seed): dice[job] for job in dice if job.label == job.method}
    lines = []
    for jobs in section.done.values():
        runs = [job for job in jobs if job.set and (job.method, job.fold, job.seed) in own]
        if runs:
            method = runs[0].method
            options, defaults = parse_options(method, runs[0].set), hyperparameters(method)
            found = [dice[job] - own[method, job.fold, job.seed] for job in runs]
            shown = [
                ", ".join(f"{name} {value}" for name, value in values.items())
                for values in (options, {name: defaults[name] for name in options})
            ]
            lines.append([method, *shown, ", ".join(f"{value:+.1f}" for value in found), f"{np.mean(found):+.1f}"])
    return markdown_table(["method", "choice", "default", "against the default, per seed", "mean"], lines)


def mean_dice(results: Results) -> dict[Job, float]:
    """Run → mean Dice in percent: over cases, then classes."""
    means = table_of(results.scores, "dice", ["run"]).mean(axis=1)
    return {job: means[job.run] for job in results.records}


def orders(section: Section, published: Published) -> str:
    """Which pairs of the rows that a paper prints stand the other way round in a section.

    Two rows are compared by the mean that the paper prints for both, or by the mean of the classes that both have.
    """
    ours, count = section.summary["dice_over_folds"], 0
    paper = {label: printed_dice(label, published) for label in section.done}
    turned: dict[str, list[str]] = {}
    for above, below in permutations(paper, 2):
        shared = paper[above].keys() & paper[below].keys()
        names = ["mean"] if "mean" in shared else sorted(shared)
        if sum(paper[above][name] - paper[below][name] for name in names) > 0:
            count += 1
            if sum(ours[above, name] - ours[below, name] for name in names) < 0:
                turned.setdefault(below, []).append(f"`{above}`")
    found = "; ".join(f"`{below}` above {', '.join(others)}" for below, others in turned.items()) or "none"
    return (
        f"- {section.data}, {section.split}: {sum(map(len, turned.values()))} of {count} pairs of "
        f"{published.source}: {found}."
    )


def tenth(config: Bench, quick_dice: dict[Job, float]) -> str:
    """The runs of benchmarks/studies/folds.py with a tenth of their method's iterations, each beside the same run at
    budget quick."""
    quick = {
        (job.method, " ".join(job.set), job.data, job.split, str(job.fold), str(job.seed)): job for job in quick_dice
    }
    head = ["row", "data", "fold", "seed", "size", "iterations", "Dice mean", "by class", "near the mask"]
    head += ["foreground elsewhere, %", "at `quick`", "minutes", "device", "commit"]
    lines = []
    for line in (line for path in sorted(config.results.glob("folds-*.csv")) for line in read_csv(path)):
        if 10 * int(line["iterations"]) != method_class(line["method"]).recipe.iterations:
            continue
        job = quick.get(tuple(line[key] for key in ("method", "set", "data", "split", "fold", "seed")))
        short = f"{quick_dice[job]:.2f}" if job else "not run"
        name = job.label if job else f"{line['method']} {line['set']}"
        minutes = f"{float(line['training_s']) / 60:.0f}" if line["training_s"] else ""
        cells = [name, line["data"], f"{line['split']}-{line['fold']}", line["seed"], line["size"], line["iterations"]]
        cells += [line[key] for key in ("dice", "dice_per_class", "dice_in_box", "outside")]
        lines.append([*cells, short, minutes, line["device"], line["commit"]])
    return markdown_table(head, lines)


def row_cells(label: str, section: Section) -> list[str]:
    paper = paper_mean(label, section.paper)
    printed = "" if paper is None else f"{paper:.2f}"
    if label not in section.done:
        scores = [""] * len(section.classes or ["mean"])
        beside = [printed, ""] if section.paper else []
        return [label, NOT_HERE.get(section.data, "not run"), "", "", *scores, "", *beside, "", ""]
    means = section.summary.loc[label]
    scores = [number(*pair) for pair in means[["dice_over_folds", "dice_sd_over_folds"]].itertuples(index=False)]
    done, wanted = section.done[label], section.rows[label]
    records = [section.results.records[job] for job in done]
    tested = all(record["plan"]["fold"]["test"] for record in records)  # else validation cases were scored
    alike = section.paper is not None and section.split == section.paper.ours and len(done) == len(wanted)
    dice = means.loc["mean", "dice_over_folds"]
    short = f"{paper - dice:.2f}" if paper is not None and alike and tested else ""
    machines = " / ".join(dict.fromkeys(devices(record["environment"]) for record in records))
    place = [*(_and_missing(done, wanted, name) for name in ("fold", "seed")), str(means.loc["mean", "cases"])]
    minutes = f"{section.cost.loc[label, 'minutes_per_run']:.1f}"
    beside = [printed, short] if section.paper else []
    return [label, *place, *scores, f"{means.loc['mean', 'hd95_over_folds']:.2f}", *beside, minutes, machines]


def printed_dice(label: str, published: Published | None) -> dict[str, float]:
    """Class (or "mean") → the Dice that the paper prints."""
    numbers = published.rows.get(label, {}) if published else {}
    return {name: values["dice"] for name, values in numbers.items() if "dice" in values}


def paper_mean(label: str, published: Published | None) -> float | None:
    """The paper's mean Dice, or the mean of its classes' where it prints those alone; None where one is not known."""
    dice = printed_dice(label, published)
    classes = {name for row in (published.rows if published else {}) for name in printed_dice(row, published)}
    known = [dice.get(name) for name in classes - {"mean"}]
    return dice.get("mean", float(np.mean(known)) if known and None not in known else None)


def read_plans(config: Bench, budget: str) -> dict[str, BenchPlan]:
    names = dict.fromkeys(name for name, _ in QUEUE)
    return {name: read_bench_plan(Bench(PLANS / f"{name}.toml", budget, results=config.results)) for name in names}


def blocks(config: Bench) -> dict[str, str]:
    """Marker of docs/results.md → text. Sections at budget paper that have a run come first, then those at quick."""
    plans = {budget: read_plans(config, budget) for budget in ("paper", "quick")}
    results = {
        budget: {name: read_results(plan, config) for name, plan in own.items()} for budget, own in plans.items()
    }
    counts = []
    for budget, own in results.items():
        found_of = [(plans[budget][name].jobs, found) for name, found in own.items()]  # without runs that stand in
        done = {job for jobs, found in found_of for job in found.records if job in jobs}
        outdated = {job for jobs, found in found_of for job in found.outdated if job in jobs}
        counts.append(f"{len(done)} at budget `{budget}`" + (f" ({len(outdated)} outdated)" if outdated else ""))
    mixed = {
        (budget, section.data, "cv5"): section
        for budget in plans
        for section in aggregate(plans[budget]["strat5"], results[budget]["strat5"])
    }
    found = {"state": f"**Of the queue's {len(queue(plans['quick']))} runs {' and '.join(counts)} are done.**"}
    for name in SHOWN:
        both = [section for budget in plans for section in aggregate(plans[budget][name], results[budget][name])]
        sections = [each for each in both if each.budget == "quick" or len(each.done) > (each.paper is None)]
        if name == "open-choices":
            found[f"{name}: effects"] = "\n\n".join(map(effects, sections))
        own = {(each.budget, each.data, "cv5"): each for each in both if each.split == "strat5"}
        texts = [section_text(each, (mixed | own).get((each.budget, each.data, each.split))) for each in sections]
        found[name] = "\n\n".join(
            f"**{section.data}, {section.split}.** {text}" for section, text in zip(sections, texts)
        )
    of_mixed = read_bench_plan(Bench(PLANS / "strat5.toml", "quick", folds=(0,)))  # fold 0 has every row of the plan
    compared = aggregate(plans["quick"]["comparison"], results["quick"]["comparison"])
    compared += aggregate(of_mixed, read_results(of_mixed, config))
    found["orders"] = "\n".join(
        orders(section, plans["quick"][name].published) for section in compared for name in PRINTED[section.data]
    )
    quick_dice = {job: dice for part in results["quick"].values() for job, dice in mean_dice(part).items()}
    return found | {"tenth": tenth(config, quick_dice)}


def fill(text: str, found: dict[str, str]) -> str:
    """The page with every `<!-- NAME -->` … `<!-- end -->` filled anew."""
    for name, block in found.items():
        before, start, rest = text.partition(f"<!-- {name} -->")
        _, end, after = rest.partition("<!-- end -->")
        if not start or not end:
            raise SystemExit(f"docs/results.md has no <!-- {name} --> … <!-- end -->. Put it where the table belongs.")
        text = f"{before}{start}\n{block}\n{end}{after}"
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--budget", choices=("auto", "paper", "quick"), default="auto", help="auto: paper on a GPU, quick on a CPU"
    )
    parser.add_argument("--minutes", type=float, help="stop at a checkpoint after this time")
    parser.add_argument("--jobs", type=int, default=0, help="runs at once; 0: one per GPU, or one on a CPU")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--datasets", type=Path, default=Path("datasets"), help="folder of the data sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder for the runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the tables")
    parser.add_argument("--models", type=Path, default=Path("benchmarks/models"), help="folder for weights")
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"), help="page with the tables")
    parser.add_argument("--table-only", action="store_true", help="run nothing, make the tables of the finished runs")
    given = parser.parse_args()
    auto = "paper" if pick_device(given.device).type == "cuda" else "quick"
    budget = auto if given.budget == "auto" else given.budget
    places = {key: getattr(given, key) for key in ("datasets", "runs", "results", "jobs", "device")}
    config = Bench(PLANS, budget, **places)
    plans = read_plans(config, budget)
    jobs = queue(plans)
    failed = {}
    if not given.table_only:
        done, outdated, others = parted(jobs, plans, config)
        if outdated:
            print(f"outdated, and left as they are: {first_names([job.run for job in outdated])}", file=sys.stderr)
        absent = {data for data in NOT_HERE if not (config.datasets / data).is_dir()}
        for data in sorted(absent):
            print(f"{config.datasets / data}: not there, so its runs are left out", file=sys.stderr)
        todo = [job for job in others if job.data not in absent]
        with stopped_after(given.minutes):
            failed = run_jobs(todo, config, len(done))
        for job in parted(jobs, plans, config)[0] if budget == "paper" else ():
            keep_small(job, config, given.models)
    with atomic_file(given.page) as partial:
        partial.write_text(fill(given.page.read_text(encoding="utf-8"), blocks(config)), encoding="utf-8")
    records = read_records(config.results / budget)
    done = sum(job.run in records for job in jobs)
    print(f"{done} of {len(jobs)} runs are done at budget {budget}; tables: {given.page}")
    for job, reason in failed.items():
        print(f"{job.place}: {reason}", file=sys.stderr)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
