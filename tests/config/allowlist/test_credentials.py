"""`credentials` of the allowlist: what it means, what it refuses, and that it quotes no secret."""

import json
from itertools import combinations, permutations
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from claude_proxy.config.allowlist import loader
from claude_proxy.config.allowlist.conflicts import unreached
from claude_proxy.config.allowlist.credentials import FIELDS, MOST, SHORTEST_PLACEHOLDER, SOURCES
from claude_proxy.config.allowlist.loader import Library
from claude_proxy.config.allowlist.schema import schema
from claude_proxy.errors import ConfigError, ConfigErrors
from claude_proxy.policy.credentials.binding import (
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
from claude_proxy.policy.location import Location
from claude_proxy.policy.patterns import HostPattern

SCHEMA = jsonschema.Draft202012Validator(schema())
DIGEST = "sha256:" + "0a" * 16 + ":" + "1b" * 32
OTHER_DIGEST = "sha256:" + "0c" * 16 + ":" + "1d" * 32

# Put together here, so that no scanner of repositories takes them for leaked ones.
SECRETS = {
    "a console key": "sk-ant" + "-api03-AbCdEf0123456789",
    "an OAuth token": "sk-ant" + "-oat01-AbCdEf0123456789",
    "a short key": "sk-ant" + "-api03-x",
    "a key of another model": "sk-" + "proj-0123456789abcdef",
    "a GitHub token": "ghp" + "_AbCdEf0123456789",
    "a fine-grained one": "github_" + "pat_11AAAAAAA0",
    "a GitLab token": "glpat" + "-0123456789abcdefghij",
    "a Slack token": "xoxb" + "-1234567890-abc",
    "an AWS key": "AKIA" + "IOSFODNN7EXAMPLE",
    "a JWT": "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln",
    "a private key": "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    "a whole header": "Bearer " + "0123456789abcdef",
    "inside a text": "token=" + "ghp" + "_AbCdEf0123456789",
}


def load(entries: str, *, before: str = "") -> tuple[Binding, ...]:
    lines = "".join(f"  {line}\n" for line in entries.strip("\n").splitlines())
    return loader.load(f"{before}credentials:\n{lines}", name="a.yaml").credentials


def load_entry(entry: str) -> Binding:
    (binding,) = load(f"- {entry}")
    return binding


def refused(entries: str) -> list[ConfigError]:
    """Return the problems in `entries`, of which there must be some."""
    with pytest.raises(ConfigErrors) as caught:
        load(entries)
    return list(caught.value.problems)


def told(entries: str) -> tuple[str, str, str]:
    """Return what, where and fix of the only problem."""
    (problem,) = refused(entries)
    return problem.what, problem.where or "", problem.fix or ""


def injection(entry: str) -> Injection:
    use = load_entry(entry).use
    assert isinstance(use, Injection)
    return use


# What an entry means


def test_the_least_that_can_be_written_has_defaults_for_the_rest() -> None:
    binding = load_entry("{host: api.anthropic.com, inject: auto, from: {env: KEY}}")

    patterns = (HostPattern.parse("api.anthropic.com"),)
    assert binding == Binding(
        name="api.anthropic.com",
        patterns=patterns,
        use=Injection(
            EnvironmentSource("KEY"),
            Form.AUTO,
            placeholder=default_placeholder("api.anthropic.com", patterns, Form.AUTO),
        ),
        source=Location("a.yaml", 2, 5),
        ports=frozenset({443}),
    )


def test_every_field_arrives_in_the_binding() -> None:
    (binding,) = load(
        """
- hosts: [api.example.com, "*.api.example.com"]
  ports: [443, 8443]
  name: example
  inject: basic
  user: x-access-token
  from: {file: ~/secrets/example.json, key: oauth.token}
  placeholder: our-placeholder-of-example
  variables: [EXAMPLE_TOKEN, EX_TOKEN]
"""
    )

    assert binding.name == "example"
    assert list(map(str, binding.patterns)) == ["api.example.com", "*.api.example.com"]
    assert binding.ports == frozenset({443, 8443})
    assert binding.use == Injection(
        FileSource(Path("~/secrets/example.json"), ("oauth", "token")),
        Form.BASIC,
        user="x-access-token",
        placeholder="our-placeholder-of-example",
        variables=("EXAMPLE_TOKEN", "EX_TOKEN"),
    )


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("{env: ANTHROPIC_API_KEY}", EnvironmentSource("ANTHROPIC_API_KEY")),
        ("{file: /etc/key}", FileSource(Path("/etc/key"))),
        ("{file: ~/k.json, key: a.b}", FileSource(Path("~/k.json"), ("a", "b"))),
        ("{command: [pass, show, key]}", CommandSource(("pass", "show", "key"))),
        (
            "{command: [~/bin/k, '', -x, -x], refresh: 1h}",
            CommandSource(("~/bin/k", "", "-x", "-x"), 3600),
        ),
        ("{command: [k], refresh: 30}", CommandSource(("k",), 30)),
        (
            "{keyring: anthropic, user: me@example.com}",
            KeyringSource("anthropic", "me@example.com"),
        ),
        ("{systemd: anthropic-key}", SystemdSource("anthropic-key")),
    ],
)
def test_a_secret_is_kept_in_one_of_five_places(text: str, source: SecretSource) -> None:
    assert injection(f"{{host: a.example.com, inject: bearer, from: {text}}}").source == source
    assert load_entry(f"{{host: a.example.com, pin: {{from: {text}}}}}").use == LoginPin(
        source=source
    )


@pytest.mark.parametrize("form", Form)
def test_every_form_can_be_written(form: Form) -> None:
    with_user = {Form.BASIC: ", user: me", Form.POSTGRES: ", user: me"}
    more = {**with_user, Form.FIELD: ", field: X-Token"}.get(form, "")

    use = injection(f"{{host: a.example.com, inject: {form}{more}, from: {{env: K}}}}")

    assert use.form is form
    assert use.user == "me" * (form in with_user)
    assert use.name == "x-token" * (form is Form.FIELD)
    assert (use.database is not None) is (form is Form.POSTGRES)


def test_a_database_has_defaults_that_are_strict() -> None:
    (binding,) = load("[{host: db.test, inject: postgres, user: app, from: {env: K}}]")

    use = binding.use
    assert isinstance(use, Injection)
    assert binding.ports == {5432}
    assert use.database == DatabaseLogin("", tls=True, methods=frozenset({LoginMethod.SCRAM}))
    assert use.variables == ("PGPASSWORD",)


def test_every_field_of_a_database_arrives() -> None:
    use = injection(
        "{host: db.test, inject: postgres, user: app, database: shop, tls: none, variables: [P_W],"
        " auth: [scram-sha-256, md5], from: {env: K}}"
    )

    methods = frozenset({LoginMethod.SCRAM, LoginMethod.MD5})
    assert use.database == DatabaseLogin("shop", tls=False, methods=methods)
    assert use.variables == ("P_W",)


@pytest.mark.parametrize(
    ("text", "pin"),
    [
        ("learn", LoginPin(learn=True)),
        (f'"{DIGEST}"', LoginPin(digests=(DIGEST,))),
        (f"[{DIGEST}, {OTHER_DIGEST}]", LoginPin(digests=(DIGEST, OTHER_DIGEST))),
    ],
)
def test_a_login_is_pinned_at_first_use_or_by_hashes(text: str, pin: LoginPin) -> None:
    assert load_entry(f"{{host: github.com, pin: {text}}}").use == pin


@pytest.mark.parametrize("host", ["*.example.com", ".example.com", "example.com"])
def test_a_credential_without_a_name_is_called_by_its_first_host(host: str) -> None:
    assert load_entry(f'{{host: "{host}", pin: learn}}').name == "example.com"


def test_one_host_may_have_a_credential_for_each_port() -> None:
    one, other = load(
        """
- {host: a.example.com, name: one, pin: learn}
- {host: a.example.com, name: two, ports: [8443], pin: learn}
"""
    )

    assert (one.ports, other.ports) == (frozenset({443}), frozenset({8443}))


def test_a_domain_and_the_hosts_below_it_are_different_hosts() -> None:
    one, other = load(
        """
- {host: example.com, name: a, pin: learn}
- {host: "*.example.com", name: b, pin: learn}
"""
    )

    assert (one.name, other.name) == ("a", "b")


@pytest.mark.parametrize("text", ["credentials:\n", "credentials: []\n"])
def test_no_credentials_are_none(text: str) -> None:
    assert loader.load(text, name="a.yaml").credentials == ()


# What is refused

INJECT = "inject: bearer, from: {env: K}"
MISTAKES = {
    "a text": ("just-text", "a credential is a mapping", "write - {host:"),
    "a list": ("[a, b]", "a credential is a mapping", "write - {host:"),
    "no host": (f"{{{INJECT}}}", "the entry names no host", "add a line: host"),
    "host and hosts": (
        f"{{host: a.test, hosts: [b.test], {INJECT}}}",
        "both host and hosts",
        "under hosts",
    ),
    "an address": (
        f"{{host: 192.0.2.1, {INJECT}}}",
        "192.0.2.1 is an address",
        "as its certificate",
    ),
    "a network": (
        f"{{host: 192.0.2.0/24, {INJECT}}}",
        "192.0.2.0/24 is an address",
        "name the host",
    ),
    "a public suffix": (
        f'{{host: "*.co.uk", {INJECT}}}',
        "covers a public suffix",
        "name the hosts",
    ),
    "a provider's suffix": (
        f"{{host: .github.io, {INJECT}}}",
        "covers a public suffix",
        "name the hosts",
    ),
    "every host": (f'{{host: "*", {INJECT}}}', "matches every host", "name the host"),
    "a URL": (f'{{host: "https://a.test/", {INJECT}}}', "contains a scheme", 'write "a.test"'),
    "no hosts": (f"{{hosts: [], {INJECT}}}", "hosts is an empty list", "by host"),
    "the port of plain HTTP": (
        f"{{host: a.test, ports: [80], {INJECT}}}",
        "plain HTTP",
        "delete the port",
    ),
    "neither": ("{host: a.test}", "neither inject nor pin", "pin: learn"),
    "both": (
        "{host: a.test, inject: bearer, pin: learn, from: {env: K}}",
        "both inject and pin",
        "keep inject",
    ),
    "a form in capitals": (
        "{host: a.test, inject: Bearer, from: {env: K}}",
        "not a way to inject",
        "did you mean bearer?",
    ),
    "another word for it": (
        "{host: a.test, inject: header, from: {env: K}}",
        "not a way to inject",
        "write field",
    ),
    "no form at all": (
        "{host: a.test, inject: , from: {env: K}}",
        "not a way to inject",
        "write auto, x-api-key",
    ),
    "no source": ("{host: a.test, inject: bearer}", "inject without from", "from: {env: NAME}"),
    "an empty source": (
        "{host: a.test, inject: bearer, from: {}}",
        "from names no source",
        "{systemd: NAME}",
    ),
    "a text as source": (
        "{host: a.test, inject: bearer, from: ENV}",
        "from names no source",
        "from: {env: NAME}",
    ),
    "two sources": (
        "{host: a.test, inject: bearer, from: {env: K, systemd: k}}",
        "2 sources: env and systemd",
        "keep one",
    ),
    "a misspelt source": (
        "{host: a.test, inject: bearer, from: {evn: K}}",
        'unknown key "evn"',
        "did you mean env?",
    ),
    "another name of a source": (
        "{host: a.test, inject: bearer, from: {path: /k}}",
        'unknown key "path"',
        "write file",
    ),
    "key without a file": (
        "{host: a.test, inject: bearer, from: {env: K, key: a}}",
        "key goes with file",
        "delete key",
    ),
    "refresh without a command": (
        "{host: a.test, inject: bearer, from: {env: K, refresh: 5m}}",
        "refresh goes with command",
        "delete refresh",
    ),
    "a keyring without its user": (
        "{host: a.test, inject: bearer, from: {keyring: k}}",
        "keyring without user",
        "user: NAME",
    ),
    "a variable with a dollar": (
        "{host: a.test, inject: bearer, from: {env: $K}}",
        "not the name of a variable",
        "without $",
    ),
    "a relative path": (
        "{host: a.test, inject: bearer, from: {file: secrets/k}}",
        "not the full path",
        "from / or from ~/",
    ),
    "somebody's home": (
        "{host: a.test, inject: bearer, from: {file: ~bob/k}}",
        "not the full path",
        "from / or from ~/",
    ),
    "a directory": (
        "{host: a.test, inject: bearer, from: {file: /secrets/}}",
        "not the full path",
        "down to the file",
    ),
    "a path with a null byte": (
        '{host: a.test, inject: bearer, from: {file: "/a\\0b"}}',
        "cannot be shown",
        "without",
    ),
    "an empty key": (
        "{host: a.test, inject: bearer, from: {file: /k, key: a..b}}",
        "not keys of a JSON file",
        "oauth.token",
    ),
    "a command line": (
        "{host: a.test, inject: bearer, from: {command: pass show k}}",
        "the command is not a list",
        "no shell",
    ),
    "an empty command": (
        "{host: a.test, inject: bearer, from: {command: []}}",
        "the command is not a list",
        "[PROGRAM",
    ),
    "a relative program": (
        "{host: a.test, inject: bearer, from: {command: [./k]}}",
        "not the full path of a program",
        "only its name",
    ),
    "a number as argument": (
        "{host: a.test, inject: bearer, from: {command: [k, 5]}}",
        "a number without quotes",
        "in quotes",
    ),
    "no time": (
        "{host: a.test, inject: bearer, from: {command: [k], refresh: often}}",
        "not a time",
        "5m",
    ),
    "too short a time": (
        "{host: a.test, inject: bearer, from: {command: [k], refresh: 1ms}}",
        "not a time",
        "1s or more",
    ),
    "a unit with a slash": (
        "{host: a.test, inject: bearer, from: {systemd: ../k}}",
        "not the name of a systemd credential",
        "LoadCredential=",
    ),
    "basic without a user": (
        "{host: a.test, inject: basic, from: {env: K}}",
        "inject: basic without user",
        "add user",
    ),
    "a database without a user": (
        "{host: a.test, inject: postgres, from: {env: K}}",
        "inject: postgres without user",
        "add user",
    ),
    "a database for bearer": (
        "{host: a.test, inject: bearer, database: shop, from: {env: K}}",
        "database goes with inject: postgres",
        "delete database",
    ),
    "TLS for bearer": (
        "{host: a.test, inject: bearer, tls: verify, from: {env: K}}",
        "tls goes with inject: postgres",
        "delete tls",
    ),
    "a login for bearer": (
        "{host: a.test, inject: bearer, auth: [md5], from: {env: K}}",
        "auth goes with inject: postgres",
        "delete auth",
    ),
    "an unknown way to log in": (
        "{host: a.test, inject: postgres, user: me, auth: [trust], from: {env: K}}",
        "not a value of",
        "scram-sha-256",
    ),
    "a password in clear": (
        "{host: a.test, inject: postgres, user: me, tls: none, auth: [password], from: {env: K}}",
        "sent in clear, without TLS",
        "tls: verify",
    ),
    "a user for bearer": (
        "{host: a.test, inject: bearer, user: me, from: {env: K}}",
        "user goes with inject: basic or postgres",
        "delete user",
    ),
    "a user with a colon": (
        '{host: a.test, inject: basic, user: "a:b", from: {env: K}}',
        "not a user name",
        "without a colon",
    ),
    "field without a name": (
        "{host: a.test, inject: field, from: {env: K}}",
        "inject: field without field",
        "add field",
    ),
    "a field with a colon": (
        '{host: a.test, inject: field, field: "X-Token:", from: {env: K}}',
        "not the name of a header field",
        "write only",
    ),
    "a field that frames": (
        "{host: a.test, inject: field, field: Content-Length, from: {env: K}}",
        "content-length is not for credentials",
        "the host expects",
    ),
    "a field that overrides": (
        "{host: a.test, inject: field, field: X-Original-URL, from: {env: K}}",
        "is not for credentials",
        "the host expects",
    ),
    "the host field": (
        "{host: a.test, inject: field, field: Host, from: {env: K}}",
        "host is not for credentials",
        "the host expects",
    ),
    "from beside pin": (
        "{host: a.test, pin: learn, from: {env: K}}",
        "from beside pin",
        "pin: {from:",
    ),
    "a placeholder beside pin": (
        "{host: a.test, pin: learn, placeholder: our-placeholder-text}",
        "placeholder goes with inject",
        "delete placeholder",
    ),
    "a pin that is none": (
        "{host: a.test, pin: always}",
        "neither learn nor the hash",
        "credentials hash",
    ),
    "half a hash": (
        "{host: a.test, pin: 'sha256:00'}",
        "neither learn nor the hash",
        "credentials hash",
    ),
    "a bare hash": (
        "{host: a.test, pin: '" + "ab" * 32 + "'}",
        "neither learn nor the hash",
        "sha256:SALT:DIGEST",
    ),
    "an empty pin": ("{host: a.test, pin: {}}", "an empty pin", "write learn"),
    "no pins": ("{host: a.test, pin: []}", "pin is an empty list", "write learn"),
    "learn among hashes": (
        f"{{host: a.test, pin: [learn, '{DIGEST}']}}",
        "learn among hashes",
        "write only",
    ),
    "a hash twice": (
        f"{{host: a.test, pin: ['{DIGEST}', '{DIGEST}']}}",
        "is listed twice",
        "delete one",
    ),
    "a name in capitals": (
        f"{{host: a.test, name: Mine, {INJECT}}}",
        "not a name for a credential",
        "small letters",
    ),
    "the gateway's name": (
        f"{{host: a.test, name: gateway, {INJECT}}}",
        "gateway is taken",
        "another",
    ),
    "a host of the gateway's name": (
        f"{{host: gateway, {INJECT}}}",
        "gateway is taken",
        "with `name:`",
    ),
    "a short placeholder": (
        f"{{host: a.test, placeholder: fifteen-letters, {INJECT}}}",
        "shorter than 16",
        "of your own",
    ),
    "a long placeholder": (
        f"{{host: a.test, placeholder: {'abcdefghi' * 29}, {INJECT}}}",
        "longer than 256",
        "of your own",
    ),
    "a placeholder with a space": (
        f"{{host: a.test, placeholder: this is our placeholder, {INJECT}}}",
        "has a space",
        "of your own",
    ),
    "a placeholder of one letter": (
        f"{{host: a.test, placeholder: {'x' * 20}, {INJECT}}}",
        "by chance",
        "of your own",
    ),
    "a placeholder of digits": (
        f"{{host: a.test, placeholder: '12345678901234567890', {INJECT}}}",
        "by chance",
        "of your own",
    ),
    "a placeholder that is usual": (
        f"{{host: a.test, placeholder: application/json, {INJECT}}}",
        "by chance",
        "of your own",
    ),
    "a placeholder that is usual, in capitals": (
        f"{{host: a.test, placeholder: Text/Event-Stream, {INJECT}}}",
        "by chance",
        "of your own",
    ),
    "a placeholder that is its host": (
        f"{{host: api.long.example.com, placeholder: api.long.example.com, {INJECT}}}",
        "a part of a host's name",
        "another",
    ),
    "a variable that is none": (
        f"{{host: a.test, variables: [A-B], {INJECT}}}",
        "not the name of a variable",
        "without $",
    ),
    "no variables": (
        f"{{host: a.test, variables: [], {INJECT}}}",
        "variables is an empty list",
        "delete the line",
    ),
    "a variable, bare": (
        f"{{host: a.test, variables: GH_TOKEN, {INJECT}}}",
        "variables is not a list",
        "write variables: [GH_TOKEN]",
    ),
    "a variable twice": (
        f"{{host: a.test, variables: [A_TOKEN, A_TOKEN], {INJECT}}}",
        "is listed twice",
        "delete one",
    ),
    "a misspelt key": (
        "{host: a.test, injekt: bearer, pin: learn}",
        'unknown key "injekt"',
        "did you mean inject?",
    ),
    "a key that belongs below from": (
        "{host: a.test, env: K, pin: learn}",
        'unknown key "env"',
        "below from",
    ),
    "another name of a key": (
        f"{{host: a.test, header: X-Key, {INJECT}}}",
        'unknown key "header"',
        "write field",
    ),
    "a field that is a number": (
        "{host: a.test, inject: field, field: 5, from: {env: K}}",
        "a number without quotes",
        "in quotes",
    ),
    "a placeholder that is a list": (
        f"{{host: a.test, placeholder: [a], {INJECT}}}",
        "a list where a string belongs",
        "write a string",
    ),
    "a key that is a number": (
        "{host: a.test, inject: bearer, from: {file: /k, key: 5}}",
        "a number without quotes",
        "in quotes",
    ),
    "an empty service": (
        "{host: a.test, inject: bearer, from: {keyring: '', user: u}}",
        "the value is empty",
        "write it",
    ),
    "the value as a pin": (
        "{host: a.test, pin: {value: x}}",
        'unknown key "value"',
        "say where it is kept",
    ),
    "no name at all": (f"{{host: a.test, name: , {INJECT}}}", "the value is missing", "write it"),
}


@pytest.mark.parametrize(("entry", "what", "fix"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_its_line_and_fix(entry: str, what: str, fix: str) -> None:
    told_what, where, told_fix = told(f"- {entry}")

    assert what in told_what
    assert fix in told_fix
    assert where.startswith("a.yaml:2:")
    assert "credentials[0]" in where


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "LD_PRELOAD", "LD_LIBRARY_PATH", "DYLD_INSERT_LIBRARIES", "NODE_OPTIONS"),
        *("PYTHONPATH", "PYTHONSTARTUP", "BASH_ENV", "ENV", "IFS", "PERL5OPT", "RUBYOPT"),
        *("GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "HTTPS_PROXY", "https_proxy", "NO_PROXY"),
        *("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "NODE_TLS_REJECT_UNAUTHORIZED", "EDITOR"),
        *("ANTHROPIC_BASE_URL", "CLAUDE_PROXY_POLICY", "JAVA_TOOL_OPTIONS", "XDG_CONFIG_HOME"),
    ],
)
def test_a_variable_that_steers_programs_holds_no_placeholder(name: str) -> None:
    what, _, fix = told(f"- {{host: a.test, variables: [{name}], {INJECT}}}")

    assert f"{name} steers programs" in what
    assert "GH_TOKEN" in fix


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "GH_TOKEN"]
)
def test_a_variable_that_holds_a_token_may_hold_a_placeholder(name: str) -> None:
    assert injection(f"{{host: a.test, variables: [{name}], {INJECT}}}").variables == (name,)


PAIRS = {
    "the same host": ("host: a.test", "host: a.test", "a.test has two credentials"),
    "a wildcard around it": ("host: a.x.test", 'host: "*.x.test"', "a.x.test has two credentials"),
    "a domain around it": ('host: ".x.test"', "host: x.test", "x.test has two credentials"),
    "two wildcards of a name": ('host: ".x.test"', 'host: "*.x.test"', "*.x.test has two"),
    "one of many": ("hosts: [a.test, b.test]", "hosts: [c.test, b.test]", "b.test has two"),
    "one of many ports": (
        "host: a.test, ports: [443, 8443]",
        "host: a.test, ports: [8443]",
        "has two",
    ),
}


@pytest.mark.parametrize(("one", "other", "what"), PAIRS.values(), ids=PAIRS)
def test_a_host_has_one_credential(one: str, other: str, what: str) -> None:
    for first, second in ((one, other), (other, one)):
        told_what, where, _ = told(
            f"- {{{first}, name: one, pin: learn}}\n- {{{second}, name: two, pin: learn}}"
        )

        assert what in told_what
        assert where == "a.yaml:3:5, credentials[1]"


def test_a_name_is_one_credentials() -> None:
    what, where, _ = told(
        "- {host: a.test, name: x, pin: learn}\n- {host: b.test, name: x, pin: learn}"
    )

    assert "two credentials are named x, the first in line 2" in what
    assert where == "a.yaml:3:5, credentials[1]"


def test_two_databases_need_two_variables() -> None:
    use = "inject: postgres, user: app, from: {env: A}"

    what, _, fix = told(f"- {{host: a.test, {use}}}\n- {{host: b.test, {use}}}")

    assert "PGPASSWORD is the variable of two credentials" in what
    assert "write variables: [NAME] in one of them" in fix


def test_a_variable_is_one_credentials() -> None:
    what, _, _ = told(
        f"- {{host: a.test, variables: [T_T], {INJECT}}}\n"
        f"- {{host: b.test, variables: [T_T], {INJECT}}}"
    )

    assert "T_T is the variable of two credentials" in what


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("our-placeholder-text", "our-placeholder-text"),
        ("our-placeholder-text", "our-placeholder-text-2"),
        ("xx-our-placeholder-text", "our-placeholder-text"),
        ("claude-proxy-placeholder-b.testing", "claude-proxy-placeholder-b.test"),
    ],
)
def test_no_placeholder_is_a_part_of_another(one: str, other: str) -> None:
    entry = "- {{host: {}.test, placeholder: {}, inject: bearer, from: {{env: K}}}}"

    what, where, fix = told("\n".join([entry.format("a", one), entry.format("b", other)]))

    assert what == "the placeholders of a.test and b.test overlap"
    assert where == "a.yaml:3:5, credentials[1].placeholder"
    assert "placeholder: TEXT" in fix


def test_default_placeholders_that_overlap_are_told_too() -> None:
    what, _, _ = told(
        f"- {{host: a.test, name: hub, {INJECT}}}\n- {{host: b.test, name: hub-two, {INJECT}}}"
    )

    assert what == "the placeholders of hub and hub-two overlap"


def test_there_are_not_more_than_every_request_can_be_searched_for() -> None:
    entries = [f"- {{host: h{at}.test, pin: learn}}" for at in range(MOST + 1)]

    assert len(load("\n".join(entries[:-1]))) == MOST
    assert f"{MOST + 1} credentials" in told("\n".join(entries))[0]


def test_all_mistakes_are_told_together() -> None:
    problems = refused(
        """
- {host: 192.0.2.1, inject: bearer, from: {env: $X}}
- {pin: sometimes}
- nothing
"""
    )

    assert [problem.where for problem in problems] == [
        "a.yaml:2:12, credentials[0].host",
        "a.yaml:2:51, credentials[0].from.env",
        "a.yaml:3:5, credentials[1]",
        "a.yaml:3:11, credentials[1].pin",
        "a.yaml:4:5, credentials[2]",
    ]


# Secrets

PLACES = {
    "the value": "{host: a.test, inject: bearer, from: {value: 'SECRET'}}",
    "in the place of the source": "{host: a.test, inject: bearer, from: 'SECRET'}",
    "as a key": "{host: a.test, inject: bearer, from: {'SECRET': x}}",
    "in the place of a variable": "{host: a.test, inject: bearer, from: {env: 'SECRET'}}",
    "as an argument": "{host: a.test, inject: bearer, from: {command: [echo, 'SECRET']}}",
    "as the form": "{host: a.test, inject: 'SECRET'}",
    "as a pin": "{host: a.test, pin: 'SECRET'}",
    "among pins": "{host: a.test, pin: ['SECRET']}",
    "as the host": "{host: 'SECRET', pin: learn}",
    "as the name": "{host: a.test, name: 'SECRET', pin: learn}",
    "as the placeholder": "{host: a.test, placeholder: 'SECRET', inject: bearer, from: {env: K}}",
    "as an entry": "'SECRET'",
    "under a key of its own": "{host: a.test, token: 'SECRET', pin: learn}",
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_in_the_file_is_refused_and_never_quoted(place: str, secret: str) -> None:
    problems = refused(f"- {place.replace('SECRET', secret)}")

    assert any("looks like a secret" in problem.what for problem in problems)
    shown = "\n".join(line for problem in problems for line in problem.lines())
    assert secret[-6:] not in shown


@pytest.mark.parametrize(
    "name", sorted(set(PLACES) - {"as the host", "as an argument", "as the placeholder"})
)
def test_what_could_be_a_secret_is_not_quoted_either(name: str) -> None:
    secret = "Hunter2/Hunter2=Zz9"

    problems = refused(f"- {PLACES[name].replace('SECRET', secret)}")

    assert secret not in "\n".join(line for each in problems for line in each.lines())


def test_a_secret_without_a_space_after_its_colon_is_not_quoted() -> None:
    problems = refused("- {host: a.test, inject: bearer, from: {value:Hunter2Zz9: x}}")

    assert "Hunter2" not in "\n".join(line for each in problems for line in each.lines())


@pytest.mark.parametrize("key", ["value", "secret", "token", "password", "api_key", "apiKey"])
@pytest.mark.parametrize("place", ["from: {%s: x}", "from: {env: K}, %s: x"])
def test_a_key_for_the_secret_itself_is_answered_with_the_places_for_it(
    key: str, place: str
) -> None:
    problems = refused(f"- {{host: a.test, inject: bearer, {place % key}}}")

    assert any("say where it is kept" in (problem.fix or "") for problem in problems)


@pytest.mark.parametrize(
    "text", ["sk-ant" + "-api03-placeholder-of-ours", "sk-ant-our-placeholder-1"]
)
def test_a_placeholder_may_look_like_a_key_if_it_says_what_it_is(text: str) -> None:
    entry = f"{{host: a.test, placeholder: {text}, {INJECT}}}"

    assert injection(entry).placeholder == text


def test_a_path_may_hold_what_looks_like_a_key() -> None:
    path = "/secrets/" + "sk-ant" + "-api03-mine"

    use = injection(f"{{host: a.test, inject: bearer, from: {{file: {path}}}}}")

    assert use.source == FileSource(Path(path))


# Who may have credentials


def test_a_preset_has_no_credentials() -> None:
    preset = "description: x\nallow: []\ncredentials: [{host: a.test, pin: learn}]\n"

    with pytest.raises(ConfigErrors) as caught:
        loader.load("allow: [{preset: p}]", name="a.yaml", library=Library(lambda _: preset))

    (problem,) = caught.value.problems
    assert "a preset cannot have credentials" in problem.what
    assert problem.fix == "write credentials in the policy file"


@pytest.mark.parametrize("key", ["credentials", "anthropic"])
def test_a_file_that_may_only_narrow_has_neither_key(key: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        loader.load_narrowing(f"{key}: []", name="p.yaml")

    (problem,) = caught.value.problems
    assert problem.what == f"a project's file cannot have {key}"


# Passthrough

UNSEEN = {
    "the host itself": ("a.x.test", "a.x.test"),
    "a wildcard of the rule": ("a.x.test", '"*.x.test"'),
    "a wildcard of the credential": ('"*.x.test"', "a.x.test"),
}


@pytest.mark.parametrize(("bound", "passed"), UNSEEN.values(), ids=UNSEEN)
def test_a_credential_on_a_host_that_is_passed_through_is_an_error(bound: str, passed: str) -> None:
    text = f"""
allow: [{{host: {passed}, tls: passthrough}}]
credentials: [{{host: {bound}, name: x, pin: learn}}]
"""
    with pytest.raises(ConfigErrors) as caught:
        loader.load(text, name="a.yaml")

    (problem,) = caught.value.problems
    assert problem.what.startswith("the credential x cannot be used, as ")
    assert "passes TLS through" in problem.what
    assert (problem.where or "").startswith("a.yaml:3:")


def test_a_credential_for_another_port_than_the_passthrough_is_none() -> None:
    text = """
allow: [{host: a.test, tls: passthrough, ports: [8443]}, a.test]
credentials: [{host: a.test, pin: learn}]
"""
    assert len(loader.load(text, name="a.yaml").credentials) == 1


REACHED = {
    "its host": ("a.x.test", "host: a.x.test", True),
    "a wildcard around it": ('"*.x.test"', "host: a.x.test", True),
    "a host of its wildcard": ("a.x.test", 'host: "*.x.test"', True),
    "one of its hosts": ("a.x.test", "hosts: [b.test, a.x.test]", True),
    "another host": ("b.x.test", "host: a.x.test", False),
    "another port": ("{host: a.x.test, ports: [8443]}", "host: a.x.test", False),
    "plain HTTP alone": ("{host: a.x.test, scheme: http}", "host: a.x.test", False),
    "nothing": ("{host: b.test}", "host: a.x.test", False),
}


@pytest.mark.parametrize(("rule", "bound", "reached"), REACHED.values(), ids=REACHED)
def test_a_credential_that_nobody_can_use_is_found(rule: str, bound: str, reached: bool) -> None:  # noqa: FBT001
    text = f"allow: [{rule}]\ncredentials: [{{{bound}, pin: learn}}]\n"

    policy = loader.load(text, name="a.yaml")

    assert (unreached(policy) == []) is reached
    assert unreached(policy.allowing_by_default(Location("a.yaml", 1, 1))) == []


# The schema


def test_the_schema_knows_the_keys_of_a_credential() -> None:
    definitions = schema()["$defs"]

    credential = definitions["credential"]["properties"]
    assert set(credential) == set(FIELDS)
    assert credential["inject"]["enum"] == [form.value for form in Form]
    assert set(definitions["source"]["properties"]) >= set(SOURCES)
    assert f"{{{SHORTEST_PLACEHOLDER}," in credential["placeholder"]["pattern"]
    assert schema()["properties"]["credentials"]["maxItems"] == MOST


@pytest.mark.parametrize(
    "entry",
    [
        f"{{host: a.test, {INJECT}}}",
        f"{{hosts: [a.test, '*.b.test'], name: x, ports: [8443], {INJECT}, variables: [T_T]}}",
        "{host: a.test, inject: basic, user: me, from: {file: ~/k, key: a.b}}",
        "{host: a.test, inject: field, field: X-Key, from: {command: [k, ''], refresh: 5m}}",
        "{host: a.test, inject: auto, from: {keyring: s, user: u}, placeholder: our-own-text-of-a}",
        "{host: a.test, inject: postgres, user: me, from: {env: K}}",
        "{host: a.test, inject: postgres, user: me, database: d, tls: none, from: {env: K}}",
        "{host: a.test, inject: postgres, user: me, auth: [md5, password], from: {env: K}}",
        "{host: a.test, pin: learn}",
        f"{{host: a.test, pin: '{DIGEST}'}}",
        f"{{host: a.test, pin: ['{DIGEST}']}}",
        "{host: a.test, pin: {from: {systemd: k}}}",
    ],
)
def test_the_schema_accepts_what_the_reader_accepts(entry: str) -> None:
    load_entry(entry)

    SCHEMA.validate(yaml.safe_load(f"credentials: [{entry}]"))


# What a schema cannot say.
BEYOND_SCHEMA = {
    *("a public suffix", "a provider's suffix", "a placeholder of one letter", "no time"),
    *("a placeholder of digits", "a placeholder that is usual", "a placeholder that is its host"),
    *("a placeholder that is usual, in capitals", "too short a time", "a field that frames"),
    *("a field that overrides", "the host field", "a path with a null byte", "learn among hashes"),
    *("a relative program", "a host of the gateway's name", "a password in clear"),
}


@pytest.mark.parametrize("name", sorted(set(MISTAKES) - BEYOND_SCHEMA))
def test_the_schema_refuses_what_the_reader_refuses(name: str) -> None:
    entry, _, _ = MISTAKES[name]

    assert not SCHEMA.is_valid(yaml.safe_load(f"credentials: [{entry}]"))


# Whatever is written

WORDS = st.sampled_from(
    [
        *FIELDS,
        *SOURCES,
        *(form.value for form in Form),
        *("key", "refresh", "learn", "a.test", "*.b.test", "192.0.2.1", "443", "K", "~", "5m", ""),
        *("our-own-placeholder", "GH_TOKEN", "PATH", "/k", "~/k", DIGEST, *SECRETS.values()),
    ]
)
VALUES = st.recursive(
    WORDS | st.text(max_size=8) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=12,
)


NAMES = st.sampled_from(["a.test", "b.test", "c.x.test", "*.x.test", ".y.test"])
TEXTS = st.sampled_from(["K", "a.b", "/k", "~/k", "me", "5m", "90", ""]) | st.text(max_size=6)
KEPT = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("env", "file", "key", "refresh", "keyring", "user"), TEXTS),
        "command": st.lists(TEXTS, max_size=3),
        "systemd": TEXTS,
    },
) | st.sampled_from([{"env": "K"}, {"file": "/k"}, {"command": ["k"]}])  # fmt: skip
INJECTED = st.fixed_dictionaries(
    {"host": NAMES, "inject": st.sampled_from([form.value for form in Form]), "from": KEPT},
    optional={
        "name": st.sampled_from(["one", "two", "one-two"]),
        "user": TEXTS,
        "field": st.sampled_from(["X-Key", "Host", "Authorization"]),
        "variables": st.lists(st.sampled_from(["A_T", "B_T", "PATH"]), min_size=1, max_size=2),
        "placeholder": st.text(alphabet="abcdefghijk-", min_size=14, max_size=20),
        "ports": st.lists(st.sampled_from([443, 8443, 80]), min_size=1, max_size=2),
    },
)
PINNED = st.fixed_dictionaries(
    {"host": NAMES, "pin": st.sampled_from(["learn", DIGEST, [DIGEST, OTHER_DIGEST]]) | KEPT}
)


@given(st.lists(INJECTED | PINNED, max_size=3) | st.lists(VALUES, max_size=4) | VALUES)
@example([{"host": "a.test", "inject": "auto", "from": {"env": "K"}}])
def test_whatever_is_written_is_a_policy_or_mistakes_without_a_secret(value: object) -> None:
    text = json.dumps({"credentials": value})
    try:
        bindings = loader.load(text, name="a.yaml").credentials
    except ConfigErrors as errors:
        shown = "\n".join(line for problem in errors.problems for line in problem.lines())
        assert not any(secret in shown for secret in SECRETS.values())
        return

    used = [binding.use for binding in bindings if isinstance(binding.use, Injection)]
    placeholders = [use.placeholder for use in used]
    assert len({binding.name for binding in bindings}) == len(bindings)
    assert all(pattern.network is None for each in bindings for pattern in each.patterns)
    assert all(len(text) >= SHORTEST_PLACEHOLDER for text in placeholders)
    for one, other in permutations(placeholders, 2):
        assert one not in other
    for first, second in combinations(bindings, 2):
        assert not first.ports & second.ports or not any(
            wide.includes(narrow) or narrow.includes(wide)
            for wide in first.patterns
            for narrow in second.patterns
        )


@pytest.mark.parametrize(
    ("rule", "reached"),
    [
        ("{host: db.test, scheme: tcp, ports: [5432]}", True),
        ("{host: db.test, scheme: tcp, ports: [5433]}", False),
        ("{host: db.test, ports: [5432]}", False),
    ],
)
def test_a_database_is_reached_by_a_rule_for_tcp_alone(rule: str, *, reached: bool) -> None:
    text = f"""
allow: [{rule}]
credentials: [{{host: db.test, inject: postgres, user: app, from: {{env: K}}}}]
"""
    policy = loader.load(text, name="a.yaml")

    assert (unreached(policy) == []) is reached
    allowing = policy.allowing_by_default(Location("a.yaml", 1, 1))
    assert (unreached(allowing) == []) is reached
