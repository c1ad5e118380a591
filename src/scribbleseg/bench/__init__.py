"""Methods × data sets × folds × seeds: do the missing runs, then make tables and figures of all finished ones."""

import sys

from ..config import Bench
from ..core.errors import InputError
from ..training.plan import check_interval

try:
    from .engines import run_jobs
    from .figures import make_figures
    from .formats import write_tables
    from .plan import read_bench_plan
    from .store import convert, done_jobs, read_results
except ModuleNotFoundError as missing:
    if missing.name not in ("msgspec", "pandas", "tabulate"):
        raise
    raise InputError(f"scribbleseg bench needs {missing.name}. Run: pip install 'scribbleseg[bench]'") from missing


def bench(config: Bench) -> bool:
    """Run a plan and write its tables and figures. Returns True if every run is done.

    If a run fails, the others continue. The failed runs are listed at the end.
    """
    check_interval(config.checkpoint_every)
    plan = read_bench_plan(config)
    if moved := convert(config.results):
        print(f"moved {moved} runs from the layout before 0.2 into the CSV files of {config.results}")
    done = list(read_results(plan, config)) if config.table_only else done_jobs(plan, config)
    todo = [job for job in plan.jobs if job not in set(done)]
    failed = dict.fromkeys(todo, "not run")
    if done:
        print(f"{len(done)} of the plan's {len(plan.jobs)} runs are already done and are skipped")
    if todo and not config.table_only:
        failed = run_jobs(todo, config, len(done))
    results = read_results(plan, config)
    path = write_tables(plan, results, config.results)
    print(f"tables: {path}, and the same as .tex and .csv")
    for path in make_figures(plan, results, config):
        print(f"figure: {path}")
    for job in (job for job in plan.jobs if job in failed):
        print(f"{job.place}: {failed[job]}", file=sys.stderr)
    return not failed
