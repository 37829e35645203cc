"""Finds all that a body asks the Messages API to fetch, run or be.

Law kept: default-deny (1). The API grows, and what it learns to take inside of something else is
found as well: a wish is known by its own shape, wherever it stands. Only what the API hands on as
it is, the input of a tool and the schema of it, is not looked into. Pure, and linear: each part of
a body is looked at once.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator
from enum import Enum, auto
from functools import lru_cache
from typing import Any, NamedTuple

from claude_proxy.policy.messages.strict_json import Object


class Kind(Enum):
    """What a wish is about."""

    MODEL = auto()
    BETA = auto()  # one, or several with commas between them
    SERVER_TOOL = auto()  # what is not run by the client
    MCP_SERVER = auto()  # a URL that the API would send requests to
    MCP_TOOLS = auto()  # of a server that is named elsewhere
    SOURCE = auto()  # a URL that the API would fetch
    FILE = auto()  # by the number that the Files API gave it
    MISSPELT = auto()  # a key that some reader could take for one that counts


class Capability(NamedTuple):  # a body may hold some 100,000: a dataclass takes thrice the time
    """One thing that is asked for."""

    kind: Kind
    value: str | None = None  # as sent; None: it could not be understood, or does not matter
    domains: tuple[str, ...] = ()  # those that a server tool is bound to


def wishes_of(body: Object) -> Iterator[Capability]:
    """Yield each wish in `body`, in no order that means anything."""
    # What is to be looked into, and whether a key that is for URLs stands above it.
    waiting: list[tuple[Any, bool]] = [(body, False)]
    foreign = 0
    while waiting:
        value, aimed = waiting.pop()
        if isinstance(value, list):
            waiting += [(item, aimed) for item in value if type(item) in _CONTAINERS]
            if aimed:
                places = {item for item in value if isinstance(item, str)}
                yield from (Capability(Kind.SOURCE, place) for place in places)
        elif aimed or not _is_ordinary(value):
            foreign += foreign_keys(value)
            if foreign > MOST_FOREIGN:
                yield Capability(Kind.MISSPELT)
                return
            yield from _wishes_in(value)
            if aimed:
                yield from _aimed_at(value)
            waiting += _inside(value, aimed=aimed)
        else:
            waiting += [(item, False) for item in value.values() if type(item) in _CONTAINERS]


def _inside(value: Object, *, aimed: bool) -> Iterator[tuple[Any, bool]]:
    """Yield what an object holds that is to be looked into."""
    for key, item in value.items():
        if type(item) not in _CONTAINERS or _is_opaque(key, value):
            continue
        if key == "mcp_servers":
            # Without the URL, which is no source.
            for server in filter(_is_object, item):
                yield {name: item for name, item in server.items() if name != "url"}, aimed
        else:
            yield item, aimed or _aims(key, value)


def _aims(key: str, parent: Object) -> bool:
    """Tell whether all that stands below `key` is meant for URLs, whatever its shape."""
    if key in _ORDINARY or key in _FINDERS or not _is_for_urls(key):
        return False
    return _type_of(parent) not in _TOLD


def _aimed_at(value: Object) -> Iterator[Capability]:
    for item in value.values():
        # "auto" and "image/png" say how to look at what is there.
        if isinstance(item, str) and not _is_word(item):
            yield Capability(Kind.SOURCE, item)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def tool_name(kind: str) -> str:
    """Return a tool's type without its date: "web_search" for "web_search_20250305"."""
    return _dated.sub("", kind) if "_20" in kind else kind


_CONTAINERS = (dict, list)
_is_word = re.compile(
    r"[a-z][a-z0-9_-]{0,63}(?:/[a-z0-9.+-]{1,64})?", re.ASCII | re.IGNORECASE
).fullmatch
_dated = re.compile(r"_20[0-9]{6}\Z", re.ASCII)

# Types of tools that the client runs, and what only points at a tool that is defined elsewhere.
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
# Those that are known for what they are wherever they stand.
_SERVER_TOOLS = frozenset({"web_search", "web_fetch", "code_execution"})
_CONTAINER = Capability(Kind.SERVER_TOOL, "code_execution")
# What the API itself wrote into an earlier answer, and gets back: it is read, not fetched.
_TOLD = frozenset(
    {
        "web_search_result",
        "web_fetch_result",
        "web_search_result_location",
        "code_execution_output",
        "bash_code_execution_output",
    }
)
# The kinds of sources, with the key that says where one lies; None: it is in the body.
_SOURCES: dict[str | None, str | None] = {
    "base64": None,
    "text": None,
    "content": None,
    "url": "url",
    "file": "file_id",
}
# What is handed on as it is: with any parent (None), or one of these types.
_NEVER: frozenset[str] = frozenset()
_TOOL_USES = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_TOOLSETS = frozenset({"mcp_toolset", "computer_toolset", "browser_toolset"})
_BROWSER = frozenset({"browser_state"})
_OPAQUE: dict[str, frozenset[str] | None] = {
    "input": _TOOL_USES,
    "input_schema": None,
    "input_examples": None,
    "schema": frozenset({"json_schema"}),
    "configs": _TOOLSETS,  # by the names of tools, which may be any
    "tabs": _BROWSER,  # of the client's own
    "state_changes": _BROWSER,
}


def _type_of(value: Object) -> str | None:
    """Return the type of a block or tool, "" where it is none, None where it has none."""
    kind = value.get("type")
    return kind if kind is None or isinstance(kind, str) else ""


def _is_ordinary(value: Object) -> bool:
    """Tell whether there is nothing to look at, as in most blocks of a conversation."""
    kind = value.get("type")
    return value.keys() <= _ORDINARY and (kind is None or (type(kind) is str and kind in _TALK))


def _is_opaque(key: str, parent: Object) -> bool:
    types = _OPAQUE.get(key, _NEVER)
    return types is None or (bool(types) and tool_name(_type_of(parent) or "") in types)


def _wishes_in(value: Object) -> Iterator[Capability]:
    kind = _type_of(value)
    if kind == "container_upload":
        yield _CONTAINER
    # With a number of its own it says who called another tool.
    if kind and tool_name(kind) in _SERVER_TOOLS and "tool_id" not in value:
        yield _server_tool(value)
    for key, item in value.items():
        if key in _ORDINARY:
            continue
        if is_misspelt(key):
            yield Capability(Kind.MISSPELT, key)
        elif item is not None:
            find = _FINDERS.get(key) or (_urls if _is_for_urls(key) else _nothing)
            yield from find(item, value)


def _models(item: Any, _: Object) -> Iterator[Capability]:
    yield Capability(Kind.MODEL, _text(item))


def _fallbacks(item: Any, _: Object) -> Iterator[Capability]:
    if not isinstance(item, list):
        yield Capability(Kind.MODEL)  # "default": whichever the API likes


def _betas(item: Any, _: Object) -> Iterator[Capability]:
    for beta in item if isinstance(item, list) else [item]:
        yield Capability(Kind.BETA, _text(beta))


def _containers(_: Any, __: Object) -> Iterator[Capability]:
    yield _CONTAINER


def _mcp_servers(item: Any, _: Object) -> Iterator[Capability]:
    for server in item if isinstance(item, list) else [None]:
        if not isinstance(server, dict):
            yield Capability(Kind.MCP_SERVER)
        else:
            yield Capability(Kind.MCP_SERVER, _text(server.get("url")))


def _nothing(_: Any, __: Object) -> Iterator[Capability]:
    return iter(())


def _url(item: Any, parent: Object) -> Iterator[Capability]:
    if _type_of(parent) not in _TOLD:
        yield Capability(Kind.SOURCE, _text(item))


def _urls(item: Any, parent: Object) -> Iterator[Capability]:
    """Find what is meant for a URL by its key alone; what it holds is found where that stands."""
    if isinstance(item, str) and _type_of(parent) not in _TOLD:
        yield Capability(Kind.SOURCE, item)


def _files(_: Any, parent: Object) -> Iterator[Capability]:
    if _type_of(parent) not in _TOLD:
        yield Capability(Kind.FILE)  # whichever


def _sources(item: Any, parent: Object) -> Iterator[Capability]:
    if isinstance(item, str):
        # A search result names its source; it is not fetched.
        if _type_of(parent) != "search_result":
            yield Capability(Kind.SOURCE, item)
    elif not isinstance(item, dict) or not _says_where(item):
        yield Capability(Kind.SOURCE)


def _says_where(source: Object) -> bool:
    """Tell whether a source is of a known kind; what its key says is found where that stands."""
    kind = _type_of(source)
    key = _SOURCES.get(kind)
    return kind in _SOURCES and (key is None or source.get(key) is not None)


def _tool_list(item: Any, _: Object) -> Iterator[Capability]:
    for tool in item if isinstance(item, list) else [None]:
        yield from _tools(tool, {})


def _tools(item: Any, _: Object) -> Iterator[Capability]:
    if not isinstance(item, dict):
        yield Capability(Kind.SERVER_TOOL)
        return
    kind = _type_of(item)
    if kind == "mcp_toolset":
        yield Capability(Kind.MCP_TOOLS)
    elif kind in {None, "custom"}:
        if not isinstance(item.get("input_schema"), dict):
            yield Capability(
                Kind.SERVER_TOOL
            )  # what the API takes a tool without one for is unknown
    elif kind == "tool_definition" and "definition" in item:
        pass  # looked into where it stands
    elif tool_name(kind or "") not in _CLIENT_TOOLS:
        yield _server_tool(item)


def _server_tool(tool: Object) -> Capability:
    domains = tool.get("allowed_domains")
    if not isinstance(domains, list) or not all(isinstance(domain, str) for domain in domains):
        domains = []
    return Capability(Kind.SERVER_TOOL, _type_of(tool), tuple(domains))


def _text(item: Any) -> str | None:
    return item if isinstance(item, str) else None


_FINDERS: dict[str, Callable[[Any, Object], Iterator[Capability]]] = {
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
_as_urls_end = re.compile(
    r".*(?:(?<![^_-])|(?<=[a-z])(?=U))[Uu][Rr][IiLl][Ss]?", re.DOTALL
).fullmatch


def _is_for_urls(key: str) -> bool:
    """Tell a key of the kind that an API fetches from: "image_url", "callbackUrls", "uri"."""
    # The last letter first: most keys are told by it. The last six are enough to know "curl".
    return key[-1:] in "lLiIsS" and _as_urls_end(key[-6:]) is not None


# The keys that count here. One that differs only by what some readers do not look at (Go's folds
# case, and with it the long s; others take "mcpServers" for "mcp_servers") is no key of the API's.
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
# Most keys of most bodies: neither count here nor are they near one that does.
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
# The types of blocks that have such keys alone.
_TALK = frozenset({"text", "thinking", "redacted_thinking", "tool_result", "ephemeral", "base64"})
_LONGEST_KEY = 64  # folding cannot make anything longer into one of ours


# Keys that are not ASCII: the API has none, and each can take 0.2 ms to fold.
MOST_FOREIGN = 250


def foreign_keys(value: Object) -> int:
    """Return how many keys of an object are not ASCII."""
    return 0 if "".join(value).isascii() else sum(not key.isascii() for key in value)


def is_misspelt(key: str) -> bool:
    """Tell whether some reader could take `key` for one that counts, which it is not."""
    return key not in _KEYS and len(key) <= _LONGEST_KEY and _folded(key) in _FOLDED_KEYS


_SIGNS = bytes(code for code in range(128) if not chr(code).isalnum())


def _folded(key: str) -> str:
    if key.isascii():
        return key.encode().lower().translate(None, _SIGNS).decode()
    return _folded_widely(key)


# Bounded: the client chooses the keys.
@lru_cache(maxsize=4096)
def _folded_widely(key: str) -> str:
    plain = unicodedata.normalize("NFKC", key).casefold()
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", plain)))


_FOLDED_KEYS = frozenset(map(_folded, _KEYS))
