"""Functions that the benchmark scripts share: paths, CSV files, Markdown tables, and the `scribbleseg` command."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from scribbleseg.bench.formats import pipe_table
from scribbleseg.core.atomic import atomic_file, atomic_folder

RESULTS = Path("benchmarks/results")
SCRIBBLESEG = [sys.executable, "-m", "scribbleseg"]


def slug(device: str) -> str:
    """A device's name as part of a file name: `AMD EPYC, 2 threads` → `amd-epyc-2-threads`."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-")


def markdown_table(head: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    return pipe_table(list(head), [list(map(str, row)) for row in rows])


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where there is no file."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, rows: Sequence[Mapping], columns: Sequence[str]) -> None:
    """Write the columns of the rows, atomically."""
    with atomic_file(path) as partial, open(partial, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def put_line(path: Path, line: Mapping, place: Callable[[Mapping], tuple], columns: Sequence[str]) -> list[Mapping]:
    """Put a line into a CSV file, instead of the one with the same `place`; returns the lines, sorted by it."""
    lines = sorted([*(old for old in read_csv(path) if place(old) != place(line)), line], key=place)
    write_csv(path, lines, columns)
    return lines


def write_page(path: Path, *blocks: str) -> None:
    """Write the blocks of a Markdown page, atomically."""
    with atomic_file(path) as partial:
        partial.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")


def read_log(run: Path) -> list[dict]:
    """The lines of RUN/log.jsonl."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def scribbleseg(words: Iterable[object], environment: Mapping[str, str] = {}, quiet: bool = False) -> None:
    """Run a verb of the command line. Raises CalledProcessError if it fails."""
    stdout = subprocess.DEVNULL if quiet else None
    subprocess.run([*SCRIBBLESEG, *map(str, words)], env=os.environ | environment, check=True, stdout=stdout)


def findable() -> None:
    """Let the trainings that a study starts import the classes of the studies."""
    folders = [str(Path(__file__).parent / "studies"), str(Path(__file__).parent)]
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")])


def with_split(data: Path, target: Path, name: str, folds: Sequence[Mapping]) -> Path:
    """The data set, by links, with one split of its own; made once. Raises SystemExit where another split is there."""
    made = target / "splits" / f"{name}.json"
    if made.is_file() and json.loads(made.read_text(encoding="utf-8")) != json.loads(json.dumps(folds)):
        raise SystemExit(f"{made}: has other folds than it would be made with now. Remove {target}.")
    if not target.is_dir():
        with atomic_folder(target) as partial:
            for path in data.iterdir():
                if path.name != "splits":
                    (partial / path.name).symlink_to(path.resolve())
            (partial / "splits").mkdir()
            (partial / "splits" / f"{name}.json").write_text(json.dumps(folds), encoding="utf-8")
    return target


def safetensors_metadata(content: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: eight bytes with the header's length, then the header as JSON."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
