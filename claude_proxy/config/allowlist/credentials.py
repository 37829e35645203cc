"""Credential reader: which secret is for which hosts, and where it is kept.

Laws kept: default-deny, secrets stay outside. A secret itself does not belong in the file: what
looks like one is refused, and no message quotes it, nor any value that could be one. Pure: nothing
that is named here is opened.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path

from claude_proxy.config.allowlist import format as table
from claude_proxy.config.allowlist.conflicts import Coverage
from claude_proxy.config.option_values import parse_timeout
from claude_proxy.config.strict_yaml.fields import FieldReader, nearest, type_of
from claude_proxy.config.strict_yaml.nodes import (
    Broken,
    Node,
    Problems,
    YamlList,
    YamlMapping,
    YamlScalar,
    quoted,
)
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.policy.credentials.binding import (
    HTTPS_PORT,
    POSTGRES_PORT,
    Binding,
    DatabaseLogin,
    Form,
    Injection,
    LoginMethod,
    LoginPin,
    default_placeholder,
)
from claude_proxy.policy.credentials.sources import (
    CommandSource,
    EnvironmentSource,
    FileSource,
    KeyringSource,
    SecretSource,
    SystemdSource,
)
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.rules import OVERRIDE_HEADERS

FIELDS = table.names_of(table.CREDENTIAL)
# The kinds of sources, each with the keys that may be beside it.
SOURCES = {
    "env": (),
    "file": ("key",),
    "command": ("refresh",),
    "keyring": ("user",),
    "systemd": (),
}
_SOURCE_FIELDS = table.names_of(table.SOURCE)
# Every request is searched for every placeholder.
MOST = 256

SHORTEST_PLACEHOLDER = 16
_LONGEST_PLACEHOLDER = 256
_FEWEST_CHARACTERS = 8  # that are different, in a placeholder
_LEARN = "learn"
_NO_TLS = "none"
_OF_POSTGRES = ("PGPASSWORD",)  # of libpq, and of the clients that follow it
_SAME_HASH = "the same hash is listed twice"
_FIX_TOO_MANY = "give entries with the same secret one list of hosts"
_FIX_TAKEN = "give it another, with `name:`"
_GATEWAY = "gateway"  # the name that the gateway's own credential has
_HTTP_PORT = 80
_SHORTEST_REFRESH_S = 1.0
_DEFAULT_REFRESH = CommandSource(()).refresh_s

_KEEP_IT_ELSEWHERE = (
    "take it out of the file, and say where it is kept: from: {env: NAME}, {file: PATH}, "
    "{command: [PROGRAM]}, {keyring: SERVICE, user: NAME} or {systemd: NAME}"
)
_EXAMPLE = "from: {env: NAME}"
_HASH = '"sha256:SALT:DIGEST" as `claude-proxy credentials hash` prints it'
_FIX_PIN = f"write learn, {{{_EXAMPLE}}} or {_HASH}"

# Names of other programs for the same keys.
_OTHER_NAMES = {
    "description": "name",
    "domain": "host",
    "domains": "hosts",
    "env_var": "variables",
    "environment": "variables",
    "header": "field",
    "id": "name",
    "mode": "inject",
    "port": "ports",
    "source": "from",
    "type": "inject",
    "url": "host",
    "username": "user",
    "variable": "variables",
}
_OTHER_SOURCES = {
    "arguments": "command",
    "cmd": "command",
    "environment": "env",
    "exec": "command",
    "interval": "refresh",
    "keychain": "keyring",
    "path": "file",
    "run": "command",
    "service": "keyring",
    "ttl": "refresh",
    "username": "user",
    "var": "env",
    "variable": "env",
}
_OTHER_FORMS = {
    "api-key": Form.X_API_KEY,
    "apikey": Form.X_API_KEY,
    "authorization": Form.BEARER,
    "header": Form.FIELD,
    "oauth": Form.BEARER,
    "token": Form.BEARER,
    "x_api_key": Form.X_API_KEY,
}
# Keys below which people write the secret itself.
_names_a_value = lazy_pattern(
    r"value|secret|token|pass(word|wd)?|(api|auth|access|private|secret)[-_]?(key|token)"
    r"|bearer|credential|literal",
    re.IGNORECASE,
).fullmatch

# How keys and tokens begin that are in use; a text that calls itself a placeholder is none.
_begins_a_secret = lazy_pattern(
    r"""(?<![A-Za-z0-9])(?:
        sk-ant-[a-z]{2,10}[0-9]{2}- | sk-[A-Za-z0-9_-]{16}
      | gh[oprsu]_[A-Za-z0-9]{4} | github_pat_[A-Za-z0-9]{4} | gl[a-z]{2,6}-[A-Za-z0-9_-]{16}
      | xox[a-z]-[A-Za-z0-9-]{8} | A[KS]IA[A-Z0-9]{12} | AIza[A-Za-z0-9_-]{16}
      | ya29\.[A-Za-z0-9_-]{8} | npm_[A-Za-z0-9]{16} | pypi-[A-Za-z0-9_-]{16}
      | hf_[A-Za-z0-9]{16} | [rs]k_live_[A-Za-z0-9]{8}
      | eyJ[A-Za-z0-9_-]{8,}\. | -----BEGIN[ ] | (?:bearer|basic)[ ]+[A-Za-z0-9._~+/-]{8}
    )""",
    re.VERBOSE | re.IGNORECASE,
).search
_is_path = lazy_pattern(r"(?:/|~/)[^\n]*").fullmatch

_is_word = lazy_pattern(r"[A-Za-z_-]{1,20}").fullmatch
_is_name = lazy_pattern(r"[a-z0-9][a-z0-9._-]{0,252}").fullmatch
_is_variable = lazy_pattern(r"[A-Za-z_][A-Za-z0-9_]{0,127}").fullmatch
_is_digest = lazy_pattern(r"sha256:(?:[0-9a-f]{2}){8,64}:[0-9a-f]{64}").fullmatch
_is_field = lazy_pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}").fullmatch
_is_visible = lazy_pattern(r"[!-~]+").fullmatch
_is_unit = lazy_pattern(r"[A-Za-z0-9_.@:-]{1,255}").fullmatch

# What frames a message, says where it goes, or belongs to the way and not to the request.
_is_refused_field = lazy_pattern(
    r"host|connection|keep-alive|te|trailer|transfer-encoding|upgrade|expect|date|via|forwarded"
    r"|accept-encoding|content-.*|proxy-.*|sec-.*|x-forwarded-.*|anthropic-(beta|version)"
).fullmatch

# Variables that programs are steered by: a placeholder there would break them, or do worse.
_is_steering = lazy_pattern(
    r"PATH|HOME|PWD|OLDPWD|SHELL|USER|LOGNAME|TERM|LANG|LC_.*|TZ|TMPDIR|IFS|ENV|BASH_ENV|PS[0-4]"
    r"|PROMPT_COMMAND|EDITOR|VISUAL|PAGER|BROWSER|MANPATH|CDPATH|SHELLOPTS|BASHOPTS|XDG_.*|DBUS_.*"
    r"|LD_.*|DYLD_.*|GLIBC_.*|MALLOC_.*|NODE_OPTIONS|NODE_PATH|NODE_EXTRA_.*|NODE_TLS_.*|NPM_CONFIG_.*"
    r"|PYTHON.*|PERL.*|RUBY(OPT|LIB)|JAVA_TOOL_OPTIONS|_JAVA_OPTIONS|JDK_JAVA_OPTIONS|CLASSPATH"
    r"|GIT_(?!TOKEN|PASSWORD).*|SSH_.*|(.*_)?PROXY|SSL_CERT_.*|CURL_.*|REQUESTS_CA_BUNDLE|OPENSSL_.*"
    r"|ANTHROPIC_(BASE_URL|UNIX_SOCKET|CUSTOM_HEADERS|MODEL)|CLAUDE_PROXY_.*|CLAUDECODE|SANDBOX_.*",
    re.IGNORECASE,
).fullmatch

# Texts of ordinary requests: a placeholder that is a part of one would be found in most of them.
_ORDINARY = (
    "accept: application/json, text/event-stream, text/html, application/xml;q=0.9, */*;q=0.8",
    "content-type: application/x-www-form-urlencoded; multipart/form-data; boundary=",
    "application/octet-stream; application/grpc; application/x-git-upload-pack-request",
    "x-git-receive-pack-result; git-upload-pack; accept-encoding: gzip, deflate, br, zstd",
    "accept-language: en-us,en;q=0.5",
    "cache-control: no-cache, no-store, must-revalidate, max-age=0",
    "anthropic-dangerous-direct-browser-access: true; strict-transport-security",
    "mozilla/5.0 (windows nt 10.0; win64; x64) applewebkit/537.36 (khtml, like gecko) chrome/",
    "mozilla/5.0 (x11; linux x86_64) (macintosh; intel mac os x 10_15_7) gecko/20100101 firefox",
    "/v1/messages/count_tokens?beta=true /v1/messages/batches /api/oauth/claude_cli/",
    "abcdefghijklmnopqrstuvwxyz abcdefghijklmnopqrstuvwxyz0123456789+/ 0123456789abcdef0123456789",
)


@dataclass(frozen=True, slots=True)
class ReadCredential:
    """One entry with its place, for mistakes that several entries make together."""

    binding: Binding
    node: Node
    key: str
    problems: Problems

    def note(self, what: str, *, key: str = "", fix: str) -> None:
        """Note a mistake at this entry."""
        self.problems.add(what, self.node, key=key or self.key, fix=fix)

    def line(self, seen_from: "ReadCredential") -> str:
        """Return where this entry is, as a message about another one says it."""
        same = self.problems is seen_from.problems
        return f"line {self.node.line}" if same else f"{self.problems.name}:{self.node.line}"


class CredentialReader(FieldReader):
    """Turns the entries of `credentials` into bindings; every mistake goes to `problems`."""

    def __init__(self, problems: Problems) -> None:
        super().__init__(problems, preset=None)

    def read_all(self, entries: list[Node]) -> list[ReadCredential]:
        """Return what each entry says; what is wrong with any of them is noted."""
        if len(entries) > MOST:
            what = f"{len(entries)} credentials, and there may be {MOST}"
            self._problems.add(what, entries[MOST], key="credentials", fix=_FIX_TOO_MANY)
            return []
        found: list[ReadCredential] = []
        for index, entry in enumerate(entries):
            key = f"credentials[{index}]"
            node = self._without_secrets(entry, key)
            if isinstance(node, YamlMapping):
                binding = self._binding(node, key)
                found += (
                    [] if binding is None else [ReadCredential(binding, node, key, self._problems)]
                )
            elif not isinstance(node, Broken):
                fix = f"write - {{host: api.example.com, inject: bearer, {_EXAMPLE}}}"
                self._problems.add("a credential is a mapping", node, key=key, fix=fix)
        return found

    def source_at(self, node: Node, key: str) -> SecretSource | None:
        """Return the source that `from` names elsewhere; what is wrong with it is noted."""
        kept = self._without_secrets(node, key)
        return None if isinstance(kept, Broken) else self._secret_source(kept, key)

    # No secret goes on from here, so that no message can quote it.

    def _without_secrets(self, node: Node, key: str) -> Node:
        """Return `node` with what looks like a secret reported and taken out."""
        if isinstance(node, YamlScalar):
            return self._refused(node, key) if _looks_secret(node.text) else node
        if isinstance(node, YamlList):
            node.items = [
                self._without_secrets(item, f"{key}[{at}]") for at, item in enumerate(node.items)
            ]
        elif isinstance(node, YamlMapping):
            kept = []
            for name, value in node.entries:
                if _looks_secret(name.text):
                    self._refused(name, key)
                    node.whole = False
                else:
                    place = f"{key}.{name.text}" if _is_word(name.text) else key
                    kept.append((name, self._without_secrets(value, place)))
            node.entries = kept
        return node

    def _refused(self, node: YamlScalar, key: str) -> Broken:
        self._problems.add("this looks like a secret", node, key=key, fix=_KEEP_IT_ELSEWHERE)
        return Broken(node.line, node.column)

    def _text(self, node: Node, key: str) -> str | None:
        """Return a text as `FieldReader` does, but never quote it: who knows what it is."""
        kind = type_of(node) if isinstance(node, YamlScalar) and node.plain else None
        if kind in {None, "null"}:
            return super()._text(node, key)
        what = f"{kind} without quotes, where a string belongs"
        self._problems.add(what, node, key=key, fix="put it in quotes")
        return None

    def _named(self, name: YamlScalar) -> str:
        # "value:hunter2" is a key, as there is no space after its colon.
        return quoted(name.text) if _is_word(name.text) else "(not a word)"

    def _shown(self, node: YamlScalar) -> str:
        return node.text if _is_variable(node.text) and node.text.isupper() else ""

    # One entry.

    def _binding(self, node: YamlMapping, key: str) -> Binding | None:
        before = len(self._problems)
        fields = self._fields(node, key, FIELDS, _fix_of_field)
        if not {"host", "hosts"} & set(fields) and len(self._problems) == before and node.whole:
            fix = "add a line: host: api.example.com"
            self._problems.add("the entry names no host", node, key=key, fix=fix)
        patterns = self._hosts(fields, key)
        ports = self._read(fields, "ports", key, self._tls_ports)
        name = self._read(fields, "name", key, self._name)
        use = self._use(fields, node, key)
        if patterns is None or use is None or len(self._problems) > before:
            return None
        name = name or str(patterns[0]).lstrip("*.")
        if name == _GATEWAY:
            self._problems.add(f"the name {name} is taken", node, key=key, fix=_FIX_TAKEN)
            return None
        if isinstance(use, Injection) and not use.placeholder:
            use = replace(use, placeholder=default_placeholder(name, patterns, use.form))
        usual = HTTPS_PORT if is_for_requests_alone(use) else POSTGRES_PORT
        return Binding(name, patterns, use, self._source(node), ports or frozenset({usual}))

    def _host(self, node: Node, key: str) -> HostPattern | None:
        pattern = super()._host(node, key)
        if pattern is None or pattern.network is None:
            return pattern
        what = f"a credential is for a host with a name, and {pattern} is an address"
        self._problems.add(what, node, key=key, fix="name the host, as its certificate does")
        return None

    def _tls_ports(self, node: Node, key: str) -> frozenset[int] | None:
        ports = self._ports(node, key)
        if ports is not None and _HTTP_PORT in ports:
            what = f"port {_HTTP_PORT} is for plain HTTP, over which no credential goes"
            self._problems.add(what, node, key=key, fix="delete the port")
        return ports

    def _name(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is None:
            return None
        if _is_name(text) is None:
            fix = "write a word of small letters, digits, dots and hyphens, such as anthropic"
            self._problems.add("not a name for a credential", node, key=key, fix=fix)
            return None
        return text

    def _use(
        self, fields: dict[str, Node], node: YamlMapping, key: str
    ) -> Injection | LoginPin | None:
        if "inject" in fields and "pin" in fields:
            what = "both inject and pin"
            fix = "keep inject to have the secret put in, or pin to let the client's own pass"
            self._problems.add(what, fields["pin"], key=key, fix=fix)
            return None
        if "pin" in fields:
            return self._pin_entry(fields, key)
        if "inject" in fields:
            return self._injection(fields, node, key)
        if node.whole:
            fix = "add inject: auto (or x-api-key, bearer, basic, field, postgres), or pin: learn"
            self._problems.add("neither inject nor pin", node, key=key, fix=fix)
        return None

    # What is put in.

    def _injection(self, fields: dict[str, Node], node: YamlMapping, key: str) -> Injection | None:
        form = self._read(fields, "inject", key, self._form)
        if "from" not in fields:
            fix = f"say where the secret is kept: {_EXAMPLE}"
            self._problems.add("inject without from", node, key=key, fix=fix)
        source = self._from(fields, key)
        name = self._read(fields, "field", key, self._field_name)
        user = self._read(fields, "user", key, self._user)
        self._check_companion(fields, node, key, form, "field", (Form.FIELD,))
        self._check_companion(fields, node, key, form, "user", (Form.BASIC, Form.POSTGRES))
        database = self._database(fields, form, key)
        placeholder = self._read(fields, "placeholder", key, self._placeholder)
        variables = self._read(fields, "variables", key, self._variables)
        if form is None or source is None:
            return None
        if database is not None and variables is None:
            variables = _OF_POSTGRES
        return Injection(
            source,
            form,
            name or "",
            user or "",
            placeholder or "",
            variables or (),
            database=database,
        )

    def _database(
        self, fields: dict[str, Node], form: Form | None, key: str
    ) -> DatabaseLogin | None:
        """Return how a database is logged in to; None for another form, or after a mistake."""
        before = len(self._problems)
        if form is not Form.POSTGRES:
            for name in ("database", "tls", "auth"):
                if form is not None and name in fields:
                    fix = f"delete {name}, or write inject: {Form.POSTGRES}"
                    what = f"{name} goes with inject: {Form.POSTGRES}"
                    self._problems.add(what, fields[name], key=key, fix=fix)
            return None
        database = self._read(fields, "database", key, self._database_name)
        tls = self._read(fields, "tls", key, self._server_tls)
        methods = self._read(fields, "auth", key, self._login_methods)
        is_clear = methods is not None and LoginMethod.PASSWORD in methods
        if is_clear and tls == _NO_TLS:
            self._problems.add(
                "the password would be sent in clear, without TLS",
                fields["auth"],
                key=f"{key}.auth",
                fix=f"delete {LoginMethod.PASSWORD} from it, or write tls: verify",
            )
        if len(self._problems) > before:
            return None
        default = DatabaseLogin()
        return DatabaseLogin(database or "", tls != _NO_TLS, methods or default.methods)

    def _database_name(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is not None and (not text or "\0" in text):
            fix = "write the name of the database"
            self._problems.add("not the name of a database", node, key=key, fix=fix)
            return None
        return text

    def _server_tls(self, node: Node, key: str) -> str | None:
        return self._choice(node, key, ["verify", _NO_TLS])

    def _login_methods(self, node: Node, key: str) -> frozenset[LoginMethod] | None:
        found = self._list(node, key, self._login_method, ("[scram-sha-256]", "delete the line"))
        return None if found is None else frozenset(found)

    def _login_method(self, node: Node, key: str) -> LoginMethod | None:
        text = self._choice(node, key, list(LoginMethod))
        return None if text is None else LoginMethod(text)

    def _check_companion(  # noqa: PLR0913 - what may be wrong, and where
        self,
        fields: dict[str, Node],
        node: Node,
        key: str,
        form: Form | None,
        name: str,
        wanted_by: tuple[Form, ...],
    ) -> None:
        words = " or ".join(wanted_by)
        if form in wanted_by and name not in fields:
            example = "field: X-Token" if name == "field" else "user: x-access-token"
            self._problems.add(
                f"inject: {form} without {name}", node, key=key, fix=f"add {example}"
            )
        elif form is not None and form not in wanted_by and name in fields:
            fix = f"delete {name}, or write inject: {words}"
            self._problems.add(f"{name} goes with inject: {words}", fields[name], key=key, fix=fix)

    def _form(self, node: Node, key: str) -> Form | None:
        text = node.text if isinstance(node, YamlScalar) else ""
        if text in set(Form):
            return Form(text)
        other = _OTHER_FORMS.get(text.lower())
        usual = f"write {', '.join(Form)}"
        fix = f"write {other}" if other is not None else nearest(text.lower(), Form) or usual
        self._problems.add("not a way to inject", node, key=key, fix=fix)
        return None

    def _field_name(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is None:
            return None
        name = text.lower()
        if _is_field(text) is None:
            fix = "write only the name of the header field, such as X-Token"
            self._problems.add("not the name of a header field", node, key=key, fix=fix)
            return None
        if _is_refused_field(name) is not None or name.encode() in OVERRIDE_HEADERS:
            what = f"the field {name} is not for credentials"
            self._problems.add(what, node, key=key, fix="name the field that the host expects")
            return None
        return name

    def _user(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is not None and (_is_visible(text) is None or ":" in text):
            fix = "write it in visible ASCII characters, without a colon"
            self._problems.add("not a user name", node, key=key, fix=fix)
            return None
        return text

    def _placeholder(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is None:
            return None
        what = _fault_of_placeholder(text)
        if what is not None:
            fix = "write a text of your own, such as our-placeholder-of-github, or delete the line"
            self._problems.add(what, node, key=key, fix=fix)
            return None
        return text

    def _variables(self, node: Node, key: str) -> tuple[str, ...] | None:
        absence = "delete the line"
        names = self._list(node, key, self._variable, ("[GH_TOKEN]", absence))
        return None if names is None else tuple(names)

    def _variable(self, node: Node, key: str) -> str | None:
        name = self._variable_name(node, key)
        if name is not None and _is_steering(name) is not None:
            fix = "name the variable that holds the token, such as GH_TOKEN"
            self._problems.add(
                f"{name} steers programs, and holds no token", node, key=key, fix=fix
            )
            return None
        return name

    def _variable_name(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is None or _is_variable(text) is not None:
            return text
        fix = "write only its name, such as ANTHROPIC_API_KEY, without $"
        self._problems.add("not the name of a variable", node, key=key, fix=fix)
        return None

    # What is let through.

    def _pin_entry(self, fields: dict[str, Node], key: str) -> LoginPin | None:
        for name in ("field", "user", "placeholder", "variables"):
            if name in fields:
                fix = f"delete {name}, or write inject instead of pin"
                self._problems.add(f"{name} goes with inject", fields[name], key=key, fix=fix)
        if "from" in fields:
            fix = f"write pin: {{{_EXAMPLE}}}"
            self._problems.add("from beside pin", fields["from"], key=key, fix=fix)
        return self._read(fields, "pin", key, self._pin)

    def _pin(self, node: Node, key: str) -> LoginPin | None:
        if isinstance(node, YamlMapping):
            fields = self._fields(node, key, ("from",), _fix_of_pin)
            if not node.entries and node.whole:
                self._problems.add("an empty pin", node, key=key, fix=_FIX_PIN)
            source = self._from(fields, key)
            return None if source is None else LoginPin(source=source)
        if isinstance(node, YamlScalar) and node.text == _LEARN:
            return LoginPin(learn=True)
        items = node.items if isinstance(node, YamlList) else [node]
        digests = []
        for at, item in enumerate(items):
            place = f"{key}[{at}]" if isinstance(node, YamlList) else key
            digest = None if isinstance(item, Broken) else self._digest(item, place)
            if digest in digests:
                self._problems.add(_SAME_HASH, item, key=place, fix="delete one")
            digests += [] if digest is None else [digest]
        if not items:
            self._problems.add("pin is an empty list", node, key=key, fix=_FIX_PIN)
        return LoginPin(digests=tuple(digests)) if digests else None

    def _digest(self, node: Node, key: str) -> str | None:
        if isinstance(node, YamlScalar) and _is_digest(node.text):
            return node.text
        if isinstance(node, YamlScalar) and node.text == _LEARN:
            what, fix = "learn among hashes", "write only pin: learn, or only the hashes"
        else:
            what, fix = "neither learn nor the hash of a login", _FIX_PIN
        self._problems.add(what, node, key=key, fix=fix)
        return None

    # Where the secret is kept.

    def _from(self, fields: dict[str, Node], key: str) -> SecretSource | None:
        node = fields.get("from")
        if node is None or isinstance(node, Broken):
            return None
        return self._secret_source(node, f"{key}.from")

    def _secret_source(self, node: Node, key: str) -> SecretSource | None:
        if not isinstance(node, YamlMapping):
            self._problems.add("from names no source", node, key=key, fix=_KEEP_IT_ELSEWHERE)
            return None
        fields = self._fields(node, key, _SOURCE_FIELDS, _fix_of_source)
        kinds = [name for name in fields if name in SOURCES]
        if len(kinds) != 1:
            if kinds:
                what = f"from names {len(kinds)} sources: {' and '.join(kinds)}"
                self._problems.add(what, node, key=key, fix="keep one; a secret has one source")
            elif node.whole and len(fields) == len(node.entries):
                self._problems.add("from names no source", node, key=key, fix=_KEEP_IT_ELSEWHERE)
            return None
        kind = kinds[0]
        for name in fields:
            if name != kind and name not in SOURCES[kind]:
                owner = next(each for each, beside in SOURCES.items() if name in beside)
                fix = f"delete {name}, or write {owner}"
                self._problems.add(f"{name} goes with {owner}", fields[name], key=key, fix=fix)
        return self._source_of(kind, fields, node, key)

    def _source_of(
        self, kind: str, fields: dict[str, Node], node: Node, key: str
    ) -> SecretSource | None:
        match kind:
            case "env":
                name = self._read(fields, kind, key, self._variable_name)
                return None if name is None else EnvironmentSource(name)
            case "file":
                path = self._read(fields, kind, key, self._file)
                keys = self._read(fields, "key", key, self._keys)
                return None if path is None else FileSource(path, keys or ())
            case "command":
                argv = self._read(fields, kind, key, self._argv)
                refresh_s = self._read(fields, "refresh", key, self._refresh)
                return None if argv is None else CommandSource(argv, refresh_s or _DEFAULT_REFRESH)
            case "keyring":
                return self._keyring(fields, node, key)
            case _:
                name = self._read(fields, kind, key, self._unit)
                return None if name is None else SystemdSource(name)

    def _file(self, node: Node, key: str) -> Path | None:
        text = self._printable(node, key)
        if text is None:
            return None
        if _is_path(text) is None or text.endswith("/"):
            fix = "write it from / or from ~/, down to the file"
            self._problems.add("not the full path of a file", node, key=key, fix=fix)
            return None
        return Path(text)

    def _keys(self, node: Node, key: str) -> tuple[str, ...] | None:
        text = self._printable(node, key)
        if text is None:
            return None
        keys = tuple(text.split("."))
        if not all(keys):
            fix = "write the keys from the outermost on with a dot between, such as oauth.token"
            self._problems.add("not keys of a JSON file", node, key=key, fix=fix)
            return None
        return keys

    def _argv(self, node: Node, key: str) -> tuple[str, ...] | None:
        if not isinstance(node, YamlList) or not node.items:
            fix = "write it as a list: command: [PROGRAM, ARGUMENT]; no shell reads it"
            self._problems.add("the command is not a list", node, key=key, fix=fix)
            return None
        # An argument may be empty, or occur twice.
        items = [
            None
            if isinstance(item, Broken)
            else self._printable(item, f"{key}[{at}]", empty=at > 0)
            for at, item in enumerate(node.items)
        ]
        argv = tuple(item for item in items if item is not None)
        if len(argv) < len(items):
            return None
        if "/" in argv[0] and _is_path(argv[0]) is None:
            fix = "write it from / or from ~/, or only its name"
            self._problems.add("not the full path of a program", node, key=f"{key}[0]", fix=fix)
            return None
        return argv

    def _refresh(self, node: Node, key: str) -> float | None:
        fix = "write a time such as 5m, 1s or more"
        try:
            seconds = parse_timeout(node.text if isinstance(node, YamlScalar) else "")
        except ValueError:
            seconds = 0.0
        if seconds < _SHORTEST_REFRESH_S:
            self._problems.add("not a time after which to ask again", node, key=key, fix=fix)
            return None
        return seconds

    def _keyring(self, fields: dict[str, Node], node: Node, key: str) -> KeyringSource | None:
        service = self._read(fields, "keyring", key, self._printable)
        user = self._read(fields, "user", key, self._printable)
        if "user" not in fields:
            fix = "add the user that the entry is for: {keyring: SERVICE, user: NAME}"
            self._problems.add("keyring without user", node, key=key, fix=fix)
        return None if service is None or user is None else KeyringSource(service, user)

    def _unit(self, node: Node, key: str) -> str | None:
        text = self._text(node, key)
        if text is not None and (_is_unit(text) is None or text in {".", ".."}):
            fix = "write the name that LoadCredential= has for it"
            self._problems.add("not the name of a systemd credential", node, key=key, fix=fix)
            return None
        return text

    def _printable(self, node: Node, key: str, *, empty: bool = False) -> str | None:
        text = self._text(node, key)
        if text is None:
            return None
        if not text and not empty:
            fix = "write it, or delete it"
            self._problems.add("the value is empty", node, key=key, fix=fix)
        elif text and not text.isprintable():
            fix = "write it without"
            self._problems.add("a character that cannot be shown", node, key=key, fix=fix)
        else:
            return text
        return None


# What entries say together, in one file or in several.


def note_conflicts(found: list[ReadCredential]) -> None:
    """Note what is wrong with all credentials of a policy together."""
    if len(found) > MOST:
        what = f"{len(found)} credentials in all files, and there may be {MOST}"
        found[MOST].note(what, fix=_FIX_TOO_MANY)
        return
    _note_equal_names(found)
    _note_shared_hosts(found)
    _note_shared_variables(found)
    _note_placeholders(found)


def _note_equal_names(found: list[ReadCredential]) -> None:
    first: dict[str, ReadCredential] = {}
    for read in found:
        name = read.binding.name
        other = first.setdefault(name, read)
        if other is not read:
            what = f"two credentials are named {name}, the first in {other.line(read)}"
            read.note(what, fix="give this one a name of its own, by name")


def _note_shared_hosts(found: list[ReadCredential]) -> None:
    order = {id(read): at for at, read in enumerate(found)}
    coverage = Coverage(_places(found))
    noted: set[frozenset[int]] = set()
    for pattern, ports, read in _places(found):
        for _, other in coverage.around(pattern, ports):
            pair = frozenset({id(read), id(other)})
            if other is read or pair in noted:
                continue
            noted.add(pair)
            earlier, later = sorted((read, other), key=lambda one: order[id(one)])
            later.note(
                f"{pattern} has two credentials, the other in {earlier.line(later)}",
                fix="delete one, or give them hosts or ports that do not overlap",
            )


def _note_shared_variables(found: list[ReadCredential]) -> None:
    first: dict[str, ReadCredential] = {}
    for read in found:
        use = read.binding.use
        for name in use.variables if isinstance(use, Injection) else ():
            other = first.setdefault(name, read)
            if other is not read:
                what = f"{name} is the variable of two credentials, see {other.line(read)}"
                fix = "write variables: [NAME] in one of them, with a name that no other has"
                read.note(what, key=f"{read.key}.variables", fix=fix)


def _note_placeholders(found: list[ReadCredential]) -> None:
    spelled = [(read, text) for read in found if (text := _placeholder_of(read.binding))]
    hosts = [pattern.host for read in found for pattern in read.binding.patterns]
    for read, text in spelled:
        if any(text.lower() in host for host in hosts):
            what = "the placeholder is a part of a host's name"
            read.note(what, key=f"{read.key}.placeholder", fix="write another")
    for (one, text), (other, longer) in combinations(spelled, 2):
        if text in longer or longer in text:
            what = f"the placeholders of {one.binding.name} and {other.binding.name} overlap"
            fix = "write placeholder: TEXT for one of them, where neither holds the other"
            other.note(what, key=f"{other.key}.placeholder", fix=fix)


def _places(
    found: Iterable[ReadCredential],
) -> Iterator[tuple[HostPattern, frozenset[int], ReadCredential]]:
    for read in found:
        for pattern in read.binding.patterns:
            yield pattern, read.binding.ports, read


def is_for_requests_alone(use: Injection | LoginPin) -> bool:
    """Return whether a credential goes into requests, and not to a database."""
    return not isinstance(use, Injection) or use.database is None


def _placeholder_of(binding: Binding) -> str:
    return binding.use.placeholder if isinstance(binding.use, Injection) else ""


def _looks_secret(text: str) -> bool:
    if "placeholder" in text.lower() or _is_path(text) is not None:
        return False
    return _begins_a_secret(text) is not None


def _fault_of_placeholder(text: str) -> str | None:
    """Return why `text` is no placeholder, without a word of it."""
    if _is_visible(text) is None:
        return "the placeholder has a space or a character that is not ASCII"
    if len(text) < SHORTEST_PLACEHOLDER:
        return f"the placeholder is shorter than {SHORTEST_PLACEHOLDER} characters"
    if len(text) > _LONGEST_PLACEHOLDER:
        return f"the placeholder is longer than {_LONGEST_PLACEHOLDER} characters"
    varied = len(set(text)) >= _FEWEST_CHARACTERS and any(map(str.isalpha, text))
    if not varied or any(text.lower() in ordinary for ordinary in _ORDINARY):
        return "the placeholder could occur in an ordinary request by chance"
    return None


def _fix_of_field(name: str) -> str:
    if _names_a_value(name):
        return _KEEP_IT_ELSEWHERE
    if name in _SOURCE_FIELDS:
        return f"write it below from, as in {_EXAMPLE}"
    other = _OTHER_NAMES.get(name.lower())
    return f"write {other}" if other else nearest(name.lower(), FIELDS) or _one_of(FIELDS)


def _fix_of_source(name: str) -> str:
    if _names_a_value(name):
        return _KEEP_IT_ELSEWHERE
    other = _OTHER_SOURCES.get(name.lower())
    return f"write {other}" if other else nearest(name.lower(), _SOURCE_FIELDS) or _one_of(SOURCES)


def _fix_of_pin(name: str) -> str:
    return _KEEP_IT_ELSEWHERE if _names_a_value(name) else _FIX_PIN


def _one_of(words: Iterable[str]) -> str:
    return f"use one of {', '.join(words)}"
