"""Trial of a client that ignores the proxy: whether a run with `--transparent on` leads it there.

The run has directories of its own and a policy of one rule. Whether the client trusts the server's
certificate does not matter: a handshake that begins has gone through the run's proxy.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import claude_proxy
from claude_proxy.doctor.bounded_run import Completed, run_program

_OWN_ERROR = "claude-proxy: error:"  # the run did not start


@dataclass(frozen=True, slots=True)
class TransparentTrial:
    """What the trials of all clients share."""

    folder: Path  # for the run's own directories
    port: int  # of the server
    path: str  # where programs are looked for
    limit_s: float

    def is_led(
        self,
        host: str,
        words: Sequence[str],
        project: Path,
        environ: Mapping[str, str],
        arrived: Callable[[], bool],
    ) -> bool | None:
        """Tell whether a client reaches the server at `host`; None if there could be no run.

        `arrived` tells whether anything came to the server, after the client has ended.
        """
        ran = self._run(host, words, project, environ)
        if _OWN_ERROR in ran.stderr:
            return None
        return arrived()

    def _run(
        self, host: str, words: Sequence[str], project: Path, environ: Mapping[str, str]
    ) -> Completed:
        own = self.folder / f"{project.name}-run"
        home = own / "home"
        home.mkdir(parents=True)
        rule = {
            "host": host,
            "ports": [self.port],
            "tls": "passthrough",
            "addresses": ["127.0.0.1/32"],
        }
        allowlist = own / "allowlist.yaml"
        allowlist.write_text(json.dumps({"allow": [rule]}), encoding="utf-8")
        options = {
            "--transparent": "on",
            "--allowlist": str(allowlist),
            "--confdir": str(own / "confdir"),
            "--statedir": str(own / "statedir"),
            "--resolve": f"{host}:{self.port}:127.0.0.1",
            "--profile": "shell",
            "--dir": str(project),
        }
        given = [word for pair in options.items() for word in pair]
        given += [word for name in environ for word in ("--pass-env", name)]
        package = Path(claude_proxy.__file__).resolve().parent.parent
        variables = {
            "PATH": self.path,
            **environ,
            "HOME": str(home),
            "PYTHONPATH": str(package),
        }
        argv = [sys.executable, "-m", "claude_proxy", "run", *given, "--", *words]
        return run_program(argv, environ=variables, limit_s=self.limit_s, cwd=project)
