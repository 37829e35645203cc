"""Attack run of a pod: tries to get out of where this very program runs, past its proxy.

For the start of a pod: it fails unless every try was stopped, so what comes after it starts behind
a wall that was tried, not assumed. Law kept: fail closed: without a proxy that answers, no denial
proves anything.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import claude_proxy
from claude_proxy.doctor.attack import catalogue
from claude_proxy.doctor.attack.catalogue import AttackResult
from claude_proxy.doctor.bounded_run import last_words_of
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.wire.authority import Authority

_VARIABLES: Final = ("HTTPS_PROXY", "https_proxy")
_DENIED: Final = "denied.claude-proxy-doctor.test"  # RFC 6761
_ALLOWED: Final = "allowed.claude-proxy-doctor.test"
# Answers every pod of a cluster that nothing keeps from it.
_API_SERVER: Final = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
_NAMES: Final = ("kubernetes.default.svc.cluster.local", "kubernetes.default.svc", "example.com")
_LIMIT_S: Final = 300.0
# The machine's own namespaces, by include/uapi/linux/nsfs.h; that of the network since Linux 6.18.
_FIRST_NETWORK: Final = 0xEFFFFFF9
_FIRST_PIDS: Final = 0xEFFFFFFC
_START: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from claude_proxy.doctor.attack.probes.__main__ import main; main()"
)


def attack_here(environ: Mapping[str, str], canaries: Sequence[Authority]) -> list[AttackResult]:
    """Try to get out, past the proxy of the environment; return the result of each attack.

    `canaries`: addresses that would answer if nothing kept this program from them. ClaudeProxyError
    if nothing could be tried.
    """
    _refuse_the_machine()
    return catalogue.judge_pod(_reports(parameters(environ, canaries)))


def _refuse_the_machine() -> None:
    """Raise ConfigError on a machine itself: attacks that succeed change its network."""
    if _has_the_machines_network():
        raise ConfigError(
            "this has the network of the machine itself, and is no pod or container",
            where="--attack-here",
            fix="run it in the pod or container that is to be tried; `claude-proxy doctor --attack`"
            " tries a sandbox of this machine",
        )


def _has_the_machines_network() -> bool:
    own = Path("/proc/self/ns/net").stat().st_ino
    if own == _FIRST_NETWORK:
        return True
    try:
        first = Path("/proc/self/ns/pid").stat().st_ino == _FIRST_PIDS
        return first and own == Path("/proc/1/ns/net").stat().st_ino
    except OSError:
        return False  # one who may not look at process 1 may not change its network either


def parameters(environ: Mapping[str, str], canaries: Sequence[Authority]) -> dict[str, Any]:
    """Return the parameters of the probes; ConfigError if the environment names no proxy."""
    place, login = _proxy_of(environ)
    tcp = [[one.host, one.port] for one in canaries]
    host, port = (environ.get(name) for name in _API_SERVER)
    if host and port and port.isdigit():
        tcp.append([host, int(port)])
    return {
        "attacks": [catalogue.POD_PROXY.name, *(each.name for each in catalogue.POD_ATTACKS)],
        "proxy": place,
        "socks": place,
        "login": login,
        "allowed": [_ALLOWED, 443],
        "denied_host": _DENIED,
        "lookups": list(_NAMES),
        "canaries": {"tcp": tcp, "udp": [], "vsock": None},
        "own_ports": [],
    }


def _proxy_of(environ: Mapping[str, str]) -> tuple[list[Any], str | None]:
    """Return address and port of the proxy, and the login that its URL has."""
    text = next((environ[name] for name in _VARIABLES if environ.get(name)), None)
    if text is None:
        raise ConfigError(
            "no variable names a proxy",
            where="HTTPS_PROXY",
            fix="set it to the proxy of this pod, such as http://127.0.0.1:3128",
        )
    try:
        parts = urlsplit(text)
        known = parts.hostname is not None and "$" not in parts.hostname
        if parts.scheme != "http" or not known or not parts.port:
            raise ValueError  # noqa: TRY301 - the same for every fault
        found = [parts.hostname, parts.port]
    except ValueError:
        # Not the value: it may hold a password.
        raise ConfigError(
            "HTTPS_PROXY is not the URL of a proxy",
            where="HTTPS_PROXY",
            fix="write it like http://127.0.0.1:3128; a name like $(...) in it means that the "
            "service did not exist yet when the pod started",
        ) from None
    if parts.username is None:
        return found, None
    return found, f"{unquote(parts.username)}:{unquote(parts.password or '')}"


def _reports(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    root = str(Path(claude_proxy.__file__).resolve().parents[1])
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", "-B", "-c", _START, root],
            input=json.dumps(spec).encode(),
            capture_output=True,
            check=False,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise ClaudeProxyError(
            f"the attacks did not end in {_LIMIT_S:.0f} s",
            fix="try again; report it if it happens again",
        ) from None
    reports = []
    for line in done.stdout.splitlines():
        with suppress(ValueError):
            reports.append(json.loads(line))
    if not reports:
        raise ClaudeProxyError(
            f"nothing was tried: {last_words_of(done.stderr.decode('utf-8', 'replace'))}",
            where=sys.executable,
            fix="check that Python can be run here",
        )
    return [report for report in reports if isinstance(report, dict) and "attack" in report]
