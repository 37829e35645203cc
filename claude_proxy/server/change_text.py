"""Text of a reload: which entries a policy gained and lost, and what that opens.

The entries are what its owner wrote. What is opened may be more or less than they seem to say: an
entry that another one covers opens nothing, and a denial that is gone may open a lot.
"""

from collections.abc import Sequence

from claude_proxy.policy.policy import Policy

NO_CHANGE = "no rule changed"

_MAX_LISTED = 10  # changes that are listed by name; the rest is only counted
_MAX_OPENINGS = 3
# Beyond this the comparison takes a second, and a policy that denies more is not to wait for it.
_MAX_RULES = 2_500
_MAX_CHANGES = 100


def entries_text(added: Sequence[str], removed: Sequence[str]) -> str:
    """Return which entries were added and removed."""
    parts = [f"+ {name}" for name in added[:_MAX_LISTED]]
    parts += [f"- {name}" for name in removed[:_MAX_LISTED]]
    if not parts:
        return NO_CHANGE
    more = len(added) + len(removed) - len(parts)
    return ", ".join(parts) + (f" and {more} more" if more else "")


def opened_text(old: Policy, new: Policy, changes: int) -> str:
    """Return what a change of so many entries opens; "" if nothing changed, or too much to say."""
    if not changes or changes > _MAX_CHANGES or old.rules_count + new.rules_count > _MAX_RULES:
        return ""
    # Few proxies reload, and none compares policies at its start.
    from claude_proxy.policy.difference import opened  # noqa: PLC0415

    found = [str(each) for each in opened(old, new)]
    if not found:
        return "opens nothing"
    more = len(found) - _MAX_OPENINGS
    return f"opens {'; '.join(found[:_MAX_OPENINGS])}" + (f" and {more} more" if more > 0 else "")
