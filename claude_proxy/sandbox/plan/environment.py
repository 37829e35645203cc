"""Environment of a run: some of the user's variables, the proxy's, and those passed by name; pure.

Law kept: secrets stay outside: a variable that nobody named is not passed on.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import CredentialIsolation, HostFacts, SandboxSpec, User
from claude_proxy.trust.client_environment import environment as client_environment
from claude_proxy.wire.authority import Authority

HTTP_PORT = 3128
SOCKS_PORT = 1080
GATEWAY_PORT = 9053
INSIDE = Path("/run/claude-proxy")
CERTIFICATE = INSIDE / "ca.pem"
BUNDLE = INSIDE / "bundle.pem"
ALLOWLIST = INSIDE / "allowlist.yaml"
GIT_CONFIG = INSIDE / "gitconfig"
FOLLOWED = (ALLOWLIST.name, GIT_CONFIG.name)  # what the run's proxy keeps up to date

_PASSED = lazy_pattern(
    r"TERM|COLORTERM|COLORFGBG|NO_COLOR|FORCE_COLOR|CLICOLOR|TERM_PROGRAM|TERM_PROGRAM_VERSION"
    r"|LANG|LANGUAGE|LC_[A-Z]+|TZ"
)
_DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
_OURS = frozenset({"HOME", "PWD", "USER", "LOGNAME", "SHELL", "PATH"})
_NAME = lazy_pattern(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

# Each names a socket that no run may see, so passing it on would only mislead.
_SOCKETS = frozenset(
    {
        "CONTAINER_HOST",
        "DBUS_SESSION_BUS_ADDRESS",
        "DBUS_SYSTEM_BUS_ADDRESS",
        "DOCKER_HOST",
        "GPG_AGENT_INFO",
        "SSH_AGENT_PID",
        "SSH_AUTH_SOCK",
        "WAYLAND_DISPLAY",
        "XDG_RUNTIME_DIR",
    }
)


def runtime_directory(user: User) -> Path:
    """Return the directory inside for sockets of the user's programs."""
    return Path(f"/run/user/{user.uid}")


def own_directories(user: User) -> dict[str, str]:
    """Return the variables that name where sockets can be bound: file systems of the sandbox's."""
    return {"TMPDIR": "/tmp", "XDG_RUNTIME_DIR": str(runtime_directory(user))}  # noqa: S108


def proxy_environment() -> dict[str, str]:
    """Return the variables that point every client to the relay inside."""
    found = client_environment(Authority.of("127.0.0.1", HTTP_PORT), CERTIFICATE, BUNDLE)
    # Upper case only: Python's clients read the lower-case name, and httpx fails on a SOCKS URL
    # without an extra package; curl and Rust's reqwest read both.
    found["ALL_PROXY"] = f"socks5h://127.0.0.1:{SOCKS_PORT}"
    # Read after all other configuration: of two entries for the same prefix of an address Git takes
    # the first, which is then the user's. Git passes over a file that is not there.
    found |= {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "include.path",
        "GIT_CONFIG_VALUE_0": str(GIT_CONFIG),
    }
    return found


def environment(
    spec: SandboxSpec, facts: HostFacts, *, path: str, shell: Path, project: Path
) -> tuple[dict[str, str], frozenset[str]]:
    """Return the variables of the run, and the names of those whose values are not printed."""
    given = facts.environ
    found = {name: value for name, value in given.items() if _PASSED.fullmatch(name)}
    found |= {
        "HOME": str(facts.user.home),
        "LOGNAME": facts.user.name,
        "PATH": path,
        "PWD": str(project),
        "SHELL": str(shell),
        "USER": facts.user.name,
    }
    isolation = spec.isolation
    ours = {**(proxy_environment() if spec.has_proxy else {}), **dict(isolation.placeholders)}
    passed = {name: given[name] for name in spec.profile.pass_env if name in given}
    named = {name: _named(name, given, ours, isolation) for name in spec.pass_env}
    inherited = {**dict(spec.profile.set_env), **found, **passed}
    for name in isolation.withheld & inherited.keys():
        del inherited[name]
    return {**inherited, **ours, **named}, frozenset({*passed, *named} - isolation.withheld)


def withheld_variables(spec: SandboxSpec, facts: HostFacts) -> tuple[str, ...]:
    """Return the variables that the profile would pass on, but that hold a credential."""
    wanted = {*spec.profile.pass_env, *dict(spec.profile.set_env)}
    given = {*facts.environ, *dict(spec.profile.set_env)}
    return tuple(sorted(wanted & given & spec.isolation.withheld))


def visible_path(given: str | None, is_visible: Callable[[Path], bool]) -> str:
    """Return PATH without the directories that do not exist inside."""
    entries = (given or _DEFAULT_PATH).split(":")
    visible = [entry for entry in entries if entry.startswith("/") and is_visible(Path(entry))]
    return ":".join(dict.fromkeys(visible)) or _DEFAULT_PATH


def _named(
    name: str, given: Mapping[str, str], ours: Mapping[str, str], isolation: CredentialIsolation
) -> str:
    where = f"--pass-env {name}"
    if "=" in name:
        name = name.partition("=")[0]
        raise ConfigError(
            "--pass-env takes the name of a variable, not its value",
            where=f"--pass-env {name}=...",
            fix=f"export the variable, then use --pass-env {name}",
        )
    if not _NAME.fullmatch(name):
        raise ConfigError(
            "this is not a variable name", where=where, fix="name one, such as GH_TOKEN"
        )
    if name in isolation.withheld:
        raise ConfigError(
            f"{name} holds a credential that stays outside: the proxy injects it",
            where=where,
            fix="leave it out; or remove the entry from `credentials` in the allowlist",
        )
    if name in ours or name in _OURS:
        raise ConfigError(
            f"{name} is set for the run itself and cannot be passed",
            where=where,
            fix="leave it out; set it in the command, if it must differ",
        )
    if name in _SOCKETS:
        raise ConfigError(
            f"{name} names a socket that no run may see",
            where=where,
            fix="leave it out; do what needs it outside of the run",
        )
    if name not in given:
        raise ConfigError(
            f"the variable {name} is not set", where=where, fix=f"export {name}, or leave it out"
        )
    return given[name]
