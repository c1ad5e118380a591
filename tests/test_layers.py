"""Every module imports, and imports point down only."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import scribbleseg

ROOT = Path(scribbleseg.__file__).parent
MODULES = sorted(path.relative_to(ROOT).with_suffix("") for path in ROOT.rglob("*.py"))

# from the bottom up: a module may import what stands below it, and its own folder
LAYERS = (
    {"config"},
    {"core"},
    {"data"},
    {"losses", "networks"},
    {"methods"},
    {"training"},
    {"inference", "evaluation"},
    {"reporting"},
    {"sharing"},
    {"draw"},
    {"bench"},
    {"api", "cli", "demo", "__main__"},
)
FREE_OF_TORCH = ("config", "cli", "api")
HEAVY = ("torch", "scipy", "skimage", "matplotlib", "h5py", "nibabel", "monai")


def layer(name: str) -> int:
    found = [level for level, names in enumerate(LAYERS) if name in names]
    assert found, f"{name}: give it a place in LAYERS"
    return found[0]


def imported(path: Path) -> set[str]:
    """First names, below `scribbleseg`, of everything that a module imports, at its top or inside a function."""
    package = ["scribbleseg", *path.relative_to(ROOT).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = [*base, *(node.module.split(".") if node.module else [])]
            names |= {tuple([*module, alias.name][:2]) for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {tuple(alias.name.split(".")[:2]) for alias in node.names}
    return {parts[1] for parts in names if parts[0] == "scribbleseg" and len(parts) > 1} - {"__version__"}


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_module_imports(module):
    name = ".".join(("scribbleseg", *module.parts)).removesuffix(".__init__")
    if not name.endswith("__main__"):
        importlib.import_module(name)


@pytest.mark.parametrize("module", [m for m in MODULES if m != Path("__init__")], ids=str)
def test_imports_point_down(module):
    own = module.parts[0]
    for other in imported(ROOT / module.with_suffix(".py")) - {own}:
        assert layer(other) <= layer(own), f"{own} imports {other}, which stands above it"


def test_imported_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "methods").mkdir()
    path = tmp_path / "methods" / "one.py"
    path.write_text(
        "import torch\nimport scribbleseg.train\nfrom .base import Method\nfrom ..losses import a\n"
        "from .. import cli\nfrom scribbleseg import bench\n",
        encoding="utf-8",
    )
    assert imported(path) == {"train", "methods", "losses", "cli", "bench"}


@pytest.mark.parametrize("name", [name for name in FREE_OF_TORCH if (ROOT / f"{name}.py").is_file()])
def test_the_command_line_starts_without_heavy_imports(name):
    code = f"import sys, scribbleseg.{name}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


BENCHMARKS = ROOT.parents[1] / "benchmarks"


def finds_common(path: Path) -> bool:
    """Whether `python benchmarks/…/NAME.py` finds benchmarks/common.py: by itself, or by a script imported before."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("sys.path.append(str(Path(__file__).parents[1]))"):
            return True
        if line.startswith(("from ", "import ")):
            name = line.split()[1]
            if name == "common":
                return False
            if path.with_name(f"{name}.py").is_file() and finds_common(path.with_name(f"{name}.py")):
                return True
    return False


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*/*.py")), ids=lambda path: path.name)
def test_a_script_that_needs_common_finds_it(path):
    if "from common import" in path.read_text(encoding="utf-8"):
        assert finds_common(path)
