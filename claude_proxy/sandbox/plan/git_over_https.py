"""Git remotes over SSH, rewritten to HTTPS for the hosts that a policy allows over it; pure.

SSH is an opaque tunnel with a key of the user's; over HTTPS each request is judged, and a bound
credential stays outside. So Git gets settings to use `https://HOST/` where an address begins with
`git@HOST:` and its like (git-config(1), url.<base>.insteadOf). Law kept: nothing is allowed by it.
It only chooses among what the policy allows, and an entry of the user's own for the same prefix
comes first.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

from claude_proxy.policy.patterns import PatternKind
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, Rule
from claude_proxy.wire.authority import Authority

# Where a forge takes SSH on the port of HTTPS, and the host that it is over HTTPS. Sources:
# docs.github.com, "Using SSH over the HTTPS port"; docs.gitlab.com, "Use SSH keys", "gitlab.com,
# port 443"; support.atlassian.com, "Use the SSH protocol with Bitbucket Cloud".
_OTHER_NAMES = {
    "github.com": ("ssh.github.com",),
    "gitlab.com": ("altssh.gitlab.com",),
    "bitbucket.org": ("altssh.bitbucket.org",),
}
# Looked for where a policy allows hosts that it does not name.
_WELL_KNOWN = (*_OTHER_NAMES, "codeberg.org", "gitea.com", "git.sr.ht")
_MOST = 500  # hosts: Git reads the file at each start
_NAMES = frozenset({PatternKind.EXACT, PatternKind.DOMAIN})
_WIDE = frozenset({PatternKind.SUBDOMAINS, PatternKind.DOMAIN, PatternKind.EVERY})
_HTTPS = 443
_SSH = 22


def https_hosts(policy: Policy) -> list[str]:
    """Return the named hosts that a policy allows over HTTPS, and not over SSH itself."""
    rules = [rule for rule in policy.allow if _is_https(rule)]
    wide = [rule for rule in rules if rule.pattern.kind in _WIDE]
    hosts = dict.fromkeys(rule.pattern.host for rule in rules if rule.pattern.kind in _NAMES)
    for host in _WELL_KNOWN if wide else ():
        if any(rule.pattern.covers(Authority.of(host, _HTTPS)) for rule in wide):
            hosts[host] = None
    over_ssh = [rule for rule in policy.allow if rule.scheme is RawScheme.TCP]
    found = (host for host in hosts if not _takes_ssh(host, over_ssh))
    if policy.deny:  # only then, as a start pays for it
        found = (host for host in found if _is_allowed(policy, host))
    return [*islice(found, _MOST)]


def _is_https(rule: Rule) -> bool:
    return rule.scheme in {None, Scheme.HTTPS} and (rule.ports is None or _HTTPS in rule.ports)


def _takes_ssh(host: str, rules: list[Rule]) -> bool:
    target = Authority.of(host, _SSH) if rules else None
    return target is not None and any(
        rule.pattern.covers(target) and _SSH in (rule.ports or ()) for rule in rules
    )


def _is_allowed(policy: Policy, host: str) -> bool:
    decision = policy.decide_connect(Authority.of(host, _HTTPS))
    return decision.allowed and decision.secure


def git_config(hosts: Iterable[str]) -> bytes:
    """Return a configuration for Git that rewrites remotes over SSH of these hosts."""
    return "".join(_lines(hosts)).encode("ascii")


def _lines(hosts: Iterable[str]) -> Iterator[str]:
    yield "# Remotes over SSH of hosts that the policy allows over HTTPS.\n"
    for host in hosts:
        yield f'[url "https://{host}/"]\n'
        for prefix in ssh_prefixes(host):
            yield f"\tinsteadOf = {prefix}\n"


def ssh_prefixes(host: str) -> Iterator[str]:
    """Yield how addresses of a host over SSH begin (git-clone(1), "GIT URLS")."""
    yield f"git@{host}:"
    for scheme in ("ssh", "git+ssh", "ssh+git"):
        for place in (host, f"{host}:{_SSH}"):
            yield f"{scheme}://git@{place}/"
    yield f"ssh://{host}/"
    for other in _OTHER_NAMES.get(host, ()):
        yield f"git@{other}:"
        yield f"ssh://git@{other}:{_HTTPS}/"
