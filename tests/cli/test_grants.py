"""`grants` lists what is in force: for how long, for whom and by whom."""

import json

from tests.cli.conftest import Say


def test_nothing_is_listed_where_nothing_is_granted(say: Say) -> None:
    assert say("grants") == (0, "", "claude-proxy: no grant is in force\n")


def test_each_grant_has_a_line(say: Say) -> None:
    say("allow", "a.test", "--for", "1h", "--reason", "docs")
    say("allow", "b.test", "--uses", "2")

    code, out, _ = say("grants")

    heading, first, second = out.splitlines()
    assert code == 0
    assert heading.split()[:2] == ["NO", "ALLOWS"]
    assert first.startswith("1 ")
    assert "a.test" in first
    assert "docs" in first
    assert "2 uses" in second


def test_json_has_one_object_for_each_grant(say: Say) -> None:
    say("open", "--for", "10m")

    found = [json.loads(line) for line in say("grants", "--json")[1].splitlines()]

    assert [(each["number"], each["kind"]) for each in found] == [(1, "open")]
