"""The options of a method: the keyword-only arguments of its __init__, each with what it may be and what it means.

    def __init__(self, network, *, temperature: Annotated[float, above(0), "τ of FBSL"] = 0.07): ...

Whoever gives an option (`--set`, Python, a run folder, a bench plan), its value is checked here.
"""

import functools
import inspect
import math
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from ..core.errors import InputError, nearest

KINDS: dict[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass(frozen=True)
class Range:
    """The values that an option may have."""

    words: str  # in help and errors, with {kind} for "a number", "a whole number"
    holds: Callable[[Any], bool]


def above(low: float) -> Range:
    """Larger than `low`."""
    return Range(f"{{kind}} above {low:g}", lambda value: value > low)


def at_least(low: float) -> Range:
    """`low` or larger."""
    return Range(f"{{kind}} of {low:g} or more", lambda value: value >= low)


def between(low: float, high: float) -> Range:
    """From `low` to `high`, both included."""
    return Range(f"{{kind}} from {low:g} to {high:g}", lambda value: low <= value <= high)


def one_of(*values: str | int) -> Range:
    """One of a few names or numbers, two or more."""
    *others, last = map(str, values)
    return Range(f"{', '.join(others)} or {last}", lambda value: value in values)


@dataclass(frozen=True)
class Option:
    """A keyword-only argument of a method: its name, its default, the values that it may have and what it means."""

    name: str
    default: object
    range: Range | None = None
    meaning: str = ""

    @property
    def expected(self) -> str:
        """What its value is, in words: `a number above 0`."""
        kind = KINDS.get(type(self.default), f"a {type(self.default).__name__} (only from Python)")
        return self.range.words.format(kind=kind) if self.range else kind

    @property
    def shown(self) -> str:
        """The default as `--set` takes it: `true`, `0.07`."""
        return str(self.default).lower() if isinstance(self.default, bool) else str(self.default)

    def allows(self, value: object) -> bool:
        """Whether the value has the type of the default (a float may be an int), is finite and lies in the range."""
        kind = type(self.default)
        if kind in (int, float):
            number = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
            right = number and math.isfinite(typing.cast(float, value))
        else:
            right = kind not in KINDS or isinstance(value, kind)
        return right and (self.range is None or self.range.holds(value))

    def parse(self, text: str) -> object:
        """The value that `text` means, by the type of the default. Raises ValueError for what is not allowed."""
        value: object = None
        if isinstance(self.default, bool):
            value = {"true": True, "false": False}.get(text.lower())
        elif isinstance(self.default, (int, float, str)):
            value = type(self.default)(text)
        if value is None or not self.allows(value):
            raise ValueError(text)
        return value


@functools.cache
def declared(init: Callable[..., None]) -> dict[str, Option]:
    """The options of a method's __init__, by name. What is not Annotated has a default and no range."""
    try:
        hints = typing.get_type_hints(init, include_extras=True)
    except NameError:  # somebody's annotation names what only a type checker imports
        hints = {}
    options = {}
    for name, parameter in inspect.signature(init).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            notes = getattr(hints.get(name), "__metadata__", ())
            allowed = next((note for note in notes if isinstance(note, Range)), None)
            meaning = next((note for note in notes if isinstance(note, str)), "")
            options[name] = Option(name, parameter.default, allowed, meaning)
    return options


def checked(init: Callable[..., None]) -> Callable[..., None]:
    """A method's __init__ that first checks its options. Raises InputError for a value that is not allowed."""

    @functools.wraps(init)
    def checking(self: object, *args: Any, **given: Any) -> None:
        options, owner = declared(init), type(self).__name__
        parameters = inspect.signature(init).parameters.values()
        for name, value in given.items():
            if name in options and not options[name].allows(value):
                option = options[name]
                raise InputError(
                    f"{owner}: {name} is {value!r}; expected {option.expected} (the default is {option.default!r})."
                )
            if not any(name == p.name or p.kind is p.VAR_KEYWORD for p in parameters):
                raise InputError(f"{owner}: {no_option(name, options)}")
        init(self, *args, **given)

    return checking


def no_option(name: str, known: Iterable[str]) -> str:
    """The error for an option that a method does not have."""
    known = list(known)
    return f"no option '{name}'. {nearest(name, known) if known else 'This method has no options.'}"
