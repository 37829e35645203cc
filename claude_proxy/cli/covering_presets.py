"""Presets that would cover what a question is about."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from claude_proxy.config.allowlist import loader
from claude_proxy.config.owner_files import OwnerFiles
from claude_proxy.control.answers import subject_of
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.questions import Access
from claude_proxy.policy.request import Request, Scheme

_MOST = 3


def presets_for(question: Mapping[str, Any], confdir: str) -> list[str]:
    """Return the names of a few presets by which it would be allowed; [] if that is not known."""
    try:
        subject = subject_of(question)
        if subject.access is Access.TUNNEL:
            return []
        path = str(question["path"]).partition("?")[0] or "/"
        method, target = str(question["method"]), subject.target
        request = Request(Scheme(subject.scheme), target, target, method, path)
        covering = (
            name for name, policy in _presets(confdir) if policy.decide_request(request).allowed
        )
        return [name for name, _ in zip(covering, range(_MOST), strict=False)]
    except (ClaudeProxyError, KeyError, ValueError):
        return []


@cache
def _presets(confdir: str) -> tuple[tuple[str, Policy], ...]:
    return tuple(_read(confdir))


def _read(confdir: str) -> Iterator[tuple[str, Policy]]:
    library = OwnerFiles(Path(confdir)).library
    for name in sorted(library.names()):
        try:
            yield name, loader.preset_policy(name, library)
        except ClaudeProxyError:
            continue  # one that is wrong covers nothing
