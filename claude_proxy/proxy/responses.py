"""Responses that the proxy itself sends: the 403 page, 4xx and 5xx; pure.

Law kept: a denial never reveals the rules. It is read by a model inside the sandbox, so it says
what was denied, the stable reason code, whether a retry is useless, and what the owner can run
outside.
"""

import json
import shlex
from dataclasses import dataclass, replace
from functools import lru_cache

from claude_proxy.policy.advice import DeniedAttempt, advice_for
from claude_proxy.policy.git_push import push_path
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.wire.authority import Authority

REASON_FIELD = "X-Claude-Proxy-Reason"

_PHRASES = {
    400: "Bad Request",
    403: "Denied by claude-proxy",
    451: "Denied by claude-proxy",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    413: "Content Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}

_EXPLANATIONS = {
    Reason.NO_RULE: "No rule of the allowlist covers this host.",
    Reason.DENY_RULE: "A deny rule covers this request.",
    Reason.PORT_NOT_ALLOWED: "This host is not allowed on this port.",
    Reason.SCHEME_NOT_ALLOWED: "This host is not allowed over this scheme.",
    Reason.METHOD_NOT_ALLOWED: "This method is not allowed on this host.",
    Reason.PATH_NOT_ALLOWED: "This path is not allowed on this host.",
    Reason.AMBIGUOUS_PATH: "This path can be read in more than one way, so it is not forwarded.",
    Reason.HOST_MISMATCH: "The Host header names a different host than the connection.",
    Reason.SNI_MISMATCH: "The TLS server name (SNI) is not the host of the CONNECT request.",
    Reason.SNI_MISSING: "The TLS client sent no server name (SNI).",
    Reason.ADDRESS_NOT_ALLOWED: "This name resolves to a private, local or reserved address.",
    Reason.PROXY_LOOP: "This is the proxy itself; it serves no pages.",
    Reason.METHOD_REFUSED: "This method is never forwarded.",
    Reason.UPGRADE_REFUSED: "Only an upgrade to WebSocket is forwarded.",
    Reason.FOREIGN_CREDENTIAL: "Only the configured credential may be used on this host.",
    Reason.PLACEHOLDER_MISPLACED: (
        "A placeholder is replaced by its credential only on its own host, over HTTPS, in a field "
        "that authenticates."
    ),
    Reason.CREDENTIAL_UNAVAILABLE: "The credential for this host is not available at the moment.",
    Reason.ENDPOINT_NOT_ALLOWED: "This endpoint of the API is not allowed.",
    Reason.MODEL_NOT_ALLOWED: "This model is not allowed.",
    Reason.BETA_NOT_ALLOWED: "A value of the anthropic-beta field is not allowed.",
    Reason.SERVER_TOOL_NOT_ALLOWED: "A tool that the API itself runs is not allowed.",
    Reason.MCP_SERVER_NOT_ALLOWED: "The API may not connect to this MCP server.",
    Reason.SOURCE_NOT_ALLOWED: "The API may not fetch from this address.",
    Reason.BODY_UNREADABLE: (
        "The body cannot be read in exactly one way, so it is not forwarded. It must be JSON, not "
        "compressed, and sent with Content-Type: application/json."
    ),
    Reason.BODY_TOO_LARGE: "The body is larger than the limit up to which bodies are checked.",
    Reason.CEILING_REACHED: "The limit that the owner set has been reached.",
    Reason.ASK: "The owner of this machine has to be asked about this first.",
    Reason.NOT_ANSWERED: (
        "The owner of this machine was asked, and has not answered yet. The question stays open, "
        "and an answer that comes later counts for the next try of the same request."
    ),
    Reason.OWNER_REFUSED: "The owner of this machine was asked, and said no.",
    Reason.TOO_MANY_QUESTIONS: (
        "The owner of this machine has to be asked about this, and too much waits for an answer."
    ),
    Reason.CA_UNUSABLE: (
        "The proxy's own CA has expired or is not valid yet, so TLS is not possible. Its owner can "
        "make a new one: claude-proxy ca rotate"
    ),
    Reason.AUDIT_FAILED: (
        "The decision could not be recorded in the audit log; the request was blocked."
    ),
    Reason.INTERNAL_ERROR: "Internal proxy error; the request was blocked.",
    Reason.CLIENT_NOT_ALLOWED: "This client is not allowed to use this proxy.",
    Reason.CLIENT_NOT_AUTHENTICATED: "This proxy requires a user name and a password.",
    Reason.TLS_TO_PROXY: (
        "A client speaks TLS to the proxy: the proxy's URL must begin with http://, for https too."
    ),
    Reason.INVALID_TARGET: "The target is not one valid host and port.",
}
_DENIED = 403
_UNAVAILABLE = 451  # RFC 7725; it has no meaning of its own for clients that retry or log in
_DENIALS = frozenset({_DENIED, _UNAVAILABLE})
_UNAUTHENTICATED = 407
# Rendered responses that are kept, of those that are short.
_REMEMBERED = 256
_SHORT = 1024

_CHALLENGE = (b"Proxy-Authenticate", b'Basic realm="claude-proxy"')  # RFC 9110 11.7.1, RFC 7617
# Reasons that a request is denied by when it begins a push that would be denied.
_OF_PUSH = frozenset({Reason.METHOD_NOT_ALLOWED, Reason.PATH_NOT_ALLOWED, Reason.DENY_RULE})
# Denials that no rule is the cause of: fail closed, until the machine is in order again.
_FAULTS = frozenset(
    {
        Reason.AUDIT_FAILED,
        Reason.INTERNAL_ERROR,
        Reason.CA_UNUSABLE,
        Reason.CREDENTIAL_UNAVAILABLE,
    }
)
# Denials that an answer of the owner may end.
_UNANSWERED = frozenset({Reason.ASK, Reason.NOT_ANSWERED, Reason.TOO_MANY_QUESTIONS})
_ANSWERING = "claude-proxy ask"
_LATER = "Go on with something else, and try again later: it may be allowed by then."
_POLICY = "Retrying is useless: this is policy, not a network error."
_FAULT = (
    "This is a fault of the machine that the proxy runs on, not policy: retrying may work later."
)
_OTHER_REASON = "The proxy's policy does not allow this."


@dataclass(frozen=True, slots=True)
class Refusal:
    """A response that the proxy itself sends, before it is encoded."""

    status: int
    reason: str  # stable, kebab-case
    explanation: str
    label: str = ""  # "GET https://example.com/path", safe to print
    command: str | None = None  # what the owner can run outside the sandbox
    retry: bool = False

    def naming(self, options: tuple[str, ...]) -> "Refusal":
        """Return the refusal whose command changes the list that these options name."""
        if self.command is None or not options or self.command == _ANSWERING:
            return self
        return replace(self, command=f"{self.command} {shlex.join(options)}")

    def body(self, *, as_json: bool) -> bytes:
        """Return the body: JSON if the client prefers it, else a few lines of plain text."""
        return (self._json() if as_json else self._text()).encode("ascii", "backslashreplace")

    @property
    def is_denial(self) -> bool:
        """Whether the policy denied it."""
        return self.status in _DENIALS

    @property
    def message(self) -> str:
        """The refusal in one line, for clients that show no more than that of an error."""
        text = f"{self._verb} by claude-proxy ({self.reason}): {self.explanation}"
        if self.command is None:
            return text
        return f"{text} The owner of this machine can allow it: {self.command}"

    @property
    def _verb(self) -> str:
        return "Denied" if self.is_denial else "Failed"

    def _text(self) -> str:
        verb = self._verb
        lines = [
            f"{verb} by claude-proxy: {self.label}" if self.label else f"{verb} by claude-proxy."
        ]
        lines += [f"reason: {self.reason}", self.explanation]
        if self.is_denial:
            lines.append(_outlook(self.reason))
        if self.command is not None:
            lines.append(
                "If you need it, ask the owner of this machine to run, outside the sandbox:\n"
                f"  {self.command}"
            )
        return "\n".join(lines) + "\n"

    def _json(self) -> str:
        error = {
            "type": "denied_by_claude_proxy" if self.is_denial else "claude_proxy_error",
            "reason": self.reason,
            "message": self.explanation,
            "request": self.label,
            "retry": self.retry,
            "allow_command": self.command,
        }
        # gh, glab and other clients of web APIs show the field `message` and nothing else.
        return json.dumps({"type": "error", "message": self.message, "error": error}) + "\n"

    def fields(self, *, as_json: bool, length: int) -> list[tuple[bytes, bytes]]:
        """Return the header fields of the response, without `Connection`."""
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
        """Return the whole HTTP/1.1 response.

        The reason is in the status phrase as well, because most clients show nothing else of a
        response to CONNECT (Python's `http.client` prints the phrase, curl the code).
        """
        is_short = len(self.label) + len(self.explanation) <= _SHORT
        render = _rendered if is_short else _rendered.__wrapped__
        head, body = render(self, as_json=wants_json(accept), close=close)
        return head if head_only else head + body


def _outlook(reason: str) -> str:
    """Return whether a denied attempt may succeed later, as a sentence."""
    if reason in _UNANSWERED:
        return _LATER
    return _FAULT if reason in _FAULTS else _POLICY


# Programs that are refused try the same again, many of them all day long.
@lru_cache(maxsize=_REMEMBERED)
def _rendered(refusal: Refusal, *, as_json: bool, close: bool) -> tuple[bytes, bytes]:
    """Return the head and the body of the HTTP/1.1 response."""
    body = refusal.body(as_json=as_json)
    lines = [f"HTTP/1.1 {refusal.status} {_PHRASES[refusal.status]} ({refusal.reason})".encode()]
    lines += [b"%s: %s" % field for field in refusal.fields(as_json=as_json, length=len(body))]
    lines.append(b"Connection: close" if close else b"Connection: keep-alive")
    return b"\r\n".join(lines) + b"\r\n\r\n", body


@lru_cache(maxsize=_REMEMBERED)
def _denial_of_tunnel(attempt: DeniedAttempt, options: tuple[str, ...]) -> Refusal:
    return denial_of(attempt, f"CONNECT {attempt.target}").naming(options)


def denial_of_tunnel(
    reason: Reason,
    target: Authority,
    scheme: Scheme,
    *,
    is_own: bool,
    options: tuple[str, ...] = (),
) -> Refusal:
    """Return the 403 to a CONNECT; its command changes the list that `options` name."""
    return _denial_of_tunnel(DeniedAttempt(reason, target, scheme, is_own=is_own), options)


def denial(
    reason: str,
    label: str,
    target: Authority | None,
    scheme: Scheme = Scheme.HTTPS,
    *,
    is_own: bool = False,
) -> Refusal:
    """Return the 403 for `reason` of a tunnel, or of what names no method and path.

    `is_own` says that the target is an address of this machine.
    """
    return denial_of(DeniedAttempt(Reason(reason), target, scheme, is_own=is_own), label)


def denial_of_request(
    reason: str, label: str, request: Request, *, is_own: bool = False
) -> Refusal:
    """Return the denial for `reason` of a request; `is_own` as in `denial`."""
    attempt = replace(attempt_of(reason, request), is_own=is_own)
    return denial_of(attempt, label, status=status_of_denial(request))


def status_of_denial(request: Request) -> int:
    """Return the status of a request's denial: 403, or 451 for a client of MCP.

    Claude Code takes a 403 from an MCP server for a demand to log in, and shows no reason.
    """
    accept = next((value for name, value in request.fields if name.lower() == b"accept"), b"")
    # Every POST of such a client accepts both (MCP, Streamable HTTP, "Sending Messages").
    speaks_mcp = b"application/json" in accept and b"text/event-stream" in accept
    return _UNAVAILABLE if speaks_mcp and request.method == "POST" else _DENIED


def denial_of(attempt: DeniedAttempt, label: str, *, status: int = 403) -> Refusal:
    """Return the denial of an attempt, with the command that would allow just that if one can."""
    advice = advice_for(attempt)
    explanation = _EXPLANATIONS.get(attempt.reason, _OTHER_REASON)
    if attempt.reason in _OF_PUSH and push_path(attempt.path, attempt.query) is not None:
        explanation = "Pushing to this repository is not allowed."
    if advice.text:
        explanation = f"{explanation} {advice.text}"
    retry = attempt.reason in _FAULTS or attempt.reason in _UNANSWERED
    command = _ANSWERING if attempt.reason in _UNANSWERED else advice.command()
    return Refusal(status, attempt.reason.value, explanation, label, command, retry=retry)


def attempt_of(reason: str, request: Request) -> DeniedAttempt:
    """Return a request that was denied, as advice needs it."""
    return DeniedAttempt(
        Reason(reason),
        request.target,
        request.scheme,
        request.method,
        request.path,
        request.query,
    )


def unauthenticated(label: str) -> Refusal:
    """Return the 407 to a client that did not authenticate."""
    reason = Reason.CLIENT_NOT_AUTHENTICATED
    return Refusal(_UNAUTHENTICATED, reason.value, _EXPLANATIONS[reason], label)


def bad_request(text: str, status: int = 400) -> Refusal:
    """Return the response to a malformed or ambiguous message."""
    return Refusal(400 if status not in _PHRASES else status, "bad-request", sentence(text))


def sentence(text: str) -> str:
    """Return `text` as a sentence; if it begins with a name, that is not capitalized."""
    is_name = any(sign in text.partition(" ")[0] for sign in '.:"')
    return (text if is_name else text[:1].upper() + text[1:]).removesuffix(".") + "."


def too_large(label: str) -> Refusal:
    """Return the 413 to a request whose body is too large to be judged."""
    reason = Reason.BODY_TOO_LARGE
    return Refusal(413, reason.value, _EXPLANATIONS[reason], label)


def no_room(
    label: str, text: str = "Too many request bodies are waiting to be checked."
) -> Refusal:
    """Return the 503 to a request for which something has run short."""
    return Refusal(503, "no-room", text, label, retry=True)


def unreachable(reason: str, explanation: str, label: str, *, timed_out: bool) -> Refusal:
    """Return the 502 or 504 for an upstream that was allowed but could not be reached."""
    return Refusal(504 if timed_out else 502, reason, explanation, label, retry=True)


def wants_json(accept: bytes | None) -> bool:
    """Tell whether an Accept field prefers JSON to text; False without one."""
    if accept is None:
        return False
    accept = accept.lower()
    return b"json" in accept and b"text/html" not in accept and not accept.startswith(b"text/plain")
