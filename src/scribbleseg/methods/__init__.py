"""The methods by name. A third party's method is named `package.module:Class`."""

import hashlib
import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import InputError, nearest

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
}


def method_class(name: str) -> type:
    """The class of a method. Raises InputError for an unknown name, with the nearest known one, and for what is no Method."""
    if not isinstance(name, str):
        raise InputError(
            f"method is {name!r}; expected its name: 'effdnet', or 'package.module:Class' for one of your own."
        )
    if name not in METHODS and ":" not in name:
        raise InputError(
            f"no method '{name}'. {nearest(name, METHODS)} A method of your own is named package.module:Class."
        )
    module, _, attribute = METHODS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"method '{name}' cannot be imported ({error}). Is its package installed, or its folder in PYTHONPATH, and the class named {attribute}?"
        ) from error
    if not hasattr(found, "recipe"):
        raise InputError(
            f"method '{name}': {attribute} is no method. Derive the class from scribbleseg.methods.base.Method."
        )
    return found


def own_code(name: str) -> str | None:
    """SHA-256 of the file that a method of somebody else's is written in; None for one of METHODS, whose code the commit names."""
    if name in METHODS:
        return None
    return hashlib.sha256(Path(inspect.getfile(method_class(name))).read_bytes()).hexdigest()


def hyperparameters(name: str) -> dict[str, object]:
    """A method's keyword-only arguments and their defaults."""
    signature = inspect.signature(method_class(name))
    return {key: p.default for key, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}


def parse_options(name: str, given: Sequence[str]) -> dict[str, object]:
    """`("delta=.5", "fadc=false")` → {"delta": .5, "fadc": False}, by the type of each default.

    Raises InputError for an unknown name (with the nearest) and for a value of another type.
    """
    known = hyperparameters(name)
    if not isinstance(given, (tuple, list)) or not all(isinstance(item, str) for item in given):
        raise InputError(
            f'set is {given!r}; expected a tuple of texts NAME=VALUE, such as ("delta=0.5", "fadc=false").'
        )
    options = {}
    for item in given:
        key, equals, text = item.partition("=")
        if key not in known or not equals:
            raise InputError(
                f"--set {item}: {name} has no option '{key}'. {nearest(key, known) if known else 'It has none: an option is a keyword-only argument of its __init__.'} Write NAME=VALUE."
            )
        default = known[key]
        try:
            if isinstance(default, bool):
                options[key] = {"true": True, "false": False}[text.lower()]
            else:
                options[key] = type(default)(text)
        except (ValueError, KeyError) as error:
            need = "true or false" if isinstance(default, bool) else f"a {type(default).__name__}"
            raise InputError(f"--set {item}: '{text}' is not {need} (default {default}).") from error
    return options
