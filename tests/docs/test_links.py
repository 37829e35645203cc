"""Relative links of every page lead to a file, and to a heading of it."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs import texts

LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """Return the anchors of headings, made as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def broken_links(page: str, text: str, files: Mapping[str, str]) -> list[str]:
    """Return the links of a page that lead nowhere."""
    broken = []
    for link in LINK.findall(FENCED.sub("", text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (texts.ROOT / page).parent / path if path else texts.ROOT / page
        name = str(Path(target).resolve().relative_to(texts.ROOT))
        missing_anchor = anchor and anchor not in anchors(files.get(name, ""))
        if not target.exists() or missing_anchor:
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", texts.pages())
def test_every_relative_link_leads_somewhere(page: str) -> None:
    files = texts.pages()

    assert broken_links(page, files[page], files) == []


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = (
        "[a](docs/no-such-page.md), [b](README.md#no-such-heading), [c](README.md), [d](https://x/)"
    )

    found = broken_links("README.md", text, texts.pages())

    assert found == ["docs/no-such-page.md", "README.md#no-such-heading"]


def test_every_page_of_the_site_is_reachable_from_its_index() -> None:
    pages = {name for name in texts.pages() if name.startswith("docs/")}
    toctrees = {
        str((texts.ROOT / page).parent.relative_to(texts.ROOT) / entry.strip()) + ".md"
        for page in pages
        for block in re.findall(
            r"^```\{toctree\}\n(.*?)^```", texts.pages()[page], re.MULTILINE | re.DOTALL
        )
        for entry in block.splitlines()
        if entry.strip() and not entry.startswith(":")
    }
    globbed = {name for name in pages if name.startswith("docs/adr/0")}

    assert pages - toctrees - globbed == {"docs/index.md"}
