"""Says what a gateway is told to do, and which variables its key was in; pure.

Law kept: secrets stay outside (9). Neither the key nor the token is among the words.
"""

from collections.abc import Sequence

from claude_proxy.config.settings import Ceilings, Gateway, GatewayMode
from claude_proxy.policy.credentials.sources import EnvironmentSource, source_name
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.policy import Policy

KEY_VARIABLE = "PROXY_API_KEY"

_AND = "\n                        "  # as the banner's further addresses


def lines_of(gateway: Gateway, urls: Sequence[str], policy: Policy) -> list[str]:
    """Return what a start says of its gateway, which listens at `urls` and keeps to `policy`."""
    narrowing = policy.restrictions_for(gateway.upstream.authority)
    lines = [
        f"the gateway listens on  {_AND.join(urls)}",
        f"  upstream:       {gateway.upstream}",
        f"  key:            {source_name(gateway.credential.source)}",
        f"  model:          {_words_of_models(gateway.models)}",
        f"  mode:           {gateway.mode} (timeout {gateway.timeout_s:g} s)",
        f"  callers:        {_words_of_callers(gateway, urls)}",
        f"  narrowed:       {_words_of_narrowing(narrowing, gateway.mode)}",
    ]
    ceilings = _words_of_ceilings(gateway.ceilings)
    return [*lines, f"  ceilings:       {ceilings}"] if ceilings else lines


def _words_of_narrowing(narrowing: ApiRestrictions | None, mode: GatewayMode) -> str:
    if narrowing is not None:
        return f"by {narrowing.source}"
    if mode is GatewayMode.STRICT:
        return "to one plain call"
    return "no: requests may have the API fetch from anywhere (see `anthropic` of the allowlist)"


def _words_of_models(models: Sequence[tuple[str, str]]) -> str:
    if not models:
        return "passthrough"
    if len(models) == 1 and models[0][0] == "*":
        return models[0][1]
    return ", ".join(
        f"{'any other' if asked == '*' else asked} -> {given}" for asked, given in models
    )


def _words_of_callers(gateway: Gateway, urls: Sequence[str]) -> str:
    if all(url.startswith("unix:") for url in urls):
        return "known by their user"
    return "must present the token" if gateway.token else "whoever reaches it"


def _words_of_ceilings(ceilings: Ceilings) -> str:
    parts = []
    if ceilings.requests_per_minute is not None:
        parts.append(f"{ceilings.requests_per_minute} requests a minute")
    if ceilings.tokens_per_day is not None:
        parts.append(f"{ceilings.tokens_per_day} tokens a day")
    return ", ".join(parts)


def secret_variables(gateway: Gateway) -> frozenset[str]:
    """Return the variables that held a key, and are to hold it no longer once it was read."""
    source = gateway.credential.source
    own = {source.name} if isinstance(source, EnvironmentSource) else set()
    return frozenset({KEY_VARIABLE, *own})


def seconds_allowed(mode: GatewayMode) -> tuple[int, int]:
    """Return the bounds of the timeout in a mode, in seconds."""
    return (1, 300) if mode is GatewayMode.STRICT else (1, 600)


def default_seconds(mode: GatewayMode) -> float:
    """Return the timeout in a mode where none is asked for."""
    return 30.0 if mode is GatewayMode.STRICT else 600.0
