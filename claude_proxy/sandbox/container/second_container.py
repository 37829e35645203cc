"""Second container beside a running one, for one of our programs, with a Python that is lent to it.

Law kept: nothing is left. It has the first one's network and mounts, so it is removed however the
program ends: an engine's process that is killed leaves its container running.
"""

import contextlib
import os
from pathlib import Path

from claude_proxy.sandbox.container import lent_python
from claude_proxy.sandbox.container.engine import Engine, EngineError
from claude_proxy.sandbox.container.plan.beside import beside
from claude_proxy.sandbox.container.plan.model import ContainerPlan


def call(  # noqa: PLR0913 - the container, and the program
    plan: ContainerPlan,
    engine: Engine,
    statedir: Path,
    program: str,
    *arguments: str,
    given: bytes | None = None,
    timeout_s: float,
) -> bytes:
    """Run a program beside the container of a plan and return what it prints.

    EngineError if it failed, or did not end in time.
    """
    lent = lent_python.lend(statedir, program)
    name = f"{plan.name}-second-{os.getpid()}"
    command = lent.words(program, *arguments)
    words = beside(plan, name, lent.directory, lent_python.INSIDE, command)
    try:
        return engine.call("run", *words, given=given, timeout_s=timeout_s)
    except BaseException:
        with contextlib.suppress(EngineError):  # it was never made, or is gone already
            engine.remove(name, force=True)
        raise
