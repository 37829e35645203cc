"""Short constructors of bindings, secrets and requests, for the tests of credentials."""

from base64 import b64encode

from claude_proxy.policy.credentials.binding import (
    Binding,
    Form,
    Injection,
    LoginPin,
)
from claude_proxy.policy.credentials.decision import (
    AvailableSecrets,
    CredentialDecision,
    PinnedLogins,
    decide_credential,
)
from claude_proxy.policy.credentials.login_hash import digest_of
from claude_proxy.policy.credentials.placeholders import Placeholders
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.request import RawField, Request, Scheme
from claude_proxy.wire.authority import Authority

KEY = b"sk-ant-api03-CANARY-of-the-owner/AAAA+BBBB"


OAUTH = b"sk-ant-oat01-CANARY-of-the-owner"


EVIL = b"sk-ant-api03-of-somebody-else"


HOLDER = "sk-ant-claude-proxy-placeholder-anthropic"


GIT_HOLDER = "claude-proxy-placeholder-git"


GITHUB_HOLDER = "claude-proxy-placeholder-github"


SOURCE = Location("allowlist.yaml", 3, 5)


SALT = b"0123456789abcdef"


def binding(
    use: Injection | LoginPin,
    host: str = "api.anthropic.com",
    name: str = "anthropic",
    port: int = 443,
) -> Binding:
    return Binding(name, (HostPattern.parse(host),), use, SOURCE, frozenset({port}))


def injection(
    form: Form = Form.AUTO, *, name: str = "", user: str = "", placeholder: str = HOLDER
) -> Injection:
    return Injection(EnvironmentSource("KEY"), form, name, user, placeholder)


INJECTED = (binding(injection()),)


PINNED = (binding(LoginPin(learn=True)),)


SECRETS: AvailableSecrets = {"anthropic": Secret(KEY)}


def request(
    *fields: RawField,
    host: str = "api.anthropic.com",
    scheme: Scheme = Scheme.HTTPS,
    port: int | None = None,
    path: str = "/v1/messages",
    query: str = "",
) -> Request:
    target = Authority.of(host, port or (443 if scheme is Scheme.HTTPS else 80))
    return Request(scheme, target, target, "POST", path, query, fields)


def pinned(*logins: bytes) -> AvailableSecrets:
    return {
        "anthropic": PinnedLogins(frozenset((SALT, digest_of(SALT, login)) for login in logins))
    }


def learning() -> AvailableSecrets:
    return {"anthropic": PinnedLogins(frozenset(), learning=True, salt=SALT)}


def basic(user: bytes, password: bytes) -> bytes:
    return b"Basic " + b64encode(user + b":" + password)


def decided(
    bindings: tuple[Binding, ...], asked: Request, secrets: AvailableSecrets
) -> CredentialDecision:
    texts = [each.use.placeholder for each in bindings if isinstance(each.use, Injection)]
    return decide_credential(bindings, Placeholders(texts), asked, secrets)


def emitted(asked: Request, decision: CredentialDecision) -> list[RawField]:
    """Return what goes upstream, as both lanes write it."""
    kept = [
        (name, value)
        for name, value in asked.fields
        if name.lower() != b"proxy-authorization"  # of this hop
        and name.lower() not in decision.drop
        and name.lower().replace(b"_", b"-") not in decision.drop
    ]
    return [*kept, *decision.extra]
