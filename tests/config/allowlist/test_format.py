"""Laws of the table of keys: each key has one place, and its example is read as it is written."""

import pytest

from claude_proxy.config.allowlist import format as table
from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.format import Field, FileRole, Kind
from claude_proxy.config.allowlist.loader import Included, Library

TABLES = {
    "allow": table.ALLOW,
    "deny": table.DENY,
    "credentials": table.CREDENTIAL,
    "anthropic": table.ANTHROPIC,
}


def entry_of(name: str, field: Field) -> str:
    """Return an entry that holds the example of a key, with what it needs beside it."""
    beside = {} if field.name in {"host", "hosts"} else {"host": "a.example.com"}
    if name == "credentials" and field.name != "pin":
        beside |= {"inject": "bearer", "from": "{env: KEY}"}
        beside |= {"inject": "field"} if field.name == "field" else {}
        beside |= {"inject": "basic"} if field.name == "user" else {}
        of_database = field.name in {"database", "tls", "auth"}
        beside |= {"inject": "postgres", "user": "app"} if of_database else {}
    if name == "anthropic":
        beside["models"] = "all"
    beside[field.name] = field.example
    return "{" + ", ".join(f"{key}: {value}" for key, value in beside.items()) + "}"


@pytest.mark.parametrize(
    ("name", "field"),
    [(name, field) for name, fields in TABLES.items() for field in fields],
    ids=[f"{name}-{field.name}" for name, fields in TABLES.items() for field in fields],
)
def test_each_example_of_an_entry_loads(name: str, field: Field) -> None:
    loader.load(f"{name}: [{entry_of(name, field)}]\n", name="a.yaml")


@pytest.mark.parametrize("field", table.FILE, ids=lambda field: field.name)
def test_each_example_of_a_file_loads(field: Field) -> None:
    library = Library(include=lambda file, _: Included(file, "", file))

    loader.load(f"{field.name}: {field.example}\n", name="a.yaml", library=library)


@pytest.mark.parametrize("fields", [*TABLES.values(), table.FILE, table.SOURCE])
def test_no_key_is_listed_twice(fields: tuple[Field, ...]) -> None:
    names = table.names_of(fields)

    assert len(set(names)) == len(names)
    assert all(field.help.endswith(".") for field in fields)


def test_only_a_policy_decides_the_network_and_only_an_owner_names_secrets() -> None:
    for key in ("default", "network", "profile"):
        assert [role for role in FileRole if key in table.keys_of(role)] == [FileRole.POLICY]
    assert "credentials" not in table.keys_of(FileRole.PRESET)
    assert table.keys_of(FileRole.PROJECT) == ("deny",)


def test_each_type_is_used() -> None:
    fields = (*table.FILE, *table.PRESET_ENTRY, *table.SOURCE)

    used = {field.kind for field in (*fields, *(each for t in TABLES.values() for each in t))}

    assert used == set(Kind)
