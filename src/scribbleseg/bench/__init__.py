"""Methods × data sets × folds × seeds: runs what is not done yet and makes the tables and figures from what they left."""

import sys

from ..config import Bench
from .figures import check_figures, make_figures
from .formats import write_tables
from .jobs import is_done, read_bench_plan, read_results, run_job


def bench(config: Bench) -> bool:
    """Run a plan and write its tables and figures; True when every run is done. A run that fails does not stop the others: it is listed at the end."""
    plan = read_bench_plan(config)
    check_figures(plan)
    failed = []
    for number, job in enumerate(plan.jobs, 1):
        if is_done(job, config):
            continue
        if config.table_only:
            failed.append((job, "not run"))
            continue
        print(f"[{number}/{len(plan.jobs)}] {job.place}", file=sys.stderr, flush=True)
        try:
            run_job(job, config)
        except Exception as error:  # whatever one run dies of, the others go on
            failed.append((job, f"{type(error).__name__}: {error}"))
    results = read_results(plan, config)
    path = write_tables(plan, results, config.results)
    print(f"tables: {path}, and the same as .tex and .csv")
    for path in make_figures(plan, results, config):
        print(f"figure: {path}")
    for job, reason in failed:
        print(f"{job.place}: {reason}", file=sys.stderr)
    return not failed
