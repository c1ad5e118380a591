"""The verbs as Python functions: `ss.train(...)` takes the fields of `ss.Train`, and so on."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, get_type_hints, overload

from .config import VERBS, Check, Evaluate, Export, Import, Option, Pack, Phantom, Predict, Report, Simulate, Train

if TYPE_CHECKING:
    from .inference.predictor import Predictor

AnyPath = str | Path
P = ParamSpec("P")
Result = TypeVar("Result")


@overload
def _function(
    name: str, settings: Callable[Concatenate[tuple[Path, ...], Path, Path, P], object], result: type[Result], says: str
) -> Callable[Concatenate[AnyPath | Sequence[AnyPath], AnyPath, AnyPath, P], Result]: ...
@overload
def _function(
    name: str, settings: Callable[Concatenate[Path, Path, P], object], result: type[Result], says: str
) -> Callable[Concatenate[AnyPath, AnyPath, P], Result]: ...
@overload
def _function(
    name: str, settings: Callable[Concatenate[Path, P], object], result: type[Result], says: str
) -> Callable[Concatenate[AnyPath, P], Result]: ...
@overload
def _function(name: str, settings: Callable[P, object], result: type[Result], says: str) -> Callable[P, Result]: ...
def _function(name: str, settings: Any, result: Any, says: str) -> Any:
    """The function of a verb. It takes what `settings` takes and imports its module when it is called."""
    module, _, target = VERBS[settings.__name__.lower()][1].partition(":")

    def verb(*args: Any, **kwargs: Any) -> Any:
        from .core.errors import InputError, nearest
        from .core.json_file import convert

        known = inspect.signature(settings).parameters
        if odd := [key for key in kwargs if key not in known]:
            raise InputError(f"{name}(...): no argument '{odd[0]}'. {nearest(odd[0], known)}")
        given = convert(
            vars(settings(*args, **kwargs)), settings, f"{name}(...)", f"help(scribbleseg.{name}) says more."
        )
        return getattr(importlib.import_module(f"{__package__}.{module}"), target)(given)

    hints = get_type_hints(settings)
    parameters = [
        parameter.replace(annotation=hints[parameter.name])
        for parameter in inspect.signature(settings).parameters.values()
    ]
    vars(verb)["__signature__"] = inspect.Signature(parameters, return_annotation=result)
    verb.__name__ = verb.__qualname__ = name
    verb.__doc__ = _docstring(settings, says)
    return verb


def _docstring(settings: type, says: str) -> str:
    lines = [inspect.cleandoc(settings.__doc__ or ""), ""]
    for name, hint in get_type_hints(settings, include_extras=True).items():
        shown = hint.__metadata__[0]
        default = f" Default: {shown.default}." if isinstance(shown, Option) and shown.default else ""
        lines.append(f"{name}: {shown.help}{default}")
    return "\n".join([*lines, "", says, "Raises InputError for bad input; its message says what to do."])


import_dataset = _function("import_dataset", Import, type(None), "Writes the data set to `dst`.")
phantom = _function("phantom", Phantom, type(None), "Writes the data set to `dst`.")
simulate = _function("simulate", Simulate, type(None), "Writes the scribbles to labelsTr of the data set.")
check = _function("check", Check, bool, "Prints the list. Returns whether the data set can be used for training.")
train = _function("train", Train, Path, "Returns the run folder.")
predict = _function("predict", Predict, list[Path], "Returns the masks that were written.")
evaluate = _function("evaluate", Evaluate, list[dict[str, Any]], "Returns the scores, one dict per case and class.")
report = _function("report", Report, Path, "Returns the file of the page.")
pack = _function("pack", Pack, Path, "Returns the file.")
export = _function("export", Export, Path, "Returns the folder.")


def resume(
    run: AnyPath, method: str | None = None, network: str | None = None, augmentation: str | None = None
) -> Path:
    """Carry on a run that was stopped, to the same weights as if it had not been. Returns the run folder.

    method, network, augmentation: repeat the names of what is not scribbleseg's own code; it is imported only then.
    Raises InputError for a folder that holds no run, or one that cannot be carried on; its message says what to do.
    """
    from .training.train import resume

    return resume(Path(run), method, network, augmentation)


def load(
    runs: AnyPath | Sequence[AnyPath],
    weights: Literal["last", "best"] = "last",
    device: str = "auto",
    networks: Sequence[str] = (),
) -> "Predictor":
    """Load a run, or several whose probabilities are averaged, to segment arrays: `load(RUN).predict(array, spacing)`.

    runs: run folders or packed models. weights, device and networks: as in `predict`. Raises InputError for bad
    input; its message says what to do.
    """
    from .inference.predictor import load_predictor

    several = (runs,) if isinstance(runs, (str, Path)) else runs
    return load_predictor([Path(run) for run in several], weights, device, networks)
