"""Capabilities of the Messages API that one set of restrictions allows and another does not.

Pure.
"""

from collections.abc import Iterable, Iterator

from claude_proxy.policy.comparison.globs import Glob, meets
from claude_proxy.policy.messages.capabilities import tool_name
from claude_proxy.policy.messages.destinations import DestinationScope
from claude_proxy.policy.messages.restrictions import MIB, ApiRestrictions


def more_capabilities(old: ApiRestrictions | None, new: ApiRestrictions | None) -> Iterator[str]:
    """Yield what requests to the API may ask for by `new`, and not by `old`; None: everything."""
    if old is None or not old.narrows:
        return
    if new is None:
        new = ApiRestrictions(old.patterns, old.source)  # which limits nothing
    yield from _more_names("the model", old.models, new.models)
    yield from _more_names("the beta", old.beta, new.beta)
    yield from _more_tools(old.server_tools, new.server_tools)
    yield from _more_hosts("MCP servers", old.mcp_servers, new.mcp_servers)
    yield from _more_hosts("sources", old.sources, new.sources)
    if old.judges_bodies and not new.judges_bodies:
        yield "bodies that nobody judges, of any size"
    elif old.judges_bodies and new.max_bytes > old.max_bytes:
        yield f"bodies of up to {_size(new.max_bytes)}, not {_size(old.max_bytes)}"


def _more_names(
    word: str, old: tuple[str, ...] | None, new: tuple[str, ...] | None
) -> Iterator[str]:
    if old is None:
        return
    if new is None:
        yield f"{word} *{_but(old)}"
        return
    before = _globs(old)
    for glob in _globs(new):
        if meets([glob], before):
            met = [each.text for each in before if meets([glob, each])]
            yield f"{word} {glob.text}{_but(met)}"


def _globs(texts: Iterable[str]) -> list[Glob]:
    return [Glob(text, segmented=False) for text in texts]


def _more_tools(old: tuple[str, ...] | None, new: tuple[str, ...] | None) -> Iterator[str]:
    if old is None:
        return
    if new is None:
        yield f"every server tool{_but(old)}"
        return
    for name in new:
        if name not in old and tool_name(name) not in old:
            yield f"the server tool {name}"


def _more_hosts(word: str, old: DestinationScope, new: DestinationScope) -> Iterator[str]:
    if old.every:
        return
    if new.every:
        yield f"{word} at any URL"
        return
    if new.allowlisted and not old.allowlisted:
        yield f"{word} at every URL that the policy allows"
    for pattern in new.hosts:
        if not any(each.includes(pattern) for each in old.hosts):
            yield f"{word} on {pattern}"


def _but(names: Iterable[str]) -> str:
    shown = ", ".join(names)
    return f" but {shown}" if shown else ""


def _size(size: int) -> str:
    return f"{size // MIB} MiB" if size % MIB == 0 else f"{size} bytes"
