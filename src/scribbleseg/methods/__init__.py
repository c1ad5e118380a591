"""The methods by name. A third party's method is named `package.module:Class`."""

from collections.abc import Sequence
from typing import Any

from ..core.errors import InputError, nearest
from ..core.own_code import find, version
from .options import Option, declared, no_option

METHODS = {
    "pce": "scribbleseg.methods.pce:PCE",
    "fullsup": "scribbleseg.methods.fullsup:FullSup",
    "nnunet-pl": "scribbleseg.methods.nnunet_pl:NNUNetPartialLoss",
    "entmin": "scribbleseg.methods.entmin:EntMin",
    "tv": "scribbleseg.methods.tv:TV",
    "rloss": "scribbleseg.methods.rloss:RLoss",
    "mloss": "scribbleseg.methods.mloss:MLoss",
    "ustm": "scribbleseg.methods.ustm:USTM",
    "dmpls": "scribbleseg.methods.dmpls:DMPLS",
    "effdnet": "scribbleseg.methods.effdnet:EFFDNet",
    "rw": "scribbleseg.methods.rw:RandomWalker",
    "s2l": "scribbleseg.methods.s2l:Scribble2Label",
    "scribformer": "scribbleseg.methods.scribformer:ScribFormer",
    "fddseg": "scribbleseg.methods.fddseg:FDDSeg",
    "scn": "scribbleseg.methods.scn:SCN",
    "corral": "scribbleseg.methods.corral:Corral",
}


def is_own(name: str) -> bool:
    """Whether a method is one of ours, so that no code from elsewhere is imported for it."""
    return name in METHODS or name in METHODS.values()


def method_class(name: str) -> type[Any]:
    """The class of a method. Raises InputError for an unknown name, with the nearest one, and for what is no Method."""
    if not isinstance(name, str):
        raise InputError(
            f"method is {name!r}; expected its name: 'effdnet', or 'package.module:Class' for one of your own."
        )
    if name not in METHODS and ":" not in name:
        raise InputError(
            f"no method '{name}'. {nearest(name, METHODS)} A method of your own is named package.module:Class."
        )
    found: type[Any] = find("method", METHODS.get(name, name))
    if not isinstance(found, type) or not hasattr(found, "recipe"):
        raise InputError(
            f"method '{name}': {name.rpartition(':')[2]} is no method. Derive the class from "
            "scribbleseg.methods.base.Method."
        )
    return found


def own_code(name: str) -> str | None:
    """SHA-256 of the file of somebody else's method; None for one of METHODS, whose code the commit names."""
    if is_own(name):
        return None
    return version(method_class(name))


def method_options(name: str) -> dict[str, Option]:
    """A method's options: the keyword-only arguments of its __init__."""
    return declared(method_class(name).__init__)


def hyperparameters(name: str) -> dict[str, object]:
    """A method's options and their defaults."""
    return {key: option.default for key, option in method_options(name).items()}


def parse_options(name: str, given: Sequence[str]) -> dict[str, object]:
    """`("delta=.5", "fadc=false")` → {"delta": .5, "fadc": False}, by the type of each default.

    Raises InputError for an unknown name (with the nearest), for a value of another type and for one out of range.
    """
    known = method_options(name)
    if not isinstance(given, (tuple, list)) or not all(isinstance(item, str) for item in given):
        raise InputError(
            f'set is {given!r}; expected a tuple of texts NAME=VALUE, such as ("delta=0.5", "fadc=false").'
        )
    options = {}
    for item in given:
        key, equals, text = item.partition("=")
        if key not in known:
            raise InputError(f"--set {item}: {name} has {no_option(key, known)} Write NAME=VALUE.")
        if key in options:
            raise InputError(f"--set {item}: {key} is given twice. Give each option once.")
        option = known[key]
        if not equals:
            raise InputError(f"--set {item}: the value is missing. Write NAME=VALUE, such as {key}={option.shown}.")
        try:
            options[key] = option.parse(text)
        except ValueError as error:
            raise InputError(
                f"--set {item}: '{text}' is not {option.expected} (the default is {option.shown})."
            ) from error
    return options
