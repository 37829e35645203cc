"""Writes the answers that are the proxy's own: denied, bad request, unreachable.

Pure. A denial is read by a model inside the sandbox, so it says what was denied, why in one
stable word, that trying again is useless, and what the owner can do outside. It never
says which rules there are.
"""

import json
import shlex
from dataclasses import dataclass

from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority

REASON_FIELD = "X-Claude-Proxy-Reason"

_PHRASES = {
    400: "Bad Request",
    403: "Denied by claude-proxy",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    413: "Content Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

_EXPLANATIONS = {
    Reason.NO_RULE: "No rule of the allowlist covers this host.",
    Reason.DENY_RULE: "A deny rule covers this.",
    Reason.PORT_NOT_ALLOWED: "This host is not allowed on this port.",
    Reason.SCHEME_NOT_ALLOWED: "This host is not allowed over this scheme.",
    Reason.METHOD_NOT_ALLOWED: "This method is not allowed on this host.",
    Reason.PATH_NOT_ALLOWED: "This path is not allowed on this host.",
    Reason.AMBIGUOUS_PATH: "This path can be read in more than one way, so it is not forwarded.",
    Reason.HOST_MISMATCH: "The Host header names another host than the one connected to.",
    Reason.SNI_MISMATCH: "The TLS server name is not the host of the CONNECT request.",
    Reason.SNI_MISSING: "The TLS client named no server.",
    Reason.ADDRESS_NOT_ALLOWED: "This name leads to a private, local or reserved address.",
    Reason.PROXY_LOOP: "This is the proxy itself; it serves nothing.",
    Reason.METHOD_REFUSED: "This method is never forwarded.",
    Reason.UPGRADE_REFUSED: "Only an upgrade to WebSocket is forwarded.",
    Reason.FOREIGN_CREDENTIAL: "On this host one login is allowed, and this is another one.",
    Reason.PLACEHOLDER_MISPLACED: (
        "A placeholder stands where no credential may take its place: only on its own host, over "
        "HTTPS, in a field that authenticates."
    ),
    Reason.CREDENTIAL_UNAVAILABLE: "The credential for this host cannot be had at the moment.",
    Reason.ENDPOINT_NOT_ALLOWED: "This endpoint of the API is not allowed.",
    Reason.MODEL_NOT_ALLOWED: "This model is not allowed.",
    Reason.BETA_NOT_ALLOWED: "One of the values of anthropic-beta is not allowed.",
    Reason.SERVER_TOOL_NOT_ALLOWED: "A tool that the API itself would run is not allowed.",
    Reason.MCP_SERVER_NOT_ALLOWED: "The API may not be sent to this MCP server.",
    Reason.SOURCE_NOT_ALLOWED: "The API may not be sent to fetch this.",
    Reason.BODY_UNREADABLE: (
        "The body cannot be read in exactly one way, so it is not forwarded. It must be JSON, not "
        "compressed, and said to be so: Content-Type: application/json."
    ),
    Reason.BODY_TOO_LARGE: "The body is larger than may be judged.",
    Reason.CEILING_REACHED: "As much as the owner allows has been used.",
    Reason.AUDIT_FAILED: "The decision could not be recorded, and what is not recorded is denied.",
    Reason.INTERNAL_ERROR: "The proxy met a fault of its own, and a fault denies.",
    Reason.CLIENT_NOT_ALLOWED: "This client's address is not admitted.",
    Reason.CLIENT_NOT_AUTHENTICATED: "This proxy wants a user and a password of its clients.",
    Reason.INVALID_TARGET: "The target cannot be read as one host and port.",
}
_UNAUTHENTICATED = 407
_CHALLENGE = (b"Proxy-Authenticate", b'Basic realm="claude-proxy"')  # RFC 9110 11.7.1, RFC 7617
_OTHERWISE = "The proxy's policy does not allow this."

# Reasons that adding a host to the allowlist can fix; for the rest a command would mislead.
_MENDED_BY_ALLOWING = frozenset(
    {
        Reason.NO_RULE,
        Reason.PORT_NOT_ALLOWED,
        Reason.SCHEME_NOT_ALLOWED,
        Reason.METHOD_NOT_ALLOWED,
        Reason.PATH_NOT_ALLOWED,
    }
)
_USUAL_PORTS = {Scheme.HTTPS: 443, Scheme.HTTP: 80}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One answer of the proxy's own, before it is put into bytes."""

    status: int
    reason: str  # stable, kebab-case
    explanation: str
    asked: str = ""  # "GET https://example.com/path", already safe to print
    command: str | None = None  # what the owner can run outside the sandbox
    retry: bool = False

    def body(self, *, as_json: bool) -> bytes:
        """Return the body: JSON for whoever asked for it, else a few lines of plain text."""
        return (self._json() if as_json else self._text()).encode("ascii", "backslashreplace")

    def _text(self) -> str:
        verb = "Denied" if self.status == 403 else "Failed"  # noqa: PLR2004
        lines = [
            f"{verb} by claude-proxy: {self.asked}" if self.asked else f"{verb} by claude-proxy."
        ]
        lines += [f"reason: {self.reason}", self.explanation]
        if self.status == 403:  # noqa: PLR2004
            lines.append("Retrying is useless: this is policy, not a fault of the network.")
        if self.command is not None:
            lines.append(
                "If it is needed, ask the owner of this machine to run, outside the sandbox:\n"
                f"  {self.command}"
            )
        return "\n".join(lines) + "\n"

    def _json(self) -> str:
        error = {
            "type": "denied_by_claude_proxy" if self.status == 403 else "claude_proxy_error",  # noqa: PLR2004
            "reason": self.reason,
            "message": self.explanation,
            "request": self.asked,
            "retry": self.retry,
            "allow_command": self.command,
        }
        return json.dumps({"type": "error", "error": error}) + "\n"

    def fields(self, *, as_json: bool, length: int) -> list[tuple[bytes, bytes]]:
        """Return the header fields of the answer, without `Connection`."""
        kind = b"application/json" if as_json else b"text/plain; charset=utf-8"
        challenge = [_CHALLENGE] if self.status == _UNAUTHENTICATED else []
        return [
            (b"Content-Type", kind),
            (b"Content-Length", b"%d" % length),
            (b"Cache-Control", b"no-store"),
            (REASON_FIELD.encode(), self.reason.encode()),
            *challenge,
        ]

    def http1(self, *, accept: bytes | None = None, head_only: bool = False, close: bool) -> bytes:
        """Return the whole HTTP/1.1 answer.

        The reason is in the status phrase too: of the answer to a CONNECT most clients show
        nothing else (Python's `http.client` prints the phrase, curl the code).
        """
        as_json = wants_json(accept)
        body = self.body(as_json=as_json)
        lines = [f"HTTP/1.1 {self.status} {_PHRASES[self.status]} ({self.reason})".encode()]
        lines += [b"%s: %s" % field for field in self.fields(as_json=as_json, length=len(body))]
        lines.append(b"Connection: close" if close else b"Connection: keep-alive")
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        return head if head_only else head + body


def denial(
    reason: str, asked: str, target: Authority | None, scheme: Scheme = Scheme.HTTPS
) -> Refusal:
    """Return the 403 for `reason`; the command that it names would allow `target`."""
    known = Reason(reason)
    command = None
    if target is not None and known in _MENDED_BY_ALLOWING:
        command = f"claude-proxy allow {shlex.quote(_entry_for(target, scheme))}"
    return Refusal(403, reason, _EXPLANATIONS.get(known, _OTHERWISE), asked, command)


def _entry_for(target: Authority, scheme: Scheme) -> str:
    """Spell a target as `claude-proxy allow` takes it, without what is understood."""
    text = str(target).removesuffix(f":{_USUAL_PORTS[scheme]}")
    return text if scheme is Scheme.HTTPS else f"{scheme.value}://{text}"


def unauthenticated(asked: str) -> Refusal:
    """Return the 407 to a client that did not present what the proxy wants of its clients."""
    reason = Reason.CLIENT_NOT_AUTHENTICATED
    return Refusal(_UNAUTHENTICATED, reason.value, _EXPLANATIONS[reason], asked)


def bad_request(text: str, status: int = 400) -> Refusal:
    """Return the answer to a message that cannot be read in exactly one way."""
    return Refusal(400 if status not in _PHRASES else status, "bad-request", sentence(text))


def sentence(text: str) -> str:
    """Return a sentence to show; a name that it begins with keeps its spelling."""
    is_name = any(sign in text.partition(" ")[0] for sign in '.:"')
    return (text if is_name else text[:1].upper() + text[1:]).removesuffix(".") + "."


def too_large(asked: str) -> Refusal:
    """Return the 413 to a request whose body is longer than may be held to judge it."""
    reason = Reason.BODY_TOO_LARGE
    return Refusal(413, reason.value, _EXPLANATIONS[reason], asked)


def no_room(asked: str) -> Refusal:
    """Return the 503 to a request whose body there is no room for beside the others'."""
    text = "Too many bodies wait to be judged at the moment."
    return Refusal(503, "no-room", text, asked, retry=True)


def unreachable(reason: str, explanation: str, asked: str, *, timed_out: bool) -> Refusal:
    """Return the 502 or 504 for an upstream that was allowed but could not be reached."""
    return Refusal(504 if timed_out else 502, reason, explanation, asked, retry=True)


def wants_json(accept: bytes | None) -> bool:
    """Tell whether an Accept field prefers JSON to text; without one, text it is."""
    if accept is None:
        return False
    accept = accept.lower()
    return b"json" in accept and b"text/html" not in accept and not accept.startswith(b"text/plain")
