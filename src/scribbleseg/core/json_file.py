"""JSON and text files that a user may have written or edited: read, and held to a schema of types."""

import json
import re
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec

from .errors import InputError

Kind = TypeVar("Kind")
OURS = {
    "`array`": "a list",
    "`object`": "an object",
    "`object | null`": "an object",
    "`str`": "text",
    "`str | null`": "text",
    "`int`": "a whole number",
    "`int | null`": "a whole number",
    "`float`": "a number",
    "`float | null`": "a number",
    "`bool`": "true or false",
    "`null`": "null",
    "`int | float | str`": "text or a number",
    "`int | str | array`": "a whole number",
    "`int | str | null`": "text",
    "matching regex '^\\\\.'": "that begins with a dot",
}  # msgspec's words → words of a message
SHOWN = 80  # characters of a value in a message


@overload
def read_json(path: Path) -> Any: ...
@overload
def read_json(path: Path, kind: type[Kind]) -> Kind: ...
def read_json(path: Path, kind: Any = Any) -> Any:
    """The content of a JSON file, of the type `kind`. A byte order mark is skipped.

    Raises InputError if the file cannot be read, names a key twice, or has values of other types.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except RecursionError as error:
        raise InputError(f"{path}: not readable as JSON (nested too deeply). Correct the file.") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}). Correct the file.") from error
    return convert(content, kind, path)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file with their ends; none where there is no file. Raises InputError for what is no text."""
    try:
        return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start + 1} is not UTF-8. Copy the file again, or remove it.") from error


def convert(content: Any, kind: Any, where: object, mend: str = "Correct the file.") -> Any:
    """The content as a value of the type `kind`: a msgspec.Struct, a dataclass, list[str], … .

    Raises InputError that names the place in the content, what was found and what was expected, and ends with `mend`.
    """
    try:
        return msgspec.convert(content, kind, dec_hook=lambda wanted, value: wanted(value))
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: has a name that is no text ({error.object!a}). {mend}") from error
    except (msgspec.ValidationError, RecursionError) as error:
        text, _, place = str(error).partition(" - at `$")
        place = place.rstrip("`").lstrip(".")
        for theirs, ours in OURS.items():
            text = text.replace(theirs, ours)
        text = f"{text[:1].lower()}{text[1:]}".replace(", got", "; got")
        spot = f"{place!r}{_found(content, place)}: " if place else ""
        raise InputError(f"{where}: {spot}{text}. {mend}") from error


def _found(content: Any, place: str) -> str:
    """` is VALUE` of the value at a place in the content; empty where the place does not say which key."""
    if "[...]" in place:
        return ""
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", place):
        try:
            content = content[int(index) if index else key]
        except (LookupError, TypeError):
            return ""
    shown = repr(content)
    return f" is {shown[:SHOWN]}{'…' * (len(shown) > SHOWN)}"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"'{next(name for name in names if names.count(name) > 1)}' is named twice")
    return found
