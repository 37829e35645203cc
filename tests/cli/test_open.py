"""`open` is never without an end."""

from tests.cli.conftest import Say


def test_everything_is_opened_for_a_time(say: Say) -> None:
    code, out, _ = say("open", "--for", "10m", "--reason", "a look")

    assert code == 0
    assert "Grant 1: every public host, for 10 min" in out
    assert "No proxy runs that it is for; it counts from the next start." in out
    assert "claude-proxy close" in out
    assert "Applied" not in out


def test_without_an_end_nothing_is_opened(say: Say) -> None:
    assert say("open")[0] == 2
    assert say("grants")[1] == ""


def test_a_day_is_the_most(say: Say) -> None:
    assert say("open", "--for", "24h")[0] == 0
    code, _, err = say("open", "--for", "25h")
    assert code == 2
    assert "a day at most" in err
