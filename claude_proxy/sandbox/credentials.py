"""Credentials of a run: their sources and values, and what the sandbox must not show of them.

Laws kept: secrets stay outside, the sandbox cannot move its own wall, no quiet downgrade. The run's
proxy reads the values itself. If a source has no value, the run does not start.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from claude_proxy.config import policy_files, policy_notices
from claude_proxy.deferred.data_classes import replace
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.policy.credentials.binding import Binding, Injection
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import CommandSource, KeyringSource, SecretSource
from claude_proxy.sandbox import host_facts
from claude_proxy.sandbox.plan import credential_isolation
from claude_proxy.sandbox.plan.environment import GATEWAY_PORT
from claude_proxy.sandbox.plan.model import SandboxSpec
from claude_proxy.sandbox.run_spec import RunSpec
from claude_proxy.sandbox.safe_read import head_of
from claude_proxy.system import file_permissions

type Bindings = tuple[Binding, ...]


def bindings_of(run_spec: RunSpec) -> Bindings:
    """Return the credentials of the run's proxy; none for a proxy that is another program.

    A running proxy is assumed to have the same allowlist; if it has another one, upstreams reject
    the placeholders. Credentials stay outside even if the run has no network: what it writes to a
    file, a later run could send.
    """
    if run_spec.sandbox.unfiltered or run_spec.foreign:
        return ()
    return policy_files.policy_file_for(run_spec.settings).policy.credentials


def warnings_of(run_spec: RunSpec) -> Iterator[str]:
    """Yield warnings about the credentials that the run's own proxy lacks, once for each list."""
    if run_spec.join is not None or not run_spec.sandbox.has_proxy:
        return
    policy = policy_files.load_for(run_spec.settings).policy
    if notice := policy_notices.unbound_hosts_notice(run_spec.settings, policy):
        yield notice


def refuse_reachable(run_spec: RunSpec, bindings: Bindings, environ: Mapping[str, str]) -> None:
    """Raise if COMMAND, or an earlier run, could have written the source of a credential.

    Call it before any source is read or run: a command is run outside the sandbox.
    """
    spec, home = run_spec.sandbox, host_facts.user_of(environ).home
    written = [spec.project, *spec.allow_rw, *(home / name for name in spec.profile.home_write)]
    places = {Path(os.path.realpath(place)) for place in written}
    for source in _sources_of(run_spec, bindings):
        for path in _deciding_files(source, home, environ):
            for at in file_permissions.resolution_steps(path):
                inside = any(at.is_relative_to(place) for place in places)
                if inside and not _is_login(at, home, environ):
                    raise ConfigError(
                        "the source of a credential could have been written by a run",
                        where=str(path),
                        fix="move it out of the project and of what a run may write",
                    )


def with_isolation(
    run_spec: RunSpec, bindings: Bindings, environ: Mapping[str, str], *, dry: bool = False
) -> SandboxSpec:
    """Return the sandbox of a run with its credential isolation; a dry run starts no program."""
    home = host_facts.user_of(environ).home
    sources = {each.name: each.use.source for each in bindings if isinstance(each.use, Injection)}
    if dry:
        programs = (CommandSource, KeyringSource)
        sources = {name: one for name, one in sources.items() if not isinstance(one, programs)}
    required = run_spec.sandbox.has_proxy and run_spec.join is None
    values = _values_of(sources, environ, required=required) if sources else {}
    found = credential_isolation.isolation_of(bindings, values, environ, home)
    gateway = run_spec.settings.gateway
    if gateway is not None and run_spec.sandbox.has_proxy:
        source = gateway.credential.source
        found = credential_isolation.combined(
            found, credential_isolation.isolation_for_gateway(GATEWAY_PORT, source, environ, home)
        )
    found = credential_isolation.with_logins_of(
        found, run_spec.sandbox.profile, bindings, environ, home
    )
    exposed = tuple(_exposed(run_spec.sandbox, home, values.values())) if values else ()
    return replace(run_spec.sandbox, isolation=replace(found, exposed=exposed))


# Files in which people often keep keys, and those in which Claude Code keeps its own.
_KEY_FILES = (
    *(".env", ".env.local", ".env.development", ".envrc", ".npmrc", ".mcp.json"),
    *(".claude.json", ".claude/settings.json", ".claude/settings.local.json"),
)
_KEY_FILE_BYTES = 256 * 1024


def _exposed(spec: SandboxSpec, home: Path, values: Iterable[Secret]) -> Iterator[Path]:
    """Yield the files of a project and a home directory that contain one of the values."""
    wanted = [value.reveal() for value in values]
    for place in dict.fromkeys((spec.project, home)):
        for path in (place / name for name in _KEY_FILES):
            text = head_of(path, _KEY_FILE_BYTES)
            if any(value in text for value in wanted):
                yield path


def _values_of(
    sources: Mapping[str, SecretSource], environ: Mapping[str, str], *, required: bool
) -> dict[str, Secret]:
    from claude_proxy.vault import sources as secret_sources  # noqa: PLC0415 - few runs have any

    found = {}
    # A command must not find files of the project in its working directory.
    with contextlib.chdir("/"):
        for name, source in sources.items():
            try:
                found[name] = secret_sources.read(source, environ)
            except ClaudeProxyError:
                if required:
                    raise
    return found


def _sources_of(run_spec: RunSpec, bindings: Bindings) -> Iterable[SecretSource]:
    found = [each.use.source for each in bindings]
    if run_spec.settings.gateway is not None:
        found.append(run_spec.settings.gateway.credential.source)
    return [source for source in found if source is not None]


def _deciding_files(source: SecretSource, home: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    yield from credential_isolation.deciding_files(source, home)
    if isinstance(source, CommandSource):
        entries = [each for each in environ.get("PATH", "").split(":") if each.startswith("/")]
        found = shutil.which(source.argv[0], path=":".join(entries) or os.defpath)
        if found is not None:
            yield Path(found).absolute()


def _is_login(path: Path, home: Path, environ: Mapping[str, str]) -> bool:
    """Tell whether a file is the client's own login, which is hidden from such a run."""
    logins = credential_isolation.logins_of(home, environ)
    return path in {*logins, *(Path(os.path.realpath(login)) for login in logins)}
