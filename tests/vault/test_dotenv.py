"""Laws of .env files: values are read as written, ambiguous ones are refused, none is shown."""

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.errors import ConfigError
from claude_proxy.vault import dotenv, dotenv_file

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True)
PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"])).map(
    lambda text: text.replace("\ufeff", "")
)


def value_of(text: str, name: str = "KEY") -> str | None:
    return dotenv.parse(text.encode(), ".env").value(name)


def refusal(text: str, name: str = "KEY") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        value_of(text, name)
    assert caught.value.where
    assert caught.value.fix
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("KEY=value", "value"),
        ("KEY=value\n", "value"),
        ("KEY=value\r\n", "value"),
        ("\ufeffKEY=value", "value"),
        ("  export\tKEY = value  ", "value"),
        ("exported=1\nKEY=value", "value"),
        ("KEY=a=b=c", "a=b=c"),
        ("KEY=a#b", "a#b"),
        ("KEY=a b # a remark", "a b"),
        ("KEY= # a remark", ""),
        ("KEY=", ""),
        ("KEY=\nOTHER=value", ""),
        ('KEY="a # b"  # a remark', "a # b"),
        (r'KEY="a \"b\" \\c"', r'a "b" \c'),
        ("KEY='a \"b\" $c `d`'", 'a "b" $c `d`'),
        ("# KEY=remark\n\n \t\nKEY=é", "é"),
        ('NOTE="over\ntwo lines"\nKEY=value', "value"),
        ("my.dotted-name=x\nKEY=value", "value"),
        ("OTHER=value", None),
        ("", None),
        ("#", None),
    ],
)
def test_a_variable_is_read_as_it_was_written(text: str, value: str | None) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize(
    "text",
    [
        'KEY="canary" more',
        "KEY='canary'more",
        "KEY='it'\\''s canary'",
        'KEY=canary"quoted"',
        "KEY=canary\\n",
        "KEY=$canary",
        'KEY="${canary}"',
        "KEY=`canary`",
        'KEY="canary\\n"',
        "KEY='canary\\'",
        'KEY="canary\non two lines"',
        "KEY=canary\nKEY=other",
        "KEY=canary\nexport KEY=canary",
    ],
)
def test_a_value_that_parsers_read_differently_is_refused_and_not_quoted(text: str) -> None:
    error = refusal(text)

    assert "canary" not in "\n".join(error.lines())
    assert value_of(text, "OTHER") is None  # nobody asked for it


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("A=1\ncanary\n", 2),
        ("A=1\nB C=canary", 2),
        ("\n\nKEY='canary", 3),
        ('A="canary\nKEY="x"\n', 1),
        ("A=1\nB=\x1bcanary", 2),
        ("A=1\rB=canary", 1),
        ("=canary", 1),
        ("1A=canary", 1),
        ("export canary", 1),
    ],
)
def test_a_text_that_is_not_dotenv_is_refused_with_its_line(text: str, line: int) -> None:
    error = refusal(text)

    assert str(error.where) == f".env:{line}"
    assert "canary" not in "\n".join(error.lines())


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(ConfigError, match="not UTF-8"):
        dotenv.parse(b"KEY=\xff", ".env")


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="larger than"):
        dotenv.parse(b"#" * (dotenv.MAX_BYTES + 1), ".env")


@given(st.text() | st.from_regex(r"((export )?KEY ?= ?[\"'a$\\# \n]*\n?){0,3}", fullmatch=True))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(ConfigError):
        found = dotenv.parse(text.encode("utf-8", "replace"), ".env")
        value = found.value("KEY")
        assert value is None or "\n" not in value


@given(st.binary())
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    with suppress(ConfigError):
        dotenv.parse(raw, ".env").value("KEY")


@given(NAMES, PLAIN)
def test_a_quoted_value_comes_back_whole(name: str, value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    if not {"$", "`"} & set(value):
        assert value_of(f'{name}="{escaped}"', name) == value
    if not {"'", "\\"} & set(value):
        assert value_of(f"{name}='{value}' # {value}", name) == value


def test_neither_repr_shows_a_value(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text("KEY=canary")
    path.chmod(0o600)

    found = dotenv_file.read(path)

    assert found is not None
    assert found.value("KEY") == "canary"
    assert "canary" not in repr(found)
    assert "canary" not in repr(vars(found.variables))
