"""Laws of the report: one line says what is permitted now, and what became wider is named."""

from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.cli.edit_report import permitted, print_change, report, report_no_change
from claude_proxy.cli.list_edit import EditedList, edited_text
from claude_proxy.config.allowlist.edit import AllowEntry, Entry, PresetEntry
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.rules import Rule
from tests.policy.cases import http, rule


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EditedList:
    monkeypatch.chdir(tmp_path)
    return EditedList(tmp_path / "allowlist.yaml", tmp_path, None, ())


def said_of(
    before: str, entry: Entry, edited: EditedList, capsys: pytest.CaptureFixture[str]
) -> str:
    after = edited_text(before, [entry], edited, remove=False)
    report([entry], before, after, edited, remove=False)
    printed = capsys.readouterr()
    return printed.out + printed.err


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (rule("a.test"), "every request to https://a.test"),
        (rule("a.test", ports=[443, 8443]), "every request to https://a.test, https://a.test:8443"),
        (http("a.test"), "every request to http://a.test"),
        (rule("a.test", methods=["HEAD", "GET"]), "GET, HEAD of every path on https://a.test"),
        (rule("a.test", paths=["/x"]), "every method of /x on https://a.test"),
        (rule("a.test", methods=["POST"], paths=["/x"]), "POST /x on https://a.test"),
        (
            rule("a.test", addresses=["10.1.2.3"]),
            "every request to https://a.test at 10.1.2.3",
        ),
        (rule("2001:db8::1"), "every request to https://[2001:db8::1]"),
    ],
)
def test_what_a_rule_permits_is_one_line(given: Rule, line: str) -> None:
    assert permitted(given) == line


def test_a_rule_that_is_widened_is_named_with_its_place(
    edited: EditedList, capsys: pytest.CaptureFixture[str]
) -> None:
    before = "allow:\n  - host: a.test\n    methods: [GET, HEAD]\n"

    said = said_of(before, AllowEntry("a.test"), edited, capsys)

    assert "permits: every request to https://a.test" in said
    assert "wider than before: until now" in said
    assert f"methods GET,HEAD ({edited.path}:2)" in said


def test_a_path_that_was_pasted_is_said_to_be_the_only_one(
    edited: EditedList, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = AllowEntry.parse("https://a.test/docs/page")

    assert "only this path: for the whole host, claude-proxy allow a.test" in said_of(
        "", entry, edited, capsys
    )


@pytest.mark.parametrize(
    ("pasted", "argument"),
    [
        ("https://a.test:8443/v1/y", "a.test:8443"),
        ("http://a.test/v1/y", "http://a.test"),
        ("http://a.test:8080/v1/y", "http://a.test:8080"),
        ("*.a.test/v1/y", "'*.a.test'"),
        ("https://[2001:db8::1]/v1/y", "'[2001:db8::1]'"),
    ],
)
def test_the_whole_host_is_named_with_its_port_and_scheme_for_a_shell(
    pasted: str, argument: str, edited: EditedList, capsys: pytest.CaptureFixture[str]
) -> None:
    named = replace(edited, option=("--policy", "acme"))
    said = said_of("", AllowEntry.parse(pasted), named, capsys)

    assert f"for the whole host, claude-proxy allow {argument} --policy acme\n" in said


def test_nothing_is_said_of_the_whole_host_where_it_is_allowed(
    edited: EditedList, capsys: pytest.CaptureFixture[str]
) -> None:
    before = "allow:\n  - a.test\n"
    entry = AllowEntry.parse("https://a.test/docs")

    assert "only this path" not in said_of(before, entry, edited, capsys)
    other_port = AllowEntry.parse("https://a.test:8443/docs")
    assert "only this path" in said_of(before, other_port, edited, capsys)


def test_a_denial_that_wins_is_named(
    edited: EditedList, capsys: pytest.CaptureFixture[str]
) -> None:
    said = said_of("deny:\n  - a.test\n", AllowEntry("a.test"), edited, capsys)

    assert f"warning: a.test stays denied, as a denial wins: a.test ({edited.path}:2)" in said


def test_a_preset_is_counted(edited: EditedList, capsys: pytest.CaptureFixture[str]) -> None:
    said = said_of("", PresetEntry("npm"), edited, capsys)
    assert "rules of the preset npm" in said
    assert "the 1 rule of the preset anthropic" in said_of(
        "", PresetEntry("anthropic"), edited, capsys
    )


def test_what_still_allows_a_removed_host_is_named(
    edited: EditedList, capsys: pytest.CaptureFixture[str]
) -> None:
    before, entry = "allow:\n  - a.b.test\n  - .b.test\n", AllowEntry("a.b.test")
    after = edited_text(before, [entry], edited, remove=True)

    report([entry], before, after, edited, remove=True)

    assert "still permitted: every request to https://.b.test" in capsys.readouterr().out


def test_a_host_that_another_entry_allows_cannot_be_removed_by_its_name(
    edited: EditedList, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ClaudeProxyError, match=r"what allows it is https://\.b\.test"):
        report_no_change([AllowEntry("a.b.test")], edited, "allow:\n  - .b.test\n", remove=True)

    report_no_change([AllowEntry("c.test")], edited, "allow:\n  - .b.test\n", remove=True)
    assert "Nothing to remove" in capsys.readouterr().out


@pytest.mark.parametrize(
    "limits", ["methods: [GET]", "paths: [/x]", "ports: [443, 8443], methods: [GET]"]
)
def test_a_host_that_is_allowed_in_part_is_not_said_to_be_absent(
    edited: EditedList, limits: str
) -> None:
    text = f"allow:\n  - {{host: .b.test, {limits}}}\n"

    with pytest.raises(ClaudeProxyError, match=r"what allows it is"):
        report_no_change([AllowEntry("a.b.test")], edited, text, remove=True)


def test_a_host_that_a_preset_allows_is_named_with_the_preset(edited: EditedList) -> None:
    entry = AllowEntry("api.anthropic.com")

    with pytest.raises(ClaudeProxyError) as caught:
        report_no_change([entry], edited, "allow:\n  - preset: claude\n", remove=True)

    assert "claude" in str(caught.value.where)
    assert "preset" in str(caught.value.fix)


def test_a_change_is_printed_as_a_diff(
    edited: EditedList, capsys: pytest.CaptureFixture[str]
) -> None:
    print_change("allow:\n  - a.test\n", "allow:\n  - a.test\n  - b.test\n", edited)

    assert "\n+  - b.test\n" in capsys.readouterr().out
