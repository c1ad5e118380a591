"""Read a packed model, the zip file that the verb `pack` writes. No code in it can run."""

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..core.errors import InputError, first_names
from ..training.plan import PACKED

CONFIG, WEIGHTS, CARD = "config.json", "last.safetensors", "README.md"
FILES = (CONFIG, WEIGHTS, CARD)  # all that a packed model may hold
AGAIN = "Ask for the file again, as `scribbleseg pack` wrote it."


@contextmanager
def run_folder(run: Path) -> Iterator[Path]:
    """The run folder of a run: the folder itself, or for a packed model a temporary one with its files.

    Raises InputError for a zip file that holds anything else than regular files named in FILES, that lacks settings or
    weights, whose files are compressed (so that none can grow), or that is damaged. Errors about files in the temporary
    folder, raised inside the block, name the zip file.
    """
    run = Path(run)
    if run.suffix != PACKED or not run.is_file():
        yield run
        return
    with tempfile.TemporaryDirectory(prefix="scribbleseg-") as name:
        folder = Path(name)
        _unpack(run, folder)
        try:
            yield folder
        except InputError as error:
            raise InputError(str(error).replace(str(folder), str(run))) from error


def _unpack(path: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            _check(path, archive.infolist())
            for entry in archive.infolist():
                with archive.open(entry) as source, open(folder / entry.filename, "wb") as file:
                    shutil.copyfileobj(source, file)
    except InputError:
        raise
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not a packed model, or a damaged one ({error}). {AGAIN}") from error


def _check(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    """Raises InputError for entries that a packed model does not have."""
    names = [entry.filename for entry in entries]
    if odd := [name for name in names if name not in FILES]:
        raise InputError(f"{path}: holds {first_names(odd)}; a packed model has only {', '.join(FILES)}. {AGAIN}")
    if len(set(names)) < len(names) or not {CONFIG, WEIGHTS} <= set(names):
        raise InputError(f"{path}: holds {', '.join(names) or 'nothing'}; expected each of {', '.join(FILES)}. {AGAIN}")
    for entry in entries:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise InputError(f"{path}: {entry.filename} is a link or a device, no file. {AGAIN}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > path.stat().st_size:
            raise InputError(
                f"{path}: {entry.filename} is compressed; a packed model holds its files as they are. {AGAIN}"
            )
