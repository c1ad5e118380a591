"""Methods × data sets × folds × seeds: runs what is not done yet and makes the tables and figures from what they left."""

import sys

from ..config import Bench
from ..training.plan import check_interval
from .engines import run_jobs
from .figures import check_figures, make_figures
from .formats import write_tables
from .jobs import is_done, read_bench_plan, read_results


def bench(config: Bench) -> bool:
    """Run a plan and write its tables and figures; True when every run is done. A run that fails does not stop the others: it is listed at the end."""
    check_interval(config.checkpoint_every)
    plan = read_bench_plan(config)
    check_figures(plan)
    todo = [job for job in plan.jobs if not is_done(job, config)]
    failed = dict.fromkeys(todo, "not run")
    if done := len(plan.jobs) - len(todo):
        print(
            f"{done} of the plan's {len(plan.jobs)} runs are done, by this bench or an earlier one, and not made again"
        )
    if todo and not config.table_only:
        failed = run_jobs(todo, config, done)
    results = read_results(plan, config)
    path = write_tables(plan, results, config.results)
    print(f"tables: {path}, and the same as .tex and .csv")
    for path in make_figures(plan, results, config):
        print(f"figure: {path}")
    for job in (job for job in plan.jobs if job in failed):
        print(f"{job.place}: {failed[job]}", file=sys.stderr)
    return not failed
