"""The table of control operations: what each asks of the engine."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest

from claude_proxy.control.protocol import ControlError, Request
from claude_proxy.errors import ConfigError
from claude_proxy.proxy.connection import Services
from claude_proxy.server.control_operations import Engine, server_of
from claude_proxy.server.control_server import Call, ControlServer
from claude_proxy.server.prepared import Prepared
from claude_proxy.system.peer_credentials import Peer
from tests.server.test_reload import Owner, in_no_time
from tests.support.waiting import PATIENCE_S


@pytest.fixture
def owner(place: Path) -> Owner:
    return Owner(place)


def engine_of(owner: Owner) -> Engine:
    nothing = cast("Any", None)
    return Engine(cast("Prepared", nothing), cast("Services", nothing), nothing, owner.reloader)


async def ask(server: ControlServer, op: str) -> Any:
    call = Call(Request(op, {}), Peer(1, 1, "sh"), cast("asyncio.StreamWriter", None))
    return await server.handlers[op](call)


def play(owner: Owner, talk: Callable[[ControlServer], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        watching = asyncio.create_task(owner.reloader.watch())
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await talk(server_of(engine_of(owner)))
        finally:
            watching.cancel()

    with pytest.MonkeyPatch.context() as patch:
        in_no_time(patch)
        return asyncio.run(run())


def test_a_reload_says_what_changed_and_the_new_version(owner: Owner) -> None:
    async def talk(server: ControlServer) -> tuple[Any, Any]:
        before = await ask(server, "reload")
        owner.writes("allow: [b.example]\n")
        return before, await ask(server, "reload")

    before, after = play(owner, talk)

    assert before["change"] == "no rule changed"
    assert "b.example" in after["change"]
    assert before["version"] != after["version"]


def test_the_policy_is_told_by_its_place_and_version(owner: Owner) -> None:
    async def talk(server: ControlServer) -> tuple[Any, Any]:
        return await ask(server, "policy"), await ask(server, "reload")

    policy, reload = play(owner, talk)

    assert policy["version"] == reload["version"]
    assert policy["allowlist"] == str(owner.reloader.settings.allowlist)


def test_a_reload_of_a_bad_list_is_refused_with_its_place(owner: Owner) -> None:
    owner.writes("allow: [b..example]\n")

    with pytest.raises((ConfigError, ControlError)) as raised:
        play(owner, lambda server: ask(server, "reload"))

    assert "allowlist.yaml:1" in str(raised.value.where)


def test_an_owner_can_ask_to_stop(owner: Owner) -> None:
    assert {"status", "reload", "stop"} <= server_of(engine_of(owner)).handlers.keys()
