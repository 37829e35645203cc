"""A client cannot become several owners, and SQL agrees with Python about who one is."""

import sqlite3
from contextlib import closing

import pytest

from claude_proxy.audit.owner import OWNER_IN_SQL, name_of, owner_of

CLIENTS = [
    ("pid 12 uid 1000 /usr/bin/curl", None, "uid 1000 /usr/bin/curl"),
    ("pid ? uid 0 ?", None, "uid 0 ?"),
    ("pid 12 uid 1000 /usr/bin/python3.13", None, "uid 1000 /usr/bin/python3.13"),
    ("pid 12 uid 1000 /usr/bin/git, claims run two: git", None, "uid 1000 /usr/bin/git"),
    ("pid 12 uid 1000 /usr/bin/git, run one: git", "one", "run one"),
    ("127.0.0.1:55555", None, "127.0.0.1"),
    ("127.0.0.1:1, claims run two: git", None, "127.0.0.1"),
    ("[2001:db8::1]:55555", None, "[2001:db8::1]"),
    ("somebody", None, "somebody"),
    ("", None, ""),
]


@pytest.mark.parametrize(("client", "run", "owner"), CLIENTS)
def test_an_owner_is_a_run_or_a_program_or_an_address(
    client: str, run: str | None, owner: str
) -> None:
    assert owner_of(client, run) == owner


@pytest.mark.parametrize(("client", "run", "owner"), CLIENTS)
def test_sql_says_the_same(client: str, run: str | None, owner: str) -> None:
    with closing(sqlite3.connect(":memory:")) as database:
        statement = f"SELECT {OWNER_IN_SQL} FROM (SELECT ? AS client, ? AS run)"
        assert database.execute(statement, (client, run)).fetchone() == (owner,)


@pytest.mark.parametrize(
    ("client", "run", "name"),
    [
        ("pid 12 uid 1000 /usr/bin/curl", None, "curl"),
        ("pid 12 uid 1000 ?", None, "a client of uid 1000"),
        ("127.0.0.1:55555", None, "a client at 127.0.0.1"),
        ("pid 12 uid 1000 /usr/bin/python3, run blue: git", "blue", "a program in run blue"),
    ],
)
def test_a_client_has_a_name_in_a_sentence(client: str, run: str | None, name: str) -> None:
    assert name_of(client, run) == name
