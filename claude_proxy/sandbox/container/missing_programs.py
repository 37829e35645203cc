"""Missing programs: what a container's command line names, and its image cannot execute."""

from claude_proxy.sandbox.container.engine import EngineError

NOT_EXECUTABLE, NOT_FOUND = 126, 127  # exit codes of shells, and of the engines


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
