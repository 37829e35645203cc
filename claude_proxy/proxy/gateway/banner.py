"""Start banner of a gateway: its settings in a few lines, and the variables that hold its key.

Secrets stay outside: neither the key nor the token is in the text. Pure.
"""

from collections.abc import Sequence

from claude_proxy.config.settings import Ceilings, Gateway, GatewayMode
from claude_proxy.policy.credentials.sources import EnvironmentSource, source_name
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.policy import Policy

KEY_VARIABLE = "PROXY_API_KEY"

_AND = "\n                        "  # as the banner's other addresses


def lines_of(gateway: Gateway, urls: Sequence[str], policy: Policy) -> list[str]:
    """Return the lines about a gateway that listens at `urls` and is judged by `policy`."""
    restrictions = policy.restrictions_for(gateway.upstream.authority)
    lines = [
        f"the gateway listens on  {_AND.join(urls)}",
        f"  upstream:       {gateway.upstream}",
        f"  key:            {source_name(gateway.credential.source)}",
        f"  model:          {_text_of_models(gateway.models)}",
        f"  mode:           {gateway.mode} (timeout {gateway.timeout_s:g} s)",
        f"  callers:        {_text_of_callers(gateway, urls)}",
        f"  narrowed:       {_text_of_restrictions(restrictions, gateway.mode)}",
    ]
    ceilings = _text_of_ceilings(gateway.ceilings)
    return [*lines, f"  ceilings:       {ceilings}"] if ceilings else lines


def _text_of_restrictions(restrictions: ApiRestrictions | None, mode: GatewayMode) -> str:
    if restrictions is not None:
        return f"by {restrictions.source}"
    if mode is GatewayMode.STRICT:
        return "to one plain call"
    return "no: requests may have the API fetch from anywhere (see `anthropic` of the allowlist)"


def _text_of_models(models: Sequence[tuple[str, str]]) -> str:
    if not models:
        return "passthrough"
    if len(models) == 1 and models[0][0] == "*":
        return models[0][1]
    return ", ".join(
        f"{'any other' if asked == '*' else asked} -> {given}" for asked, given in models
    )


def _text_of_callers(gateway: Gateway, urls: Sequence[str]) -> str:
    if all(url.startswith("unix:") for url in urls):
        return "known by their user"
    return "must present the token" if gateway.token else "any that can reach it"


def _text_of_ceilings(ceilings: Ceilings) -> str:
    parts = []
    if ceilings.requests_per_minute is not None:
        parts.append(f"{ceilings.requests_per_minute} requests a minute")
    if ceilings.tokens_per_day is not None:
        parts.append(f"{ceilings.tokens_per_day} tokens a day")
    return ", ".join(parts)


def secret_variables(gateway: Gateway) -> frozenset[str]:
    """Return the variables that hold a key, and are cleared once it was read."""
    source = gateway.credential.source
    own = {source.name} if isinstance(source, EnvironmentSource) else set()
    return frozenset({KEY_VARIABLE, *own})


def seconds_allowed(mode: GatewayMode) -> tuple[int, int]:
    """Return the shortest and the longest timeout of a mode, in seconds."""
    return (1, 300) if mode is GatewayMode.STRICT else (1, 600)


def default_seconds(mode: GatewayMode) -> float:
    """Return the default timeout of a mode, in seconds."""
    return 30.0 if mode is GatewayMode.STRICT else 600.0
