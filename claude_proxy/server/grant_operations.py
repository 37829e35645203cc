"""Control operations about grants: read the store now, and say what is in force.

Law kept: a command says "applied" only after each process that judges has answered.
"""

from claude_proxy.control import used_up
from claude_proxy.control.protocol import Answer
from claude_proxy.server.control_operations import Engine
from claude_proxy.server.control_server import Call, ControlServer
from claude_proxy.server.grant_watch import GrantWatch


def add_to(server: ControlServer, engine: Engine, watch: GrantWatch) -> None:
    """Answer what is asked about grants, and show them in the status."""

    async def changed(_: Call) -> Answer:
        closed = watch.refresh()
        return {"grants": watch.status(), used_up.KEY: watch.used_up(), "closed": closed}

    server.add("grants-changed", changed)
    engine.more_status["grants"] = watch.status
    engine.more_status[used_up.KEY] = watch.used_up
