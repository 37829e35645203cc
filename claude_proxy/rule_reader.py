"""Reads one entry of an allowlist into a `Rule`, and says what is wrong with each of its fields.

Law kept: default-deny (1). A field that is not known, empty or of the wrong type is a problem,
with its place and how to mend it; a value is never ignored, corrected or guessed. Pure.
"""

import difflib
import re
from collections.abc import Callable, Iterable
from collections.abc import Mapping as Lookup
from ipaddress import IPv4Network, IPv6Network

import yaml

from claude_proxy.host_reader import network_of, pattern_of
from claude_proxy.patterns import HostPattern, PathGlob, PatternError
from claude_proxy.policy import Rule, Scheme, Source, Tls
from claude_proxy.strict_yaml import Broken, Mapping, Node, Problems, Scalar, Sequence, quoted

type Network = IPv4Network | IPv6Network

# The IANA registry of methods, without those that are always denied, and six more that widespread
# servers answer. A closed list: in a deny rule a misspelt method would be a hole.
METHODS = (
    *("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"),
    *("PROPFIND", "PROPPATCH", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "REPORT", "SEARCH"),
    *("ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "LABEL", "LINK", "MERGE"),
    *("MKACTIVITY", "MKCALENDAR", "MKREDIRECTREF", "MKWORKSPACE", "ORDERPATCH", "REBIND"),
    *("UNBIND", "UNCHECKOUT", "UNLINK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL"),
    *("LIST", "PURGE", "M-SEARCH", "NOTIFY", "SUBSCRIBE", "UNSUBSCRIBE"),
)
_REFUSED_METHODS = ("TRACE", "CONNECT")

ALLOW_FIELDS = ("host", "ports", "scheme", "methods", "paths", "tls", "addresses", "note")
DENY_FIELDS = ("host", "ports", "scheme", "methods", "paths", "note")
# What other programs call the same things.
_OTHER_NAMES = {
    "address": "addresses",
    "cidr": "addresses",
    "cidrs": "addresses",
    "comment": "note",
    "description": "note",
    "domain": "host",
    "domains": "host",
    "hosts": "host",
    "method": "methods",
    "name": "host",
    "path": "paths",
    "port": "ports",
    "presets": "preset",
    "protocol": "scheme",
    "reason": "note",
    "url": "host",
}

# For each field that is a list: an example, and what its absence means.
_LISTS = {
    "ports": ("[443, 8443]", "delete the line"),
    "methods": ("[GET, HEAD]", "delete the line to mean every method"),
    "paths": ('["/v1/**"]', "delete the line to mean every path"),
    "addresses": ('["10.1.2.0/24"]', "delete the line"),
}

_DEFAULT_PORT = {Scheme.HTTPS: 443, Scheme.HTTP: 80}
_MAX_PORT = 65535

_is_range = re.compile(r"[0-9]+ *[-:] *[0-9]+").fullmatch
_is_port = re.compile(r"[1-9][0-9]{0,4}").fullmatch
# What YAML 1.1 makes of plain words (`NO`, `1.10`, `~`). Its readers disagree, as YAML 1.2 dropped
# most of it; so where a text is wanted, such a word must stand in quotes.
_RESOLVERS: Lookup[str, list[tuple[str, re.Pattern[str]]]] = yaml.SafeLoader.yaml_implicit_resolvers
_TYPES = {"bool": "a boolean", "float": "a number", "int": "a number", "timestamp": "a date"}


class RuleReader:
    """Turns entries into rules; every mistake goes to `problems`."""

    def __init__(self, problems: Problems, *, preset: str | None) -> None:
        self._problems = problems
        self._preset = preset

    def rule_of_text(self, node: Scalar, key: str, *, deny: bool) -> Rule | None:
        """Return the rule for an entry that is a host pattern and nothing else."""
        pattern = self._host(node, key)
        if pattern is None:
            return None
        return Rule(
            pattern=pattern,
            scheme=None if deny else Scheme.HTTPS,
            ports=None if deny else _HTTPS_PORTS,
            methods=None,
            paths=None,
            tls=Tls.INTERCEPT,
            addresses=(),
            note="",
            source=self._source(node),
        )

    def rule_of_mapping(self, node: Mapping, key: str, *, deny: bool) -> Rule | None:
        """Return the rule for an entry with fields."""
        before = len(self._problems)
        fields = self._fields(node, key, DENY_FIELDS if deny else ALLOW_FIELDS, deny=deny)
        if "host" not in fields and len(self._problems) == before and node.whole:
            self._problems.add(
                "the entry names no host", node, key=key, mend="add a line: host: example.com"
            )
        pattern = self._read(fields, "host", key, self._host)
        given_scheme = self._read(fields, "scheme", key, self._scheme)
        scheme = given_scheme if deny or given_scheme is not None else Scheme.HTTPS
        ports = self._read(fields, "ports", key, self._ports)
        if not deny and scheme is not None:
            self._check_ports(fields.get("ports"), ports, scheme, key)
            ports = ports if ports is not None else frozenset({_DEFAULT_PORT[scheme]})
        methods = self._read(fields, "methods", key, self._methods)
        paths = self._read(fields, "paths", key, self._paths)
        tls = self._read(fields, "tls", key, self._tls)
        addresses = self._read(fields, "addresses", key, self._addresses)
        note = self._read(fields, "note", key, self._text)
        self._check_tls(fields, tls, scheme, key)
        self._check_addresses(fields, pattern, key)
        if pattern is None or len(self._problems) > before:
            return None
        return Rule(
            pattern=pattern,
            scheme=scheme,
            ports=ports,
            methods=methods,
            paths=paths,
            tls=tls or Tls.INTERCEPT,
            addresses=addresses or (),
            note=note or "",
            source=self._source(node),
        )

    def _source(self, node: Node) -> Source:
        return Source(self._problems.name, node.line, node.column, self._preset)

    def _fields(
        self, node: Mapping, key: str, known: tuple[str, ...], *, deny: bool
    ) -> dict[str, Node]:
        fields = {}
        for name, value in node.entries:
            if name.text in known:
                fields[name.text] = value
                continue
            mend = _mend_of_field(name.text, known, deny=deny)
            self._problems.add(f"unknown key {quoted(name.text)}", name, key=key, mend=mend)
        return fields

    def _read[T](
        self, fields: dict[str, Node], name: str, key: str, read: Callable[[Node, str], T | None]
    ) -> T | None:
        node = fields.get(name)
        if node is None or isinstance(node, Broken):
            return None
        return read(node, f"{key}.{name}")

    # One method a field: each returns None once it has noted a problem.

    def _host(self, node: Node, key: str) -> HostPattern | None:
        if isinstance(node, Scalar) and node.plain and _is_number(node):
            mend = "name a host, such as example.com"
            self._problems.add(f"{node.text} is a number, not a host", node, key=key, mend=mend)
            return None
        text = self._text(node, key)
        if text is None:
            return None
        try:
            return pattern_of(text)
        except PatternError as error:
            self._problems.add(error.what, node, key=key, mend=error.mend)
            return None

    def _ports(self, node: Node, key: str) -> frozenset[int] | None:
        ports = self._list(node, key, self._port, _LISTS["ports"])
        return None if ports is None else frozenset(ports)

    def _port(self, node: Node, key: str) -> int | None:
        range_ = f"a whole number from 1 to {_MAX_PORT} without quotes, such as 443"
        if not isinstance(node, Scalar):
            self._problems.add("not a port number", node, key=key, mend=f"write {range_}")
        elif not node.plain:
            mend = f"write {node.text}" if _is_port(node.text) else f"write {range_}"
            self._problems.add(
                f"the port {quoted(node.text)} is in quotes", node, key=key, mend=mend
            )
        elif not _is_port(node.text):
            what = f"{node.text or 'nothing'} is not a port number"
            mend = "name each port" if _is_range(node.text) else f"write {range_}"
            self._problems.add(what, node, key=key, mend=mend)
        elif int(node.text) > _MAX_PORT:
            self._problems.add(
                f"the port {node.text} is above {_MAX_PORT}", node, key=key, mend=f"write {range_}"
            )
        else:
            return int(node.text)
        return None

    def _scheme(self, node: Node, key: str) -> Scheme | None:
        text = self._choice(node, key, [scheme.value for scheme in Scheme])
        return None if text is None else Scheme(text)

    def _tls(self, node: Node, key: str) -> Tls | None:
        text = self._choice(node, key, [tls.value for tls in Tls])
        return None if text is None else Tls(text)

    def _methods(self, node: Node, key: str) -> frozenset[str] | None:
        methods = self._list(node, key, self._method, _LISTS["methods"])
        return None if methods is None else frozenset(methods)

    def _method(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is None or text in METHODS:
            return text
        if text in _REFUSED_METHODS:
            what, mend = f"{text} is always denied", "delete it"
        elif text.upper() in METHODS:
            what, mend = f"the method {quoted(text)} is not in capitals", f"write {text.upper()}"
        elif text == "*":
            what, mend = '"*" is not a method', "leave methods out to mean every method"
        else:
            what = f"unknown method {quoted(text)}"
            mend = nearest(text.upper(), METHODS) or f"use one of {_listed(METHODS)}"
        self._problems.add(what, node, key=key, mend=mend)
        return None

    def _paths(self, node: Node, key: str) -> tuple[PathGlob, ...] | None:
        paths = self._list(node, key, self._path, _LISTS["paths"])
        return None if paths is None else tuple(paths)

    def _path(self, node: Node, key: str) -> PathGlob | None:
        text = self._text(node, key)
        if text is None:
            return None
        try:
            return PathGlob.parse(text)
        except PatternError as error:
            mend = error.mend
            if "?" in text:
                mend = "the query is not judged: write the path without it"
            elif text and text[0] not in "/*":
                mend = f'write "/{text}"' if "://" not in text else "write the path alone"
            self._problems.add(error.what, node, key=key, mend=mend)
            return None

    def _addresses(self, node: Node, key: str) -> tuple[Network, ...] | None:
        networks: list[Network] | None
        networks = self._list(node, key, self._network, _LISTS["addresses"])
        return None if networks is None else tuple(networks)

    def _network(self, node: Node, key: str) -> Network | None:
        text = self._text(node, key)
        if text is None:
            return None
        try:
            return network_of(text)
        except PatternError as error:
            self._problems.add(error.what, node, key=key, mend=error.mend)
            return None

    def _text(self, node: Node, key: str) -> str | None:
        if not isinstance(node, Scalar):
            what = "a list" if isinstance(node, Sequence) else "a mapping"
            self._problems.add(f"{what} where a text belongs", node, key=key, mend="write a text")
            return None
        kind = _type_of(node) if node.plain else None
        if kind is None:
            return node.text
        if kind == "null":
            self._problems.add("the value is missing", node, key=key, mend="write it, or delete it")
            return None
        mend = f'if the text is meant, put it in quotes: "{node.text}"'
        self._problems.add(
            f"{quoted(node.text)} without quotes is {kind} in YAML", node, key=key, mend=mend
        )
        return None

    def _choice(self, node: Node, key: str, choices: list[str]) -> str | None:
        if isinstance(node, Scalar) and node.text in choices:
            return node.text
        name = key.rpartition(".")[2]
        shown = quoted(node.text) if isinstance(node, Scalar) else "this"
        mend = f"write {' or '.join(choices)}"
        self._problems.add(f"{shown} is no value of {name}", node, key=key, mend=mend)
        return None

    def _list[T](
        self,
        node: Node,
        key: str,
        read: Callable[[Node, str], T | None],
        example_and_absence: tuple[str, str],
    ) -> list[T] | None:
        """Return the items of a list that is neither empty nor repeats itself."""
        name = key.rpartition(".")[2]
        example, absence = example_and_absence
        if isinstance(node, Sequence) and not node.items:
            mend = f"name some, as in {name}: {example}, or {absence}"
            self._problems.add(f"{name} is an empty list", node, key=key, mend=mend)
            return None
        if not isinstance(node, Sequence):
            given = node.text if isinstance(node, Scalar) and _type_of(node) != "null" else ""
            mend = f"write {name}: {f'[{given}]' if given else example}"
            self._problems.add(f"{name} is not a list", node, key=key, mend=mend)
            return None
        values: list[T] = []
        for index, item in enumerate(node.items):
            place = f"{key}[{index}]"
            value = None if isinstance(item, Broken) else read(item, place)
            if value is not None and value in values:
                self._problems.add(f"{value} stands twice", item, key=place, mend="delete one")
            elif value is not None:
                values.append(value)
        return values if len(values) == len(node.items) else None

    # What fields say together.

    def _check_ports(
        self, node: Node | None, ports: frozenset[int] | None, scheme: Scheme, key: str
    ) -> None:
        other = Scheme.HTTP if scheme is Scheme.HTTPS else Scheme.HTTPS
        if node is None or ports is None or _DEFAULT_PORT[other] not in ports:
            return
        self._problems.add(
            f"port {_DEFAULT_PORT[other]} is for scheme {other}, and this entry is for {scheme}",
            node,
            key=f"{key}.ports",
            mend=f"delete the port, or give {other} an entry of its own with scheme: {other}",
        )

    def _check_tls(
        self, fields: dict[str, Node], tls: Tls | None, scheme: Scheme | None, key: str
    ) -> None:
        if tls is None:
            return
        if scheme is Scheme.HTTP:
            self._problems.add(
                "plain HTTP has no TLS", fields["tls"], key=f"{key}.tls", mend="delete tls"
            )
        for name in ("methods", "paths"):
            if tls is Tls.PASSTHROUGH and name in fields:
                self._problems.add(
                    f"{name} cannot be checked on a host whose TLS is passed through",
                    fields[name],
                    key=f"{key}.{name}",
                    mend=f"delete {name}, or tls: passthrough",
                )

    def _check_addresses(
        self, fields: dict[str, Node], pattern: HostPattern | None, key: str
    ) -> None:
        if "addresses" in fields and pattern is not None and pattern.network is not None:
            self._problems.add(
                "addresses are for host names, and this host is an address itself",
                fields["addresses"],
                key=f"{key}.addresses",
                mend="delete addresses",
            )


_HTTPS_PORTS = frozenset({_DEFAULT_PORT[Scheme.HTTPS]})


def _is_number(node: Scalar) -> bool:
    return node.text[:1].isdecimal() and _type_of(node) == "a number"


def _type_of(node: Scalar) -> str | None:
    """Return what YAML 1.1 would read a plain word as, None if as text."""
    text = node.text
    if not text:
        return "null"
    for tag, pattern in _RESOLVERS.get(text[0], ()):
        if pattern.match(text):
            name = tag.rpartition(":")[2]
            return "null" if name == "null" else _TYPES.get(name)
    return None


def _mend_of_field(name: str, known: tuple[str, ...], *, deny: bool) -> str:
    if name == "preset" or _OTHER_NAMES.get(name.lower()) == "preset":
        if deny:
            return "presets are for allow; name the hosts to deny"
        return "a preset stands alone: - preset: NAME"
    if deny and name in ALLOW_FIELDS:
        return f"a deny entry takes {_listed(known)}"
    other = _OTHER_NAMES.get(name.lower())
    if other in known:
        return f"write {other}"
    if "." in name:
        return f'to name a host, write "- {name}" without a colon, or "- host: {name}"'
    return nearest(name.lower(), known) or f"use one of {_listed(known)}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the mend that names the known word most like `name`, if one is like it."""
    near = difflib.get_close_matches(name, list(known), n=3)
    if not near:
        return None
    # Among the likeliest, people get beginnings right: "clod" is claude, not vscode.
    best = max(near, key=lambda word: _common_start(word, name))
    return f"did you mean {best}?"


def _common_start(one: str, other: str) -> int:
    return next(
        (at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
