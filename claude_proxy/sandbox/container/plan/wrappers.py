"""Wrappers by which an agent in a container does not ask for permission; pure.

Law kept: off by default, and nothing of the image is changed. The wrapper is a read-only mount
ahead in PATH, so an update of the agent inside does not replace it, and a container without it
asks.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import Profile

DIRECTORY = PurePosixPath("/run/claude-proxy-bin")
ORIGINAL = "-original"  # NAME-original is the program without the wrapper

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def wrappers(profile: Profile) -> Mapping[str, bytes]:
    """Return the programs to mount, by name; ConfigError if the profile does not say how."""
    if not profile.unattended or not profile.commands:
        raise ConfigError(
            f"the profile {profile.name!r} does not say how to skip COMMAND's permission prompts",
            where="--yolo",
            fix="leave it out, or add `unattended` to a profile of your own",
        )
    found = {}
    for name in sorted(profile.commands):
        found[name] = _script(name, profile.unattended)
        found[f"{name}{ORIGINAL}"] = _script(name, ())
    return found


def path_with_wrappers(environment: Mapping[str, str]) -> str:
    """Return PATH of an image with the wrappers first."""
    return f"{DIRECTORY}:{environment.get('PATH') or _DEFAULT_PATH}"


def file_of(name: str) -> str:
    """Return the name of a wrapper among the files of a container."""
    return f"program-{name}"


def _script(name: str, flags: Sequence[str]) -> bytes:
    """Return a script that starts the first other program of this name in PATH."""
    words = " ".join([*map(shlex.quote, flags), '"$@"'])
    return (
        "#!/bin/sh\n"
        f"# Mounted by `claude-proxy container run --yolo`. Without it: {name}{ORIGINAL}\n"
        "IFS=:\n"
        "set -f\n"
        "for directory in $PATH; do\n"
        f'    [ "$directory" = {DIRECTORY} ] && continue\n'
        f"    program=$directory/{shlex.quote(name)}\n"
        '    [ -n "$directory" ] && [ -f "$program" ] && [ -x "$program" ] || continue\n'
        "    unset IFS\n"
        "    set +f\n"
        f'    exec "$program" {words}\n'
        "done\n"
        f'echo "{name}: not found in PATH" >&2\n'
        "exit 127\n"
    ).encode()
