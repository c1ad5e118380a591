"""Strokes drawn in the browser, and the model that learns from them."""

from pathlib import Path


def scribbles_folder(folder: Path) -> Path:
    """Where the data set of a bare folder of scans lies: beside it."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}_scribbles")
