"""Capabilities: the models, betas, tools, servers and URLs that a Messages API body asks for.

Default-deny. A capability is recognised by its own shape wherever it appears, so one that a later
version of the API accepts in a new place is found too. Only what the API passes on unchanged, such
as a tool's input and schema, is skipped. Pure, and linear: each part of a body is visited once.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import lru_cache
from typing import Any, NamedTuple

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.messages.strict_json import JsonObject


class CapabilityKind(Enum):
    """Kinds of capabilities."""

    MODEL = auto()
    BETA = auto()  # one, or several separated by commas
    SERVER_TOOL = auto()  # a tool that the API runs, not the client
    MCP_SERVER = auto()  # a URL to which the API would send requests
    MCP_TOOLS = auto()  # the tools of a server that is named elsewhere
    SOURCE = auto()  # a URL that the API would fetch
    FILE = auto()  # a file, by its id in the Files API
    NEAR_MISS = auto()  # a key that some parsers could read as a known one


class Capability(NamedTuple):  # a body may have 100,000: a dataclass takes three times as long
    """One capability that a body asks for."""

    kind: CapabilityKind
    value: str | None = None  # as sent; None: it is unreadable or does not matter
    domains: tuple[str, ...] = ()  # the `allowed_domains` of a server tool


def capabilities_of(body: JsonObject) -> Iterator[Capability]:
    """Yield each capability that `body` asks for, in no particular order."""
    # The values still to visit, and whether each is below a key for URLs.
    waiting: list[tuple[Any, bool]] = [(body, False)]
    non_ascii = 0
    while waiting:
        value, for_urls = waiting.pop()
        if isinstance(value, list):
            waiting += [(item, for_urls) for item in value if type(item) in _CONTAINERS]
            if for_urls:
                places = {item for item in value if isinstance(item, str)}
                yield from (Capability(CapabilityKind.SOURCE, place) for place in places)
        elif for_urls or not _is_ordinary(value):
            non_ascii += non_ascii_keys(value)
            if non_ascii > MAX_NON_ASCII_KEYS:
                yield Capability(CapabilityKind.NEAR_MISS)
                return
            yield from _capabilities_in(value)
            if for_urls:
                yield from _urls_below(value)
            waiting += _inside(value, for_urls=for_urls)
        else:
            waiting += [(item, False) for item in value.values() if type(item) in _CONTAINERS]


def _inside(value: JsonObject, *, for_urls: bool) -> Iterator[tuple[Any, bool]]:
    """Yield the values of an object to visit, and whether each is below a key for URLs."""
    for key, item in value.items():
        if type(item) not in _CONTAINERS or _is_opaque(key, value):
            continue
        if key == "mcp_servers":
            # Without the URL, which is not a source.
            for server in filter(_is_object, item):
                yield {name: item for name, item in server.items() if name != "url"}, for_urls
        else:
            yield item, for_urls or _holds_urls(key, value)


def _holds_urls(key: str, parent: JsonObject) -> bool:
    """Return whether all texts below `key` are URLs."""
    if key in _ORDINARY or key in _FINDERS or not _is_for_urls(key):
        return False
    return _type_of(parent) not in _EARLIER_RESULTS


def _urls_below(value: JsonObject) -> Iterator[Capability]:
    for item in value.values():
        # "auto" and "image/png" are options, not URLs.
        if isinstance(item, str) and not _is_word(item):
            yield Capability(CapabilityKind.SOURCE, item)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def tool_name(kind: str) -> str:
    """Return a tool's type without its date: "web_search" for "web_search_20250305"."""
    return _dated.sub("", kind) if "_20" in kind else kind


_CONTAINERS = (dict, list)
_is_word = lazy_pattern(
    r"[a-z][a-z0-9_-]{0,63}(?:/[a-z0-9.+-]{1,64})?", re.ASCII | re.IGNORECASE
).fullmatch
_dated = lazy_pattern(r"_20[0-9]{6}\Z", re.ASCII)

# Types of tools that the client runs, and of references to tools that are defined elsewhere.
_CLIENT_TOOLS = frozenset(
    {
        "bash",
        "text_editor",
        "computer",
        "computer_toolset",
        "browser_toolset",
        "memory",
        "tool_reference",
        "mcp_tool_reference",
        "mcp_toolset_reference",
    }
)
# Server tools that are recognised wherever they appear.
_SERVER_TOOLS = frozenset({"web_search", "web_fetch", "code_execution"})
_CONTAINER = Capability(CapabilityKind.SERVER_TOOL, "code_execution")
# Parts of earlier responses that are sent back: the API reads their URLs but does not fetch them.
_EARLIER_RESULTS = frozenset(
    {
        "web_search_result",
        "web_fetch_result",
        "web_search_result_location",
        "code_execution_output",
        "bash_code_execution_output",
    }
)
# The types of sources and the key that holds their location; None: the content is in the body.
_SOURCES: dict[str | None, str | None] = {
    "base64": None,
    "text": None,
    "content": None,
    "url": "url",
    "file": "file_id",
}
# Keys whose values the API passes on unchanged, and the types of their parent; None: any type.
_NO_TYPES: frozenset[str] = frozenset()
_TOOL_USES = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_TOOLSETS = frozenset({"mcp_toolset", "computer_toolset", "browser_toolset"})
_BROWSER = frozenset({"browser_state"})
_OPAQUE: dict[str, frozenset[str] | None] = {
    "input": _TOOL_USES,
    "input_schema": None,
    "input_examples": None,
    "schema": frozenset({"json_schema"}),
    "configs": _TOOLSETS,  # its keys are names of tools, which can be anything
    "tabs": _BROWSER,  # of the client's browser
    "state_changes": _BROWSER,
}


def _type_of(value: JsonObject) -> str | None:
    """Return the type of a block or tool, "" if it is not a text, None if there is none."""
    kind = value.get("type")
    return kind if kind is None or isinstance(kind, str) else ""


def _is_ordinary(value: JsonObject) -> bool:
    """Return whether an object has no capabilities of its own, as most blocks."""
    kind = value.get("type")
    return value.keys() <= _ORDINARY and (kind is None or (type(kind) is str and kind in _TALK))


def _is_opaque(key: str, parent: JsonObject) -> bool:
    types = _OPAQUE.get(key, _NO_TYPES)
    return types is None or (bool(types) and tool_name(_type_of(parent) or "") in types)


def _capabilities_in(value: JsonObject) -> Iterator[Capability]:
    kind = _type_of(value)
    if kind == "container_upload":
        yield _CONTAINER
    # With a `tool_id`, the object describes the caller of another tool.
    if kind and tool_name(kind) in _SERVER_TOOLS and "tool_id" not in value:
        yield _server_tool(value)
    for key, item in value.items():
        if key in _ORDINARY:
            continue
        if is_near_miss(key):
            yield Capability(CapabilityKind.NEAR_MISS, key)
        elif item is not None:
            find = _FINDERS.get(key) or (_urls if _is_for_urls(key) else _nothing)
            yield from find(item, value)


def _models(item: Any, _: JsonObject) -> Iterator[Capability]:
    yield Capability(CapabilityKind.MODEL, _text(item))


def _fallbacks(item: Any, _: JsonObject) -> Iterator[Capability]:
    if not isinstance(item, list):
        yield Capability(CapabilityKind.MODEL)  # "default": the API chooses a model


def _betas(item: Any, _: JsonObject) -> Iterator[Capability]:
    for beta in item if isinstance(item, list) else [item]:
        yield Capability(CapabilityKind.BETA, _text(beta))


def _containers(_: Any, __: JsonObject) -> Iterator[Capability]:
    yield _CONTAINER


def _mcp_servers(item: Any, _: JsonObject) -> Iterator[Capability]:
    for server in item if isinstance(item, list) else [None]:
        if not isinstance(server, dict):
            yield Capability(CapabilityKind.MCP_SERVER)
        else:
            yield Capability(CapabilityKind.MCP_SERVER, _text(server.get("url")))


def _nothing(_: Any, __: JsonObject) -> Iterator[Capability]:
    return iter(())


def _url(item: Any, parent: JsonObject) -> Iterator[Capability]:
    if _type_of(parent) not in _EARLIER_RESULTS:
        yield Capability(CapabilityKind.SOURCE, _text(item))


def _urls(item: Any, parent: JsonObject) -> Iterator[Capability]:
    """Yield a URL that only its key identifies; lists and objects are visited later."""
    if isinstance(item, str) and _type_of(parent) not in _EARLIER_RESULTS:
        yield Capability(CapabilityKind.SOURCE, item)


def _files(_: Any, parent: JsonObject) -> Iterator[Capability]:
    if _type_of(parent) not in _EARLIER_RESULTS:
        yield Capability(CapabilityKind.FILE)  # one for all ids


def _sources(item: Any, parent: JsonObject) -> Iterator[Capability]:
    if isinstance(item, str):
        # The source of a search result is not fetched.
        if _type_of(parent) != "search_result":
            yield Capability(CapabilityKind.SOURCE, item)
    elif not isinstance(item, dict) or not _says_where(item):
        yield Capability(CapabilityKind.SOURCE)


def _says_where(source: JsonObject) -> bool:
    """Return whether a source has a known type and its location; the location is judged itself."""
    kind = _type_of(source)
    key = _SOURCES.get(kind)
    return kind in _SOURCES and (key is None or source.get(key) is not None)


def _tool_list(item: Any, _: JsonObject) -> Iterator[Capability]:
    for tool in item if isinstance(item, list) else [None]:
        yield from _tools(tool, {})


def _tools(item: Any, _: JsonObject) -> Iterator[Capability]:
    if not isinstance(item, dict):
        yield Capability(CapabilityKind.SERVER_TOOL)
        return
    kind = _type_of(item)
    if kind == "mcp_toolset":
        yield Capability(CapabilityKind.MCP_TOOLS)
    elif kind in {None, "custom"}:
        if not isinstance(item.get("input_schema"), dict):
            # What the API makes of a tool without a schema is unknown.
            yield Capability(CapabilityKind.SERVER_TOOL)
    elif kind == "tool_definition" and "definition" in item:
        pass  # the definition is found itself
    elif tool_name(kind or "") not in _CLIENT_TOOLS:
        yield _server_tool(item)


def _server_tool(tool: JsonObject) -> Capability:
    domains = tool.get("allowed_domains")
    if not isinstance(domains, list) or not all(isinstance(domain, str) for domain in domains):
        domains = []
    return Capability(CapabilityKind.SERVER_TOOL, _type_of(tool), tuple(domains))


def _text(item: Any) -> str | None:
    return item if isinstance(item, str) else None


_FINDERS: dict[str, Callable[[Any, JsonObject], Iterator[Capability]]] = {
    "model": _models,
    "fallbacks": _fallbacks,
    "betas": _betas,
    "anthropic_beta": _betas,
    "tools": _tool_list,
    "tool": _tools,
    "definition": _tools,
    "container": _containers,
    "skills": _containers,
    "mcp_servers": _mcp_servers,
    "url": _url,
    "file_id": _files,
    "file_ids": _files,
    "source": _sources,
}
_as_urls_end = lazy_pattern(
    r".*(?:(?<![^_-])|(?<=[a-z])(?=U))[Uu][Rr][IiLl][Ss]?", re.DOTALL
).fullmatch


def _is_for_urls(key: str) -> bool:
    """Return whether a key is named like one for URLs: "image_url", "callbackUrls"."""
    # The last letter excludes most keys quickly; the last six are enough to exclude "curl".
    return key[-1:] in "lLiIsS" and _as_urls_end(key[-6:]) is not None


# The keys that matter here. Some parsers ignore differences: Go's ignores case and reads the long
# s as "s"; others read "mcpServers" as "mcp_servers". A key with such a difference is a near miss.
_KEYS = frozenset(
    {
        *_FINDERS,
        "allowed_domains",
        "input",
        "input_examples",
        "input_schema",
        "messages",
        "params",
        "requests",
        "schema",
        "tool_id",
        "type",
    }
)
# The most frequent keys that do not matter here and are not similar to one that does.
_ORDINARY = frozenset(
    {
        "cache_control",
        "citations",
        "content",
        "data",
        "description",
        "id",
        "is_error",
        "media_type",
        "name",
        "role",
        "signature",
        "text",
        "thinking",
        "tool_use_id",
        "ttl",
        "type",
    }
)
# The types of blocks that have only ordinary keys.
_TALK = frozenset({"text", "thinking", "redacted_thinking", "tool_result", "ephemeral", "base64"})
_LONGEST_KEY = 64  # characters; no longer key folds to a known one


# The API has no non-ASCII keys, and each can take 0.2 ms to fold.
MAX_NON_ASCII_KEYS = 250


def non_ascii_keys(value: JsonObject) -> int:
    """Return the number of keys of an object that are not ASCII."""
    return 0 if "".join(value).isascii() else sum(not key.isascii() for key in value)


def is_near_miss(key: str) -> bool:
    """Return whether `key` is not a known key but some parsers could read it as one."""
    return key not in _KEYS and len(key) <= _LONGEST_KEY and _folded(key) in _FOLDED_KEYS


_SIGNS = bytes(code for code in range(128) if not chr(code).isalnum())


def _folded(key: str) -> str:
    if key.isascii():
        return key.encode().lower().translate(None, _SIGNS).decode()
    return _folded_widely(key)


# Limited, because clients choose the keys.
@lru_cache(maxsize=4096)
def _folded_widely(key: str) -> str:
    plain = unicodedata.normalize("NFKC", key).casefold()
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", plain)))


_FOLDED_KEYS = frozenset(map(_folded, _KEYS))
