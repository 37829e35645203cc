"""Grants that are used up while what took their last uses is still open, as processes tell of them.

Fail closed: such a grant is listed until the last tunnel and the last request by it have ended.
Pure.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from claude_proxy.control import grant_texts
from claude_proxy.policy.grants import Grant, Moment

KEY = "grants_used_up"  # in what a process says of its grants
_TUNNELS, _REQUESTS = "open_tunnels", "open_requests"


def as_json(grant: Grant, now: Moment, *, tunnels: int, requests: int) -> dict[str, Any]:
    """Return a grant that is used up as JSON has it, with what is open by it."""
    return grant_texts.as_json(grant, now) | {_TUNNELS: tunnels, _REQUESTS: requests}


def merged(answers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what several processes say together; those of an older version say nothing."""
    found: dict[int, dict[str, Any]] = {}
    for answer in answers:
        for one in answer.get(KEY) or ():
            known = found.setdefault(one["number"], one | {_TUNNELS: 0, _REQUESTS: 0})
            known[_TUNNELS] += one[_TUNNELS]
            known[_REQUESTS] += one[_REQUESTS]
    return [found[number] for number in sorted(found)]


def text_of(one: Mapping[str, Any]) -> str:
    """Return what is open by a grant: `used up; 1 tunnel open`."""
    counts = [(one[_TUNNELS], "tunnel"), (one[_REQUESTS], "request")]
    parts = [f"{count} {what}{'' if count == 1 else 's'}" for count, what in counts if count]
    return f"used up; {', '.join(parts) or 'nothing'} open"
