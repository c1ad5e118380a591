"""The modules of the drawing page import downwards only, and every change that one tells has a listener."""

import re
from pathlib import Path

import pytest

import scribbleseg

STATIC = Path(scribbleseg.__file__).parent / "draw" / "static"
MODULES = sorted(path.stem for path in STATIC.glob("*.js"))

# from the bottom up: a module may import what stands below it
FLOORS = (
    {"api", "pixels"},  # requests, arithmetic
    {"state", "view"},
    {"page", "connection"},
    {"saver", "tools", "windows"},  # from here on: actions, which change the state and tell it
    {"slices"},
    {"strokes", "model"},
    {"panels", "dialogs", "keys"},  # what the user sees and presses
    {"pointer"},
    {"app"},
)


def imported(text: str) -> set[str]:
    """The page's modules that a module imports or exports again."""
    return set(re.findall(r"""(?:\bfrom|\bimport)\s*\(?\s*["'`]\./([\w-]+)\.js["'`]""", text))


def floor(module: str) -> int:
    found = [level for level, names in enumerate(FLOORS) if module in names]
    assert found, f"{module}.js: give it a place in FLOORS"
    return found[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    text = (STATIC / f"{module}.js").read_text(encoding="utf-8")
    assert text.count("import ") >= len(imported(text))
    for other in imported(text):
        assert floor(other) < floor(module), f"{module}.js imports {other}.js, which does not stand below it"


def test_every_module_of_the_floors_is_there():
    assert sorted(set().union(*FLOORS)) == MODULES


def test_imported_sees_every_form():
    text = """import * as a from "./a.js";\nimport { b,\n  c } from './b.js';\nimport "./c.js";
    export { d } from "./d.js"; const e = await import("./e.js"); say("from ./f.js");"""
    assert imported(text) == {"a", "b", "c", "d", "e"}


def test_every_change_is_told_and_listened_to():
    texts = [path.read_text(encoding="utf-8") for path in STATIC.glob("*.js")]
    told = {name for text in texts for name in re.findall(r'\btell\("([^"]*)"', text)}
    listened = {name for text in texts for names in re.findall(r'\bon\("([^"]*)"', text) for name in names.split()}
    assert told == listened and "session" in told
