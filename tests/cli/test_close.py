"""`close` ends what `open` began, and no other grant."""

from pathlib import Path

from tests.cli.conftest import Say


def test_what_was_opened_is_closed_and_nothing_else(say: Say) -> None:
    say("allow", "a.test", "--for", "1h")
    say("open", "--for", "10m")

    code, out, _ = say("close")

    assert code == 0
    assert "Closed grant 2: every public host" in out
    listed = say("grants")[1]
    assert "a.test" in listed
    assert "every public host" not in listed


def test_where_nothing_is_open_it_is_said(say: Say) -> None:
    assert say("close") == (0, "Nothing is open.\n", "")


def test_what_was_opened_for_a_project_can_be_closed_alone(say: Say, tmp_path: Path) -> None:
    say("open", "--for", "10m")
    say("open", "--for", "10m", "--project", str(tmp_path))

    assert "Closed grant 2" in say("close", "--project", str(tmp_path))[1]
    assert len(say("grants")[1].splitlines()) == 2


def test_where_other_grants_are_in_force_it_is_said_how_to_see_them(say: Say) -> None:
    say("allow", "a.test", "--for", "1h")

    code, out, _ = say("close")

    assert code == 0
    assert "Nothing is open." in out
    assert "claude-proxy grants" in out
