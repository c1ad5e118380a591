"""The HTML report of a run. `scribbleseg.report` is this package and also the function: `ss.report("runs/a")`."""

import sys
from pathlib import Path
from types import ModuleType


class _CallablePackage(ModuleType):
    def __call__(self, run: str | Path) -> Path:
        """Write RUN/report.html and return its path; see `report.report.report`."""
        from ..config import Report
        from .report import report

        return report(Report(Path(run)))


sys.modules[__name__].__class__ = _CallablePackage
