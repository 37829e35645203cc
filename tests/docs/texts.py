"""Text that users read: the pages, and the string literals of the program."""

import ast
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "claude_proxy"
AT_THE_TOP = ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md", "ARCHITECTURE.md")
DATA = {".yaml", ".yml", ".toml", ".json", ".service", ".socket", ".nft", ".conf", ".plist"}


@cache
def pages() -> Mapping[str, str]:
    """Return the text of every Markdown page by its path in the repository."""
    found = [ROOT / name for name in AT_THE_TOP if (ROOT / name).is_file()]
    found += sorted((ROOT / "docs").rglob("*.md"))
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in found}


def literals() -> Iterator[tuple[str, str]]:
    """Yield `file:line` and text of each string in the program, docstrings included.

    Adjacent literals are one text, as Python joins them; what an f-string puts in is `{}`.
    """
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(ROOT)
        tree = ast.parse(path.read_text("utf-8"))
        parts = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr)
            for part in node.values
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield f"{name}:{node.lineno}", "".join(map(_text, node.values))
            elif isinstance(node, ast.Constant) and id(node) not in parts:
                yield f"{name}:{node.lineno}", _text(node)


def _text(node: ast.expr) -> str:
    if not isinstance(node, ast.Constant):
        return "{}"
    return node.value if isinstance(node.value, str) else ""


def data_files() -> dict[str, str]:
    """Return the text of each file that the package ships beside its modules."""
    paths = [path for path in sorted(PACKAGE.rglob("*")) if path.suffix in DATA]
    paths.append(ROOT / "allowlist.yaml")
    return {str(path.relative_to(ROOT)): path.read_text("utf-8") for path in paths}


@cache
def everything() -> Mapping[str, str]:
    """Return every text that a user may read, by where it is written."""
    return {**pages(), **dict(literals()), **data_files()}
