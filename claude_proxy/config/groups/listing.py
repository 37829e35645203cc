"""Tells in lines what groups files hold: for who lists them, and for who lives under a policy."""

from claude_proxy.config.groups.loader import Groups, chosen
from claude_proxy.config.groups.reader import Network, PolicyEntry
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.policy.summary import narrowing_shown


def lines_of_policies(groups: Groups) -> list[str]:
    """Return a line for each policy, in alphabetical order."""
    entries = sorted(groups.policies.values(), key=lambda entry: entry.name)
    return _columns([(entry.name, _mode_of(entry), entry.description) for entry in entries])


def lines_of_groups(groups: Groups) -> list[str]:
    """Return a line for each group, in alphabetical order."""
    rows = []
    for group in sorted(groups.groups.values(), key=lambda group: group.name):
        counts = (len(group.hosts) + len(group.hosts_deny), "host"), (len(group.groups), "group")
        held = ", ".join(_counted(count, what) for count, what in counts if count)
        rows.append((group.name, held, group.description))
    return _columns(rows)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _mode_of(entry: PolicyEntry) -> str:
    return entry.network + (f", {entry.default}" if entry.network is Network.PROXY else "")


def _columns(rows: list[tuple[str, str, str]]) -> list[str]:
    first, second = (max((len(row[at]) for row in rows), default=0) for at in (0, 1))
    return [
        f"{name:{first}}  {middle:{second}}  {harmless(text)}".rstrip()
        for name, middle, text in rows
    ]


def lines_of_policy(groups: Groups, name: str) -> list[str]:
    """Return what one policy is, and every rule of it."""
    entry, policy = groups.entry(name), chosen(groups, name).policy
    lines = [f"{name}: {harmless(entry.description)}", f"  from:    {entry.source}"]
    lines.append(f"  network: {_mode_of(entry)}")
    lines.append(f"  profile: {entry.filesystem or 'by the command'}")
    if policy is not None:
        lines += [f"  allow {rule} ({rule.source})" for rule in policy.allow]
        lines += [f"  deny {rule} ({rule.source})" for rule in policy.deny]
        lines += [f"  {narrowing_shown(each)} ({each.source})" for each in policy.restrictions]
    return lines
