"""Anthropic's sandbox-runtime (`srt` on npm): its proxy, decrypting, and its sandbox.

It is found by $SRT, which names its `srt` program, or on PATH. It needs `node`.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench import pki
from bench.place import HERE, HOST, Place
from bench.proxies import Proxy, Running, Sandboxed, Target, with_hosts

_VARIABLE = "SRT"


class Srt(Proxy):
    """srt: a proxy in Node that decrypts with RSA, and a sandbox of bubblewrap."""

    name = "srt"

    def __init__(self, place: Place, target: Target) -> None:
        super().__init__(place, target)
        found = os.environ.get(_VARIABLE) or shutil.which("srt")
        self._program = Path(found).resolve() if found else None
        self._node = shutil.which("node")

    def version(self) -> str:
        """Return what its package says."""
        if self._program is None:
            return ""
        package = self._program.parent.parent / "package.json"
        return str(json.loads(package.read_text())["version"]) if package.exists() else ""

    def missing(self) -> str | None:
        """Need the package, node, and a private /etc/hosts, as it has no option for addresses."""
        if self._program is None or not (self._program.parent / "sandbox/http-proxy.js").exists():
            return "not installed; npm install @anthropic-ai/sandbox-runtime; $SRT names its `srt`"
        if self._node is None:
            return "there is no node"
        ran = subprocess.run(
            [*with_hosts(self.place), "true"], capture_output=True, text=True, check=False
        )
        return f"no private mount namespace: {ran.stderr.strip()}" if ran.returncode else None

    def command(
        self, port: int, directory: Path
    ) -> tuple[list[str | Path], dict[str, str] | None, Path]:
        """Return its proxy as its sandbox starts it, on a port and with a CA that we know."""
        del directory
        if self._program is None or self._node is None:
            raise NotImplementedError
        ca = self.place.directory / "srt-ca.pem"
        if not ca.exists():
            pki.make_rsa_ca(self.place.directory, "srt-ca")
        argv: list[str | Path] = [*with_hosts(self.place), self._node, HERE / "srt_proxy.mjs"]
        argv += [self._program.parent / "sandbox", str(port), HOST]
        argv += [ca, ca.with_suffix(".key"), self.place.origin_ca]
        return argv, None, ca

    def sandboxed(self, command: Sequence[str], *, join: Running | None = None) -> Sandboxed | None:
        """Return `srt` with one allowed host; it always has a proxy of its own."""
        del join
        if self._program is None:
            return None
        home = self.place.directory / "srt-runs"
        home.mkdir(exist_ok=True)
        settings = home / "settings.json"
        settings.write_text(json.dumps(_SETTINGS))
        # `srt` joins its arguments with quotes into a line for a shell.
        argv: list[str | Path] = [self._program, "--settings", settings, *command]
        return Sandboxed(argv, {**os.environ, "HOME": str(home)})


# As it comes it does not decrypt, which saves it making a CA at each start.
_SETTINGS = {
    "network": {"allowedDomains": [HOST], "deniedDomains": []},
    "filesystem": {"denyRead": [], "allowWrite": ["."], "denyWrite": []},
}
