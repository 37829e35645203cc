"""`allow` with an end edits no list, and grants what was named and no more."""

from pathlib import Path

import pytest

from tests.cli.conftest import Say


def test_a_grant_edits_no_list(say: Say, tmp_path: Path) -> None:
    code, out, _ = say("allow", "https://a.test/v1", "b.test", "--for", "1h", "--method", "GET")

    assert code == 0
    assert "Grant 1: https://a.test methods GET paths /v1, for 1 h" in out
    assert "Grant 2: https://b.test methods GET, for 1 h" in out
    assert "revoke 1 2" in out
    assert not (tmp_path / "conf").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--reason", "x"), "a grant needs an end"),
        (("--project", "/"), "a grant needs an end"),
        (("--for", "1h", "--remove"), "taken back by its number"),
        (("--for", "1h", "--allowlist", "x.yaml"), "edits no file"),
        (("--for", "soon"), "not a duration"),
        (("--uses", "0"), "0"),
        (("--run", "nobody"), "no run or container"),
        (("--for", "1h", "--path", "/x", "--address", "nowhere"), "nowhere"),
    ],
)
def test_what_cannot_be_granted_is_refused(say: Say, words: tuple[str, ...], says: str) -> None:
    code, out, err = say("allow", "a.test", *words)

    assert code != 0
    assert says in err
    assert out == ""
    assert say("grants")[1] == ""


def test_a_dry_run_writes_nothing(say: Say, tmp_path: Path) -> None:
    code, out, _ = say("allow", "a.test", "--for", "1h", "--dry-run")

    assert code == 0
    assert "Would grant https://a.test" in out
    assert not (tmp_path / "state").exists()


def test_a_preset_is_granted_if_it_only_allows(say: Say) -> None:
    code, out, _ = say("allow", "--preset", "npm", "--for", "1h")
    assert code == 0
    assert "more, for 1 h" in out

    code, _, err = say("allow", "--preset", "no-such-preset", "--for", "1h")
    assert code == 2
    assert "no-such-preset" in err


@pytest.mark.parametrize("uses", ["0", "1000001", "1" + "0" * 30])
def test_a_grant_is_for_a_number_of_uses_that_can_be_counted(say: Say, uses: str) -> None:
    code, _, err = say("allow", "a.test", "--uses", uses)

    assert code == 2
    assert "1<=x<=1000000" in err
    assert say("grants")[1] == ""
