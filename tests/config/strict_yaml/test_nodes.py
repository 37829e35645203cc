"""Reading YAML: nothing hides, everything has a place, and nothing but ConfigError is raised."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.strict_yaml import nodes
from claude_proxy.config.strict_yaml.file_text import decode
from claude_proxy.config.strict_yaml.nodes import (
    MAX_DEPTH,
    MAX_PROBLEMS,
    Broken,
    Node,
    Problems,
    YamlList,
    YamlMapping,
    YamlScalar,
    harmless,
    parse,
    quoted,
)
from claude_proxy.errors import ConfigError, ConfigErrors

type Plain = str | list[Plain] | dict[str, Plain] | None


def plain_of(node: Node | None) -> Plain:
    """Return what a node holds, without its places."""
    match node:
        case YamlScalar():
            return node.text
        case YamlList():
            return [plain_of(item) for item in node.items]
        case YamlMapping():
            return {key.text: plain_of(value) for key, value in node.entries}
    return None


def read(text: str) -> Node | None:
    problems = Problems("f.yaml")
    root = parse(text, problems)
    problems.raise_if_any()
    return root


def refused(text: str) -> list[tuple[str, str, str]]:
    """Return what, where and fix of each problem in `text`, of which there must be some."""
    with pytest.raises(ConfigErrors) as caught:
        read(text)
    return [
        (problem.what, problem.where or "", problem.fix or "") for problem in caught.value.problems
    ]


@pytest.fixture(params=["CSafeLoader", "SafeLoader"])
def each_parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with each of PyYAML's parsers: wheels without libyaml exist."""
    monkeypatch.setattr(nodes, "_LOADER", getattr(yaml, request.param))
    return str(request.param)


@pytest.mark.usefixtures("each_parser")
@pytest.mark.parametrize("text", ["", "\n", "# a comment\n"])
def test_a_file_without_a_document_has_no_root(text: str) -> None:
    assert read(text) is None


@pytest.mark.usefixtures("each_parser")
@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("a: NO\nb: 443.0\nc: ~\nd: 0443", {"a": "NO", "b": "443.0", "c": "~", "d": "0443"}),
        ("- 1e3\n- 0x1bb\n- 2001-01-01", ["1e3", "0x1bb", "2001-01-01"]),
        ("a: [b, 'c', \"\\x41\"]\n", {"a": ["b", "c", "A"]}),
        ("a:\n  - b: c\n    d: |\n      e\n", {"a": [{"b": "c", "d": "e\n"}]}),
        ("a: b\r\nc: d\r\n", {"a": "b", "c": "d"}),
        ("---\na: b\n...\n", {"a": "b"}),
        ("a:\nb: ''\n", {"a": "", "b": ""}),
    ],
)
def test_scalars_stay_what_was_written(text: str, plain: Plain) -> None:
    assert plain_of(read(text)) == plain


@pytest.mark.usefixtures("each_parser")
def test_every_node_knows_its_line_and_column() -> None:
    root = read("a:\n  - bc\n  - {d: 'e'}\n")

    assert isinstance(root, YamlMapping)
    ((key, value),) = root.entries
    assert isinstance(value, YamlList)
    first, second = value.items
    assert isinstance(second, YamlMapping)
    assert (key.line, key.column) == (1, 1)
    assert (first.line, first.column) == (2, 5)
    assert (second.line, second.column) == (3, 5)
    assert (second.entries[0][1].line, second.entries[0][1].column) == (3, 9)


def test_quotes_are_remembered() -> None:
    root = read("[443, '443']")

    assert isinstance(root, YamlList)
    assert [item.plain for item in root.items if isinstance(item, YamlScalar)] == [True, False]


HIDES = {
    "an anchor": ("a: &x b", "an anchor (&x)", "1:4"),
    "an anchor on a list": ("a: &x [b]", "an anchor (&x)", "1:4"),
    "an alias": ("- &x b\n- *x\n", "an alias (*x)", "2:3"),
    "a merge key": ("a: {<<: {b: c}}", "a merge key (<<)", "1:5"),
    "a tag": ("a: !!str b", "a tag (!!str)", "1:4"),
    "a tag that would run code": (
        "!!python/object/apply:os.system [id]",
        "a tag (!!python/object/apply:os.system)",
        "1:1",
    ),
    "a duplicate key": (
        "a: b\nc: d\na: e",
        'the key "a" is there twice, first in line 1',
        "3:1",
    ),
    "the same key in two quotings": (
        'a: b\n"a": c',
        'the key "a" is there twice, first in line 1',
        "2:1",
    ),
    "a list as key": ("? [a]\n: b", "a key that is not a word", "1:3"),
    "a second document": ("a: b\n---\nc: d", "a second document", "2:1"),
    "a control character": ("a: b\x00", "a control character (U+0000) in the file", "1:5"),
    "an escape in a comment": ("a: b # \x1b[2K", "a control character (U+001B) in the file", "1:8"),
    "a surrogate": ("a: \ud800", "a control character (U+D800) in the file", "1:4"),
    "a line break no editor shows": (
        "# a comment\u2028allow: [b]",
        "an unusual line break (U+2028) in the file",
        "1:12",
    ),
    "next line": ("a: b\x85c: d", "an unusual line break (U+0085) in the file", "1:5"),
    "a carriage return alone": ("a: b\rc: d", "a carriage return without a line feed", "1:5"),
    "text set right to left": (
        "\na: \u202eb",
        "a character that reorders the text around it (U+202E) in the file",
        "2:4",
    ),
    "a zero-width space": ("a: b\u200b", "an invisible character (U+200B) in the file", "1:5"),
    "a byte order mark inside": (
        "a: \ufeffb",
        "an invisible character (U+FEFF) in the file",
        "1:4",
    ),
    "a tab for indentation": ("a:\n \t- b", "a tab in the indentation", "2:2"),
}


@pytest.mark.usefixtures("each_parser")
@pytest.mark.parametrize(("text", "what", "place"), HIDES.values(), ids=HIDES)
def test_what_could_hide_something_is_refused(text: str, what: str, place: str) -> None:
    found = refused(text)

    assert (what, f"f.yaml:{place}") in [(problem[0], problem[1]) for problem in found]
    assert all(fix for _, _, fix in found)


SYNTAX = {
    "a star without quotes": ("a:\n  - *.b", "2:5", 'put the pattern in quotes: "*.example.com"'),
    "a star alone": ("a:\n  - *\n", "2:5", 'put the pattern in quotes: "*.example.com"'),
    "an at sign": ("a: @b", "1:4", "put the value in quotes"),
    "an open quote": ("a: b\nc: 'd\n\n\ne: f\n", "2:4", "close what opens here"),
    "an open bracket": ("a: [b\nc: d\n", "1:4", "close what opens here"),
    "a line out of place": ("a:\n  b: c\n d: e", "3:2", "compare its indentation"),
    "a key without a value": ("a:\n  - b\nc\n", "3:1", "compare its indentation"),
    "two colons": ("a: b: c", "1:5", "compare its indentation"),
    "text after the end": ("a: b\n...\nc\n---\n", "3:1", "compare its indentation"),
}


@pytest.mark.parametrize(("text", "place", "fix"), SYNTAX.values(), ids=SYNTAX)
def test_a_syntax_error_tells_where_and_how_to_fix_it(text: str, place: str, fix: str) -> None:
    ((what, where, told),) = refused(text)

    assert what.startswith("this is not YAML: ")
    assert where == f"f.yaml:{place}"
    assert told.startswith(fix)


@pytest.mark.usefixtures("each_parser")
@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_a_depth_bomb_is_refused(opening: str) -> None:
    found = refused(opening * 100_000)

    assert "nested too deeply" in [what for what, _, _ in found]


@pytest.mark.usefixtures("each_parser")
def test_the_depth_bound_leaves_room() -> None:
    assert read("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None


def test_an_alias_bomb_is_reported_and_not_expanded() -> None:
    levels = ["a0: &a0 [x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]

    found = refused("\n".join(levels))

    assert found[0][0] == "an anchor (&a0)"


@pytest.mark.usefixtures("each_parser")
def test_what_is_broken_stays_broken_for_the_reader() -> None:
    problems = Problems("f.yaml")

    root = parse("a: &x [b]\nc: *x\n? [d]\n: e\n", problems)

    assert isinstance(root, YamlMapping)
    assert isinstance(root.entries[1][1], Broken)
    assert [key.text for key, _ in root.entries] == ["a", "c"]
    assert not root.whole


def test_an_alias_for_a_key_is_reported_once() -> None:
    assert [what for what, _, _ in refused("- &x a\n- {*x : b}\n")] == [
        "an anchor (&x)",
        "an alias (*x)",
    ]


def test_more_problems_than_anyone_reads_are_counted() -> None:
    found = refused("".join(f"a{n}: &x b\n" for n in range(MAX_PROBLEMS + 7)))

    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1][0] == "7 more problems in this file are not shown"


def test_problems_come_in_the_order_of_the_file() -> None:
    problems = Problems("f.yaml")
    problems.add_at("late", 9, 1)
    problems.add_at("early", 2, 5, key="allow[0]", fix="x")

    with pytest.raises(ConfigErrors) as caught:
        problems.raise_if_any()

    assert caught.value.lines() == [
        "error: early",
        "  where: f.yaml:2:5, allow[0]",
        "  fix:   x",
        "error: late",
        "  where: f.yaml:9:1",
    ]


def test_no_problem_raises_nothing() -> None:
    Problems("f.yaml").raise_if_any()


# Bytes


def test_utf8_is_decoded_with_and_without_a_byte_order_mark() -> None:
    assert decode("a: bücher".encode(), "f.yaml") == "a: bücher"
    assert decode(b"\xef\xbb\xbfa: b", "f.yaml") == "a: b"


@pytest.mark.parametrize(
    ("raw", "what", "where"),
    [
        (b"a: b\nc: \xff", "the byte 0xff is not UTF-8", "f.yaml:2"),
        (b"a: b\xc3", "the byte 0xc3 is not UTF-8", "f.yaml:1"),
        (b"\xc0\xae", "the byte 0xc0 is not UTF-8", "f.yaml:1"),
        ("a: b".encode("utf-16"), "the file is UTF-16", "f.yaml"),
    ],
)
def test_other_encodings_are_refused(raw: bytes, what: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode(raw, "f.yaml")

    assert (caught.value.what, caught.value.where) == (what, where)
    assert caught.value.fix


# Quoting


def test_a_quotation_is_bounded_and_harmless() -> None:
    assert quoted(r"^a\.b$") == r'"^a\.b$"'
    assert quoted("\x1b[2K\n\u202e") == r'"\x1b[2K\n\u202e"'
    assert len(quoted("a" * 1000)) == 82


@given(st.text())
def test_nothing_that_a_terminal_obeys_is_quoted(text: str) -> None:
    assert harmless(text).isprintable()


# Fuzzing


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    error: ConfigError | None = None
    try:
        read(text)
    except ConfigError as caught:
        error = caught

    assert error is None or all(line.isprintable() for line in error.lines())


@given(st.text(alphabet="ab:-?[]{},&*!|>'\"%@`#~<. \n\t\\"))
def test_any_yaml_like_text_is_read_alike_by_both_parsers(text: str) -> None:
    answers: list[Plain | str] = []
    for loader in (yaml.CSafeLoader, yaml.SafeLoader):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nodes, "_LOADER", loader)
            try:
                answers.append(plain_of(read(text)))
            except ConfigError:
                answers.append("refused")

    # They differ on what is YAML at all in rare corners; what both accept, they read alike.
    assert "refused" in answers or answers[0] == answers[1]


@given(st.binary())
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    fix: str | None = "none needed"
    try:
        decode(raw, "f.yaml")
    except ConfigError as error:
        fix = error.fix

    assert fix
