"""InputError, the error that a user can correct, and the words of its messages."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

Choice = TypeVar("Choice")


class InputError(ValueError):
    """Bad input. The message says what was found, what was expected and what to do. The command line exits with 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word and lists all: `Did you mean 'effdnet'? Known: effdnet, pce.`"""
    known = sorted(known)
    bare = {word.lstrip("-"): word for word in known}  # the dashes would make all options look alike
    close = difflib.get_close_matches(name.lstrip("-"), bare, n=1)
    hint = f"Did you mean '{bare[close[0]]}'? " if close else ""
    return f"{hint}Known: {', '.join(known)}."


SHOWN = 5  # names in a message


def choose(name: str, value: str, among: Mapping[str, Choice]) -> Choice:
    """The entry of `among` for `value`. If there is none, raises InputError that lists the choices."""
    if value not in among:
        raise InputError(f"{name} is {value!r}; expected {' or '.join(map(repr, among))}.")
    return among[value]


def some_failed(failed: Sequence[str], count: int, done: str) -> str:
    """What is said of the cases that failed among `count`: up to five of the messages, one a line."""
    lines = [*failed[:SHOWN], *([f"… and {len(failed) - SHOWN} more"] if len(failed) > SHOWN else [])]
    if count == 1:
        return lines[0]
    others = count - len(failed)
    rest = f" ({'the other was' if others == 1 else 'the others were'}). Not {done}" if others else ""
    return "\n".join([f"{len(failed)} of {count} cases could not be {done}{rest}:", *lines])


def counted(count: int, noun: str) -> str:
    """The number with its noun: "1 case", "3 cases"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def first_names(names: list[str]) -> str:
    """The names as text for a message. Of more than five names it shows five, and says how many there are."""
    return ", ".join(names[:SHOWN]) + (f", … ({len(names)} in all)" if len(names) > SHOWN else "")
