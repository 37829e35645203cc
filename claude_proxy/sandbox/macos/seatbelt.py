"""Seatbelt profile of macOS, and the command line that applies it; pure.

Law kept: default-deny. What is not listed is denied: the network except the proxy's port, writing
except to the project and the paths of the profile, reading of home directories except for these,
and system services with which a program could start another one outside.

The profile has never been used on a Mac; the tests check its text.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan import environment as plan_environment
from claude_proxy.sandbox.plan import obeyed_files, protected_paths
from claude_proxy.sandbox.plan.model import HostFacts, PathKind, SandboxSpec
from claude_proxy.sandbox.plan.requirements import SANDBOX_EXEC
from claude_proxy.sandbox.plan.system_mounts import TOOLCHAINS
from claude_proxy.trust.client_environment import environment as client_environment
from claude_proxy.wire.authority import Authority

_HOMES = ("/Users", "/Volumes", "/private/var/root", "/private/tmp", "/private/var/tmp")
_TERMINALS = r'(regex #"^/dev/ttys[0-9]+$")'
_DEVICES = ("/dev/null", "/dev/zero", "/dev/tty", "/dev/ptmx", "/dev/dtracehelper")

# System services that command line programs need. Left out: the keychain, the pasteboard, Apple
# events and Launch Services, through which a program outside could be controlled.
_SERVICES = (
    "com.apple.bsd.dirhelper",
    "com.apple.logd",
    "com.apple.system.logger",
    "com.apple.system.notification_center",
    "com.apple.system.opendirectoryd.libinfo",
    "com.apple.system.opendirectoryd.membership",
    "com.apple.trustd",
    "com.apple.trustd.agent",
)

_BASE = f"""\
(version 1)
(deny default)
(allow process-fork)
(allow process-exec)
(allow process-info* (target same-sandbox))
(allow signal (target same-sandbox))
(allow sysctl-read)
(allow ipc-posix-sem)
(allow ipc-posix-shm)
(allow pseudo-tty)
(allow file-ioctl (literal "/dev/tty") (literal "/dev/ptmx") {_TERMINALS})
(allow mach-lookup {" ".join(f'(global-name "{name}")' for name in _SERVICES)})
"""


@dataclass(frozen=True, slots=True)
class Seatbelt:
    """How a run is started on macOS."""

    profile: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]


def seatbelt(
    spec: SandboxSpec, facts: HostFacts, *, port: int, temporary: Path, shown: Path
) -> Seatbelt:
    """Return the profile and the command line of a run whose proxy listens on `port`.

    `temporary` and `shown` are directories of this run; `shown` contains copies of ca.pem,
    bundle.pem and allowlist.yaml, because the directory of the originals is protected.
    """
    command = _command(spec, facts)
    profile = "".join(f"{line}\n" for line in _lines(spec, facts, port, (temporary, shown)))
    given = facts.environ.get("PATH") or "/usr/bin:/bin"
    variables, _ = plan_environment.environment(
        spec, facts, path=given, shell=_shell(facts), project=spec.project
    )
    if spec.has_proxy:
        proxy = Authority.of("127.0.0.1", port)
        variables |= client_environment(proxy, shown / "ca.pem", shown / "bundle.pem")
        variables["ALL_PROXY"] = f"socks5h://127.0.0.1:{port}"
    variables["TMPDIR"] = str(temporary)
    return Seatbelt(profile, (str(SANDBOX_EXEC), "-p", profile, *command), variables)


def quoted(path: Path | str) -> str:
    """Return a path as a string literal of the profile language; ConfigError if that is unsafe."""
    text = str(path)
    if not text.isprintable():
        # No safe way to write a line break, for example, is known.
        raise ConfigError(
            "the path contains a character that a sandbox profile cannot express",
            where=repr(text),
            fix="rename it, or choose another directory",
        )
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _lines(
    spec: SandboxSpec, facts: HostFacts, port: int, ours: tuple[Path, Path]
) -> Iterator[str]:
    temporary, shown = ours
    # The last matching rule decides: protected paths come after everything that is shown.
    yield _BASE.rstrip("\n")
    yield from _network(spec, port)
    written = [*_written(spec, facts), temporary]
    read = [*_read(spec, facts), *written, shown]
    yield "(allow file-read*)"
    yield _rule("deny file-read*", [Path(home) for home in (*_HOMES, str(facts.user.home))])
    yield _rule("allow file-read*", read)
    above = dict.fromkeys(parent for path in read for parent in path.parents)
    yield _rule("allow file-read-metadata", above, kind="literal")
    yield _rule("allow file-write*", written)
    yield _rule("allow file-write-data", [Path(device) for device in _DEVICES], kind="literal")
    yield f"(allow file-write-data {_TERMINALS})"
    yield _rule("deny file-write*", _guarded(spec, facts))
    yield _rule("deny file-read* file-write*", _hidden_paths(spec, facts))


def _network(spec: SandboxSpec, port: int) -> Iterator[str]:
    yield "(deny network*)"
    if not spec.has_proxy:
        return
    yield f'(allow network-outbound (remote ip "localhost:{int(port)}"))'
    for callback in spec.profile.callback_ports:
        # A login in the browser returns to this port.
        yield f'(allow network-bind (local ip "localhost:{int(callback)}"))'
        yield f'(allow network-inbound (local ip "localhost:{int(callback)}"))'


def _written(spec: SandboxSpec, facts: HostFacts) -> list[Path]:
    home = facts.user.home
    # Seatbelt shows nothing under another path, so an agent's own directory is shared with a run.
    kept = (*spec.profile.home_write, *spec.profile.home_state)
    names = (name.rstrip("/") for name in kept)
    return _with_real(facts, [spec.project, *spec.allow_rw, *(home / name for name in names)])


def _read(spec: SandboxSpec, facts: HostFacts) -> list[Path]:
    home = facts.user.home
    below = (home / name for name in (*TOOLCHAINS, *spec.profile.home_read))
    trees = facts.program.trees if facts.program else ()
    return _with_real(facts, [*below, *spec.show_home, *spec.allow_ro, *spec.extra_ro, *trees])


def _guarded(spec: SandboxSpec, facts: HostFacts) -> list[Path]:
    names = (*obeyed_files.protected_names(), *spec.profile.protect, *spec.read_only)
    below = [spec.project / name for name in names]
    below += [facts.user.home / name for name in spec.profile.home_protect]
    below += [spec.project / ".git" / name for name in ("config", "hooks", "commondir")]
    lifted = set(spec.allow_rw)
    return _with_real(facts, [path for path in below if path not in lifted])


def _hidden_paths(spec: SandboxSpec, facts: HostFacts) -> list[Path]:
    home = facts.user.home
    named = {*_written(spec, facts), *spec.allow_ro, *spec.show_home}
    named |= {home / name for name in spec.profile.home_read}
    secret = [path for path in protected_paths.secret(home, facts.environ) if path not in named]
    hidden = [spec.project / name for name in spec.hide]
    hidden += [*spec.isolation.logins, *spec.isolation.unreadable]
    ours = (facts.confdir, facts.statedir, *protected_paths.of_proxies(facts.user.uid))
    return _with_real(
        facts, [*protected_paths.protected(home, facts.environ, *ours), *secret, *hidden]
    )


def _with_real(facts: HostFacts, paths: Iterable[Path]) -> list[Path]:
    """Return each path and its real path: Seatbelt compares resolved paths."""
    found: dict[Path, None] = {}
    for path in paths:
        found[path] = None
        seen = facts.paths.get(path)
        if seen is not None and seen.kind is not PathKind.MISSING:
            found[seen.real] = None
    return list(found)


def _rule(operation: str, paths: Iterable[Path], *, kind: str = "subpath") -> str:
    filters = " ".join(f"({kind} {quoted(path)})" for path in paths)
    return f"({operation} {filters})"


def _command(spec: SandboxSpec, facts: HostFacts) -> tuple[str, ...]:
    if spec.shell:
        return (str(_shell(facts)),)
    if facts.program is None:
        return spec.command
    # An absolute path cannot be taken for an option of sandbox-exec.
    return (str(facts.program.path), *spec.command[1:])


def _shell(facts: HostFacts) -> Path:
    given = facts.environ.get("SHELL", "")
    return Path(given) if given.startswith("/") else Path("/bin/zsh")
