"""Used-up grants by which a tunnel or a request is still open, for `grants` and `revoke`.

Fail closed: a proxy that does not answer is named, as nobody knows what is open in it.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import click

from claude_proxy.cli.grant_making import Scope
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.control import used_up
from claude_proxy.control.client import Proxy
from claude_proxy.control.grant_store import GrantStore
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.grants import End, Grant

_AT_A_TIME = 16
_PATIENCE_S = 5.0


class UsedUp(NamedTuple):
    """A grant that is used up, and what is open by it."""

    grant: Grant
    told: Mapping[str, Any]  # as JSON has it

    @property
    def text(self) -> str:
        """What is open by it, in a few words."""
        return used_up.text_of(self.told)


class StillOpen(NamedTuple):
    """What running proxies say is open by grants that are used up."""

    grants: tuple[UsedUp, ...]
    silent: tuple[str, ...]  # names of the proxies that did not answer

    def warn(self) -> None:
        """Say of which proxies it is not known."""
        for name in self.silent:
            click.echo(
                f"claude-proxy: warning: the proxy {harmless(name)} does not answer, so what is "
                "open in it by grants that are used up is not known",
                err=True,
            )


def find(scope: Scope) -> StillOpen:
    """Ask the proxies of a scope."""
    if not scope.proxies:
        return StillOpen((), ())
    with ThreadPoolExecutor(_AT_A_TIME) as asking:
        answers = dict(zip(scope.proxies, asking.map(_asked, scope.proxies), strict=True))
    told = used_up.merged(one for each in answers.values() if each for one in each)
    silent = [proxy.name for proxy, each in answers.items() if each is None and proxy.is_alive()]
    return StillOpen(tuple(_stored(scope, told)), tuple(silent))


def numbers(scope: Scope) -> list[int]:
    """Return the numbers of those to end; of a proxy that is silent, of all that are used up."""
    found = find(scope)
    if not found.silent:
        return [each.grant.number for each in found.grants]
    store = GrantStore.open(scope.statedir)
    if store is None:
        return []
    with store:
        return store.used_up()


def _asked(proxy: Proxy) -> list[dict[str, Any]] | None:
    """Return what the workers of a proxy say; None if one of them does not answer."""
    try:
        answers = proxy.ask_workers("grants-changed", patience_s=_PATIENCE_S)
        used_up.merged(answers)
    except (ClaudeProxyError, KeyError, TypeError, AttributeError):
        return None
    return answers


def _stored(scope: Scope, told: list[dict[str, Any]]) -> Iterator[UsedUp]:
    store = GrantStore.open(scope.statedir) if told else None
    if store is None:
        return
    with store:
        for one in told:
            grant = store.get(one["number"])
            if grant is not None and grant.ended is End.USES:
                yield UsedUp(grant, one)
