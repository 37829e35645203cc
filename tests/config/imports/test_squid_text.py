"""Laws of squid.conf's lines: words, comments, continued lines and included files."""

import pytest

from claude_proxy.config.imports.squid_text import Directive, Word, directives, values
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location
from tests.config.imports.files import Texts


def _read(text: str, **files: str) -> list[Directive]:
    return directives(text, name="s.conf", library=Texts(**files))


def _texts(directive: Directive) -> list[str]:
    return [word.text for word in directive.words]


def test_comments_and_blank_lines_say_nothing() -> None:
    found = _read("# x \\\nacl a port 80 # web\r\n\n  http_access allow a\n")

    assert [(each.name, each.source.line) for each in found] == [("acl", 2), ("http_access", 4)]
    assert _texts(found[0]) == ["a", "port", "80"]


def test_a_backslash_continues_a_line() -> None:
    (found,) = _read("acl a port 80 \\\n  443\\\n 8080\n")

    assert _texts(found) == ["a", "port", "80", "443", "8080"]


def test_included_files_come_where_they_are_included() -> None:
    found = _read("a 1\ninclude d/*.conf\nb 2\n", **{"d__2.conf": "y\n", "d__1.conf": "x\n"})

    assert [each.name for each in found] == ["a", "x", "y", "b"]
    assert str(found[1].source) == "d/1.conf:1"


def test_values_in_a_file_are_its_lines() -> None:
    words = (Word("a", Location("s.conf", 1, 1)), Word("list", Location("s.conf", 1, 1), True))

    found = list(values(words, Texts(list="# x\nb # y\n\n c d\n")))

    assert [(word.text, word.source.line) for word in found] == [("a", 1), ("b", 2), ("c d", 4)]


@pytest.mark.parametrize(
    "text",
    ["if true\n", "include s2\n", 'acl a dstdomain "x\n', "acl a dstdomain ${service_name}\n",
     "configuration_includes_quoted_values on\n"],
)  # fmt: skip
def test_what_depends_on_the_machine_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError):
        _read(text, s2="include s2\n")
