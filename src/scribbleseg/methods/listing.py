"""`scribbleseg methods`: the list, or one method's settings."""

import inspect

from ..config import Methods
from . import METHODS, hyperparameters, method_class


def methods(config: Methods) -> None:
    """Print a line per method, or the recipe and the hyperparameters of one."""
    if config.name is None:
        for name in METHODS:
            print(f"{name:<12} {_first_line(name)}")
        return
    kind = method_class(config.name)
    print(f"{config.name}: {_first_line(config.name)}\n")
    print(inspect.cleandoc(kind.__doc__ or "The class has no docstring."))
    recipe = ", ".join(
        f"{key} {value}"
        for key, value in vars(kind.recipe).items()
        if value and (key != "gamma" or kind.recipe.step_at)
    )
    print(f"\nrecipe: {recipe}")
    for key, default in hyperparameters(config.name).items():
        print(f"  --set {key}={default}")


def _first_line(name: str) -> str:
    """What the method's module says of it, or the class, where somebody's module has no docstring."""
    kind = method_class(name)
    return inspect.cleandoc(inspect.getmodule(kind).__doc__ or kind.__doc__ or "no description").splitlines()[0]
