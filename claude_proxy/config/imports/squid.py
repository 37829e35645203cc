"""Converter of squid.conf: what `http_access` allows, as the entries of a policy.

Laws kept: no quiet downgrade, silence before allow. The first line that matches counts for squid,
and a denial always wins here: each allow line is taken for itself, less what the lines before it
deny. What depends on the client is decided for one kind of client, or refused. Pure.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product

from claude_proxy.config.imports.draft import NARROWER, NOT_CARRIED, Draft
from claude_proxy.config.imports.emission import emit
from claude_proxy.config.imports.host_tests import Loss
from claude_proxy.config.imports.openings import Literal, Opening, both, limited, without
from claude_proxy.config.imports.squid_acls import Acls, Client, Unknown, View, networks_of
from claude_proxy.config.imports.squid_text import Directive, Library, directives
from claude_proxy.config.strict_yaml.fields import nearest
from claude_proxy.config.strict_yaml.nodes import quoted
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.policy.location import Location

_ELSEWHERE = {
    "adaptation_access": "another program looks at requests",
    "adapted_http_access": "requests are judged again after another program has changed them",
    "http_reply_access": "responses are judged as well",
    "icap_service": "another program looks at requests",
    "redirect_program": "another program redirects or denies requests",
    "reply_body_max_size": "the size of responses is limited",
    "request_body_max_size": "the size of requests is limited",
    "request_header_access": "header fields are removed from requests",
    "url_rewrite_program": "another program rewrites or denies requests",
}
_OPENS = frozenset({"bump", "server-first", "client-first", "stare"})
_NOT_FINAL = frozenset({"peek", "stare"})
_MOST_BRANCHES = 64
_ALL = "all"


@dataclass(frozen=True, slots=True)
class _Term:
    """The name of an acl in a line, perhaps after an exclamation mark."""

    name: str
    negated: bool


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of `http_access` or `ssl_bump`: it counts if all its terms hold."""

    allows: bool
    terms: tuple[_Term, ...]
    source: Location
    shown: str


@dataclass(slots=True)
class _Found:
    """What the lines open to one kind of client."""

    draft: Draft
    openings: list[Opening] = field(default_factory=list)


def convert(text: str, *, name: str, library: Library, clients: Sequence[str] = ()) -> Draft:
    """Return the policy of a configuration; ConfigError if squid itself would refuse it.

    `clients` are an address, or names of acls that the client matches; without any, the lines have
    to say the same for every kind of client that they open something to.
    """
    return _Converter(directives(text, name=name, library=library), name, library).convert(clients)


class _Converter:
    def __init__(self, lines: list[Directive], name: str, library: Library) -> None:
        self._name = name
        self._acls = Acls(lines, library)
        self._lines = _access_lines(lines, self._acls, name)
        self._bumps = _bump_lines(lines, self._acls)
        self._opens_tls = any(
            each.name == "ssl_bump" and each.words and each.words[0].text in _OPENS
            for each in lines
        )
        self._empty = [each for each in lines if each.name == "http_access" and _is_skipped(each)]
        self._others = [each for each in lines if each.name in _ELSEWHERE]

    def convert(self, clients: Sequence[str]) -> Draft:
        if clients:
            return self._finished(self._for(self._named(clients)), explicit=True)
        found = {kind: self._for(kind) for kind in self._kinds()}
        # What opens every host to some clients alone is not opened to all.
        narrow = {
            kind: each
            for kind, each in found.items()
            if not (kind and each.draft.allows_by_default)
        }
        useful = {
            kind: each
            for kind, each in narrow.items()
            if each.draft.allow or each.draft.allows_by_default
        }
        texts = {each.draft.text() for each in useful.values()}
        if len(texts) > 1:
            raise _differs(useful)
        chosen = next(iter((useful or narrow).values()), None)
        if chosen is None:
            chosen = _Found(Draft(self._name, "squid"))
        return self._finished(chosen, explicit=False)

    # Kinds of clients.

    def _kinds(self) -> list[frozenset[str]]:
        """Return the sets of acls that a client has to match for an allow line to count."""
        found: dict[frozenset[str], None] = {}
        for line in self._lines:
            if line.allows:
                names = [each.name for each in line.terms if not each.negated]
                clients = filter(self._is_of_client, names)
                found[frozenset(clients)] = None
        return list(found)

    def _is_of_client(self, name: str) -> bool:
        return isinstance(self._acls.meaning(name, View.PLAIN), Client)

    def _named(self, clients: Sequence[str]) -> frozenset[str]:
        found = set()
        for each in clients:
            if self._acls.knows(each):
                found.add(each)
                continue
            try:
                address = ip_address(each)
            except ValueError:
                what = f"{quoted(each)} is neither an address nor an acl of the file"
                fix = "write an address such as 127.0.0.1, or the name of an acl about clients"
                raise ConfigError(what, where="--client", fix=fix) from None
            names = {each.name for line in self._lines for each in line.terms}
            for name in names:
                acl = self._acls.client(name)
                if acl is not None and any(_holds(word.text, address) for word in acl.words):
                    found.add(name)
        return frozenset(found)

    # The lines for one kind of client.

    def _for(self, kind: frozenset[str]) -> _Found:
        found = _Found(Draft(self._name, "squid"))
        tunnels = self._opened(self._lines, View.TUNNEL, kind, found)
        if self._bumps:
            tunnels = _common(tunnels, self._opened(self._bumps, View.TUNNEL, kind, found))
        if self._opens_tls:
            tunnels = _common(tunnels, self._opened(self._lines, View.OPENED, kind, found))
        found.openings = [*tunnels, *self._opened(self._lines, View.PLAIN, kind, found)]
        emit(found.openings, found.draft)
        return found

    def _opened(
        self, lines: Iterable[_Line], view: View, kind: frozenset[str], found: _Found
    ) -> list[Opening]:
        openings: list[Opening] = []
        denials: list[tuple[_Line, list[Literal]]] = []
        for line in lines:
            literals = self._literals(line, view, kind, found.draft)
            if literals is None:
                continue
            if not line.allows:
                denials.append((line, literals))
                continue
            result = limited([Opening(view.scheme, line.source)], literals)
            _remark(found.draft, result.losses, line)
            left = result.openings
            for denial, conditions in denials:
                before, left = left, []
                for opening in before:
                    result = without(opening, conditions, denial.source)
                    _remark(found.draft, result.losses, denial)
                    left += result.openings
            openings += left
        return openings

    def _literals(
        self, line: _Line, view: View, kind: frozenset[str], draft: Draft
    ) -> list[Literal] | None:
        """Return what has to hold for a line to count; None if it does not count here."""
        found = []
        for term in line.terms:
            meaning = self._acls.meaning(term.name, view)
            if isinstance(meaning, Client):
                meaning = meaning.name in kind
                self._note_client(term, line, draft)
            if isinstance(meaning, Unknown):
                if line.allows:
                    what = f"{line.shown} is left out, as {meaning.why}"
                    fix = "allow the hosts without that condition, if that is right"
                    draft.remark(NOT_CARRIED, what, line.source, fix)
                    return None
                what = f"{line.shown} denies always, as {meaning.why}"
                fix = "import a copy without the line, if its denial is not needed"
                draft.remark(NARROWER, what, line.source, fix)
            elif isinstance(meaning, bool):
                if meaning is term.negated:
                    return None
            else:
                found.append(Literal(meaning, term.negated))
        return found

    def _note_client(self, term: _Term, line: _Line, draft: Draft) -> None:
        if line.allows:
            return
        what = f"{line.shown} denies by who asks ({term.name}), of which a policy says nothing"
        fix = "serve that client by a proxy with a policy of its own"
        draft.remark(NOT_CARRIED, what, line.source, fix)

    # At the end.

    def _finished(self, found: _Found, *, explicit: bool) -> Draft:
        draft = found.draft
        self._note_clients(draft)
        for what, source, fix in self._acls.notes:
            draft.remark(NOT_CARRIED, what, source, fix)
        for each in self._empty:
            what = f"{each.name} {each.words[0].text} names no acl, and squid passes over it"
            draft.remark(NOT_CARRIED, what, each.source, "name an acl, such as all")
        for each in self._others:
            if each.name == "http_reply_access" and _allows_all(each):
                continue
            what = f"{each.name}: {_ELSEWHERE[each.name]}, which no policy does"
            draft.remark(NOT_CARRIED, what, each.source, "see whether it has to be kept elsewhere")
        if not explicit:
            self._note_everything(draft)
        return draft

    def _note_clients(self, draft: Draft) -> None:
        said = set()
        for line in self._lines:
            names = [each.name for each in line.terms if self._is_of_client(each.name)]
            listed = ", ".join(names)
            if not line.allows or not names or names == ["localhost"] or listed in said:
                continue
            said.add(listed)
            what = f"{listed} says who may ask, and a policy is for every client of its proxy"
            fix = "keep others out by where the proxy listens, by --client or --proxy-auth-file"
            draft.remark(NOT_CARRIED, what, line.source, fix)

    def _note_everything(self, draft: Draft) -> None:
        """Say of lines that open every host to some clients that they were left out."""
        for line in self._lines:
            clients = [each.name for each in line.terms if self._is_of_client(each.name)]
            others = [each for each in line.terms if not self._is_of_client(each.name)]
            wide = all(each.name == _ALL for each in others)
            if line.allows and clients and wide and not draft.allows_by_default:
                options = " ".join(f"--client {name}" for name in clients)
                what = f"{line.shown} opens every host to those clients"
                fix = f"import with {options}, if the policy is to be for them"
                draft.remark(NOT_CARRIED, what, line.source, fix)


def _common(one: list[Opening], other: list[Opening]) -> list[Opening]:
    return [each for pair in product(one, other) for each in both(*pair).openings]


def _remark(draft: Draft, losses: Iterable[Loss], line: _Line) -> None:
    for loss in losses:
        fix = f"add entries by hand, if {line.shown} ({line.source}) needs them"
        draft.remark(NARROWER, loss.what, loss.source, fix)


def _differs(useful: dict[frozenset[str], _Found]) -> ConfigError:
    first = next(iter(useful.values())).draft
    kinds = [" ".join(f"--client {name}" for name in sorted(kind)) for kind in useful]
    listed = ", or with ".join(each or "--client 127.0.0.1" for each in kinds)
    return ConfigError(
        "the file allows different hosts to different clients, and a policy is for one of them",
        where=first.name,
        fix=f"import it once for each: with {listed}",
    )


def _holds(text: str, address: IPv4Address | IPv6Address) -> bool:
    try:
        return any(address in network for network in networks_of(text))
    except ValueError:
        return False


# Lines.


def _access_lines(lines: list[Directive], acls: Acls, name: str) -> list[_Line]:
    found = [
        each
        for line in lines
        if line.name == "http_access" and not _is_skipped(line)
        for each in _expanded(line, acls, {"allow": True, "deny": False})
    ]
    if found and not found[-1].allows:
        last = found[-1]
        shown = f"the end of http_access after {last.shown}"
        # Where no line matches, the opposite of the last one counts.
        found.append(_Line(allows=True, terms=(), source=last.source, shown=shown))
    if not found:
        what = "no line http_access, so squid denies everything"
        fix = "name the file that has the http_access lines"
        raise ConfigError(what, where=name, fix=fix)
    return found


def _bump_lines(lines: list[Directive], acls: Acls) -> list[_Line]:
    """Return the lines by which TLS is let through or ended; none if none ends it."""
    actions = {"terminate": False} | dict.fromkeys(
        ("splice", "bump", "none", "server-first", "client-first"), True
    )
    bumps = [line for line in lines if line.name == "ssl_bump" and line.words]
    if not any(line.words[0].text == "terminate" for line in bumps):
        return []
    found = [
        each
        for line in bumps
        if line.words[0].text not in _NOT_FINAL and not _is_skipped(line)
        for each in _expanded(line, acls, actions)
    ]
    if not found:
        return []
    last = found[-1]
    return [*found, _Line(allows=True, terms=(), source=last.source, shown=last.shown)]


def _expanded(line: Directive, acls: Acls, actions: dict[str, bool]) -> Iterator[_Line]:
    """Yield the lines that a line means, with no acl that consists of others."""
    first = line.words[0].text if line.words else ""
    if first not in actions:
        what = f"{line.name} begins with {quoted(first)}"
        raise ConfigError(what, where=str(line.source), fix=f"write {' or '.join(actions)}")
    terms = [
        _Term(word.text.removeprefix("!"), word.text.startswith("!")) for word in line.words[1:]
    ]
    shown = " ".join([line.name, *(word.text for word in line.words)])
    shown = quoted(shown).strip('"')
    branches: list[tuple[_Term, ...]] = [()]
    for term in terms:
        alternatives = list(_alternatives(term, acls, line, 0))
        branches = [(*before, *more) for before in branches for more in alternatives]
        if len(branches) > _MOST_BRANCHES:
            fix = "import a copy with fewer any-of and all-of lists"
            raise ConfigError("the line has too many meanings", where=str(line.source), fix=fix)
    for branch in branches:
        yield _Line(actions[first], branch, line.source, shown)


def _alternatives(
    term: _Term, acls: Acls, line: Directive, depth: int
) -> Iterator[tuple[_Term, ...]]:
    """Yield the terms of which one has to hold: each several that hold together."""
    if not acls.knows(term.name):
        known = nearest(term.name, [])
        what = f"there is no acl {quoted(term.name)}"
        fix = known or "define it by an acl line before this one"
        raise ConfigError(what, where=str(line.source), fix=fix)
    group = acls.group(term.name)
    if group is None:
        yield (term,)
        return
    if depth > 8:  # noqa: PLR2004 - deeper than anybody writes
        what = f"the acl {quoted(term.name)} is nested too deeply"
        raise ConfigError(what, where=str(group.source), fix="does it contain itself?")
    inner = [
        [_Term(word.text.removeprefix("!"), word.text.startswith("!")) for word in words]
        for words in group.lines
    ]
    # any-of: one of all names; all-of: all names of one line. Negated, the other way round.
    choices = inner if group.type == "all-of" else [[each] for words in inner for each in words]
    if not term.negated:
        for names in choices:
            yield from _joined(names, acls, line, depth)
        return
    for picked in product(*choices):
        opposite = [_Term(each.name, not each.negated) for each in picked]
        yield from _joined(opposite, acls, line, depth)


def _joined(
    terms: Sequence[_Term], acls: Acls, line: Directive, depth: int
) -> Iterator[tuple[_Term, ...]]:
    parts = [list(_alternatives(each, acls, line, depth + 1)) for each in terms]
    for picked in product(*parts):
        yield tuple(each for part in picked for each in part)


def _is_skipped(line: Directive) -> bool:
    """Tell whether squid passes over a line, as it names no acl."""
    return len(line.words) == 1


def _allows_all(line: Directive) -> bool:
    return [word.text for word in line.words] == ["allow", _ALL]
