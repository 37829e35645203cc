"""Lines that list policies: for the owner's terminal, and inside a sandbox that runs under one."""

from claude_proxy.config.allowlist.model import NetworkMode, PolicyFile
from claude_proxy.config.strict_yaml.nodes import harmless
from claude_proxy.policy.summary import describe_restrictions


def lines_of_policies(found: list[tuple[str, PolicyFile]]) -> list[str]:
    """Return a line for each policy."""
    names = max((len(name) for name, _ in found), default=0)
    modes = max((len(mode_of(file)) for _, file in found), default=0)
    return [
        f"{name:{names}}  {mode_of(file):{modes}}  {harmless(file.description)}".rstrip()
        for name, file in found
    ]


def mode_of(file: PolicyFile) -> str:
    """Return what a policy gives of the network, in one or two words."""
    proxied = file.network is NetworkMode.PROXY
    return f"{file.network}, {file.default}" if proxied else str(file.network)


def lines_of_policy(name: str, file: PolicyFile) -> list[str]:
    """Return what one policy is, and every rule of it."""
    policy = file.policy
    return [
        f"{name}: {harmless(file.description)}".rstrip(": "),
        f"  from:    {file.source.file}",
        f"  network: {mode_of(file)}",
        f"  profile: {file.profile or 'the one of the command'}",
        *(f"  allow {rule} ({rule.source})" for rule in policy.allow),
        *(f"  deny {rule} ({rule.source})" for rule in policy.deny),
        *(f"  {describe_restrictions(each)} ({each.source})" for each in policy.restrictions),
    ]
