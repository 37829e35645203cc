"""An entry is added to an allowlist, and nothing else in its text changes."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.cli import main
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.edit import AllowEntry, EditError, with_entries
from claude_proxy.wire.authority import Authority

NEW = AllowEntry("new.test")

BEFORE = """\
credentials:
  - {host: a.test, pin: learn}
anthropic:
  - host: a.test
    mcp_servers:
      - allowlisted
"""
TEXTS = {
    "an empty file": ("", "allow:\n  - new.test\n"),
    "a file of comments": ("# mine", "# mine\nallow:\n  - new.test\n"),
    "no allow list": ("deny:\n  - a.test\n", "deny:\n  - a.test\nallow:\n  - new.test\n"),
    "an allow list of nothing": ("allow: # later\n", "allow: # later\n  - new.test\n"),
    "empty brackets": (
        "allow: [] # later\ndeny:\n  - a.test\n",
        "allow: # later\n  - new.test\ndeny:\n  - a.test\n",
    ),
    "one entry": ("allow:\n  - a.test\n", "allow:\n  - a.test\n  - new.test\n"),
    "no line end": ("allow:\n  - a.test", "allow:\n  - a.test\n  - new.test\n"),
    "no indentation": ("allow:\n- a.test\n", "allow:\n- a.test\n- new.test\n"),
    "deep indentation": ("allow:\n     - a.test\n", "allow:\n     - a.test\n     - new.test\n"),
    "comments at and after the end": (
        "allow:\n  - a.test # why\n  # more to come\n\ndeny:\n  - b.a.test\n",
        "allow:\n  - a.test # why\n  - new.test\n  # more to come\n\ndeny:\n  - b.a.test\n",
    ),
    "a mapping at the end": (
        "allow:\n  - host: a.test\n    ports: [443,\n      8443]\n\n# end\n",
        "allow:\n  - host: a.test\n    ports: [443,\n      8443]\n  - new.test\n\n# end\n",
    ),
    "a list at the end of a mapping": (
        "allow:\n  - host: a.test\n    methods:\n      - GET\n# end\n",
        "allow:\n  - host: a.test\n    methods:\n      - GET\n  - new.test\n# end\n",
    ),
    "credentials after it": (
        "allow:\n  - a.test\n\ncredentials:\n  - host: a.test\n    pin: learn\n",
        "allow:\n  - a.test\n  - new.test\n\ncredentials:\n  - host: a.test\n    pin: learn\n",
    ),
    "credentials and limits before it": (
        f"{BEFORE}allow:\n  - a.test\n",
        f"{BEFORE}allow:\n  - a.test\n  - new.test\n",
    ),
    "credentials and no allow list": (
        "credentials:\n- host: a.test\n  pin: learn\n# end\n",
        "credentials:\n- host: a.test\n  pin: learn\n# end\nallow:\n  - new.test\n",
    ),
    "lines of Windows": ("allow:\r\n  - a.test\r\n", "allow:\r\n  - a.test\r\n  - new.test\r\n"),
}


@pytest.mark.parametrize(("before", "after"), TEXTS.values(), ids=TEXTS.keys())
def test_an_entry_is_added_as_a_line_and_all_else_stays(before: str, after: str) -> None:
    assert with_entries(before, [NEW]) == after


@pytest.mark.parametrize("before", [before for before, _ in TEXTS.values()], ids=TEXTS.keys())
def test_what_was_added_is_allowed_and_so_is_what_was(before: str) -> None:
    before_hosts = set(loader.load(before, name="list").hosts())

    policy = loader.load(with_entries(before, [NEW]), name="list")

    was = loader.load(before, name="list")
    assert [each.name for each in policy.credentials] == [each.name for each in was.credentials]
    assert len(policy.restrictions) == len(was.restrictions)
    assert set(policy.hosts()) == before_hosts | {"new.test"}
    assert policy.decide_connect(Authority.of("new.test", 443)).allowed


def test_a_list_between_brackets_is_left_to_its_owner() -> None:
    with pytest.raises(EditError) as caught:
        with_entries("# mine\nallow: [a.test]\n", [NEW])

    assert caught.value.line == 2


ENTRIES = {
    "docs.test": ["- docs.test"],
    "https://docs.test/": ["- docs.test"],
    "docs.test:443": ["- docs.test"],
    "Docs.Test.": ["- docs.test"],
    "*.docs.test": ['- "*.docs.test"'],
    ".docs.test": ["- .docs.test"],
    "docs.test:8443": ["- host: docs.test", "  ports: [8443]"],
    "http://docs.test": ["- host: docs.test", "  scheme: http"],
    "http://docs.test:8080": ["- host: docs.test", "  scheme: http", "  ports: [8080]"],
    "https://docs.test/a/b?c=d": ["- host: docs.test", '  paths: ["/a/b"]'],
    "wss://docs.test": ["- docs.test"],
    "docs.test/a": ["- host: docs.test", '  paths: ["/a"]'],
    "10.1.2.3": ['- "10.1.2.3"'],
    "[2001:db8::1]:8443": ['- host: "2001:db8::1"', "  ports: [8443]"],
    "2001:db8::1": ['- "2001:db8::1"'],
    "10.0.0.0/8": ['- "10.0.0.0/8"'],
}


@pytest.mark.parametrize(("text", "lines"), ENTRIES.items(), ids=ENTRIES.keys())
def test_an_entry_is_as_short_as_it_can_be(text: str, lines: list[str]) -> None:
    assert AllowEntry.parse(text).lines() == lines


@pytest.mark.parametrize("text", ENTRIES)
def test_every_entry_loads(text: str) -> None:
    assert list(loader.load(with_entries("", [AllowEntry.parse(text)]), name="list").hosts())


@given(st.text() | st.from_regex(r"(https?://)?[a-z*.\[\]:/0-9]+"))
def test_an_entry_is_read_or_a_value_error(text: str) -> None:
    try:
        entry = AllowEntry.parse(text)
    except ValueError:
        return

    assert AllowEntry.parse(entry.host).host == entry.host


# The command


@pytest.fixture
def allow(tmp_path: Path) -> Callable[..., int]:
    """Return a function that runs `claude-proxy allow` on a configuration of its own."""

    def run(*hosts: str) -> int:
        return main.main(["allow", "--confdir", str(tmp_path / "conf"), *hosts])

    return run


def test_the_first_entry_begins_a_list_of_ones_own(
    allow: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert allow("new.test", "other.test:8443") == 0

    own = tmp_path / "conf" / "allowlist.yaml"
    hosts = set(loader.load(own.read_text(), name="own").hosts())
    assert {"new.test", "other.test", "api.anthropic.com"} <= hosts
    assert own.stat().st_mode & 0o777 == 0o600
    assert own.parent.stat().st_mode & 0o777 == 0o700
    assert "replaces the shipped one" in capsys.readouterr().out


def test_a_list_keeps_its_mode_and_what_links_to_it(
    allow: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = tmp_path / "real.yaml"
    real.write_text("allow:\n  - a.test # mine\n")
    real.chmod(0o640)
    (tmp_path / "conf").mkdir()
    own = tmp_path / "conf" / "allowlist.yaml"
    own.symlink_to(real)

    assert allow("new.test") == 0

    assert real.read_text() == "allow:\n  - a.test # mine\n  - new.test\n"
    assert real.stat().st_mode & 0o777 == 0o640
    assert own.is_symlink()
    assert "replaces the shipped" not in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "real.yaml"]


def test_what_is_listed_already_is_not_listed_twice(
    allow: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert allow("new.test") == 0
    once = (tmp_path / "conf" / "allowlist.yaml").read_text()

    assert allow("new.test") == 0

    assert (tmp_path / "conf" / "allowlist.yaml").read_text() == once
    assert "Nothing to add" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("before", "host", "where"),
    [
        ("allow:\n  - a.test\n", "*", "where: *"),
        ("allow:\n  - a.test\n", "*.com", "where: *.com"),
        ("allow:\n  - a.test\n", "https://new.test/a//b", "where: https://new.test/a//b"),
        ("allow: [a.test]\n", "new.test", "allowlist.yaml:1"),
        ("allow:\n  - a.test\nallows: []\n", "new.test", "allowlist.yaml:3"),
    ],
)
def test_what_cannot_be_added_leaves_the_list_alone(
    before: str,
    host: str,
    where: str,
    allow: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = tmp_path / "conf" / "allowlist.yaml"
    own.parent.mkdir()
    own.write_text(before)

    assert allow(host) == 2

    assert own.read_text() == before
    assert where in capsys.readouterr().err


def test_a_directory_that_cannot_be_written_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf").write_text("no directory")

    assert main.main(["allow", "--confdir", str(tmp_path / "conf" / "deeper"), "a.test"]) == 2

    assert "cannot be written" in capsys.readouterr().err
