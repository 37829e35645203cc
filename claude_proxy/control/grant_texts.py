"""What is said of grants: as JSON, and in lines that a person reads. Pure."""

from typing import Any

from claude_proxy.policy.grants import SECOND_NS, End, Grant, GrantKind, Moment


def as_json(grant: Grant, now: Moment) -> dict[str, Any]:
    """Return a grant as JSON has it."""
    left = grant.left_ns(now)
    return {
        "number": grant.number,
        "kind": grant.kind.value,
        "text": f"{grant.number}: {grant.text}, {grant.whom}; left: {left_of(grant, now)}",
        "allows": [grant.text] if grant.kind is GrantKind.OPEN else list(map(str, grant.rules)),
        "run": None if grant.run is None else grant.run.name,
        "project": grant.project,
        "made": grant.made_ns / SECOND_NS,
        "ends": None if grant.ends_ns is None else grant.ends_ns / SECOND_NS,
        "seconds_left": None if left is None else round(left / SECOND_NS),
        "uses": grant.uses,
        "uses_left": grant.uses_left,
        "by": grant.by,
        "reason": grant.reason,
    }


def left_of(grant: Grant, now: Moment) -> str:
    """Return how long a grant still lasts, in a few words."""
    parts = []
    if (left := grant.left_ns(now)) is not None:
        parts.append(duration_of(left))
    if grant.uses_left is not None:
        parts.append(f"{grant.uses_left} {'use' if grant.uses_left == 1 else 'uses'}")
    if grant.run is not None and left is None:
        parts.append("the run")
    return ", ".join(parts)


def duration_of(time_ns: int) -> str:
    """Return a duration in its two largest units: `1 h 30 min`, `45 s`."""
    seconds = -(-time_ns // SECOND_NS)
    found = []
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            found.append(f"{count} {unit}")
        elif found:
            break
    return " ".join(found[:2]) or "0 s"


def bounds_of(grant: Grant) -> str:
    """Return what bounds a grant, as it was made."""
    parts = [] if grant.lasts_ns is None else [f"for {duration_of(grant.lasts_ns)}"]
    if grant.uses is not None:
        parts.append(f"for {grant.uses} {'use' if grant.uses == 1 else 'uses'}")
    return ", ".join(parts) or "as long as it runs"


def recorded(grant: Grant, ended_by: str, *, is_end: bool) -> tuple[str, str]:
    """Return the kind and the text of what the audit log says when a grant is made or has ended."""
    what = f"grant {grant.number}"
    if not is_end:
        reason = f" ({grant.reason})" if grant.reason else ""
        bounds = bounds_of(grant)
        return "grant-made", f"{what} by {grant.by}{reason}: {grant.text}, {bounds}, {grant.whom}"
    if grant.ended in {End.REVOKED, End.CLOSED}:
        return "grant-revoked", f"{what} {grant.ended} by {ended_by}: {grant.text}, {grant.whom}"
    return "grant-ended", f"{what} {grant.ended}: {grant.text}, {grant.whom}"


def opened_line(grant: Grant, now: Moment) -> str:
    """Return what is said when everything is opened."""
    reason = f": {grant.reason}" if grant.reason else ""
    return (
        f"OPEN for {left_of(grant, now)}: every public host is allowed {grant.whom}, "
        f"by {grant.by}{reason}; end it with `claude-proxy close`"
    )


def still_open_line(grant: Grant, now: Moment) -> str:
    """Return what is said while everything is open."""
    return (
        f"STILL OPEN for {left_of(grant, now)}: every public host is allowed {grant.whom}; "
        "end it with `claude-proxy close`"
    )


def closed_line(grant: Grant, why: str) -> str:
    """Return what is said when everything is closed again."""
    return f"CLOSED ({why}): the list alone decides again {grant.whom}"
