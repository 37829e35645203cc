"""Credential bindings: which hosts a credential is for, and how it is used there.

Default-deny: on a bound host only that credential may be used. Pure.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import field
from enum import StrEnum

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.policy.credentials.placeholders import STEM
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import SecretSource
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, any_covers
from claude_proxy.wire.authority import Authority

HTTPS_PORT = 443
POSTGRES_PORT = 5432
OAUTH_TOKEN_PREFIX = b"sk-ant-oat"
ANTHROPIC_KEY_PREFIX = b"sk-ant-"


class Form(StrEnum):
    """How a value is put into a request."""

    AUTO = "auto"  # x-api-key for an Anthropic console key, bearer for an OAuth token
    X_API_KEY = "x-api-key"
    BEARER = "bearer"  # RFC 6750
    BASIC = "basic"  # RFC 7617, with `user`
    FIELD = "field"  # the bare value in the field `name`
    POSTGRES = "postgres"  # the password of `user` in a database of PostgreSQL, never to a request


class LoginMethod(StrEnum):
    """How a password is proved to a database."""

    SCRAM = "scram-sha-256"  # RFC 7677: the password itself is never sent
    MD5 = "md5"
    PASSWORD = "password"  # noqa: S105 - the name of a method; in clear, inside TLS


@dataclass(frozen=True, slots=True)
class DatabaseLogin:
    """How the proxy logs in to a database instead of its client."""

    name: str = ""  # of the only database; "": the one that the client asks for
    tls: bool = True  # the server must offer TLS, and prove its name
    methods: frozenset[LoginMethod] = frozenset({LoginMethod.SCRAM})

    def __post_init__(self) -> None:
        if not self.methods or (LoginMethod.PASSWORD in self.methods and not self.tls):
            raise ValueError("a password may only be sent in clear inside TLS")


@dataclass(frozen=True, slots=True)
class Injection:
    """The client sends a placeholder or nothing; the proxy inserts the real value."""

    source: SecretSource
    form: Form = Form.AUTO
    name: str = ""  # the field's name for Form.FIELD, in lower case
    user: str = ""  # for Form.BASIC and Form.POSTGRES
    placeholder: str = ""  # what the client may send; "" if there is none
    variables: tuple[str, ...] = ()  # the sandbox's variables that hold the placeholder
    # Only for the gateway: a client authenticates to the gateway, so its login is removed and is
    # not a reason to deny.
    strips: bool = False
    plain: bool = False  # only for a gateway whose upstream is on this machine: plain HTTP
    database: DatabaseLogin | None = None  # for Form.POSTGRES, and for no other


@dataclass(frozen=True, slots=True)
class LoginPin:
    """The client uses its own login, and every other login is denied."""

    learn: bool = False  # pin the first login that is used
    digests: tuple[str, ...] = ()  # "sha256:SALT:DIGEST" in hex
    source: SecretSource | None = None  # where the value of an allowed login is


@dataclass(frozen=True, slots=True)
class Binding:
    """One entry of `credentials`: its hosts, and how it is used there."""

    name: str
    patterns: tuple[HostPattern, ...]
    use: Injection | LoginPin
    source: Location = field(compare=False)  # ignored, as an added line above is no change
    ports: frozenset[int] = frozenset({HTTPS_PORT})


def bound_to(target: Authority, bindings: Iterable[Binding]) -> list[Binding]:
    """Return those of `bindings` that are bound to the host of `target`, whatever its port."""
    return [binding for binding in bindings if any_covers(binding.patterns, target)]


# Hosts that take the same accounts as Anthropic's API, for signing in and for connectors.
_API = Authority("api.anthropic.com", HTTPS_PORT)
SAME_ACCOUNTS = frozenset(
    {
        "claude.ai",
        "claude.com",
        "console.anthropic.com",
        "mcp-proxy.anthropic.com",
        "platform.claude.com",
    }
)


def bound_by_provider(target: Authority, bindings: Iterable[Binding]) -> list[Binding]:
    """Return the bindings of the API whose accounts the host of `target` takes as well.

    An owner who binds the API means one account. A host without a binding of its own must not take
    another one.
    """
    return bound_to(_API, bindings) if target.host in SAME_ACCOUNTS else []


def is_anthropic(patterns: Iterable[HostPattern]) -> bool:
    """Return whether one of the patterns is for a host of Anthropic."""
    hosts = (pattern.host for pattern in patterns)
    return any(f".{host}".endswith((".anthropic.com", ".claude.com")) for host in hosts)


class CredentialKind(StrEnum):
    """The kind of a credential, recognised by its prefix."""

    CONSOLE_KEY = "console-key"
    OAUTH_TOKEN = "oauth-token"  # noqa: S105 - the name of a kind
    OTHER = "other"


def kind_of_value(secret: Secret) -> CredentialKind:
    """Return the kind of a value."""
    value = secret.reveal()
    if value.startswith(OAUTH_TOKEN_PREFIX):
        return CredentialKind.OAUTH_TOKEN
    return (
        CredentialKind.CONSOLE_KEY
        if value.startswith(ANTHROPIC_KEY_PREFIX)
        else CredentialKind.OTHER
    )


def default_placeholder(name: str, patterns: Sequence[HostPattern], form: Form = Form.AUTO) -> str:
    """Return the placeholder for a value whose owner has not chosen one."""
    # Anthropic's clients check the prefix of a key.
    alike = form in {Form.AUTO, Form.X_API_KEY, Form.BEARER} and is_anthropic(patterns)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return f"{'sk-ant-' if alike else ''}{STEM}{plain}"


def placeholder_variables(binding: Binding, value_kind: CredentialKind) -> tuple[str, ...]:
    """Return the environment variables that hold the placeholder in a sandbox."""
    use = binding.use
    if isinstance(use, LoginPin):
        return ()
    if use.variables or not use.placeholder or not is_anthropic(binding.patterns):
        return use.variables
    # Claude Code acts as an OAuth client only with the first variable. It accepts the second
    # without asking; the user would have to approve an API key.
    oauth = value_kind is CredentialKind.OAUTH_TOKEN
    return ("CLAUDE_CODE_OAUTH_TOKEN",) if oauth else ("ANTHROPIC_AUTH_TOKEN",)
