"""Fenced blocks of Markdown: language, further words of the fence, text, and place."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.docs import texts

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```[ ]*$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Fence:
    """One fenced block."""

    page: str
    line: int
    language: str
    kind: str  # the second word: which kind of file a YAML block is
    path: str  # the third word: where the commands that follow on the page find it
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def fences(*languages: str) -> Iterator[Fence]:
    """Yield the blocks of these languages on all pages, in order; all of them if none is named."""
    for page, text in texts.pages().items():
        for match in _FENCE.finditer(text):
            language, kind, path = [*match["info"].split(), "", "", ""][:3]
            if not languages or language in languages:
                line = text.count("\n", 0, match.start()) + 1
                body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
                yield Fence(page, line, language, kind, path, body)
