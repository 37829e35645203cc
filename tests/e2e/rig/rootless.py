"""An ordinary user with user ids below it, for rootless podman; made for one test, by mounts.

/etc/passwd, /etc/group, /etc/subuid and /etc/subgid are covered for the user's processes alone.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .internet import Internet
from .launch import REACHABLE
from .proxy import REPOSITORY

USER = 12345
_BELOW = 300_000
_START = """
mount --make-rshared /
for name in passwd group subuid subgid; do mount --bind "$0/$name" "/etc/$name"; done
exec "$@"
"""


class RootlessUser:
    """A user with a home, who runs programs on the host of the internet."""

    def __init__(self, internet: Internet) -> None:
        self.internet = internet
        # The path is short, as the names of sockets are.
        self.directory = Path(tempfile.mkdtemp(prefix="rl-"))
        self.directory.chmod(0o755)
        self.home = self._made("home")
        self.runtime = self._made("run")
        self.project = self._made("project")
        below = f"rootless:{_BELOW}:65536\n"
        passwd = f"rootless:x:{USER}:{USER}::{self.home}:/bin/sh\n"
        for name, text in (
            ("passwd", Path("/etc/passwd").read_text() + passwd),
            ("group", Path("/etc/group").read_text() + f"rootless:x:{USER}:\n"),
            ("subuid", below),
            ("subgid", below),
        ):
            (self.directory / name).write_text(text)

    def _made(self, name: str) -> Path:
        path = self.directory / name
        path.mkdir(mode=0o700)
        os.chown(path, USER, USER)
        return path

    def argv(self, command: Sequence[str | Path]) -> list[str]:
        """Return the words that run a command as the user, in the project."""
        paths = [sys.prefix, sys.base_prefix, str(REPOSITORY)]
        ids = [f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--inh-caps=-all"]
        words = [
            *("unshare", "--mount", "sh", "-ec", _START, str(self.directory)),
            *(sys.executable, "-I", str(REACHABLE), *paths, "--", "setpriv", *ids, "--"),
            *("env", "-C", str(self.project), *(str(word) for word in command)),
        ]
        return self.internet.host.argv(words, cwd=Path("/"))

    def environment(self, **variables: str) -> dict[str, str]:
        """Return what the user's shell hands on."""
        return {
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONSAFEPATH": "1",
            "USER": "rootless",
            "XDG_RUNTIME_DIR": str(self.runtime),
            "CLAUDE_PROXY_WARM_UPSTREAMS": "false",
            **variables,
        }

    def close(self) -> None:
        """Remove all that the user has."""
        shutil.rmtree(self.directory, ignore_errors=True)
