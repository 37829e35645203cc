"""Lists what is compared: claude-proxy, and each other proxy that is installed."""

from bench.agentcage import Agentcage
from bench.proxies import ClaudeProxy, Direct, Mitmdump, Proxy, Squid, SquidP256
from bench.srt import Srt

ALL: tuple[type[Proxy], ...] = (
    ClaudeProxy,
    Mitmdump,
    Agentcage,
    Squid,
    SquidP256,
    Srt,
    Direct,
)
