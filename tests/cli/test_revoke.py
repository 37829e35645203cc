"""`revoke` ends grants by their numbers."""

from pathlib import Path

import click
import pytest

from claude_proxy.cli import revoke
from tests.cli.conftest import Say


@pytest.fixture
def three(say: Say) -> Say:
    for host in ("a.test", "b.test", "c.test"):
        say("allow", host, "--for", "1h")
    return say


def test_a_grant_is_revoked_once(three: Say) -> None:
    code, out, _ = three("revoke", "2")

    assert code == 0
    assert "Revoked grant 2" in out
    code, _, err = three("revoke", "2")
    assert code == 1
    assert "no grant 2 in force" in err


def test_those_that_are_there_are_revoked_though_others_are_not(three: Say) -> None:
    code, out, err = three("revoke", "1", "98", "99")

    assert code == 1
    assert "Revoked grant 1" in out
    assert "no grants 98, 99 in force" in err


def test_all_are_revoked(three: Say) -> None:
    assert three("revoke", "--all")[0] == 0
    assert three("revoke", "--all") == (0, "No grant is in force.\n", "")


@pytest.mark.parametrize("words", [(), ("--all", "1")])
def test_it_is_said_which(three: Say, words: tuple[str, ...]) -> None:
    assert three("revoke", *words)[0] == 2
    assert len(three("grants")[1].splitlines()) == 4


def test_numbers_are_completed(three: Say, tmp_path: Path) -> None:
    assert three("revoke", "2")[0] == 0
    context = click.Context(revoke.command)
    context.params["statedir"] = tmp_path / "state"
    (numbers, *_) = revoke.command.params

    found = numbers.shell_complete(context, "")

    assert [item.value for item in found] == ["1", "3"]


def test_a_number_that_no_grant_can_have_is_not_in_force(three: Say) -> None:
    code, _, err = three("revoke", "1" + "0" * 30)

    assert code == 1
    assert "in force" in err
