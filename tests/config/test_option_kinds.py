"""Kinds of option values: one description for the schema and the reference page."""

import pytest

from claude_proxy.config.option_kinds import (
    Choice,
    Flag,
    FreeText,
    ParsedText,
    PathText,
    ValueKind,
    WholeNumber,
    name_of,
    schema_of,
)

SIZE = ParsedText("size", int, "write it like 64K", "64K", is_number=True)
HOSTS = ParsedText("hosts", str.split, "write hosts", "localhost", is_list=True)


@pytest.mark.parametrize(
    ("kind", "name", "schema"),
    [
        (Flag(), "true or false", {"type": "boolean"}),
        (WholeNumber(1), "number, 1 or more", {"type": "integer", "minimum": 1}),
        (
            WholeNumber(0, 9),
            "number, 0 to 9",
            {"type": "integer", "minimum": 0, "maximum": 9},
        ),
        (Choice(("a", "b")), "a or b", {"enum": ["a", "b"]}),
        (FreeText(), "text", {"type": "string", "minLength": 1}),
        (PathText(), "path", {"type": "string", "minLength": 1}),
        (PathText(allows_file=False), "directory", {"type": "string", "minLength": 1}),
        (
            SIZE,
            "text like `64K`",
            {"type": ["string", "number"], "minLength": 1, "examples": ["64K"]},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_kind_has_a_name_and_a_schema(
    kind: ValueKind, name: str, schema: dict[str, object]
) -> None:
    assert name_of(kind) == name
    assert schema_of(kind) == schema


def test_one_text_that_holds_several_is_a_list_in_yaml() -> None:
    assert schema_of(HOSTS)["type"] == "array"
