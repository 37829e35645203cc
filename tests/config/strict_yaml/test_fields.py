"""Laws of values: what YAML would read as something else is a problem, never a guess."""

import pytest

from claude_proxy.config.strict_yaml.fields import FieldReader, nearest, type_of
from claude_proxy.config.strict_yaml.nodes import (
    Problems,
    YamlMapping,
    YamlScalar,
    gathered,
    parse,
)


class Reader(FieldReader):
    """Reads the one field of a text."""

    def __init__(self, text: str) -> None:
        self.problems = Problems("f.yaml")
        super().__init__(self.problems, preset=None)
        root = parse(text, self.problems)
        assert isinstance(root, YamlMapping)
        self.node = root.entries[0][1]

    def text(self) -> str | None:
        return self._text(self.node, "key")

    def texts(self) -> list[str] | None:
        return self._list(self.node, "key", self._text, ("[a, b]", "delete the line"))

    def choice(self) -> str | None:
        return self._choice(self.node, "key", ["one", "two"])

    def problem(self) -> tuple[str, str | None]:
        (problem,) = gathered(self.problems)
        return problem.what, problem.fix


@pytest.mark.parametrize("text", ["word", '"NO"', "a.b", "'1'"])
def test_a_text_is_read_as_it_is_written(text: str) -> None:
    assert Reader(f"key: {text}").text() == text.strip("'\"")


@pytest.mark.parametrize(
    ("text", "kind"),
    [("NO", "a boolean"), ("1.10", "a number"), ("0x1f", "a number"), ("2026-11-30", "a date")],
)
def test_a_word_that_yaml_reads_otherwise_must_be_in_quotes(text: str, kind: str) -> None:
    reader = Reader(f"key: {text}")

    assert reader.text() is None
    assert reader.problem() == (
        f'"{text}" without quotes is {kind} in YAML',
        f'to write it as a string, put it in quotes: "{text}"',
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("~", "the value is missing"),
        ("[a]", "a list where a string belongs"),
        ("{a: b}", "a mapping where a string belongs"),
    ],
)
def test_what_is_no_text_is_refused(text: str, what: str) -> None:
    reader = Reader(f"key: {text}")

    assert reader.text() is None
    assert reader.problem()[0] == what


def test_a_list_is_read_in_its_order() -> None:
    assert Reader("key: [b, a]").texts() == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("[]", "name some, as in key: [a, b], or delete the line"),
        ("a", "write key: [a]"),
        ("[a, a]", "delete one"),
    ],
)
def test_a_list_that_says_nothing_or_the_same_twice_is_refused(text: str, fix: str) -> None:
    reader = Reader(f"key: {text}")

    assert reader.texts() is None
    assert reader.problem()[1] == fix


def test_a_choice_is_one_of_the_words() -> None:
    assert Reader("key: two").choice() == "two"
    reader = Reader("key: three")
    assert reader.choice() is None
    assert reader.problem() == ('"three" is not a value of key', "write one or two")


@pytest.mark.parametrize(
    ("name", "fix"),
    [("alow", "did you mean allow?"), ("dney", "did you mean deny?"), ("zzz", None)],
)
def test_the_nearest_word_is_offered(name: str, fix: str | None) -> None:
    assert nearest(name, ("allow", "deny")) == fix


@pytest.mark.parametrize(("text", "kind"), [("", "null"), ("off", "a boolean"), ("word", None)])
def test_the_type_of_a_plain_word_is_known(text: str, kind: str | None) -> None:
    assert type_of(YamlScalar(text, plain=True, line=1, column=1)) == kind
