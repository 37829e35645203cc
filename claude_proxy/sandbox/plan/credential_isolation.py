"""Credential isolation: which credentials stay outside a run, and the placeholders inside; pure.

Law kept: secrets stay outside. For a credential that the proxy injects, the sandbox has a
placeholder; no variable is passed on that holds the credential, is its source, or would be used
instead of the placeholder.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from claude_proxy.deferred.data_classes import replace
from claude_proxy.policy.credentials.binding import (
    HTTPS_PORT,
    Binding,
    CredentialKind,
    Injection,
    kind_of_value,
    placeholder_variables,
)
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    DotenvSource,
    EnvironmentSource,
    FileSource,
    SecretSource,
)
from claude_proxy.policy.patterns import any_covers
from claude_proxy.sandbox.plan.agent_home import outside
from claude_proxy.sandbox.plan.model import CredentialIsolation, Profile
from claude_proxy.wire.authority import Authority

ANTHROPIC = Authority.of("api.anthropic.com", 443)

TOKEN = "ANTHROPIC_AUTH_TOKEN"  # noqa: S105 - the name of a variable
OAUTH_TOKEN = "CLAUDE_CODE_OAUTH_TOKEN"  # noqa: S105 - the name of a variable
BASE_URL = "ANTHROPIC_BASE_URL"
# Variables with which Claude Code, or another client of the API, authenticates.
CLAUDE_VARIABLES = frozenset(
    {
        "ANTHROPIC_API_KEY",
        TOKEN,
        "ANTHROPIC_CUSTOM_HEADERS",
        "ANTHROPIC_IDENTITY_TOKEN",
        OAUTH_TOKEN,
        "CLAUDE_CODE_OAUTH_REFRESH_TOKEN",
        "CLAUDE_CODE_SESSION_ACCESS_TOKEN",
    }
)
# Claude Code's own login, in the directory of its settings.
_LOGIN = ".credentials.json"

GATEWAY_PLACEHOLDER = "sk-ant-claude-proxy-placeholder-gateway"

_TOO_SHORT = 8  # a shorter value would be found in other variables by accident


def isolation_of(
    bindings: Iterable[Binding],
    values: Mapping[str, Secret],
    environ: Mapping[str, str],
    home: Path,
) -> CredentialIsolation:
    """Return what stays outside; `values` has those that could be read, by the binding's name."""
    found = list(bindings)
    injected = [(each, each.use) for each in found if isinstance(each.use, Injection)]
    of_anthropic = any(is_for_anthropic(binding) for binding, _ in injected)
    placeholders: dict[str, str] = {}
    for binding, use in injected:
        value = values.get(binding.name)
        kind = CredentialKind.OTHER if value is None else kind_of_value(value)
        for variable in placeholder_variables(binding, kind):
            placeholders.setdefault(variable, use.placeholder)
    withheld = {name for _, use in injected for name in _variables_read(use.source)}
    withheld |= _holding(
        environ, (values[each.name] for each, _ in injected if each.name in values)
    )
    withheld |= CLAUDE_VARIABLES if of_anthropic else set()
    return CredentialIsolation(
        tuple(placeholders.items()),
        # A variable with a placeholder is overwritten, so it need not be removed.
        frozenset(withheld - placeholders.keys()),
        logins_of(home, environ) if of_anthropic else (),
        tuple(path for _, use in injected for path in _files_read(use.source, home)),
        tuple(path for each in found for path in deciding_files(each.use.source, home)),
    )


def isolation_for_gateway(
    port: int, source: SecretSource, environ: Mapping[str, str], home: Path
) -> CredentialIsolation:
    """Return what stays outside if a gateway, which holds the key, listens on `port` inside."""
    return CredentialIsolation(
        ((BASE_URL, f"http://127.0.0.1:{port}"), (TOKEN, GATEWAY_PLACEHOLDER)),
        frozenset({*CLAUDE_VARIABLES, *_variables_read(source)} - {TOKEN}),
        logins_of(home, environ),
        tuple(_files_read(source, home)),
        tuple(deciding_files(source, home)),
    )


def combined(one: CredentialIsolation, other: CredentialIsolation) -> CredentialIsolation:
    """Return what either keeps outside; for a variable of both, the second placeholder wins."""
    placeholders = {**dict(one.placeholders), **dict(other.placeholders)}
    return CredentialIsolation(
        tuple(placeholders.items()),
        (one.withheld | other.withheld) - placeholders.keys(),
        tuple(dict.fromkeys((*one.logins, *other.logins))),
        tuple(dict.fromkeys((*one.unreadable, *other.unreadable))),
        tuple(dict.fromkeys((*one.unwritable, *other.unwritable))),
        tuple(dict.fromkeys((*one.exposed, *other.exposed))),
    )


def logins_of(home: Path, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the files in which clients of the API keep the user's own login."""
    given = environ.get("CLAUDE_CONFIG_DIR", "")
    named = (Path(given, _LOGIN),) if given.startswith("/") else ()
    return (home / ".claude" / _LOGIN, *named)


def with_logins_of(
    isolation: CredentialIsolation,
    profile: Profile,
    bindings: Iterable[Binding],
    environ: Mapping[str, str],
    home: Path,
) -> CredentialIsolation:
    """Add the agent's own logins where the proxy injects a credential for one of its hosts."""
    injected = [each for each in bindings if isinstance(each.use, Injection)]
    hosts = [Authority.of(host, HTTPS_PORT) for host in profile.login_hosts]
    if not any(
        host.port in each.ports and any_covers(each.patterns, host)
        for each in injected
        for host in hosts
    ):
        return isolation
    own = (outside(name, home, environ) for name in profile.home_login)
    return replace(isolation, logins=tuple(dict.fromkeys((*isolation.logins, *own))))


def is_for_anthropic(binding: Binding) -> bool:
    """Tell whether a credential is for Anthropic's API."""
    return ANTHROPIC.port in binding.ports and any_covers(binding.patterns, ANTHROPIC)


def _variables_read(source: SecretSource) -> Iterator[str]:
    if isinstance(source, EnvironmentSource | DotenvSource):
        yield source.name


def _files_read(source: SecretSource, home: Path) -> Iterator[Path]:
    if isinstance(source, FileSource | DotenvSource):
        yield _at(source.path, home)


def deciding_files(source: SecretSource | None, home: Path) -> Iterator[Path]:
    """Yield the files that decide the value of a source: the file, the program and its scripts."""
    if isinstance(source, FileSource | DotenvSource):
        yield _at(source.path, home)
    if isinstance(source, CommandSource):
        yield from (_at(Path(word), home) for word in source.argv if word.startswith(("/", "~/")))


def _at(path: Path, home: Path) -> Path:
    first, *rest = path.parts or ("",)
    return Path(home, *rest) if first == "~" else path


def _holding(environ: Mapping[str, str], values: Iterable[Secret]) -> set[str]:
    """Return the variables that contain one of the values."""
    texts = [value.reveal().decode("utf-8", "surrogateescape") for value in values]
    return {
        name
        for name, held in environ.items()
        if any(len(text) >= _TOO_SHORT and text in held for text in texts)
    }
