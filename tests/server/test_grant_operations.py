"""What a proxy answers about grants is what it judges by now."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from claude_proxy.control import used_up
from claude_proxy.server.control_operations import Engine
from claude_proxy.server.control_server import ControlServer
from claude_proxy.server.grant_operations import add_to
from claude_proxy.server.grant_watch import GrantWatch


class Watch:
    """A watch that has closed two tunnels for a grant."""

    def refresh(self) -> int:
        return 2

    def status(self) -> list[dict[str, Any]]:
        return [{"number": 3}]

    def used_up(self) -> list[dict[str, Any]]:
        return [{"number": 2}]


def test_the_answer_comes_after_the_store_was_read() -> None:
    server, more = ControlServer(), dict[str, Any]()
    engine = cast("Engine", SimpleNamespace(more_status=more))
    add_to(server, engine, cast("GrantWatch", Watch()))

    answer = asyncio.run(cast("Any", server.handlers["grants-changed"](cast("Any", None))))

    assert answer == {"grants": [{"number": 3}], used_up.KEY: [{"number": 2}], "closed": 2}
    assert more["grants"]() == [{"number": 3}]
    assert more[used_up.KEY]() == [{"number": 2}]
