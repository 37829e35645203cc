"""Console examples in the pages do what they show: they are run in an empty home, page by page."""

import os
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from tests.docs.fences import Fence, fences

# Commands, and the files that a page has before them.
EXAMPLES = [fence for fence in fences() if fence.language == "console" or fence.path]
HOME_OF_PAGES = "/home/you"
LONGEST_S = 60


def commands(fence: Fence) -> list[tuple[str, str]]:
    """Return each command of a block, and the output that the block shows for it."""
    parts = re.split(r"^\$ ", fence.text, flags=re.MULTILINE)
    assert parts[0] == "", f"{fence}: text before the first command"
    return [
        (command, output) for command, _, output in (part.partition("\n") for part in parts[1:])
    ]


def pattern_of(output: str) -> re.Pattern[str]:
    """Return what matches `output`: a line `...` is any lines, `...` in a line any text of it."""
    lines = [
        r"(?:.*\n)*?" if line == "..." else ".*?".join(map(re.escape, line.split("..."))) + r"\n"
        for line in output.splitlines()
    ]
    return re.compile("".join(lines))


def write(path: Path, text: str) -> None:
    """Write a file that a page shows, as its reader would."""
    for directory in reversed(path.parents):
        directory.mkdir(mode=0o700, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(0o600)


def run(command: str, home: Path) -> str:
    """Run one command as a shell does, and return everything that it printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"CLAUDE_PROXY_|XDG_|COVERAGE_|.*_proxy$", name, re.IGNORECASE)
    }
    environment |= {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NO_COLOR": "1",
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=home,
        env=environment,
        timeout=LONGEST_S,
    )
    return done.stdout.replace(str(home), HOME_OF_PAGES)


@pytest.mark.parametrize(
    "blocks",
    [
        pytest.param(list(blocks), id=page)
        for page, blocks in groupby(EXAMPLES, key=lambda fence: fence.page)
    ],
)
def test_what_a_page_shows_is_what_happens(blocks: list[Fence], tmp_path: Path) -> None:
    for fence in blocks:
        if fence.path:
            write(tmp_path / fence.path.removeprefix("~/"), fence.text)
            continue
        for command, expected in commands(fence):
            output = run(command, tmp_path)

            assert pattern_of(expected).fullmatch(output), f"{fence}: {command}\n{output}"


@pytest.mark.parametrize(
    ("output", "matching", "other"),
    [
        ("a\n...\nb\n", "a\nx\ny\nb\n", "a\nx\n"),
        ("in ... lines\n", "in 5 lines\n", "in 5 linen\n"),
        ("a+b\n", "a+b\n", "aab\n"),
    ],
)
def test_three_dots_match_anything_and_everything_else_itself(
    output: str, matching: str, other: str
) -> None:
    assert pattern_of(output).fullmatch(matching)
    assert not pattern_of(output).fullmatch(other)
