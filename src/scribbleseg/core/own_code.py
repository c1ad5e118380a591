"""Code of a user's own, named package.module:Name: import it, and tell its versions apart."""

import hashlib
import importlib
import inspect
import re
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from .errors import InputError

NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


def find(kind: str, name: str) -> Any:
    """The class or function that a name says; kind: what the user calls it, such as method.

    Raises InputError for a name that is not package.module:Name, and for what cannot be imported.
    """
    if not NAME.fullmatch(name):
        raise InputError(f"{kind} '{name}': expected package.module:Name.")
    module, _, attribute = name.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, SyntaxError) as error:
        raise InputError(
            f"{kind} '{name}' cannot be imported ({error}). Is its package installed, or its folder in PYTHONPATH, "
            f"and {attribute} in it?"
        ) from error


def version(*found: Any) -> str | None:
    """SHA-256 of the files that define these classes and functions, one behind the other; None for none.

    Raises InputError for what no Python file defines.
    """
    if not found:
        return None
    try:
        content = b"".join(Path(inspect.getfile(each)).read_bytes() for each in found)
    except (TypeError, OSError) as error:
        named = ", ".join(str(getattr(each, "__name__", each)) for each in found)
        raise InputError(f"{named}: expected a class or function of a Python file ({error}).") from error
    return hashlib.sha256(content).hexdigest()


def never_from(folder: Path, *names: str) -> None:
    """Take a folder and those in it off the import path: a run folder of somebody else may hold code.

    names: of code that will be imported, package.module:Name; others are passed over. Raises InputError if one lies in
    the folder, which a path above it would find. Nothing is imported to know it.
    """
    inside = folder.resolve()
    sys.path[:] = [entry for entry in sys.path if not Path(entry or ".").resolve().is_relative_to(inside)]
    for name in filter(NAME.fullmatch, names):
        parts, path = name.partition(":")[0].split("."), None
        for count in range(1, len(parts) + 1):
            spec = PathFinder.find_spec(".".join(parts[:count]), path)
            if spec is None:
                break
            path = list(spec.submodule_search_locations or ())
            if any(Path(place).resolve().is_relative_to(inside) for place in (*path, spec.origin) if place):
                raise InputError(
                    f"'{name}' lies in {folder}: nothing is imported from a run folder. If you trust the code, copy it "
                    "to another place."
                )
