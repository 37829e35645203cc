"""A restriction that its owner has agreed to is not taken away unseen, whichever way."""

from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.agreements import DIRECTORY, Agreements, Change, Known, change_of

PROJECT = Path("/home/ann/src/project")
FILE = PROJECT / ".claude-proxy.yaml"
ABOVE = PROJECT.parent / ".claude-proxy.yaml"
OLD, NEW = "hide: [a]\n", "hide: []\n"


def change(found: Path | None, text: str | None, **agreed: Known) -> Change | None:
    by_path = {{"file": FILE, "above": ABOVE}[name]: known for name, known in agreed.items()}
    return change_of(PROJECT, found, text, by_path.get)


def test_without_a_file_there_is_nothing_to_agree_to() -> None:
    assert change(None, None) is None


def test_what_was_agreed_to_is_no_change() -> None:
    assert change(FILE, OLD, file=Known(OLD)) is None
    assert change(ABOVE, OLD, above=Known(OLD)) is None
    assert change(FILE, NEW, file=Known(NEW), above=Known(OLD)) is None
    assert change(None, None, file=Known(None)) is None


def test_a_first_file_is_a_change_that_takes_nothing_away() -> None:
    found = change(FILE, OLD)

    assert found == Change(FILE, OLD, None)
    assert found.is_first


def test_other_content_is_a_change() -> None:
    assert change(FILE, NEW, file=Known(OLD)) == Change(FILE, NEW, OLD)


def test_a_file_that_is_gone_is_a_change() -> None:
    assert change(None, None, file=Known(OLD)) == Change(FILE, None, OLD)
    assert change(None, None, above=Known(OLD)) == Change(ABOVE, None, OLD)
    assert change(ABOVE, OLD, file=Known(NEW), above=Known(OLD)) == Change(FILE, None, NEW)


def test_a_nearer_file_that_takes_the_place_of_an_agreed_one_is_a_change() -> None:
    assert change(FILE, NEW, above=Known(OLD)) == Change(FILE, NEW, OLD, replaces=ABOVE)


def test_an_agreement_is_kept_for_the_directory_however_it_is_reached(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "project")
    agreements = Agreements(tmp_path / "state")
    assert agreements.is_empty

    agreements.record(tmp_path / "link/.claude-proxy.yaml", OLD)

    assert agreements.known(tmp_path / "project/.claude-proxy.yaml") == Known(OLD)
    assert agreements.known(tmp_path / "other/.claude-proxy.yaml") is None
    assert not agreements.is_empty


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"path": "/other", "text": "x"}'])
def test_a_damaged_agreement_is_an_error(tmp_path: Path, content: bytes) -> None:
    agreements = Agreements(tmp_path)
    agreements.record(FILE, OLD)
    (place,) = (tmp_path / DIRECTORY).iterdir()
    place.write_bytes(content)

    with pytest.raises(ClaudeProxyError, match="cannot be read"):
        agreements.known(FILE)
