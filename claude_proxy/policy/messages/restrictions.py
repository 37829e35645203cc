"""Decides what a request to a host that speaks the Messages API may ask it to do.

Laws kept: default-deny (1), agreement (4). The API can reach other places for its caller: so what
a body asks for is judged like a request of its own, and a body that two readers could take in two
ways is denied. Pure.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from claude_proxy.policy.location import Source
from claude_proxy.policy.messages.capabilities import Capability, Kind, tool_name, wishes_of
from claude_proxy.policy.messages.destinations import (
    ALLOWLISTED,
    EVERYWHERE,
    DestinationScope,
    DestinationScopes,
)
from claude_proxy.policy.messages.glob import matches_any
from claude_proxy.policy.messages.strict_json import Object, UnreadableError, read_object
from claude_proxy.policy.patterns import HostPattern, PathGlob, folded, is_ambiguous
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request

MIB = 1024 * 1024
# How many different things one body may ask for of those that are judged, and how long all of them
# together may be: else one body could keep the proxy busy for seconds. The API takes 600 images
# at once.
MOST_WISHES = 1000
_MOST_TEXT = MIB
_MOST_BETAS = 100  # in one text


@dataclass(frozen=True, slots=True)
class ApiRestrictions:
    """One entry of `anthropic`; None stands for every value there is."""

    patterns: tuple[HostPattern, ...]
    source: Source
    ports: frozenset[int] | None = None
    paths: tuple[PathGlob, ...] | None = None
    models: tuple[str, ...] | None = None  # "claude-sonnet-4-*"; "*" stands for any characters
    beta: tuple[str, ...] | None = None  # the same, of what anthropic-beta lists
    server_tools: tuple[str, ...] | None = None  # "web_search": a tool's type without its date
    mcp_servers: DestinationScope = EVERYWHERE
    sources: DestinationScope = EVERYWHERE  # of images and documents that are named by URL
    max_bytes: int = 32 * MIB

    def judge_head(self, request: Request) -> Reason | None:
        """Return why the request may not be made, by what its head says; None: it may."""
        if (self.paths is not None or self._judges_bodies) and is_ambiguous(request.path):
            return Reason.AMBIGUOUS_PATH
        if not _may_use(self.paths, request.path):
            return Reason.ENDPOINT_NOT_ALLOWED
        if self.reads(request) and not _is_usual(request):
            return Reason.ENDPOINT_NOT_ALLOWED
        if self.beta is not None and not all(
            _is_listed(self.beta, beta) for beta in _betas_of(request)
        ):
            return Reason.BETA_NOT_ALLOWED
        return None

    def reads(self, request: Request) -> bool:
        """Tell whether the body of the request must be judged before any of it leaves."""
        # However a server may spell it: to read one body too many costs less than one too few.
        return self._judges_bodies and _speaks_to_a_model(folded(request.path)) is not None

    def judge_body(
        self, request: Request, body: bytes, reaches: DestinationScopes
    ) -> Reason | None:
        """Return why the request may not be made, by what its body asks for; None: it may."""
        if not body:
            return None  # asks for nothing
        if len(body) > self.max_bytes:
            return Reason.BODY_TOO_LARGE
        asked = _read(request, body)
        if asked is None:
            return Reason.BODY_UNREADABLE
        if self.models is not None and not _names_models(asked):
            return Reason.MODEL_NOT_ALLOWED
        return self._judge_wishes(asked, reaches)

    def _judge_wishes(self, asked: Object, reaches: DestinationScopes) -> Reason | None:
        opened = tuple(filter(self._leaves_open, Kind))
        judged: set[Capability] = set()
        count = size = 0
        for wish in wishes_of(asked):
            if wish.kind in opened or wish in judged:
                continue
            judged.add(wish)
            count += 1 + len(wish.domains)
            size += len(wish.value or "") + sum(map(len, wish.domains))
            reason, grants = _JUDGES[wish.kind]
            if count > MOST_WISHES or size > _MOST_TEXT or not grants(self, wish, reaches):
                return reason
        return None

    def _leaves_open(self, kind: Kind) -> bool:
        """Tell whether wishes of a kind are not narrowed: however many there are."""
        match kind:
            case Kind.SOURCE:
                return self.sources.every
            case Kind.MCP_SERVER | Kind.MCP_TOOLS:
                return self.mcp_servers.every
            case Kind.MODEL:
                return self.models is None
            case Kind.BETA:
                return self.beta is None
            case Kind.SERVER_TOOL:
                return self.server_tools is None
            case _:
                return False

    @property
    def _judges_bodies(self) -> bool:
        lists = (self.models, self.beta, self.server_tools)
        return any(each is not None for each in lists) or not (
            self.mcp_servers.every and self.sources.every
        )


def _may_use(paths: tuple[PathGlob, ...] | None, path: str) -> bool:
    return paths is None or any(glob.matches(path) for glob in paths)


def _is_listed(globs: tuple[str, ...] | None, word: str | None) -> bool:
    return globs is None or (word is not None and matches_any(globs, word))


def _grants_betas(narrowing: ApiRestrictions, wish: Capability, _: DestinationScopes) -> bool:
    if wish.value is None or wish.value.count(",") >= _MOST_BETAS:
        return False
    return all(_is_listed(narrowing.beta, name.strip()) for name in wish.value.split(","))


def _grants_server_tool(
    narrowing: ApiRestrictions, wish: Capability, reaches: DestinationScopes
) -> bool:
    listed = narrowing.server_tools
    if listed is None:
        return True
    if wish.value is None:
        return False
    name = tool_name(wish.value)
    if name in listed or wish.value in listed:
        return True
    # One that is bound to places where the client may go itself.
    within = ALLOWLISTED if narrowing.sources.every else narrowing.sources
    return (
        name == "web_fetch"
        and bool(wish.domains)
        and all(within.holds_domain(domain, reaches) for domain in wish.domains)
    )


_JUDGES: dict[
    Kind, tuple[Reason, Callable[[ApiRestrictions, Capability, DestinationScopes], bool]]
] = {
    Kind.MISSPELT: (Reason.BODY_UNREADABLE, lambda *_: False),
    Kind.MODEL: (
        Reason.MODEL_NOT_ALLOWED,
        lambda narrowing, wish, _: _is_listed(narrowing.models, wish.value),
    ),
    Kind.BETA: (Reason.BETA_NOT_ALLOWED, _grants_betas),
    Kind.SERVER_TOOL: (Reason.SERVER_TOOL_NOT_ALLOWED, _grants_server_tool),
    Kind.MCP_SERVER: (
        Reason.MCP_SERVER_NOT_ALLOWED,
        lambda narrowing, wish, reaches: narrowing.mcp_servers.holds(wish.value, "POST", reaches),
    ),
    Kind.MCP_TOOLS: (
        Reason.MCP_SERVER_NOT_ALLOWED,
        lambda narrowing, *_: not narrowing.mcp_servers.nowhere,
    ),
    Kind.SOURCE: (
        Reason.SOURCE_NOT_ALLOWED,
        lambda narrowing, wish, reaches: narrowing.sources.holds(wish.value, "GET", reaches),
    ),
    # Who may use the Files API may name what is there.
    Kind.FILE: (
        Reason.SOURCE_NOT_ALLOWED,
        lambda narrowing, *_: _may_use(narrowing.paths, _FILES),
    ),
}
_FILES = "/v1/files"
_ASKING = frozenset({"GET", "HEAD", "OPTIONS"})
# Inference, whatever the version or the flavour of the API: /v1/messages and what lies below it,
# the older /v1/complete, the compatible /v1/chat/completions and /v1/responses, and what clouds
# that serve the same models call it.
_speaks_to_a_model = re.compile(r"messages|complet|responses|invoke|predict|converse").search
_QUERIES = frozenset({"", "beta=true"})  # what the SDKs send
_is_json = re.compile(
    rb'application/json(?:[ \t]*;[ \t]*charset="?utf-8"?)?', re.IGNORECASE
).fullmatch


def _values(request: Request, name: bytes) -> Iterator[bytes]:
    """Yield the values of all fields that some server takes for `name`."""
    for field, value in request.fields:
        if field.lower().replace(b"_", b"-") == name:
            yield value.strip(b" \t")


def _is_usual(request: Request) -> bool:
    """Tell whether nothing but the body says what a call asks for."""
    if any(_values(request, b"upgrade")):
        return False  # what is said after that is not a body
    return request.method in _ASKING or request.query in _QUERIES


def _betas_of(request: Request) -> Iterator[str]:
    for value in _values(request, b"anthropic-beta"):
        # Latin-1 so that nothing is lost: what is not ASCII is on no list.
        for beta in value.decode("latin-1").split(","):
            if name := beta.strip(" \t"):
                yield name


def _read(request: Request, body: bytes) -> Object | None:
    """Return what the body says, if there is but one way to read it."""
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


def _names_models(asked: Object) -> bool:
    """Tell whether each request in the body says which model it is for."""
    batch = asked.get("requests")
    if batch is None:
        return isinstance(asked.get("model"), str)
    return isinstance(batch, list) and all(
        isinstance(item, dict)
        and isinstance(params := item.get("params"), dict)
        and isinstance(params.get("model"), str)
        for item in batch
    )
