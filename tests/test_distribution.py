"""What is in the wheel and in the source archive, and how large they are."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys; from setuptools import build_meta as b; print(b.build_wheel('out'), b.build_sdist('out'))"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[set[str], set[str], list[int]]:
    """Names in the wheel and in the source archive, and the sizes of both, built from the files that git tracks."""
    pytest.importorskip("setuptools")
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("tree")
    for name in listed.stdout.splitlines():
        if name.startswith(("src/", "docs/", "examples/", "containers/", "benchmarks/plans/")) or "/" not in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    done = subprocess.run([sys.executable, "-c", BUILD], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wheel, source = (next((folder / "out").glob(end)) for end in ("*.whl", "*.tar.gz"))
    with zipfile.ZipFile(wheel) as archive, tarfile.open(source) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
        return set(archive.namelist()), inside, [path.stat().st_size for path in (wheel, source)]


def test_the_wheel_has_the_package_and_nothing_else(built):
    names, _, (size, _) = built
    package = ROOT / "src"
    tracked = {
        str(path.relative_to(package))
        for path in (package / "scribbleseg").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    own = {name for name in names if ".dist-info/" not in name}
    assert own == tracked
    assert {"scribbleseg/py.typed", "scribbleseg/sharing/standalone.py"} <= own
    assert any(name.startswith("scribbleseg/draw/static/") for name in own)
    assert size < 1_000_000


def test_the_source_archive_has_docs_plans_and_examples(built):
    _, names, (_, size) = built
    for part in ("docs", "examples", "benchmarks/plans", "src/scribbleseg"):
        wanted = {str(path.relative_to(ROOT)) for path in (ROOT / part).rglob("*.[mpt][dyo]*") if path.is_file()}
        wanted = {name for name in wanted if "__pycache__" not in name}
        assert wanted and wanted <= names, sorted(wanted - names)
    assert {
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CITATION.cff",
        "pyproject.toml",
        "containers/Dockerfile.cpu",
    } <= names
    assert size < 10_000_000


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_a_container_file_copies_what_exists_and_is_sent(name):
    lines = (ROOT / "containers" / f"Dockerfile.{name}").read_text(encoding="utf-8").splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[:1] == "!"}
    assert set(copied) == sent and all((ROOT / path).exists() for path in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = re.search(r"\.\[(.*?)\]", "\n".join(lines))[1].split(",")
    assert set(extras) <= project["optional-dependencies"].keys()
    assert project["readme"] in copied and 'ENTRYPOINT ["scribbleseg"]' in lines
