"""A grant that is used up is found as long as a running proxy has something open by it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli import grant_making
from claude_proxy.control import client, present, used_up
from claude_proxy.control.client import Proxy
from claude_proxy.control.grant_store import Draft, GrantStore
from claude_proxy.control.protocol import ControlError, ProxyFacts
from tests.cli.conftest import Say
from tests.policy.cases import rule


class Telling(Proxy):
    """A proxy that tells what is open by grants that are used up, until they are revoked."""

    store: GrantStore
    silent: bool

    @classmethod
    def of(cls, store: GrantStore, *, silent: bool = False) -> "Telling":
        facts = ProxyFacts("web", "serve", 1, 0.0, statedir=str(store.path.parent))
        made = cls(facts, Path("/nowhere"))
        object.__setattr__(made, "store", store)
        object.__setattr__(made, "silent", silent)
        return made

    def ask_workers(self, op: str, **_: Any) -> list[dict[str, Any]]:
        assert op == "grants-changed"
        if self.silent:
            raise ControlError("it hangs", where="process 1", fix="end it")
        found, now = map(self.store.get, self.store.used_up()), present.now()
        told = [used_up.as_json(one, now, tunnels=1, requests=0) for one in found if one]
        return [{"grants": [], used_up.KEY: told, "closed": 0}]

    def is_alive(self) -> bool:
        return True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GrantStore]:
    found = GrantStore.open(tmp_path / "state", make=True)
    assert found is not None
    with found:
        made = found.make(Draft((rule("a.test"),), "alice", uses=1), present.now())
        found.take_use(made.number, present.now())
        yield found


@pytest.fixture
def runs(say: Say, store: GrantStore, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Commands beside a proxy that runs."""
    monkeypatch.setattr(client, "find", lambda _: [Telling.of(store)])
    return say


def test_a_used_up_grant_is_listed_with_what_is_open(runs: Say) -> None:
    assert "used up; 1 tunnel open" in runs("grants")[1]
    assert '"open_tunnels": 1' in runs("grants", "--json")[1]


def test_all_means_what_is_used_up_and_open_as_well(runs: Say) -> None:
    code, out, _ = runs("revoke", "--all")

    assert code == 0
    assert "Revoked grant 1" in out
    assert "Applied: web." in out
    assert runs("grants") == (0, "", "claude-proxy: no grant is in force\n")


def test_a_grant_that_nothing_is_open_by_is_not_listed(say: Say, store: GrantStore) -> None:
    assert store.used_up() == [1]
    assert say("grants") == (0, "", "claude-proxy: no grant is in force\n")
    assert say("revoke", "--all") == (0, "No grant is in force.\n", "")


def test_of_a_proxy_that_is_silent_all_that_is_used_up_is_revoked(
    say: Say, store: GrantStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "find", lambda _: [Telling.of(store, silent=True)])

    assert "the proxy web does not answer" in say("grants")[2]
    code, out, err = say("revoke", "--all")

    assert code == 1
    assert "Revoked grant 1" in out
    assert "it hangs" in err
    assert store.used_up() == []


def test_proxies_that_keep_their_grants_elsewhere_are_named(
    say: Say, store: GrantStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    there = Telling.of(store)
    elsewhere = replace(there.facts, name="far", statedir=str(tmp_path / "far"))
    monkeypatch.setattr(client, "find", lambda _: [Proxy(elsewhere, Path("/nowhere"))])
    where = ("--statedir", str(tmp_path / "other"))

    for words in (("grants", *where), ("revoke", "--all", *where)):
        assert "not for far, whose state is elsewhere" in say(*words)[2]
    assert grant_making.scope_of(tmp_path / "other", None, None).others
