"""Lines for the user on stderr and stdout, whatever characters are in them and whoever reads them."""

import os
import re
import sys

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # all but the end of a line


def say(text: str) -> None:
    """Print to stderr. If nobody can read it any more (a closed pipe or terminal, a full disk), work goes on.

    Control characters in the text, such as escape codes in a file's name, are shown as \\x1b.
    """
    try:
        print(visible(text), file=sys.stderr, flush=True)
    except (OSError, ValueError):
        sys.stderr = open(os.devnull, "w", encoding="utf-8")


def tell(text: str) -> None:
    """Print to stdout, control characters as in `say`."""
    print(visible(text))


def visible(text: str) -> str:
    """The text with its control characters, and what is not text at all (a byte of a file's name), as escape codes."""
    shown = CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return shown.encode("utf-8", "backslashreplace").decode()
