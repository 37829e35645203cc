"""Commands about grants say "applied" only of what a running proxy has confirmed."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from claude_proxy.cli import grant_making, paths
from claude_proxy.cli.grant_making import Scope
from claude_proxy.control import client
from claude_proxy.control.client import Proxy
from claude_proxy.control.protocol import ControlError, ProxyFacts
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.policy.grants import SECOND_NS, End
from claude_proxy.sandbox.run_directory import RunDirectory
from tests.policy.cases import rule


class Answering(Proxy):
    """A proxy that answers what a test wants."""

    answers: tuple[dict[str, Any], ...]
    alive: bool

    @classmethod
    def of(cls, name: str, statedir: Path, *answers: dict[str, Any], run: str = "") -> "Answering":
        facts = ProxyFacts(name, "run" if run else "serve", 1, 0.0, run=run, statedir=str(statedir))
        made = cls(facts, Path("/nowhere"))
        object.__setattr__(made, "answers", answers)
        object.__setattr__(made, "alive", True)
        return made

    def ask_workers(self, op: str, **_: Any) -> list[dict[str, Any]]:
        assert op == "grants-changed"
        if not self.answers:
            raise ControlError("it hangs", where="process 1", fix="end it")
        return list(self.answers)

    def is_alive(self) -> bool:
        return bool(self.alive)


def granted(*numbers: int, closed: int = 0) -> dict[str, Any]:
    return {"grants": [{"number": number} for number in numbers], "closed": closed}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let no proxy of the machine be found."""
    # Not pytest's own directory, whose path is too long for a socket.
    with TemporaryDirectory(prefix="grants-") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setattr(grant_making, "bases_of", lambda _: (Path(runtime) / "claude-proxy",))
        monkeypatch.setattr(client, "find", lambda _: [])
        monkeypatch.delenv("SUDO_USER", raising=False)
        yield


@pytest.fixture
def scope(tmp_path: Path) -> Scope:
    return Scope(tmp_path / "state")


def make(scope: Scope, **changes: Any) -> int:
    given: dict[str, Any] = {"lasts_ns": 3600 * SECOND_NS, "uses": None, "reason": ""}
    return grant_making.make(scope, [rule("a.test")], **(given | changes)).number


def test_a_grant_is_made_listed_and_ended(scope: Scope) -> None:
    assert grant_making.standing(scope) == []
    assert grant_making.end(scope, [1], End.REVOKED) == []

    number = make(scope)

    assert [grant.number for grant in grant_making.standing(scope)] == [number]
    assert [grant.number for grant in grant_making.end(scope, [number, 99], End.REVOKED)] == [1]
    assert grant_making.standing(scope) == []


def test_a_grant_of_a_run_is_listed_as_long_as_it_lives(tmp_path: Path) -> None:
    with RunDirectory.make(("sh",), name="build", project=tmp_path):
        scope = grant_making.scope_of(tmp_path / "state", "build", None)
        make(scope, lasts_ns=None)
        assert scope.run is not None
        assert scope.run.project == str(tmp_path)
        assert len(grant_making.standing(scope)) == 1

    assert grant_making.standing(scope) == []
    with pytest.raises(ClaudeProxyError, match='no run or container called "build" is alive'):
        grant_making.scope_of(tmp_path / "state", "build", None)


def test_a_run_and_a_project_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exclude"):
        grant_making.scope_of(None, "build", tmp_path)


def test_the_state_directory_is_the_one_that_all_proxies_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "statedir_in_force", lambda: tmp_path / "default")
    proxies = [Answering.of("a", tmp_path / "x")]
    monkeypatch.setattr(client, "find", lambda _: proxies)

    assert grant_making.scope_of(None, None, None).statedir == tmp_path / "x"
    proxies.append(Answering.of("b", tmp_path / "y"))
    several = grant_making.scope_of(None, None, None)
    assert several.statedir == tmp_path / "default"
    assert [one.name for one in several.others] == ["a", "b"]
    named = grant_making.scope_of(tmp_path / "y", None, None)
    assert [one.name for one in named.proxies] == ["b"]


def test_who_used_sudo_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = grant_making.user()
    monkeypatch.setenv("SUDO_USER", "alice")
    assert grant_making.user() == f"{before} (sudo by alice)"
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert grant_making.user().startswith("uid 4000000000")


@pytest.mark.parametrize(
    ("answers", "code", "says"),
    [
        ([granted(1), granted(1, closed=2)], 0, "Applied: one. 2 open tunnels closed."),
        ([granted(1), granted()], 1, "does not judge by it"),
        ([], 1, "it hangs"),
    ],
)
def test_it_is_applied_if_every_worker_says_so(
    scope: Scope,
    answers: list[dict[str, Any]],
    code: int,
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    proxy = Answering.of("one", scope.statedir, *answers)

    found = grant_making.confirm(replace(scope, proxies=(proxy,)), lambda _: True, {1}.issubset)

    printed = capsys.readouterr()
    assert found == code
    assert says in printed.out + printed.err
    assert ("Applied" in printed.out) is (code == 0)


def test_a_proxy_that_has_ended_meanwhile_is_no_problem(
    scope: Scope, capsys: pytest.CaptureFixture[str]
) -> None:
    proxy = Answering.of("one", scope.statedir)
    object.__setattr__(proxy, "alive", False)

    assert grant_making.confirm(replace(scope, proxies=(proxy,)), lambda _: True, bool) == 0
    assert "counts from the next start" in capsys.readouterr().out


def test_proxies_with_their_state_elsewhere_are_named(
    scope: Scope, capsys: pytest.CaptureFixture[str]
) -> None:
    there = replace(scope, others=(Answering.of("far", Path("/elsewhere")),))

    grant_making.confirm(there, lambda _: True, bool)

    assert "not for far, whose state is elsewhere: --statedir /elsewhere" in capsys.readouterr().err


def test_who_is_concerned_is_asked(scope: Scope, tmp_path: Path) -> None:
    serve = Answering.of("serve", tmp_path)
    run = Answering.of("build", tmp_path, run="build")
    with RunDirectory.make(("sh",), name="build"):
        of_run = grant_making.scope_of(tmp_path, "build", None)
    other = Answering.of("other", tmp_path, run="other")

    concerned = grant_making.is_concerned(of_run)
    in_project = grant_making.is_concerned(replace(scope, project=Path("/code")))

    assert [concerned(one) for one in (serve, run, other)] == [True, True, False]
    assert [in_project(one) for one in (serve, run)] == [True, False]
    assert grant_making.is_concerned(scope)(run)
