"""Methods × data sets × folds × seeds: do the missing runs, then make tables and figures of all finished ones."""

from ..config import Bench
from ..core.console import say, tell
from ..core.errors import InputError, counted
from ..training.calendar import check_interval

try:
    from .engines import run_jobs
    from .figures import make_figures
    from .formats import write_tables
    from .plan import read_bench_plan
    from .store import done_jobs, lock_results, read_results
except ModuleNotFoundError as missing:
    if missing.name not in ("msgspec", "pandas", "tabulate"):
        raise
    raise InputError(f"scribbleseg bench needs {missing.name}. Run: pip install 'scribbleseg[bench]'") from missing


def bench(config: Bench) -> bool:
    """Run a plan and write its tables and figures. Returns True if every run is done.

    If a run fails, the others continue. The failed runs are listed at the end. If all fail and none was done before, no
    table or figure is written.
    """
    check_interval(config.checkpoint_every)
    plan, failed = read_bench_plan(config), {}
    if not config.table_only:
        done = done_jobs(plan.jobs, config)
        if done:
            tell(f"already done and skipped: {len(done)} of the plan's {counted(len(plan.jobs), 'run')}")
        if todo := [job for job in plan.jobs if job not in set(done)]:
            lock_results(config.results / plan.budget).close()  # a file system without locks is found before any run
            failed = run_jobs(todo, config, len(done))
    results = read_results(plan, config)
    if results.records or config.table_only:
        path = write_tables(plan, results, config.results)
        tell(f"tables: {path}, and the same as .tex and .csv")
        for path in make_figures(plan, results, config):
            tell(f"figure: {path}, and the same as .pdf")
    lacking = [job for job in plan.jobs if job not in results.records]
    for job in lacking:
        say(f"{job.place}: {failed.get(job, 'not run')}")
    return not lacking
