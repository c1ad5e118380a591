"""scribbleseg: segmentation of medical volumes from scribbles.

    import scribbleseg as ss

    ss.train("my_data", "runs/a", method="scn")
    ss.predict("runs/a", "my_data", "runs/a/predictions")
    rows = ss.evaluate("runs/a/predictions", "my_data/labelsTr_dense")
    ss.report("runs/a")
    mask = ss.load("runs/a").predict(array, spacing)

A function takes what its settings class takes (`ss.train`: `ss.Train`), paths as text or Path. Bad input raises
`ss.InputError`, whose message says what to do. Each name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .api import (
        check,
        evaluate,
        export,
        import_dataset,
        load,
        pack,
        phantom,
        predict,
        report,
        resume,
        simulate,
        train,
    )
    from .config import Check, Evaluate, Export, Import, Pack, Phantom, Predict, Report, Simulate, Train
    from .core.errors import InputError

__all__ = [
    "Check",
    "Evaluate",
    "Export",
    "Import",
    "InputError",
    "Pack",
    "Phantom",
    "Predict",
    "Report",
    "Simulate",
    "Train",
    "check",
    "evaluate",
    "export",
    "import_dataset",
    "load",
    "pack",
    "phantom",
    "predict",
    "report",
    "resume",
    "simulate",
    "train",
]
__version__ = "0.2.0"


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = ".core.errors" if name == "InputError" else ".config" if name[0].isupper() else ".api"
    return getattr(importlib.import_module(module, __name__), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
