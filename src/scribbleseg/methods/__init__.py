"""The methods by name. A third party's method is named `package.module:Class`."""

import importlib
import inspect

from ..errors import InputError, nearest

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
    if name not in METHODS and ":" not in name:
        raise InputError(f"no method '{name}'. {nearest(name, METHODS)} A method of your own is named package.module:Class.")
    module, _, attribute = METHODS.get(name, name).partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"method '{name}' cannot be imported ({error}). Is its package installed, or its folder in PYTHONPATH, and the class named {attribute}?") from error
    if not hasattr(found, "recipe"):
        raise InputError(f"method '{name}': {attribute} is no method. Derive the class from scribbleseg.methods.base.Method.")
    return found


def hyperparameters(name: str) -> dict[str, object]:
    """A method's keyword-only arguments and their defaults."""
    signature = inspect.signature(method_class(name))
    return {key: p.default for key, p in signature.parameters.items() if p.kind is p.KEYWORD_ONLY}


def parse_options(name: str, given: tuple[str, ...]) -> dict[str, object]:
    """`("delta=.5", "fadc=false")` → {"delta": .5, "fadc": False}, by the type of each default.

    Raises InputError for an unknown name (with the nearest) and for a value of another type.
    """
    known = hyperparameters(name)
    options = {}
    for item in given:
        key, equals, text = item.partition("=")
        if key not in known or not equals:
            raise InputError(f"--set {item}: {name} has no option '{key}'. {nearest(key, known) if known else 'It has none: an option is a keyword-only argument of its __init__.'} Write NAME=VALUE.")
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
