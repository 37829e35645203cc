"""Entries of a policy from openings: what is allowed, and what has to be denied for it.

Law kept: silence before allow. A denial of one opening wins over all others; where another one is
hit, that is reported. Every host is opened only where nothing limits it. Pure.
"""

from collections.abc import Iterable, Iterator

from claude_proxy.config.imports.draft import NARROWER, NOT_CARRIED, Draft, Entry
from claude_proxy.config.imports.host_tests import EVERY, PatternIndex, is_writable
from claude_proxy.config.imports.openings import (
    ALL_METHODS,
    DEFAULT_PORTS,
    OTHER_METHODS,
    Denial,
    Opening,
)
from claude_proxy.config.imports.port_sets import ALL_PORTS, PortSet
from claude_proxy.policy.patterns import HostPattern, PatternError
from claude_proxy.policy.request import Scheme

_ORDINARY_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHERS_PORT = {Scheme.HTTPS: 80, Scheme.HTTP: 443}


def emit(openings: Iterable[Opening], draft: Draft) -> None:
    """Add the entries of openings to a draft, with remarks about what no entry can say."""
    found = list(openings)
    whole = {each.scheme for each in found if each.is_whole}
    draft.allows_by_default = whole == set(Scheme)
    kept = []
    for opening in found:
        if EVERY in opening.hosts:
            if draft.allows_by_default and opening.is_whole:
                what = "every public host is allowed, and no private or local address"
                fix = "add an entry with addresses for a host that has a private one"
                draft.remark(NARROWER, what, opening.source, fix)
                kept.append(opening)
                continue
            _note_everything(opening, draft)
        named = _named(opening, draft)
        if named is not None:
            kept.append(named)
    _add_allowed(kept, draft)
    _add_denied(kept, draft)


def _note_everything(opening: Opening, draft: Draft) -> None:
    limits = []
    if opening.ports != ALL_PORTS:
        limits.append(f"on the ports {opening.ports}")
    if opening.methods != ALL_METHODS:
        limits.append("by some methods")
    if opening.globs is not None:
        limits.append("on some paths")
    what = f"every host is allowed over {opening.scheme} {' '.join(limits)}".rstrip()
    fix = "name the hosts that are needed; default: allow opens all of them without such limits"
    draft.remark(NOT_CARRIED, what, opening.source, fix)


def _named(opening: Opening, draft: Draft) -> Opening | None:
    hosts = []
    for host in opening.hosts:
        if is_writable(host):
            hosts.append(host)
        elif host != EVERY:
            what, fix = _why_unwritable(host)
            draft.remark(NOT_CARRIED, what, opening.source, fix)
    if not hosts:
        return None
    return Opening(
        opening.scheme,
        opening.source,
        tuple(hosts),
        opening.ports,
        opening.methods,
        opening.globs,
        opening.denials,
    )


def _why_unwritable(host: HostPattern) -> tuple[str, str]:
    try:
        HostPattern.parse(str(host))
    except PatternError as error:
        return error.what, error.fix
    return f"no entry can be {host}", "name the hosts that are needed"


# What is allowed.


def _add_allowed(openings: list[Opening], draft: Draft) -> None:
    for opening in openings:
        if EVERY in opening.hosts:
            continue
        hosts = opening.hosts
        if draft.allows_by_default:
            # What is open anyway cannot be limited; addresses that are not public need an entry.
            limits = opening.methods != ALL_METHODS or opening.globs is not None
            hosts = () if limits else tuple(host for host in hosts if host.network is not None)
            if not hosts:
                continue
        ports = _ports(opening, draft)
        if ports is None:
            continue
        methods = _methods(opening, draft)
        if methods == frozenset():
            continue
        for host in hosts:
            draft.allow.append(
                Entry(
                    host,
                    opening.source,
                    scheme=opening.scheme,
                    ports=ports,
                    methods=methods,
                    paths=opening.globs,
                )
            )


def _ports(opening: Opening, draft: Draft) -> frozenset[int] | None:
    """Return the ports to list; None if no port is left."""
    default, other = DEFAULT_PORTS[opening.scheme], _OTHERS_PORT[opening.scheme]
    wanted = opening.ports - PortSet.single(other)
    listed, rest = wanted.listed()
    if default in rest:
        listed, rest = listed | {default}, rest - PortSet.single(default)
    if rest:
        kept = ", ".join(map(str, sorted(listed))) or "none"
        what = f"of the ports {opening.ports} an entry for {opening.scheme} lists {kept}"
        fix = "add the ports that are needed to the entries"
        draft.remark_once(NARROWER, what, opening.source, fix)
    return listed or None


def _methods(opening: Opening, draft: Draft) -> frozenset[str] | None:
    """Return the methods to list; None: every method."""
    if opening.methods == ALL_METHODS:
        return None
    if OTHER_METHODS not in opening.methods:
        return opening.methods
    kept = opening.methods & _ORDINARY_METHODS
    what = f"every method is allowed but for some, and the entry lists {', '.join(sorted(kept))}"
    draft.remark(NARROWER, what, opening.source, "add the methods that are needed to the entry")
    return kept


# What is denied for it.


def _add_denied(openings: list[Opening], draft: Draft) -> None:
    by_scheme: dict[tuple[object, ...], dict[Scheme, Entry]] = {}
    owners: dict[tuple[object, ...], set[int]] = {}
    indexes = {
        id(opening): PatternIndex((host, None) for host in opening.hosts) for opening in openings
    }
    for opening in openings:
        hosts = indexes[id(opening)]
        for denial in opening.denials:
            if not any(True for _ in _meeting(hosts, denial.pattern)):
                continue
            entry = _entry(denial)
            by_scheme.setdefault(entry.place(), {}).setdefault(opening.scheme, entry)
            owners.setdefault(entry.place(), set()).add(id(opening))
    for place, entries in by_scheme.items():
        schemes = set(entries)
        entry = next(iter(entries.values()))
        hit = [
            each
            for each in openings
            if id(each) not in owners[place] and _is_hit(each, indexes[id(each)], entry)
        ]
        elsewhere = [each for each in hit if each.scheme not in schemes]
        if len(schemes) == 1 and elsewhere:
            scheme = next(iter(schemes))
            entry = Entry(
                entry.pattern, entry.source, scheme, entry.ports, entry.methods, entry.paths
            )
            hit = [each for each in hit if each.scheme is scheme]
        draft.deny.append(entry)
        for opening in hit:
            what = f"{entry.pattern} is denied ({entry.source}), which also takes from this line"
            fix = "a denial always wins: list what is allowed there, and leave the denial out"
            draft.remark(NARROWER, what, opening.source, fix)


def _entry(denial: Denial) -> Entry:
    return Entry(
        denial.pattern,
        denial.source,
        ports=denial.ports,
        methods=denial.methods,
        paths=denial.globs,
    )


def _is_hit(opening: Opening, hosts: "PatternIndex[None]", entry: Entry) -> bool:
    if entry.pattern.network is not None:
        return any(
            host.network is not None and _meet(host, entry.pattern) for host in opening.hosts
        )
    if entry.ports is not None and not opening.ports & PortSet.single(*entry.ports):
        return False
    if entry.methods is not None and not opening.methods & entry.methods:
        return False
    return any(True for _ in _meeting(hosts, entry.pattern))


def _meet(one: HostPattern, other: HostPattern) -> bool:
    return one.includes(other) or other.includes(one)


def _meeting(hosts: "PatternIndex[None]", pattern: HostPattern) -> Iterator[HostPattern]:
    for found, _ in hosts.around(pattern):
        yield found
    for found, _ in hosts.inside(pattern):
        yield found
    if pattern.network is not None:
        # A denied network is also one of the names that resolve into it.
        yield pattern
