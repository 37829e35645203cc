"""Attack run of a container: tries to get out of one like it, in its network namespace.

A second container of the same image, with the same options and mounts, joins the network of the
first one, and the attacks run in it with a Python that is lent to it; so the image needs none. The
policy is the container's own: hosts that it allows are never contacted. Law kept: fail closed:
without a proxy that answers, no denial proves anything.
"""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from claude_proxy.audit.database import database_in
from claude_proxy.config import policy_files
from claude_proxy.doctor.attack import catalogue
from claude_proxy.doctor.attack.canaries import Canaries
from claude_proxy.doctor.attack.catalogue import AttackResult, Observation
from claude_proxy.doctor.attack.run import changed, control_places, identities, usual_sockets
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.container import keeper_link, second_container
from claude_proxy.sandbox.container.engine import Engine
from claude_proxy.sandbox.container.plan.model import ContainerPlan, ContainerState
from claude_proxy.sandbox.plan.environment import (
    ALLOWLIST,
    BUNDLE,
    CERTIFICATE,
    HTTP_PORT,
    SOCKS_PORT,
)
from claude_proxy.sandbox.plan.protected_paths import protected
from claude_proxy.sandbox.run_directory import start_time_of
from claude_proxy.sandbox.run_spec import RunSpec
from claude_proxy.trust.published_certificate import AUTHORITY_FILE
from claude_proxy.wire.authority import Authority

_DENIED: Final = "denied.claude-proxy-doctor.test"  # RFC 6761
_ALLOWED: Final = "allowed.claude-proxy-doctor.test"
_LIMIT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class ContainerTarget:
    """The container to attack, which runs, and its owner."""

    run_spec: RunSpec
    plan: ContainerPlan
    engine: Engine
    state: ContainerState
    home: Path
    environ: Mapping[str, str]


def attack_container(target: ContainerTarget) -> list[AttackResult]:
    """Run the attacks and return the result of each; ClaudeProxyError if they cannot be run."""
    policy = policy_files.load_for(target.run_spec.settings).policy
    if policy.decide_connect(Authority.of(_DENIED, 443)).allowed:
        raise ClaudeProxyError(
            f"the policy allows {_DENIED}, which the attacks need to be denied",
            fix="remove the rule for it, or the default that allows every host",
        )
    made = tempfile.TemporaryDirectory(prefix="claude-proxy-doctor-", ignore_cleanup_errors=True)
    with made as name, Canaries(Path(name), None) as canaries:
        guarded = identities(_guarded(target.run_spec))
        reports = _reports(target, _parameters(target, canaries, guarded))
        observations = (
            Observation("loopback", "listeners on loopback", canaries.seen("loopback")),
            Observation("unix", "Unix sockets", canaries.seen("unix")),
            Observation("policy", "policy, CA, audit log", changed(guarded)),
        )
    return catalogue.judge_container(reports, observations)


def _guarded(run_spec: RunSpec) -> list[Path]:
    settings = run_spec.settings
    return [
        *(settings.allowlist, settings.confdir, settings.place_of_ca / AUTHORITY_FILE),
        *(settings.statedir, database_in(settings.statedir)),
    ]


def _parameters(
    target: ContainerTarget, canaries: Canaries, guarded: Mapping[str, list[int]]
) -> dict[str, Any]:
    settings = target.run_spec.settings
    status = keeper_link.ask(target.plan.directory, "status") or {}
    run_socket = str(status.get("socket", ""))
    hidden = [
        *(*canaries.files, settings.confdir, settings.statedir, target.plan.directory),
        *([Path(run_socket).parent] if run_socket else []),
        *protected(target.home, target.environ, settings.confdir, settings.statedir),
    ]
    sockets = [
        *(*usual_sockets(target.home, target.environ), run_socket),
        str(target.plan.directory / "keeper.sock"),
    ]
    place = ["127.0.0.1", HTTP_PORT]
    return {
        "attacks": [catalogue.POD_PROXY.name, *(one.name for one in catalogue.CONTAINER_ATTACKS)],
        "proxy": place,
        "socks": ["127.0.0.1", SOCKS_PORT],
        "ca": str(CERTIFICATE),
        "allowed": [_ALLOWED, 443],
        "denied_host": _DENIED,
        "canaries": canaries.facts(),
        "sockets": [path for path in sockets if path],
        "control": control_places(target.environ),
        "processes": list(_processes(status, canaries)),
        "secret": canaries.token,
        "key": canaries.token,
        "hidden": identities(hidden),
        "guarded": guarded,
        "shown": [str(path) for path in (CERTIFICATE, BUNDLE, ALLOWLIST)],
        "own_ports": [],
    }


def _processes(status: Mapping[str, Any], canaries: Canaries) -> Iterator[tuple[str, int, str]]:
    pids = {"this program": os.getpid()}
    if "keeper" in status:
        pids["the keeper"] = int(status["keeper"])
    for what, those in status.get("helpers", {}).items():
        for number, pid in enumerate(those, 1):
            pids[f"the {what}" if number == 1 else f"the {what} ({number})"] = int(pid)
    if canaries.process is not None:
        pids["the canary"] = canaries.process.pid
    return ((what, pid, str(start_time_of(pid))) for what, pid in pids.items())


def _reports(target: ContainerTarget, spec: Mapping[str, Any]) -> Sequence[dict[str, Any]]:
    given, statedir = json.dumps(spec).encode(), target.run_spec.settings.statedir
    said = second_container.call(
        target.plan, target.engine, statedir, "probes", given=given, timeout_s=_LIMIT_S
    )
    reports = []
    for line in said.splitlines():
        with suppress(ValueError):
            reports.append(json.loads(line))
    found = [report for report in reports if isinstance(report, dict) and "attack" in report]
    if not found:
        raise ClaudeProxyError(
            "nothing was tried: the attacks said nothing",
            where=str(target.engine.program),
            fix="report it as a bug, with `claude-proxy doctor`",
        )
    return found
