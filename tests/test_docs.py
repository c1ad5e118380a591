"""What the pages say is so: commands parse, links and the tree are true, numbers are those of the committed CSVs."""

import ast
import csv
import importlib
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import pytest
from small import small_dataset

import scribbleseg
from scribbleseg import cli
from scribbleseg.bench.store import read_scores
from scribbleseg.config import Train
from scribbleseg.evaluation.scores import summarise
from scribbleseg.methods import METHODS, hyperparameters, parse_options
from scribbleseg.training.board import BOARDS
from scribbleseg.training.recipe import method_name

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS = ROOT / "benchmarks" / "results" / "quick"


def commands(page: Path) -> list[str]:
    """Lines that start with `scribbleseg VERB`, in blocks or between backticks, without comment and PYTHONPATH."""
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"^ *(?:PYTHONPATH=\. )?(scribbleseg .*)$", text, re.MULTILINE) + re.findall(
        r"`(?:PYTHONPATH=\. )?(scribbleseg [^`\n]*)`", text
    )
    return [line.partition(" #")[0].strip() for line in lines if "VERB" not in line]


every_command = [
    pytest.param(line, id=f"{page.name}: {line}") for page in PAGES for line in dict.fromkeys(commands(page))
]


@pytest.mark.parametrize("line", every_command)
def test_a_command_is_one_that_the_command_line_takes(line, monkeypatch):
    ran = []
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.setattr(cli, "_run", lambda target, settings: ran.append(settings) or 0)
    words = shlex.split(line)[1:]
    assert cli.main(words) == 0
    if ran and isinstance(ran[0], Train):
        parse_options(method_name(ran[0]), ran[0].set)


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in a language; those without one hold commands, and in architecture.md the tree."""
    text = page.read_text(encoding="utf-8")
    return [
        body
        for kind, body in re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if kind == language
    ]


OTHERS = (  # programs that are not part of the checkout
    "nnUNetv2_",
    "ray start ",
    "sbatch ",
    "id=$(sbatch ",
    "mkdir ",
    "cp ",
    "ln ",
    "cd ",
    "python -m monai.bundle ",
    "python shared/mine/predict.py ",  # what `export` writes; tests/test_export.py runs both
)
other_commands = [
    pytest.param(line.partition(" #")[0].strip(), id=f"{page.name}: {line}")
    for page in PAGES
    if page.name != "architecture.md"
    for block in blocks(page, "")
    for line in block.splitlines()
    if line.strip() and "scribbleseg " not in line.removeprefix("PYTHONPATH=. ")[:12]
]


@pytest.mark.parametrize("line", other_commands)
def test_another_command_is_about_what_exists(line, monkeypatch):
    if line.startswith(OTHERS):
        return
    words = shlex.split(line)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file()
    elif words[:2] == ["pip", "install"]:
        assert re.fullmatch(r"\.(\[[\w-]+\])?", words[2])  # its extra is looked at below
    elif words[:2] == ["docker", "build"]:
        assert (ROOT / words[words.index("-f") + 1]).is_file()
    else:
        assert words[:2] == ["docker", "run"], "what is this command? Test it, or add it to OTHERS"
        image = next(place for place, word in enumerate(words) if re.fullmatch("scribbleseg(:cuda)?", word))
        monkeypatch.setattr(cli, "_run", lambda target, settings: 0)
        assert cli.main(words[image + 1 :]) == 0


python_blocks = [
    pytest.param(block, id=f"{page.name} {number}")
    for page in PAGES
    for number, block in enumerate(blocks(page, "python"), 1)
]


@pytest.mark.parametrize("block", python_blocks)
def test_python_on_a_page_names_what_exists(block):
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("scribbleseg"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), node.module
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value
            if isinstance(owner, ast.Name) and owner.id == "ss":
                given = {word.arg: None for word in node.keywords}
                inspect.signature(getattr(scribbleseg, node.func.attr)).bind(*node.args, **given)


def test_every_verb_has_a_command_in_the_readme():
    assert {line.split()[1] for line in commands(ROOT / "README.md")} >= cli.VERBS.keys()


def test_make_targets_exist():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:^|`)make (\w+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= targets


def test_every_page_is_on_the_site():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or re.search(rf"^{page.stem}$", index, re.MULTILINE), f"add {page.stem} to index.md"


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    for package in ("sphinx", "myst_parser", "pydata_sphinx_theme"):
        pytest.importorskip(package)
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", ROOT / "docs", tmp_path / "site"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    api = (tmp_path / "site" / "api.html").read_text(encoding="utf-8")
    for name in ("train", "load", "inference.predictor.Predictor.predict", "losses.regularizers.gated_crf"):
        assert f'id="scribbleseg.{name}"' in api, name
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text(encoding="utf-8"))
        assert not loaded, f"{page.name} loads {loaded}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_tree_of_the_architecture_page_is_true(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import make_tree

    page = make_tree.PAGE.read_text(encoding="utf-8")
    assert make_tree.filled(page) == page, "run: python docs/make_tree.py"
    files = [path for path in (ROOT / "src").rglob("*.py") if path.stat().st_size]
    assert len(files) > 90
    for path in files:
        assert f"\n  {path.name} " in page and make_tree.about(path), f"{path} has no docstring"


def test_every_dependency_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [item for extra in project["optional-dependencies"].values() for item in extra]
    wanted = [item for item in (*project["dependencies"], *extras) if not item.startswith("scribbleseg[")]
    named = re.findall(r"`([\w-]+)`", (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8"))
    assert not {re.match(r"[\w-]+", item)[0] for item in wanted} - set(named)
    assert project["optional-dependencies"].keys() - {"test"} <= set(named)


def test_an_extra_that_a_text_names_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    texts = [
        path.read_text(encoding="utf-8") for place in ("src", "examples") for path in ROOT.glob(f"{place}/**/*.py")
    ]
    texts += [path.read_text(encoding="utf-8") for path in PAGES]
    named = {name for text in texts for name in re.findall(r"(?:[ '`]\.|scribbleseg)\[([a-z][\w-]*)\]", text)}
    assert {"draw", "monai", "tensorboard"} <= named | BOARDS.keys() <= extras.keys()


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_that_knows_its_options(name):
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}: ")
    assert f"--method {name}" in page
    assert f"(docs/methods/{name}.md)" in README
    options = hyperparameters(name)
    for option in options:
        assert f"`{option}" in page, option
    table = page.partition("| option | default |")[2].partition("\n\n")[0]
    for option, text in re.findall(r"^\| `(\w+)` \| `?([\w.-]+)`? \|", table, re.MULTILINE):
        assert parse_options(name, (f"{option}={text}",)) == {option: options[option]}


def test_the_tests_of_the_reliability_page_exist():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)`", page))
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert len(named) > 50 and not [name for name in named if f"def {name}(" not in code]


def lines(name: str) -> list[dict[str, str]]:
    with open(RESULTS.parent / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def dice_of(run: str, seeds: Sequence[int] = range(3)) -> str:
    """The mean Dice at budget quick, over those of these seeds that were run."""
    scores = read_scores(RESULTS)
    found = [100 * summarise(scores[name])[-1]["dice"] for seed in seeds if (name := f"{run}-s{seed}") in scores]
    return f"{mean(found):.1f}" if found else "–"


def dice_of_preset(preset: str, place: str) -> str:
    """Of all seeds."""
    runs = lines(f"{preset}/runs.csv")
    found = [float(run["dice"]) for run in runs if f"{run['data']}/{run['split']}-{run['fold']}" == place]
    return f"{mean(found):.1f}" if found else "–"


def test_the_first_table_of_the_readme_shows_minutes_and_scores_as_committed():
    block = re.search(r"<!-- minutes.*?-->(.*)<!-- end of minutes -->", README, re.DOTALL)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()[2:]]
    shown = {cells[0]: cells[1:] for cells in rows}
    minutes = {line["recipe"]: line["minutes"] for line in lines("minutes.csv")}
    places = ("acdc/cv5-0", "acdc/strat5-0")
    for preset in ("fast", "best"):
        dice = [dice_of_preset(preset, place) for place in places]
        assert shown.pop(f"`--preset {preset}`") == [minutes.get(preset, "–"), *dice]
    for method in ("pce", "scn", "effdnet"):
        dice = [dice_of(f"{place}/{method}") for place in places]
        assert shown.pop(f"`--method {method} --budget quick`") == [minutes.get(method, "–"), *dice]
    [released] = lines("released.csv")
    assert shown == {released["code"]: [released["minutes"], released["dice"], "–"]}
    assert [float(cells[2]) for cells in rows] == sorted([float(cells[2]) for cells in rows], reverse=True)


def test_the_script_writes_these_tables_as_they_are(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    import make_tables

    page = (ROOT / "docs" / "methods" / "README.md").read_text(encoding="utf-8")
    assert (make_tables.with_minutes(README), make_tables.with_scores(page)) == (README, page)


def test_the_first_lines_of_the_results_page_show_the_committed_scores():
    first = "\n".join((ROOT / "docs" / "results.md").read_text(encoding="utf-8").splitlines()[:10])
    at_length = read_scores(RESULTS.parent / "paper")
    said = [
        f"{100 * summarise(at_length[run])[-1]['dice']:.1f}" for run in ("acdc/622-0/scn-s0", "mscmr/25-5-15-0/scn-s0")
    ]
    said += [dice_of_preset(preset, "acdc/cv5-0") for preset in ("fast", "best")]
    said += [
        dice_of("acdc/622-0/scn"),
        f"{mean(float(dice_of(f'acdc/cv5-{fold}/effdnet', (0,))) for fold in range(5)):.1f}",
    ]
    for dice in said:
        assert f"{dice} %" in first, dice


def test_the_methods_page_shows_the_committed_scores():
    page = (ROOT / "docs" / "methods" / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- scores.*?-->(.*)<!-- end of scores -->", page, re.DOTALL)[1]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines() if "[`" in line]
    shown = {re.match(r"\[`(.*)`\]", cells[0])[1]: cells[-3:] for cells in rows}
    places = ("acdc/cv5-0", "acdc/strat5-0", "mscmr/25-5-15-0")
    expected = {name: [dice_of(f"{place}/{name}") for place in places] for name in METHODS}
    expected["corral"] = [dice_of_preset("fast", place) for place in places]
    assert shown == expected, "run: python docs/make_tables.py"


def test_the_figure_is_small():
    assert 10_000 < (ROOT / "docs" / "figures" / "phantom.png").stat().st_size <= 150_000


def test_the_guides_python_runs(tmp_path, monkeypatch):
    small_dataset(tmp_path / "my_data", cases=3)
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "guide.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    assert "iterations=3000" in code
    names = {}
    exec(code.replace("iterations=3000", "iterations=2, size=32, batch=2"), names)
    assert len(names["rows"]) == 2


def test_the_code_of_contributing_is_the_examples():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(shown) == 2
    for name, part in zip(("new_method", "own_network"), shown):
        assert (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8").endswith(part)


@pytest.mark.slow
def test_the_gallerys_pictures_are_those_of_its_script(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "figures"))
    import make_gallery

    made = [path.name for path in make_gallery.make_gallery(tmp_path)]
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    assert re.findall(r"\(figures/(gallery-[\w-]+\.png)\)", page) == made
    for name in made:
        assert (tmp_path / name).stat().st_size < 100_000 and (ROOT / "docs" / "figures" / name).is_file()
