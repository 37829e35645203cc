"""Laws of places in TOML: each key and item is found on its line, and no text makes it fail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.bw_claude.toml_locations import places_of

words = st.sampled_from(
    (
        *(
            "[",
            "]",
            "{",
            "}",
            "=",
            ",",
            ".",
            "\n",
            '"',
            "'",
            '"""',
            "#",
            "\\",
            " ",
            "0",
            "1979-05-27",
        ),
        *("network", "groups", "hosts", "policy", "policies", "tools", "default", "a", "b", "true"),
        *("[network.groups.a]\n", 'hosts = ["x.test"]\n', 'groups = ["a"]\n', "\x00", "\u202e"),
        *(
            "[policy.policies.p]\n",
            'network.network = "proxy"\n',
            "preset:claude",
            "\r\n",
            "\ud800",
        ),
    )
)


@pytest.mark.parametrize("text", ["a b", "a = [1", "a = {b", "= 1", "a = [}", "[a"])
def test_what_is_no_toml_has_places_as_far_as_it_was_read(text: str) -> None:
    assert set(places_of(text)) <= {("a",), ("a", 0), ("a", "b")}


@given(st.lists(words, max_size=30).map("".join) | st.text())
def test_looking_for_places_never_fails(text: str) -> None:
    lines = text.count("\n") + 1

    assert all(1 <= line <= lines and column >= 1 for line, column in places_of(text).values())


names = st.text(st.sampled_from("ab.\"' \u00e9#=[]"), min_size=1, max_size=4)
values = st.recursive(
    st.integers() | st.text(st.sampled_from("a\\\"'#]},=\n"), max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=6,
)


def as_toml(value: object) -> str:
    if isinstance(value, list):
        return f"[ # ]\n {', '.join(map(as_toml, value))} ]"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{escaped}"'
    return str(value)


@given(st.dictionaries(names, values, min_size=1, max_size=4), names)
def test_each_key_is_found_on_its_line(table: dict[str, object], header: str) -> None:
    lines = [f"[top.{as_toml(header)}]  # [not.this]"]
    expected = {}
    for key, value in table.items():
        expected[key] = sum(line.count("\n") + 1 for line in lines) + 1
        lines.append(f"{as_toml(key)} = {as_toml(value)} # comment = 1")

    found = places_of("\n".join(lines))

    assert {key: found["top", header, key][0] for key in table} == expected
