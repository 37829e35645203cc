"""Laws of the writer: a rule that is printed is read back as the same rule."""

import yaml
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.writer import entry_of, facts_of
from claude_proxy.policy.methods import METHODS
from tests.config.allowlist.reading import load_entry

HOST_ENTRIES = st.sampled_from(
    ["a.example.com", "*.example.com", ".example.com", "192.0.2.1", "10.0.0.0/8", "2001:db8::1"]
)
RULES = st.fixed_dictionaries(
    {"host": HOST_ENTRIES},
    optional={
        "scheme": st.sampled_from(["https", "http"]),
        "ports": st.lists(st.integers(1024, 65535), min_size=1, max_size=3, unique=True),
        "methods": st.lists(st.sampled_from(METHODS), min_size=1, unique=True),
        "paths": st.lists(
            st.sampled_from(["/", "/a", "/a/*", "/*/b", "/**"]), min_size=1, unique=True
        ),
        "note": st.text(st.characters(categories=["L", "N", "P", "Zs"]), min_size=1),
    },
)


def test_a_passthrough_is_printed_as_one() -> None:
    (rule,) = load_entry("{host: a.example.com, tls: passthrough, addresses: [10.0.0.0/8]}").allow

    assert entry_of(rule) == ('{host: a.example.com, tls: passthrough, addresses: ["10.0.0.0/8"]}')


@given(RULES)
def test_a_rule_printed_as_an_entry_loads_to_the_same_rule(entry: dict[str, object]) -> None:
    (rule,) = loader.load(yaml.safe_dump({"allow": [entry]}), name="a.yaml").allow

    (again,) = load_entry(entry_of(rule)).allow

    assert facts_of(again) | {"source": ""} == facts_of(rule) | {"source": ""}


def test_a_rule_for_tcp_is_printed_as_one_and_read_back() -> None:
    text = '{host: a.example.com, scheme: "tcp", ports: [5432], addresses: ["10.0.0.0/8"]}'
    (rule,) = load_entry(text).allow

    assert entry_of(rule) == text
    assert facts_of(rule)["scheme"] == "tcp"
    assert facts_of(rule)["tls"] is None
