"""`scribbleseg methods`: list the methods, or show the settings of one."""

import inspect

from ..config import Methods
from ..core.console import tell
from . import METHODS, method_class, method_options


def methods(config: Methods) -> None:
    """Print a line per method, or the recipe and the options of one."""
    if config.name is None:
        for name in METHODS:
            tell(f"{name:<12} {_first_line(name)}")
        return
    kind = method_class(config.name)
    tell(f"{config.name}: {_first_line(config.name)}\n")
    tell(inspect.cleandoc(kind.__doc__ or "The class has no docstring."))
    recipe = ", ".join(
        f"{key} {value}"
        for key, value in vars(kind.recipe).items()
        if value and (key != "gamma" or kind.recipe.step_at)
    )
    tell(f"\nrecipe: {recipe}")
    tell(f"works on: {'slices and volumes' if 3 in kind.dims else 'slices'}")
    others = f"one that has {' and '.join(kind.needs)}" if kind.needs else "any other"
    tell(f"network: {kind.network_name}, or {others}")
    options = method_options(config.name).values()
    width = max((len(f"{option.name}={option.shown}") for option in options), default=0)
    for option in options:
        about = f"{option.expected}; {option.meaning}" if option.meaning else option.expected
        tell(f"  --set {f'{option.name}={option.shown}':<{width}}  {about}")


def _first_line(name: str) -> str:
    """The first line of the docstring of the method's module, or of its class if the module has none."""
    kind = method_class(name)
    module = inspect.getmodule(kind)
    text = (module.__doc__ if module else None) or kind.__doc__ or "no description"
    return inspect.cleandoc(text).splitlines()[0]
