"""Makes paths reachable for every user, by mounts in a namespace of its own, and runs a command.

    reachable.py PATH ... -- COMMAND ...

A path below a directory that others may not enter (an interpreter in root's home) is bound into an
empty directory laid over that one. Nothing outside the namespace changes.
"""

import os
import stat
import subprocess
import sys
from pathlib import Path


def closed_above(path: Path) -> Path | None:
    """Return the topmost directory on the way to `path` that others may not enter."""
    for place in reversed(path.parents):
        if not place.stat().st_mode & stat.S_IXOTH:
            return place
    return None


def run(*words: str | Path) -> None:
    """Run a program that must succeed."""
    subprocess.run(words, check=True)


def main(arguments: list[str]) -> None:
    """Mount, then become the command."""
    end = arguments.index("--")
    wanted = {Path(path).resolve() for path in arguments[:end]}
    run("mount", "--make-rprivate", "/")
    closed: dict[Path, list[Path]] = {}
    for path in sorted(wanted):
        above = closed_above(path)
        if above is not None:
            closed.setdefault(above, []).append(path)
    for above, paths in closed.items():
        # Held open, as nothing below it can be named once something lies over it.
        held = {path: os.open(path, os.O_PATH) for path in paths}
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", above)
        for path, descriptor in held.items():
            path.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                ["mount", "--no-canonicalize", "--bind", f"/proc/self/fd/{descriptor}", path],
                check=True,
                pass_fds=[descriptor],
            )
    command = arguments[end + 1 :]
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
