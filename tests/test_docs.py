"""The pages at the top of the repository: short, true to the Makefile, and begun as promised."""

import re
from pathlib import Path

import pytest

from tests.docs import texts

ROOT = Path(__file__).resolve().parents[1]
TARGETS = re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize(("page", "lines"), [("README.md", 220), ("ARCHITECTURE.md", 150)])
def test_a_page_at_the_top_is_short(page: str, lines: int) -> None:
    assert len(texts.pages()[page].splitlines()) <= lines


def test_the_readme_names_the_two_commands_of_a_newcomer() -> None:
    development = texts.pages()["README.md"].partition("## Development\n")[2]

    assert re.findall(r"^make \w+$", development, re.MULTILINE) == ["make run", "make test"]


def test_the_readme_leads_to_every_guide_concept_and_reference_page() -> None:
    linked = set(re.findall(r"\((docs/[^)#]+)", texts.pages()["README.md"]))
    pages = {
        name
        for name in texts.pages()
        if re.match(r"docs/(?:guides|concepts|reference)/", name) and not name.endswith("index.md")
    }

    assert pages - linked == set()


def test_every_make_target_that_a_page_names_exists() -> None:
    named = {
        target
        for text in texts.pages().values()
        for target in re.findall(r"(?:`|^|\$ )make ([a-z0-9-]+)", text, re.MULTILINE)
    }

    assert named - set(TARGETS) == set()


def test_the_changelog_begins_with_what_is_not_released() -> None:
    changelog = texts.pages()["CHANGELOG.md"]

    assert re.findall(r"^## (.+)$", changelog, re.MULTILINE)[0] == "[Unreleased]"


def test_every_file_that_the_architecture_names_exists() -> None:
    named = set(re.findall(r"`([\w./]+(?:\.py|/))`", texts.pages()["ARCHITECTURE.md"]))
    named -= {"claude_proxy/a/b.py", "tests/a/test_b.py"}  # any module, and its tests
    there = {
        f"/{path.relative_to(ROOT)}{'/' if path.is_dir() else ''}"
        for top in ("claude_proxy", "tests", "bench", "docs")
        for path in (ROOT / top, *(ROOT / top).rglob("*"))
    }

    missing = [name for name in named if not any(path.endswith(f"/{name}") for path in there)]

    assert missing == []
