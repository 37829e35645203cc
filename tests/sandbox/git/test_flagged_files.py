"""What runs, what is obeyed and what leads away is looked at first."""

import pytest

from claude_proxy.sandbox.git.flagged_files import reasons
from claude_proxy.sandbox.git.work_tree import EXECUTABLE, FILE, GITLINK, LINK

NONE = "000000"


@pytest.mark.parametrize(
    ("path", "old", "new", "word"),
    [
        ("a/tool", NONE, EXECUTABLE, "new executable"),
        ("a/tool", FILE, EXECUTABLE, "has become executable"),
        ("link", NONE, LINK, "symbolic link to /etc"),
        ("part", NONE, GITLINK, "gitlink"),
        (".vscode/tasks.json", NONE, FILE, "obeyed outside by"),
        ("deep/in/.vscode/a/b.json", FILE, FILE, "obeyed outside by"),
        ("CLAUDE.md", FILE, FILE, "obeyed outside by"),
        ("sub/.envrc", NONE, FILE, "obeyed outside by"),
        (".gitattributes", NONE, FILE, "obeyed outside by"),
        ("bare/HEAD", NONE, FILE, "repository"),
    ],
)
def test_a_file_that_matters_has_a_reason(path: str, old: str, new: str, word: str) -> None:
    assert word in " ".join(reasons(path, old, new, link="/etc"))


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("README", NONE, FILE),
        ("tool", EXECUTABLE, EXECUTABLE),
        ("tool", EXECUTABLE, FILE),
        (".vscode/tasks.json", FILE, NONE),
        ("", NONE, FILE),
    ],
)
def test_other_files_and_removed_ones_have_none(path: str, old: str, new: str) -> None:
    assert list(reasons(path, old, new)) == []
