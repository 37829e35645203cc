"""Missing programs: what a container's command line names, and its image cannot execute."""

import re
from contextlib import suppress

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container.engine import Engine, EngineError

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # exit codes of shells, and of the engines
_LAST_LINES = "3"
# What tini 0.19 writes where it cannot execute its child; it then ends with a shell's exit code.
_OF_INIT = lazy_pattern(r"^\[FATAL tini \(\d+\)\] exec (.+) failed: [^\n]+$", re.MULTILINE)


class NoProgramError(EngineError):
    """The image has no such program, or it cannot be executed."""

    def __init__(self, program: str, exit_code: int) -> None:
        lacks = exit_code == NOT_FOUND
        super().__init__(
            f'there is no program "{program}" in the container'
            if lacks
            else f'"{program}" cannot be executed in the container',
            where="CMD",
            fix="name a program that is in the image",
        )
        self.exit_code = exit_code


def said_by_init(engine: Engine, name: str, exit_code: int) -> NoProgramError | None:
    """Return the error that the init of a container wrote at the terminal, if it did.

    To the engine it is CMD: what it says is only in the log, if the container is still there.
    """
    if exit_code not in {NOT_EXECUTABLE, NOT_FOUND}:
        return None
    with suppress(ClaudeProxyError):
        said = engine.call("logs", "--tail", _LAST_LINES, "--", name)
        if found := _OF_INIT.findall(said.decode("utf-8", "replace").replace("\r", "")):
            return NoProgramError(found[-1], exit_code)
    return None
