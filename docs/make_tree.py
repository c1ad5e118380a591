"""Writes the tree of docs/architecture.md from the first sentences of the modules: python docs/make_tree.py"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
FOLDERS = ("src/scribbleseg", "benchmarks", "docs", "examples")


def about(path: Path) -> str:
    """The first sentence of a module's docstring, or what its first comment says; empty where there is neither."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".sh":
        return re.search(r"^# ([^\n]+?)[.:]?$", text, re.MULTILINE)[1]
    paragraph = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0]
    return re.split(r":? python |(?<=[\w`)])\. (?=[A-Z`])", " ".join(paragraph.split()))[0].rstrip(".:")


def tree() -> str:
    """One line per file with code, folder by folder."""
    lines = []
    for folder in FOLDERS:
        files = [*(ROOT / folder).rglob("*.py"), *(ROOT / folder).rglob("*.sh")]
        for place in sorted({path.parent for path in files}):
            found = {path.name: about(path) for path in sorted(files) if path.parent == place}
            lines.append(f"{place.relative_to(ROOT).as_posix()}/")
            lines += [f"  {name:<18} {text}".rstrip() for name, text in found.items() if text]
    return "\n".join(lines)


def filled(page: str) -> str:
    """The page with its tree written anew."""
    return re.sub(r"(<!-- tree -->\n```\n).*?(\n```\n<!-- end -->)", lambda m: m[1] + tree() + m[2], page, flags=re.S)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
