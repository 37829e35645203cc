"""Rule reader: one entry of `allow` or `deny` to a `Rule`, every mistake with its fix.

Law kept: default-deny. A field that is unknown, empty or of the wrong type is a problem with its
place; a value is never ignored, corrected or guessed. Pure.
"""

from collections.abc import Iterable
from functools import partial

from claude_proxy.config.allowlist import format as table
from claude_proxy.config.strict_yaml.fields import FieldReader, nearest
from claude_proxy.config.strict_yaml.hosts import network_of
from claude_proxy.config.strict_yaml.nodes import Node, YamlMapping, YamlScalar, quoted
from claude_proxy.policy.methods import METHODS
from claude_proxy.policy.patterns import HostPattern, PatternError
from claude_proxy.policy.raw_ports import NEVER_TLS_FIRST
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import WEB_PORTS, RawScheme, Rule, RuleScheme, Tls
from claude_proxy.wire.address import Network

_REFUSED_METHODS = ("TRACE", "CONNECT")

ALLOW_FIELDS = table.names_of(table.ALLOW)
DENY_FIELDS = table.names_of(table.DENY)
# Names of other programs for the same keys.
_OTHER_NAMES = {
    "address": "addresses",
    "asks": "ask",
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
    "methods": ("[GET, HEAD]", "delete the line to mean every method"),
    "addresses": ('["10.1.2.0/24"]', "delete the line"),
}

_DEFAULT_PORT = {Scheme.HTTPS: 443, Scheme.HTTP: 80}


class RuleReader(FieldReader):
    """Turns entries into rules; every mistake goes to `problems`."""

    def rule_of_text(self, node: YamlScalar, key: str, *, deny: bool) -> Rule | None:
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

    def rule_of_mapping(self, node: YamlMapping, key: str, *, deny: bool) -> Rule | None:
        """Return the rule for an entry with fields."""
        before = len(self._problems)
        known = DENY_FIELDS if deny else ALLOW_FIELDS
        fields = self._fields(node, key, known, partial(_fix_of_field, known=known, deny=deny))
        if "host" not in fields and len(self._problems) == before and node.whole:
            self._problems.add(
                "the entry names no host", node, key=key, fix="add a line: host: example.com"
            )
        pattern = self._read(fields, "host", key, self._host)
        scheme = _scheme_of(self._read(fields, "scheme", key, self._scheme))
        if scheme is None and not deny:
            scheme = Scheme.HTTPS
        ports = self._read(fields, "ports", key, self._ports)
        if isinstance(scheme, RawScheme):
            self._check_tcp(fields, ports, key, deny=deny)
        elif not deny and scheme is not None:
            self._check_ports(fields.get("ports"), ports, scheme, key)
            ports = ports if ports is not None else frozenset({_DEFAULT_PORT[scheme]})
        methods = self._read(fields, "methods", key, self._methods)
        paths = self._read(fields, "paths", key, self._paths)
        tls = self._read(fields, "tls", key, self._tls)
        addresses = self._read(fields, "addresses", key, self._addresses)
        note = self._read(fields, "note", key, self._text)
        asks = self._read(fields, "ask", key, self._yes_no)
        self._check_tls(fields, tls, scheme, key)
        if tls is Tls.PASSTHROUGH and ports is not None:
            self._check_passed_ports(fields, ports, key)
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
            asks=asks or False,
        )

    # One method a field: each returns None once it has noted a problem.

    def _scheme(self, node: Node, key: str) -> str | None:
        return self._choice(node, key, [scheme.value for scheme in (*Scheme, *RawScheme)])

    def _tls(self, node: Node, key: str) -> Tls | None:
        text = self._choice(node, key, [tls.value for tls in Tls])
        return None if text is None else Tls(text)

    def _yes_no(self, node: Node, key: str) -> bool | None:
        if isinstance(node, YamlScalar) and node.plain and node.text in {"true", "false"}:
            return node.text == "true"
        name = key.rpartition(".")[2]
        what = f"{name} is neither true nor false"
        self._problems.add(what, node, key=key, fix=f"write {name}: true, or delete the line")
        return None

    def _methods(self, node: Node, key: str) -> frozenset[str] | None:
        methods = self._list(node, key, self._method, _LISTS["methods"])
        return None if methods is None else frozenset(methods)

    def _method(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is None or text in METHODS:
            return text
        if text in _REFUSED_METHODS:
            what, fix = f"{text} is always denied", "delete it"
        elif text.upper() in METHODS:
            what, fix = f"the method {quoted(text)} is not in capitals", f"write {text.upper()}"
        elif text == "*":
            what, fix = '"*" is not a method', "leave methods out to mean every method"
        else:
            what = f"unknown method {quoted(text)}"
            fix = nearest(text.upper(), METHODS) or f"use one of {_listed(METHODS)}"
        self._problems.add(what, node, key=key, fix=fix)
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
            self._problems.add(error.what, node, key=key, fix=error.fix)
            return None

    # What fields say together.

    def _check_tcp(
        self, fields: dict[str, Node], ports: frozenset[int] | None, key: str, *, deny: bool
    ) -> None:
        """Report what a rule for bytes of any protocol cannot have, or lacks."""
        if not deny and "ports" not in fields:
            self._problems.add(
                "scheme: tcp names no port, and any protocol could be spoken on it",
                fields["scheme"],
                key=f"{key}.ports",
                fix="add the port, such as ports: [5432]",
            )
        for name in ("methods", "paths", "tls"):
            if name in fields:
                self._problems.add(
                    f"{name} cannot be kept with scheme: tcp, where no request is seen",
                    fields[name],
                    key=f"{key}.{name}",
                    fix=f"delete {name}",
                )
        if not deny and ports is not None and (web := sorted(ports & WEB_PORTS)):
            scheme = Scheme.HTTP if web[0] == _DEFAULT_PORT[Scheme.HTTP] else Scheme.HTTPS
            self._problems.add(
                f"port {web[0]} is for {scheme}, whose requests are judged, and not for tcp",
                fields["ports"],
                key=f"{key}.ports",
                fix=f"delete the port; an entry with scheme: {scheme} lets requests through"
                + (", and tls: passthrough leaves TLS alone" if scheme is Scheme.HTTPS else ""),
            )

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
            fix=f"delete the port, or give {other} an entry of its own with scheme: {other}",
        )

    def _check_tls(
        self, fields: dict[str, Node], tls: Tls | None, scheme: RuleScheme | None, key: str
    ) -> None:
        if tls is None or scheme is RawScheme.TCP:
            return
        if scheme is Scheme.HTTP:
            self._problems.add(
                "plain HTTP has no TLS", fields["tls"], key=f"{key}.tls", fix="delete tls"
            )
        for name in ("methods", "paths"):
            if tls is Tls.PASSTHROUGH and name in fields:
                self._problems.add(
                    f"{name} cannot be checked on a host whose TLS is passed through",
                    fields[name],
                    key=f"{key}.{name}",
                    fix=f"delete {name}, or tls: passthrough",
                )

    def _check_passed_ports(self, fields: dict[str, Node], ports: frozenset[int], key: str) -> None:
        """Report ports where a passthrough, which is one of TLS, would let nothing through."""
        found = min(ports & NEVER_TLS_FIRST.keys(), default=None)
        if found is not None:
            self._problems.add(
                f"{NEVER_TLS_FIRST[found]} on port {found} does not begin with TLS, and tls: "
                "passthrough is for TLS alone",
                fields["tls"],
                key=f"{key}.tls",
                fix=f"write scheme: tcp in place of tls: passthrough, for port {found}",
            )

    def _check_addresses(
        self, fields: dict[str, Node], pattern: HostPattern | None, key: str
    ) -> None:
        if "addresses" in fields and pattern is not None and pattern.network is not None:
            self._problems.add(
                "addresses are for host names, and this host is an address itself",
                fields["addresses"],
                key=f"{key}.addresses",
                fix="delete addresses",
            )


_HTTPS_PORTS = frozenset({_DEFAULT_PORT[Scheme.HTTPS]})


def _scheme_of(text: str | None) -> RuleScheme | None:
    if text is None:
        return None
    return RawScheme.TCP if text == RawScheme.TCP.value else Scheme(text)


def _fix_of_field(name: str, known: tuple[str, ...], *, deny: bool) -> str:
    if name == "preset" or _OTHER_NAMES.get(name.lower()) == "preset":
        if deny:
            return "presets are for allow; name the hosts to deny"
        return "a preset is an entry of its own: - preset: NAME"
    if deny and name in ALLOW_FIELDS:
        return f"a deny entry takes {_listed(known)}"
    other = _OTHER_NAMES.get(name.lower())
    if other in known:
        return f"write {other}"
    if "." in name:
        return f'to name a host, write "- {name}" without a colon, or "- host: {name}"'
    return nearest(name.lower(), known) or f"use one of {_listed(known)}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)
