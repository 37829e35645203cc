"""The network of a container is checked from where this user may look, and unseen is no success."""

import json
import os
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import netns, self_check
from claude_proxy.sandbox.container import container_check
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan.model import EngineKind
from tests.support.container_parts import a_plan, fake_engine

ALLOWED, DENIED = "api.anthropic.com:443", "mozilla.org:443"
SEEN = {
    "namespace": 1,
    "interfaces": ["lo"],
    "routes": 0,
    "direct": "network is unreachable",
    "allowed": 200,
    "denied": 403,
}


def passed(tmp_path: Path, said: str, *, transparent: bool = False) -> bool:
    program = fake_engine(tmp_path / "bin", (["run"], said, "", 0))
    engine = Engine(EngineKind.DOCKER, program, dict(os.environ))
    plan = a_plan()
    found = container_check.checks_from_beside(
        plan, engine, tmp_path, ALLOWED, DENIED, transparent=transparent
    )
    return self_check.all_passed([*found])


def test_a_network_with_nothing_but_the_proxy_passes(tmp_path: Path) -> None:
    assert passed(tmp_path, json.dumps(SEEN))


@pytest.mark.parametrize(
    "wrong",
    [
        {"namespace": Path("/proc/self/ns/net").stat().st_ino},
        {"interfaces": ["lo", "eth0"]},
        {"routes": 1},
        {"direct": None},
        {"allowed": 403},
        {"denied": 200},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_one_with_more_does_not(tmp_path: Path, wrong: dict[str, object]) -> None:
    assert not passed(tmp_path, json.dumps({**SEEN, **wrong}))


def test_the_fake_addresses_pass_where_they_were_asked_for_and_nothing_else(
    tmp_path: Path,
) -> None:
    fake = {**SEEN, "interfaces": ["lo", "claude-proxy"], "routes": 1}

    assert passed(tmp_path / "a", json.dumps(fake), transparent=True)
    assert not passed(tmp_path / "b", json.dumps(fake))
    assert not passed(tmp_path / "c", json.dumps({**fake, "routes": 3}), transparent=True)
    more = {**fake, "interfaces": ["lo", "claude-proxy", "eth0"]}
    assert not passed(tmp_path / "d", json.dumps(more), transparent=True)


@pytest.mark.parametrize("said", ["", "[]", "{}"])
def test_a_probe_that_says_nothing_is_an_error(tmp_path: Path, said: str) -> None:
    with pytest.raises(ClaudeProxyError, match="was not probed"):
        passed(tmp_path, said)


def test_a_network_that_cannot_be_entered_is_known_as_that() -> None:
    with pytest.raises(netns.EntryError, match="cannot be entered") as raised:
        list(container_check.checks_from_outside(2**22 + 1, ALLOWED, DENIED))

    assert "bwrap" not in "".join(raised.value.lines())
