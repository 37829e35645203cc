"""Reasons: why a decision was made; stable codes for clients, queries and tests."""

from enum import StrEnum


class Reason(StrEnum):
    """Reason codes of decisions."""

    RULE_MATCHED = "rule-matched"
    ANSWERED = "answered"  # the owner was asked, and allowed this once
    ASK = "ask"  # the owner is to be asked; a tunnel is open towards its client alone until then
    NO_RULE = "no-rule"
    DENY_RULE = "deny-rule"
    PORT_NOT_ALLOWED = "port-not-allowed"
    SCHEME_NOT_ALLOWED = "scheme-not-allowed"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    PATH_NOT_ALLOWED = "path-not-allowed"
    AMBIGUOUS_PATH = "ambiguous-path"
    METHOD_REFUSED = "method-refused"  # TRACE, and CONNECT inside a tunnel
    UPGRADE_REFUSED = "upgrade-refused"  # h2c, and anything but WebSocket
    HOST_MISMATCH = "host-mismatch"
    SNI_MISMATCH = "sni-mismatch"
    SNI_MISSING = "sni-missing"
    ENCRYPTED_HELLO = "encrypted-hello"
    HELLO_UNREADABLE = "hello-unreadable"
    NOT_TLS = "not-tls"
    INVALID_TARGET = "invalid-target"
    BAD_REQUEST = "bad-request"  # invalid or ambiguous; status 400 instead of 403
    TLS_TO_PROXY = "tls-to-proxy"  # to the proxy itself, in place of HTTP or SOCKS5
    HTTP2_FLOOD = "http2-flood"  # frames that cost work and move nothing; GOAWAY instead of 403
    ADDRESS_NOT_ALLOWED = "address-not-allowed"
    PROXY_LOOP = "proxy-loop"
    CLIENT_NOT_ALLOWED = "client-not-allowed"
    CLIENT_NOT_AUTHENTICATED = "client-not-authenticated"  # 407; SOCKS5 has its own replies
    FOREIGN_CREDENTIAL = "foreign-credential"  # not the credential that is bound to the host
    PLACEHOLDER_MISPLACED = "placeholder-misplaced"  # where no value replaces it
    CREDENTIAL_UNAVAILABLE = "credential-unavailable"  # its source has no value now
    ENDPOINT_NOT_ALLOWED = "endpoint-not-allowed"  # of a restricted API, or of the gateway
    MODEL_NOT_ALLOWED = "model-not-allowed"
    BETA_NOT_ALLOWED = "beta-not-allowed"
    SERVER_TOOL_NOT_ALLOWED = "server-tool-not-allowed"
    MCP_SERVER_NOT_ALLOWED = "mcp-server-not-allowed"
    SOURCE_NOT_ALLOWED = "source-not-allowed"  # a URL that the API would fetch
    BODY_UNREADABLE = "body-unreadable"  # invalid or ambiguous
    BODY_TOO_LARGE = "body-too-large"
    CEILING_REACHED = "ceiling-reached"  # 429, of the gateway
    NOT_ANSWERED = "not-answered"  # the owner was asked, and has not answered in time
    OWNER_REFUSED = "owner-refused"  # the owner was asked, and said no
    TOO_MANY_QUESTIONS = "too-many-questions"  # more wait for an answer than may be held
    RULE_WITHDRAWN = "rule-withdrawn"  # a reload removed the rule of an open tunnel
    CA_UNUSABLE = "ca-unusable"  # TLS with clients is not possible now
    NAME_LIMIT = "name-limit"  # a lookup of too many names, or of one that looks like data
    AUDIT_FAILED = "audit-failed"
    INTERNAL_ERROR = "internal-error"
