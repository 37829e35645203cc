"""Words that execute COMMAND inside with default signals and a shell's exit codes; pure.

If COMMAND cannot be executed, `env` and `sh` end with 127 or 126, as a shell does; bwrap itself
ends with 1, which COMMAND could have returned as well.
"""

from pathlib import Path

_SHELL = ("/bin/sh", "-c", 'exec "$0" "$@"')


def words(command: tuple[str, ...], env: Path | None) -> tuple[str, ...]:
    """Return what bwrap starts for COMMAND; `env` is one that has --default-signal, if any.

    The launcher ignores SIGINT and SIGQUIT while COMMAND runs, and an ignored signal is inherited.
    """
    if env is None:
        return (*_SHELL, *command)
    start = (str(env), "--default-signal=INT,QUIT")
    if "=" in command[0]:  # `env` would take it for an assignment
        return (*start, *_SHELL, *command)
    return (*start, "--", *command) if command[0].startswith("-") else (*start, *command)
