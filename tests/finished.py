"""Finished runs of a bench for tests, without training: scores given by hand."""

from dataclasses import dataclass, field

import pandas as pd

from scribbleseg.bench.plan import Job
from scribbleseg.bench.store import CURVE, SCORES, Results, make_results


@dataclass
class Run:
    """What a run leaves. A row without a patient is of a patient of its own."""

    record: dict
    rows: list[dict]
    curve: dict = field(default_factory=dict)


def results_of(runs: dict[Job, Run]) -> Results:
    scores = [{"run": job.run, "patient": row["case"]} | row for job, run in runs.items() for row in run.rows]
    curves = [pd.DataFrame(run.curve).assign(run=job.run) for job, run in runs.items()]
    return make_results(
        {job: run.record for job, run in runs.items()},
        pd.DataFrame(scores, columns=["run", *SCORES]),
        pd.concat([pd.DataFrame(columns=["run", *CURVE]), *curves]).astype(dict.fromkeys(CURVE, float)),
    )
