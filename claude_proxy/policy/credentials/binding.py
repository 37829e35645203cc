"""Credential bindings: which hosts a credential is for, and how it is used there.

Default-deny: on a bound host no other login may be used. Pure.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from claude_proxy.policy.credentials.placeholders import STEM
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import SecretSource
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern, any_covers
from claude_proxy.wire.authority import Authority

HTTPS_PORT = 443
OAUTH_TOKEN_PREFIX = b"sk-ant-oat"
ANTHROPIC_KEY_PREFIX = b"sk-ant-"


class Form(StrEnum):
    """How a value is put into a request."""

    AUTO = "auto"  # x-api-key for a console key of Anthropic's, bearer for an OAuth token
    X_API_KEY = "x-api-key"
    BEARER = "bearer"  # RFC 6750
    BASIC = "basic"  # RFC 7617, with `user`
    FIELD = "field"  # the bare value in the field `name`


@dataclass(frozen=True, slots=True)
class Injection:
    """The client sends a placeholder or nothing; the proxy puts in the real value."""

    source: SecretSource
    form: Form = Form.AUTO
    name: str = ""  # of the field, for Form.FIELD, in lower case
    user: str = ""  # for Form.BASIC
    placeholder: str = ""  # what the client may send instead; "" none
    variables: tuple[str, ...] = ()  # where a sandbox finds the placeholder
    # Only for the gateway: what the client authenticates with is for the gateway, so it is
    # removed and not a reason to deny.
    strips: bool = False
    plain: bool = False  # only for a gateway whose upstream is this machine: without TLS


@dataclass(frozen=True, slots=True)
class LoginPin:
    """The client uses its own login, and no other may pass."""

    learn: bool = False  # pin the first that is used
    digests: tuple[str, ...] = ()  # "sha256:SALT:DIGEST" in hex
    source: SecretSource | None = None  # where the value of one is


@dataclass(frozen=True, slots=True)
class Binding:
    """One entry of `credentials`: which hosts it is for, and how it is used there."""

    name: str
    patterns: tuple[HostPattern, ...]
    use: Injection | LoginPin
    source: Location = field(compare=False)  # a line added above it changes nothing
    ports: frozenset[int] = frozenset({HTTPS_PORT})


def bound_to(target: Authority, bindings: Iterable[Binding]) -> list[Binding]:
    """Return those of some credentials that are bound to the host of `target`."""
    return [binding for binding in bindings if any_covers(binding.patterns, target)]


def is_anthropic(patterns: Iterable[HostPattern]) -> bool:
    """Tell whether one of the patterns is for a host of Anthropic's."""
    hosts = (pattern.host for pattern in patterns)
    return any(f".{host}".endswith((".anthropic.com", ".claude.com")) for host in hosts)


class ValueKind(StrEnum):
    """What kind of credential a value is, by how it begins."""

    CONSOLE_KEY = "console-key"
    OAUTH_TOKEN = "oauth-token"  # noqa: S105 - the name of a kind
    OTHER = "other"


def kind_of_value(secret: Secret) -> ValueKind:
    """Return the kind of a value."""
    value = secret.reveal()
    if value.startswith(OAUTH_TOKEN_PREFIX):
        return ValueKind.OAUTH_TOKEN
    return ValueKind.CONSOLE_KEY if value.startswith(ANTHROPIC_KEY_PREFIX) else ValueKind.OTHER


def default_placeholder(name: str, patterns: Sequence[HostPattern], form: Form = Form.AUTO) -> str:
    """Return the placeholder for the value where its owner has not chosen one."""
    # Anthropic's clients check how a key begins.
    alike = form in {Form.AUTO, Form.X_API_KEY, Form.BEARER} and is_anthropic(patterns)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    return f"{'sk-ant-' if alike else ''}{STEM}{plain}"


def placeholder_variables(binding: Binding, value_kind: ValueKind) -> tuple[str, ...]:
    """Return the variables in which a sandboxed client finds the placeholder."""
    use = binding.use
    if isinstance(use, LoginPin):
        return ()
    if use.variables or not use.placeholder or not is_anthropic(binding.patterns):
        return use.variables
    # Claude Code acts as an OAuth client only with the first. The second is accepted without a
    # question; an API key would have to be approved by the user.
    oauth = value_kind is ValueKind.OAUTH_TOKEN
    return ("CLAUDE_CODE_OAUTH_TOKEN",) if oauth else ("ANTHROPIC_AUTH_TOKEN",)
