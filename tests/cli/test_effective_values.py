"""A value is shown as an option or the file would write it, and a secret is not shown."""

from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli.effective_values import text_of
from claude_proxy.config.option_kinds import ParsedText
from claude_proxy.config.option_table import FIELDS, OptionField


def named(key: str) -> OptionField:
    return next(field for field in FIELDS if field.key == key)


def parsed(key: str, text: str) -> Any:
    kind = named(key).kind
    assert isinstance(kind, ParsedText)
    return kind.parse(text)


@pytest.mark.parametrize(
    ("key", "text", "shown"),
    [
        ("audit_size", "1G", "1G"),
        ("audit_size", "1025", "1025"),
        ("grace", "0", "0s"),
        ("head_timeout", "500ms", "0.5s"),
        ("upstream_proxy", "http://me:hunter2@p.test:1", "http://p.test:1 (with a password)"),
        ("upstream_proxy", "http://p.test:1", "http://p.test:1"),
        ("no_upstream_proxy", "a.test,10.0.0.0/8", "a.test, 10.0.0.0/8"),
        ("gateway.upstream", "https://a.test/x", "https://a.test/x"),
        ("serve.workers", "auto", "auto"),
        ("serve.workers", "3", "3"),
    ],
)
def test_a_value_is_shown_as_it_is_written(key: str, text: str, shown: str) -> None:
    assert text_of(named(key), parsed(key, text)) == shown


@pytest.mark.parametrize(
    ("key", "texts", "shown"),
    [
        ("client", ("10.0.0.0/8", "::1"), "10.0.0.0/8, ::1/128"),
        ("resolve", ("a.test:443:127.0.0.1",), "a.test:443:127.0.0.1"),
        ("gateway.model", ("a=b", "c"), "a=b, c"),
        ("serve.listen", ("9051", "unix:/p"), "127.0.0.1:9051, unix:/p"),
    ],
)
def test_several_are_shown_one_after_the_other(
    key: str, texts: tuple[str, ...], shown: str
) -> None:
    assert text_of(named(key), tuple(parsed(key, text) for text in texts)) == shown


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("quiet", True, "true"),
        ("policy", None, "-"),
        ("client", (), "loopback"),
        ("jsonl", Path("-"), "-"),
        ("gateway.key_command", "pass show hunter2", "pass ..."),
        ("gateway.key_command", "key", "key"),
    ],
)
def test_what_is_not_parsed_is_shown_plainly(key: str, value: Any, shown: str) -> None:
    assert text_of(named(key), value) == shown
