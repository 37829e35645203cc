"""Bodies that ask the Messages API for something, and the expected decision."""

import json
from dataclasses import replace
from typing import Any

from claude_proxy.policy.location import Location
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.patterns import HostPattern, PathGlob
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.wire.authority import Authority

API = Authority.of("api.anthropic.com", 443)
JSON = (b"Content-Type", b"application/json")
OPEN = ApiRestrictions((HostPattern.parse("api.anthropic.com"),), Location("list", 1, 1))
INFERENCE = (PathGlob("/v1/messages"), PathGlob("/v1/messages/count_tokens"))
NARROW = replace(
    OPEN,
    paths=INFERENCE,
    models=("claude-*",),
    beta=("oauth-*", "effort-2025-11-24"),
    server_tools=("web_search",),
    mcp_servers=DestinationScope(hosts=(HostPattern.parse("mcp.test"),)),
    sources=DestinationScope(hosts=(HostPattern.parse("*.images.test"),)),
)
MODEL = "claude-sonnet-5"
TEXT = {"type": "text", "text": "hi"}
SCHEMA = {"type": "object", "properties": {"url": {"type": "string"}, "Model": {}}}
EVIL = "https://evil.test/x"
ALLOWED = {
    "https://good.test/x": {"GET"},
    "https://mcp.good.test/": {"GET", "POST"},
    "https://good.test/": {"GET"},
    "https://good.test/claude-proxy/any": {"GET"},
    "https://wide.test/": {"GET"},
    "https://wide.test/claude-proxy/any": {"GET"},
    "https://claude-proxy-any.wide.test/": {"GET"},
    "https://claude-proxy-any.wide.test/claude-proxy/any": {"GET"},
}


def reaches(url: str, method: str = "GET") -> bool:
    """Stand in for an allowlist."""
    return method in ALLOWED.get(url, ())


def request(
    path: str = "/v1/messages",
    method: str = "POST",
    query: str = "",
    fields: tuple[tuple[bytes, bytes], ...] = (JSON,),
) -> Request:
    return Request(Scheme.HTTPS, API, API, method, path, query, fields)


def body(*blocks: Any, **others: Any) -> bytes:
    message = {"role": "user", "content": [TEXT, *blocks]}
    return json.dumps({"model": MODEL, "messages": [message], **others}).encode()


def judged(content: bytes, narrowing: ApiRestrictions = NARROW, path: str = "/v1/messages") -> Any:
    return narrowing.judge_body(request(path), content, reaches)


def image(source: Any) -> dict[str, Any]:
    return {"type": "image", "source": source}


def result(*blocks: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": list(blocks)}


def use(given: Any, kind: str = "tool_use") -> dict[str, Any]:
    return {"type": kind, "id": "toolu_1", "name": "any", "input": given}


def tool(kind: str, **others: Any) -> dict[str, Any]:
    return {"type": kind, "name": "any", **others}


URL = {"type": "url", "url": EVIL}
FILE = {"type": "file", "file_id": "file_1"}
LONG_S: dict[str, Any] = {"tool\u017f": []}
KELVIN: dict[str, Any] = {"s\u212aills": []}
FULL_WIDTH = {"\uff4dodel": "gpt-5"}
WISHES: dict[str, tuple[bytes, Reason]] = {
    # What the API would fetch.
    "an image by URL": (body(image(URL)), Reason.SOURCE_NOT_ALLOWED),
    "a document by URL": (body({"type": "document", "source": URL}), Reason.SOURCE_NOT_ALLOWED),
    "an image in a tool's result": (body(result(image(URL))), Reason.SOURCE_NOT_ALLOWED),
    "an image in a document": (
        body({"type": "document", "source": {"type": "content", "content": [image(URL)]}}),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "an image in the system prompt": (body(system=[image(URL)]), Reason.SOURCE_NOT_ALLOWED),
    "an image where nobody knows one": (body(new={"a": [[image(URL)]]}), Reason.SOURCE_NOT_ALLOWED),
    "an image beside its source": (
        body({"type": "image", "url": EVIL, "source": {"type": "base64", "data": ""}}),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "an image of a kind of its own": (body(image({"type": "uri"})), Reason.SOURCE_NOT_ALLOWED),
    "a kind in capitals": (body(image({"type": "URL"})), Reason.SOURCE_NOT_ALLOWED),
    "a kind without its key": (
        body(image({"type": "url", "uri": EVIL})),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "a kind that is a list": (body(image({"type": ["url"]})), Reason.SOURCE_NOT_ALLOWED),
    "a source that is a URL": (body(image(EVIL)), Reason.SOURCE_NOT_ALLOWED),
    "a source that is a list": (body(image([URL])), Reason.SOURCE_NOT_ALLOWED),
    "a URL that is none": (body(image({"type": "url", "url": 1})), Reason.SOURCE_NOT_ALLOWED),
    "a compatible API's image": (
        body({"type": "image_url", "image_url": {"url": EVIL}}),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "an image of another API, more shortly": (
        body({"type": "image_url", "image_url": EVIL}),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "a place to call back": (body(callbackUrl=EVIL), Reason.SOURCE_NOT_ALLOWED),
    "places to look at": (body(new={"page-urls": [EVIL]}), Reason.SOURCE_NOT_ALLOWED),
    "places in lists": (body(image_urls=[[[EVIL]]]), Reason.SOURCE_NOT_ALLOWED),
    "a place in an object": (body(image_url={"u": EVIL}), Reason.SOURCE_NOT_ALLOWED),
    "a place without its scheme": (body(image_url={"u": "evil.test/x"}), Reason.SOURCE_NOT_ALLOWED),
    "a place deep in objects and lists": (
        body(image_url={"a": [{"b": 1}, {"type": "x", "b": {"text": EVIL}}]}),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "a place in what seems to be told": (
        body(image_url={"type": "web_search_result", "url": EVIL}),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "a place among an MCP server's": (
        body(mcp_servers=[{"url": "https://mcp.test/", "icon_urls": [{"of": EVIL}]}]),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "an MCP server in another": (
        body(mcp_servers=[{"url": "https://mcp.test/", "mcp_servers": [{"url": EVIL}]}]),
        Reason.MCP_SERVER_NOT_ALLOWED,
    ),
    "a place by its other name": (
        body({"type": "document", "source": {"type": "text", "uri": EVIL}}),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "files, several at once": (body(new={"file_ids": ["file_1"]}), Reason.SOURCE_NOT_ALLOWED),
    "a second place of an MCP server": (
        body(mcp_servers=[{"type": "url", "url": "https://mcp.test/", "proxy": {"at_url": EVIL}}]),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "an image over plain HTTP": (
        body(image({"type": "url", "url": "http://a.images.test/"})),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "an image on another port": (
        body(image({"type": "url", "url": "https://a.images.test:8443/"})),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "user info that looks like a host": (
        body(image({"type": "url", "url": "https://a.images.test@evil.test/"})),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "a backslash before the host": (
        body(image({"type": "url", "url": "https://evil.test\\.a.images.test/"})),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "a host that is no name": (
        body(image({"type": "url", "url": "https://.a.images.test/"})),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    "a told result that is a source": (
        body(image({"type": "web_search_result", "url": EVIL})),
        Reason.SOURCE_NOT_ALLOWED,
    ),
    # What lies at the API.
    "a file": (body({"type": "document", "source": FILE}), Reason.SOURCE_NOT_ALLOWED),
    "a file in the container": (
        body({"type": "container_upload", "file_id": "file_1"}),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    # What the API would run.
    "fetching": (body(tools=[tool("web_fetch_20250910")]), Reason.SERVER_TOOL_NOT_ALLOWED),
    "fetching by a later version": (
        body(tools=[tool("web_fetch_20991231")]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "fetching from elsewhere": (
        body(tools=[tool("web_fetch_20250910", allowed_domains=["wide.test", "evil.test"])]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "fetching from below a host": (
        body(tools=[tool("web_fetch_20250910", allowed_domains=["good.test"])]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "fetching from no domain": (
        body(tools=[tool("web_fetch_20250910", allowed_domains=[])]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "fetching from what is no domain": (
        body(tools=[tool("web_fetch_20250910", allowed_domains=["*", "test", "wide.test:1"])]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "fetching from a number": (
        body(tools=[tool("web_fetch_20250910", allowed_domains=[1])]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "running code": (
        body(tools=[tool("code_execution_20250825")]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "running code within known domains": (
        body(tools=[tool("code_execution_20250825", allowed_domains=["wide.test"])]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "a tool that nobody knows": (
        body(tools=[tool("teleport_20270101")]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "a tool in capitals": (body(tools=[tool("Bash_20250124")]), Reason.SERVER_TOOL_NOT_ALLOWED),
    "a tool of no kind": (body(tools=[tool("")]), Reason.SERVER_TOOL_NOT_ALLOWED),
    "a tool whose kind is a list": (
        body(tools=[{"type": ["custom"], "input_schema": {}}]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "a tool without a schema": (body(tools=[{"name": "web"}]), Reason.SERVER_TOOL_NOT_ALLOWED),
    "a tool that is none": (body(tools=["web_fetch"]), Reason.SERVER_TOOL_NOT_ALLOWED),
    "tools that are no list": (body(tools={"a": 1}), Reason.SERVER_TOOL_NOT_ALLOWED),
    "a tool that comes later": (
        body(
            {
                "type": "tool_addition",
                "tool": {"type": "tool_definition", "definition": tool("web_fetch_20260318")},
            }
        ),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "a tool that comes later and is not wrapped": (
        body({"type": "tool_addition", "tool": tool("code_execution_20260120")}),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "a tool that a summary brings": (
        body(
            {
                "type": "compaction",
                "content": "",
                "tool_changes": [
                    {"tool": {"type": "tool_definition", "definition": tool("teleport")}}
                ],
            }
        ),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "a tool where nobody knows one": (
        body(later=[tool("web_fetch_20260318")]),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    "a container": (body(container="container_1"), Reason.SERVER_TOOL_NOT_ALLOWED),
    "skills": (
        body(container={"skills": [{"type": "custom", "skill_id": "a"}]}),
        Reason.SERVER_TOOL_NOT_ALLOWED,
    ),
    # Where the API would send requests.
    "a server": (
        body(mcp_servers=[{"type": "url", "name": "a", "url": EVIL}]),
        Reason.MCP_SERVER_NOT_ALLOWED,
    ),
    "a server that may only be read": (
        body(mcp_servers=[{"type": "url", "name": "a", "url": "https://good.test/x"}]),
        Reason.MCP_SERVER_NOT_ALLOWED,
    ),
    "a server beside an allowed one": (
        body(mcp_servers=[{"url": "https://mcp.test/"}, {"url": EVIL}]),
        Reason.MCP_SERVER_NOT_ALLOWED,
    ),
    "a server without a URL": (body(mcp_servers=[{"name": "a"}]), Reason.MCP_SERVER_NOT_ALLOWED),
    "a server that is a URL": (body(mcp_servers=[EVIL]), Reason.MCP_SERVER_NOT_ALLOWED),
    "servers that are no list": (body(mcp_servers={"url": EVIL}), Reason.MCP_SERVER_NOT_ALLOWED),
    # Who would answer.
    "another model": (body(model="gpt-5"), Reason.MODEL_NOT_ALLOWED),
    "no model": (b'{"messages":[]}', Reason.MODEL_NOT_ALLOWED),
    "a model that is nothing": (body(model=None), Reason.MODEL_NOT_ALLOWED),
    "a model that is none": (body(model=5), Reason.MODEL_NOT_ALLOWED),
    "a model to fall back to": (body(fallbacks=[{"model": "gpt-5"}]), Reason.MODEL_NOT_ALLOWED),
    "whichever model": (body(fallbacks="default"), Reason.MODEL_NOT_ALLOWED),
    "an adviser": (
        body(tools=[tool("web_search_20250305", model="gpt-5")]),
        Reason.MODEL_NOT_ALLOWED,
    ),
    # Which betas are in force.
    "a beta": (body(anthropic_beta=["files-api-2025-04-14"]), Reason.BETA_NOT_ALLOWED),
    "a beta in a list": (body(betas="oauth-1, files-api"), Reason.BETA_NOT_ALLOWED),
    "a beta that is none": (body(betas=[1]), Reason.BETA_NOT_ALLOWED),
    # What some reader could take for a key that counts.
    "a capital": (body(Model="gpt-5"), Reason.BODY_UNREADABLE),
    "the long s": (body(**LONG_S), Reason.BODY_UNREADABLE),
    "the Kelvin sign": (body(**KELVIN), Reason.BODY_UNREADABLE),
    "full width": (body(**FULL_WIDTH), Reason.BODY_UNREADABLE),
    "camels": (body(mcpServers=[]), Reason.BODY_UNREADABLE),
    "a capital in a source": (
        body(image({"type": "url", "url": "https://a.images.test/", "URL": EVIL})),
        Reason.BODY_UNREADABLE,
    ),
    "a capital in a tool": (
        body(tools=[{"Type": "web_fetch_20250910", "input_schema": {}}]),
        Reason.BODY_UNREADABLE,
    ),
    "a capital in a server": (
        body(mcp_servers=[{"url": "https://mcp.test/", "Url": EVIL}]),
        Reason.BODY_UNREADABLE,
    ),
    # What is no JSON in one way.
    "no JSON": (b"model=claude", Reason.BODY_UNREADABLE),
    "a key twice": (b'{"model":"claude-1","model":"gpt-5"}', Reason.BODY_UNREADABLE),
    "an escape in a key": (
        b'{"model":"claude-1","mcp_servers":[{"\\u0075rl":"https://evil.test/"}]}',
        Reason.BODY_UNREADABLE,
    ),
}
PLAIN = {
    "text": body(),
    "text that speaks of all this": body(json.dumps(image(URL)), system=json.dumps([URL])),
    "an inline image": body(image({"type": "base64", "media_type": "image/png", "data": ""})),
    "an inline document": body({"type": "document", "source": {"type": "text", "data": ""}}),
    "an image from a listed host": body(image({"type": "url", "url": "https://a.images.test/b"})),
    "an image with its port": body(image({"type": "url", "url": "https://a.images.test:443"})),
    "an image of another API from the allowlist": body(
        {
            "type": "image_url",
            "image_url": {
                "url": "https://good.test/x",
                "detail": "auto",
                "media_type": "image/png",
            },
        }
    ),
    "what is handed on below a place": body(image_url={"input_schema": SCHEMA | {"a": EVIL}}),
    "no place at all": body(image_url={"width": 1, "url": None}, image_urls=[None, 1, []]),
    "what is told of images": body({"type": "web_search_result", "image_urls": [[EVIL]]}),
    "an image from the allowlist": body(image({"type": "url", "url": "https://good.test/x"})),
    "tools of the client": body(
        tools=[
            {"name": "Read", "description": "a", "input_schema": SCHEMA},
            tool("custom", input_schema=SCHEMA, input_examples=[URL]),
            *(
                tool(kind)
                for kind in ("bash_20250124", "text_editor_20250728", "computer_20251124")
            ),
            *(tool(kind) for kind in ("memory_20250818", "computer_toolset_20260801")),
            tool("browser_toolset_20260801", configs={"url": {"enabled": False}, "Model": {}}),
        ]
    ),
    "searching": body(tools=[tool("web_search_20260318", allowed_domains=["evil.test"])]),
    "fetching from the allowlist": body(
        tools=[tool("web_fetch_20250910", allowed_domains=["wide.test", "wide.test/path"])]
    ),
    "what a tool is given": body(use({"url": EVIL, "Model": 1, "mcp_servers": [1], "tools": 1})),
    "what a server's tool was given": body(use({"url": EVIL}, "server_tool_use")),
    "who called a tool": body(
        use({}) | {"caller": {"type": "code_execution_20260120", "tool_id": "srvtoolu_1"}}
    ),
    "what a search found": body(
        {
            "type": "web_search_tool_result",
            "content": [{"type": "web_search_result", "url": EVIL, "title": "a"}],
        },
        {"type": "text", "text": "a", "citations": [{"type": "web_search_result_location"}]},
    ),
    "what a fetch found": body(
        {
            "type": "web_fetch_tool_result",
            "content": {
                "type": "web_fetch_result",
                "url": EVIL,
                "content": {"type": "document", "source": {"type": "text", "data": ""}},
            },
        }
    ),
    "what code wrote": body({"type": "code_execution_output", "file_id": "file_1"}),
    "a search result": body({"type": "search_result", "source": EVIL, "title": "", "content": []}),
    "a reference to a tool": body(result({"type": "tool_reference", "tool_name": "a"})),
    "a tool that comes later": body(
        {
            "type": "tool_addition",
            "tool": {"type": "tool_definition", "definition": {"input_schema": SCHEMA}},
        }
    ),
    "the client's own browser": body(
        result({"type": "browser_state", "tabs": [{"url": EVIL}], "state_changes": [{"url": EVIL}]})
    ),
    "a schema for the answer": body(
        output_config={"format": {"type": "json_schema", "schema": {"properties": SCHEMA}}}
    ),
    "a tidy context": body(
        context_management={"edits": [{"type": "clear_tool_uses_20250919", "keep": "all"}]}
    ),
    "a server of a listed host": body(mcp_servers=[{"type": "url", "url": "https://mcp.test/sse"}]),
    "a server of the allowlist": body(
        mcp_servers=[{"url": "https://mcp.good.test/"}],
        tools=[{"type": "mcp_toolset", "mcp_server_name": "a", "configs": {"Url": {}}}],
    ),
    "nothing where something could be": body(
        mcp_servers=None, tools=None, container=None, fallbacks=None, betas=[]
    ),
    "another model of the same maker": body(fallbacks=[{"model": "claude-opus-5"}]),
    "betas that are listed": body(betas=["oauth-2025-04-20"], anthropic_beta="effort-2025-11-24"),
    "nothing at all": b"",
}
