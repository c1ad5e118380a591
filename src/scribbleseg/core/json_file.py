"""JSON files that a user may have written or edited."""

import json
from pathlib import Path
from typing import Any

from .errors import InputError


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises InputError if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error}). Correct the file.") from error
