"""Looks at the credentials of a run's policy, as far as must be known to keep them outside of it.

Laws kept: secrets stay outside (9), the sandbox cannot move its own wall (10), no quiet downgrade
(11). The proxy of the run reads them for itself; here it is only found out which kind each one is,
and in which variables it stands. A source that gives nothing ends the run before it begins.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from claude_proxy.config import policy_files
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.policy import unbound_hosts
from claude_proxy.policy.credentials.decision import (
    Binding,
    CommandSource,
    Injection,
    KeyringSource,
    SecretSource,
)
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.plan import credential_isolation
from claude_proxy.sandbox.plan.environment import GATEWAY_PORT
from claude_proxy.sandbox.plan.model import SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec
from claude_proxy.sandbox.safe_read import head_of
from claude_proxy.system import file_permissions

type Bindings = tuple[Binding, ...]


def bindings_of(order: RunSpec) -> Bindings:
    """Return the credentials of the proxy that the run has.

    Of one that is joined it is taken for granted that it has the list which one started here would
    have; if it has not, a placeholder is a login that nobody knows. Without a network they stay
    outside as well: what a run writes down, the next one may send.
    """
    if order.sandbox.unfiltered or order.foreign:
        return ()
    return policy_files.load_for(order.settings).policy.credentials


def warnings_of(order: RunSpec, bindings: Bindings) -> Iterator[str]:
    """Yield what an owner should know of the credentials of the run's own proxy."""
    if not bindings or order.join is not None or not order.sandbox.network:
        return
    words = unbound_hosts.words_about(policy_files.load_for(order.settings).policy)
    if words is not None:
        yield f"{words[0]}; fix: {words[1]}"


def refuse_reachable(order: RunSpec, bindings: Bindings, environ: Mapping[str, str]) -> None:
    """Raise if COMMAND, or an earlier one, could have made what a credential is asked of.

    To be called before anything of it is read, or run: it would be run outside.
    """
    spec, home = order.sandbox, host_facts.user_of(environ).home
    written = [spec.project, *spec.allow_rw, *(home / name for name in spec.profile.home_write)]
    places = {Path(os.path.realpath(place)) for place in written}
    for source in _sources_of(order, bindings):
        for path in _obeyed(source, home, environ):
            for at in file_permissions.ways_to(path):
                inside = any(at.is_relative_to(place) for place in places)
                if inside and not _is_login(at, home, environ):
                    raise ConfigError(
                        "what gives the proxy a credential could have been made by a run",
                        where=str(path),
                        fix="keep it outside of the project and of what a run may write",
                    )


def with_isolation(
    order: RunSpec, bindings: Bindings, environ: Mapping[str, str], *, dry: bool = False
) -> SandboxSpec:
    """Return an order's wish, with what stays outside of the sandbox; if it is dry, ask nobody."""
    home = host_facts.user_of(environ).home
    sources = {each.name: each.use.source for each in bindings if isinstance(each.use, Injection)}
    if dry:
        asked = (CommandSource, KeyringSource)
        sources = {name: one for name, one in sources.items() if not isinstance(one, asked)}
    must = order.sandbox.network and order.join is None
    values = _values_of(sources, environ, must=must) if sources else {}
    found = credential_isolation.isolation_of(bindings, values, environ, home)
    gateway = order.settings.gateway
    if gateway is not None and order.sandbox.network:
        source = gateway.credential.source
        found = credential_isolation.joined(
            found, credential_isolation.isolation_for_gateway(GATEWAY_PORT, source, environ, home)
        )
    bare = tuple(_bare(order.sandbox, home, values.values())) if values else ()
    return replace(order.sandbox, isolation=replace(found, bare=bare))


# Where people write keys down beside their work, and Claude Code writes down its own.
_NOTES = (
    *(".env", ".env.local", ".env.development", ".envrc", ".npmrc", ".mcp.json"),
    *(".claude.json", ".claude/settings.json", ".claude/settings.local.json"),
)
_NOTE_BYTES = 256 * 1024


def _bare(spec: SandboxSpec, home: Path, values: Iterable[Secret]) -> Iterator[Path]:
    """Yield the files of a project and a home in which one of the values stands."""
    wanted = [value.reveal() for value in values]
    for place in dict.fromkeys((spec.project, home)):
        for path in (place / name for name in _NOTES):
            text = head_of(path, _NOTE_BYTES)
            if any(value in text for value in wanted):
                yield path


def _values_of(
    sources: Mapping[str, SecretSource], environ: Mapping[str, str], *, must: bool
) -> dict[str, Secret]:
    from claude_proxy.vault import sources as secret_sources  # noqa: PLC0415 - few runs have any

    found = {}
    # A command finds nothing of the project around it that it might obey.
    with contextlib.chdir("/"):
        for name, source in sources.items():
            try:
                found[name] = secret_sources.read(source, environ)
            except ClaudeProxyError:
                if must:
                    raise
    return found


def _sources_of(order: RunSpec, bindings: Bindings) -> Iterable[SecretSource]:
    found = [each.use.source for each in bindings]
    if order.settings.gateway is not None:
        found.append(order.settings.gateway.credential.source)
    return [source for source in found if source is not None]


def _obeyed(source: SecretSource, home: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    yield from credential_isolation.obeyed(source, home)
    if isinstance(source, CommandSource):
        entries = [each for each in environ.get("PATH", "").split(":") if each.startswith("/")]
        found = shutil.which(source.argv[0], path=":".join(entries) or os.defpath)
        if found is not None:
            yield Path(found).absolute()


def _is_login(path: Path, home: Path, environ: Mapping[str, str]) -> bool:
    """Tell whether it is the client's own login, which a run that has a placeholder cannot see."""
    logins = credential_isolation.logins_of(home, environ)
    return path in {*logins, *(Path(os.path.realpath(login)) for login in logins)}
