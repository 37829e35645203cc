"""Messages API restrictions: paths, models, betas, server tools, MCP servers and sources.

Default-deny, agreement. The API can connect to other hosts for its caller, so what a body asks for
is judged like a request, and a body that two parsers could read differently is denied. Pure.
"""

import re
from collections.abc import Callable, Iterator

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.location import Location
from claude_proxy.policy.messages.capabilities import (
    Capability,
    CapabilityKind,
    capabilities_of,
    tool_name,
)
from claude_proxy.policy.messages.destinations import (
    ALLOWLISTED,
    EVERYWHERE,
    AllowsUrl,
    DestinationScope,
)
from claude_proxy.policy.messages.glob import matches_any
from claude_proxy.policy.messages.strict_json import JsonObject, UnreadableError, read_object
from claude_proxy.policy.patterns import HostPattern, PathGlob, folded, is_ambiguous
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request

MIB = 1024 * 1024
# The number of different restricted capabilities of one body. This and `_MAX_TEXT`, the length of
# all of them, keep a body from occupying the proxy for seconds. The API accepts 600 images.
MAX_CAPABILITIES = 1000
_MAX_TEXT = MIB
_MAX_BETAS = 100  # in one value


@dataclass(frozen=True, slots=True)
class ApiRestrictions:
    """One entry of `anthropic`; None allows every value."""

    patterns: tuple[HostPattern, ...]
    source: Location
    ports: frozenset[int] | None = None
    paths: tuple[PathGlob, ...] | None = None
    models: tuple[str, ...] | None = None  # "claude-sonnet-4-*"; "*" matches any characters
    beta: tuple[str, ...] | None = None  # globs like `models`, for anthropic-beta
    server_tools: tuple[str, ...] | None = None  # "web_search": a tool's type without its date
    mcp_servers: DestinationScope = EVERYWHERE
    sources: DestinationScope = EVERYWHERE  # URLs of images and documents
    max_bytes: int = 32 * MIB

    @property
    def narrows(self) -> bool:
        """Whether anything is limited; an owner may have lifted all that a preset says."""
        limits = (self.paths, self.models, self.beta, self.server_tools)
        reaches = (self.mcp_servers, self.sources)
        return any(limit is not None for limit in limits) or not all(each.every for each in reaches)

    def judge_head(self, request: Request) -> Reason | None:
        """Return why the head of the request is denied; None: it is allowed."""
        if (self.paths is not None or self.judges_bodies) and is_ambiguous(request.path):
            return Reason.AMBIGUOUS_PATH
        if not _may_use(self.paths, request.path):
            return Reason.ENDPOINT_NOT_ALLOWED
        if self.judges_body_of(request) and not _only_body_asks(request):
            return Reason.ENDPOINT_NOT_ALLOWED
        if self.beta is not None and not all(
            _is_listed(self.beta, beta) for beta in _betas_of(request)
        ):
            return Reason.BETA_NOT_ALLOWED
        return None

    def judges_body_of(self, request: Request) -> bool:
        """Return whether the body of the request must be judged before any of it leaves."""
        # Servers may accept other spellings of the path: judging too many bodies is safer than
        # missing one.
        return self.judges_bodies and _is_inference(folded(request.path)) is not None

    def judge_body(self, request: Request, body: bytes, allows_url: AllowsUrl) -> Reason | None:
        """Return why the body of the request is denied; None: it is allowed."""
        if not body:
            return None  # it asks for nothing
        if len(body) > self.max_bytes:
            return Reason.BODY_TOO_LARGE
        content = _read(request, body)
        if content is None:
            return Reason.BODY_UNREADABLE
        if self.models is not None and not _names_models(content):
            return Reason.MODEL_NOT_ALLOWED
        return self._judge_capabilities(content, allows_url)

    def _judge_capabilities(self, content: JsonObject, allows_url: AllowsUrl) -> Reason | None:
        unrestricted = tuple(filter(self._is_unrestricted, CapabilityKind))
        judged: set[Capability] = set()
        count = size = 0
        for capability in capabilities_of(content):
            if capability.kind in unrestricted or capability in judged:
                continue
            judged.add(capability)
            count += 1 + len(capability.domains)
            size += len(capability.value or "") + sum(map(len, capability.domains))
            reason, grants = _GRANTS[capability.kind]
            if (
                count > MAX_CAPABILITIES
                or size > _MAX_TEXT
                or not grants(self, capability, allows_url)
            ):
                return reason
        return None

    def _is_unrestricted(self, kind: CapabilityKind) -> bool:
        """Return whether a kind is not restricted, so that its count does not matter either."""
        match kind:
            case CapabilityKind.SOURCE:
                return self.sources.every
            case CapabilityKind.MCP_SERVER | CapabilityKind.MCP_TOOLS:
                return self.mcp_servers.every
            case CapabilityKind.MODEL:
                return self.models is None
            case CapabilityKind.BETA:
                return self.beta is None
            case CapabilityKind.SERVER_TOOL:
                return self.server_tools is None
            case _:
                return False

    @property
    def judges_bodies(self) -> bool:
        """Whether bodies are judged, so that ambiguous paths are denied."""
        lists = (self.models, self.beta, self.server_tools)
        return any(each is not None for each in lists) or not (
            self.mcp_servers.every and self.sources.every
        )


def _may_use(paths: tuple[PathGlob, ...] | None, path: str) -> bool:
    return paths is None or any(glob.matches(path) for glob in paths)


def _is_listed(globs: tuple[str, ...] | None, word: str | None) -> bool:
    return globs is None or (word is not None and matches_any(globs, word))


def _grants_betas(limits: ApiRestrictions, capability: Capability, _: AllowsUrl) -> bool:
    if capability.value is None or capability.value.count(",") >= _MAX_BETAS:
        return False
    return all(_is_listed(limits.beta, name.strip()) for name in capability.value.split(","))


def _grants_server_tool(
    limits: ApiRestrictions, capability: Capability, allows_url: AllowsUrl
) -> bool:
    listed = limits.server_tools
    if listed is None:
        return True
    if capability.value is None:
        return False
    name = tool_name(capability.value)
    if name in listed or capability.value in listed:
        return True
    # A web_fetch that is limited to domains which the client may reach itself.
    within = ALLOWLISTED if limits.sources.every else limits.sources
    return (
        name == "web_fetch"
        and bool(capability.domains)
        and all(within.allows_domain(domain, allows_url) for domain in capability.domains)
    )


_GRANTS: dict[
    CapabilityKind, tuple[Reason, Callable[[ApiRestrictions, Capability, AllowsUrl], bool]]
] = {
    CapabilityKind.NEAR_MISS: (Reason.BODY_UNREADABLE, lambda *_: False),
    CapabilityKind.MODEL: (
        Reason.MODEL_NOT_ALLOWED,
        lambda limits, capability, _: _is_listed(limits.models, capability.value),
    ),
    CapabilityKind.BETA: (Reason.BETA_NOT_ALLOWED, _grants_betas),
    CapabilityKind.SERVER_TOOL: (Reason.SERVER_TOOL_NOT_ALLOWED, _grants_server_tool),
    CapabilityKind.MCP_SERVER: (
        Reason.MCP_SERVER_NOT_ALLOWED,
        lambda limits, capability, allows_url: limits.mcp_servers.allows(
            capability.value, "POST", allows_url
        ),
    ),
    CapabilityKind.MCP_TOOLS: (
        Reason.MCP_SERVER_NOT_ALLOWED,
        lambda limits, *_: not limits.mcp_servers.is_empty,
    ),
    CapabilityKind.SOURCE: (
        Reason.SOURCE_NOT_ALLOWED,
        lambda limits, capability, allows_url: limits.sources.allows(
            capability.value, "GET", allows_url
        ),
    ),
    # A client that may use the Files API may refer to its files.
    CapabilityKind.FILE: (
        Reason.SOURCE_NOT_ALLOWED,
        lambda limits, *_: _may_use(limits.paths, _FILES),
    ),
}
_FILES = "/v1/files"
_WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
# Inference endpoints: /v1/messages and everything below it, the older /v1/complete, the compatible
# /v1/chat/completions and /v1/responses, and those of clouds that offer the same models.
_is_inference = lazy_pattern(r"messages|complet|responses|invoke|predict|converse").search
_QUERIES = frozenset({"", "beta=true"})  # those that the SDKs send
_is_json = lazy_pattern(
    rb'application/json(?:[ \t]*;[ \t]*charset="?utf-8"?)?', re.IGNORECASE
).fullmatch


def _values(request: Request, name: bytes) -> Iterator[bytes]:
    """Yield the values of all fields that some servers read as `name`."""
    for field, value in request.fields:
        if field.lower().replace(b"_", b"-") == name:
            yield value.strip(b" \t")


def _only_body_asks(request: Request) -> bool:
    """Return whether only the body says what the request asks for."""
    if any(_values(request, b"upgrade")):
        return False  # what follows an upgrade is not a body
    return request.method in _WITHOUT_BODY or request.query in _QUERIES


def _betas_of(request: Request) -> Iterator[str]:
    for value in _values(request, b"anthropic-beta"):
        # Latin-1 decodes any bytes; globs are ASCII, so other characters never match.
        for beta in value.decode("latin-1").split(","):
            if name := beta.strip(" \t"):
                yield name


def _read(request: Request, body: bytes) -> JsonObject | None:
    """Return the content of the body; None if it is not unambiguous JSON."""
    if not _is_plain_json(request):
        return None
    try:
        return read_object(body)
    except UnreadableError:
        return None


def _is_plain_json(request: Request) -> bool:
    types = list(_values(request, b"content-type"))
    codings = _values(request, b"content-encoding")
    return (
        len(types) == 1
        and _is_json(types[0]) is not None
        and all(coding.lower() == b"identity" for coding in codings)
    )


def _names_models(content: JsonObject) -> bool:
    """Return whether each request in the body names a model."""
    batch = content.get("requests")
    if batch is None:
        return isinstance(content.get("model"), str)
    return isinstance(batch, list) and all(
        isinstance(item, dict)
        and isinstance(params := item.get("params"), dict)
        and isinstance(params.get("model"), str)
        for item in batch
    )
