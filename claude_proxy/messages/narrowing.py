"""Decides what a request to a host that speaks the Messages API may ask it to do.

Laws kept: default-deny (1), agreement (4). The API can reach other places for its caller: so what a
body asks for is judged like a request of its own, and a body that two readers could take in two ways
is denied. Pure.
"""

from collections.abc import Callable
from dataclasses import dataclass

from claude_proxy.patterns import HostPattern, PathGlob
from claude_proxy.reason import Reason
from claude_proxy.request import Request
from claude_proxy.source import Source

MIB = 1024 * 1024

# Tells whether the allowlist would let a client fetch this URL itself.
type Reaches = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Reach:
    """Which places the API may be asked to go to."""

    every: bool = False
    allowlisted: bool = True  # those that the allowlist allows the client itself
    hosts: tuple[HostPattern, ...] = ()  # and these


@dataclass(frozen=True, slots=True)
class Narrowing:
    """One entry of `anthropic`; None stands for every value there is."""

    patterns: tuple[HostPattern, ...]
    source: Source
    ports: frozenset[int] = frozenset({443})
    paths: tuple[PathGlob, ...] | None = None
    models: tuple[str, ...] | None = None  # "claude-sonnet-4-*"; "*" stands for any characters
    beta: tuple[str, ...] | None = None  # the same, of what anthropic-beta lists
    server_tools: tuple[str, ...] | None = None  # "web_search": a tool's type without its date
    mcp_servers: Reach = Reach(every=True)
    sources: Reach = Reach(every=True)  # of images and documents that are named by URL
    max_bytes: int = 32 * MIB

    def judge_head(self, request: Request) -> Reason | None:
        """Return why the request may not be made, by what its head says; None: it may."""
        raise NotImplementedError

    def reads(self, request: Request) -> bool:
        """Tell whether the body of the request must be judged before any of it leaves."""
        raise NotImplementedError

    def judge_body(self, request: Request, body: bytes, reaches: Reaches) -> Reason | None:
        """Return why the request may not be made, by what its body asks for; None: it may."""
        raise NotImplementedError
