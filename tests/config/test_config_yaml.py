"""config.yaml: each key is an option's, each mistake has its place, and nothing is ignored."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claude_proxy.config import config_yaml
from claude_proxy.config.config_yaml import ConfigFile
from claude_proxy.config.option_kinds import Choice, Flag, ParsedText, WholeNumber
from claude_proxy.config.option_table import FIELDS, OptionField
from claude_proxy.config.settings import TcpListen, UnixListen
from claude_proxy.errors import ConfigError, ConfigErrors

PATH = Path("/conf/config.yaml")
HOME = Path("/home/me")
KEYS = [field for field in FIELDS if field.in_file]


def load(text: str, home: Path | None = HOME) -> ConfigFile:
    return config_yaml.load(text, PATH, home)


def problems_of(text: str, home: Path | None = HOME) -> tuple[ConfigError, ...]:
    with pytest.raises(ConfigErrors) as caught:
        load(text, home)
    return caught.value.problems


def written(field: OptionField) -> str:
    """Return a value of the field's kind as YAML writes it."""
    match field.kind:
        case Flag():
            one = "true"
        case WholeNumber(least, _):
            one = str(least)
        case Choice(words):
            one = words[0]
        case ParsedText(name="user"):
            one = "0"
        case ParsedText(example=example):
            one = f'"{example}"'
        case _:
            one = '"some/text"'
    is_list = field.repeatable or (isinstance(field.kind, ParsedText) and field.kind.is_list)
    return f"[{one}]" if is_list else one


def document(field: OptionField, value: str) -> str:
    indented = f"{field.section}:\n  " if field.section else ""
    return f"{indented}{field.name}: {value}\n"


@pytest.mark.parametrize("field", KEYS, ids=lambda field: field.key)
def test_every_option_has_a_key(field: OptionField) -> None:
    config = load(document(field, written(field)))

    assert list(config.entries) == [field.key]
    assert config.where(field.key).startswith(f"{PATH}:{2 if field.section else 1}:")


@pytest.mark.parametrize("field", KEYS, ids=lambda field: field.key)
@pytest.mark.parametrize("value", ["", "{a: b}", "[[]]", "[]", "[true]"])
def test_a_value_of_another_kind_is_a_problem(field: OptionField, value: str) -> None:
    [problem, *_] = problems_of(document(field, value))

    assert problem.where is not None
    assert field.key in problem.where
    assert problem.fix


@pytest.mark.parametrize("text", ["", "# nothing yet\n"])
def test_an_empty_file_says_nothing(text: str) -> None:
    config = load(text)

    assert config.exists
    assert config.entries == {}


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("- a", "not a mapping", "KEY: VALUE"),
        ("audit_dayz: 3", 'unknown key "audit_dayz"', "did you mean audit_days?"),
        ("port: 9052", 'unknown key "port"', "write port: below serve:"),
        ("serve: {policy: x}", 'unknown key "policy"', "write policy: at the top of the file"),
        ("profile: x", 'unknown key "profile"', "write profile: below run:"),
        ("audit-days: 3", 'unknown key "audit-days"', "write audit_days"),
        ("gateway_mode: strict", 'unknown key "gateway_mode"', "write mode: below gateway:"),
        ("confdir: /x", 'unknown key "confdir"', "cannot set --confdir"),
        ("run: {dry_run: true}", 'unknown key "dry_run"', "cannot set --dry-run"),
        ("run: {keep_home: true}", 'unknown key "keep_home"', "below show_home"),
        ("serve: [9051]", "serve is not a mapping", "claude-proxy serve"),
        ("audit_days: 0", "0 is out of range", "write 1 or more"),
        ('audit_days: "3"', "not a whole number", "without quotes"),
        ("serve: {port: 65536}", "65536 is out of range", "write 0 to 65535"),
        ("record_query: yes", "not true or false", "write true or false"),
        ("log_format: xml", "is not a value of log_format", "write text or json"),
        ("grace: soon", "is not a duration", "30s"),
        ("client: 10.0.0.0/8", "client is not a list", "[10.0.0.0/8]"),
        ("client: [10.0.0.1/8]", "the network is 10.0.0.0/8", "write it like"),
        ("policy: 1.5", "is a number in YAML", "quotes"),
        ('policy: ""', "the value is empty", "delete it"),
        ("policy: a\npolicy: b", "is there twice", "keep one"),
        ("projects: [a]", "projects is not a mapping", "DIRECTORY: POLICY"),
        ("projects: {work: a}", "is a relative directory", "~/"),
        ("projects: {~/a: x, ~/a/: y}", "is named twice", "keep one"),
        ("projects: {~/a: }", "the value is missing", "delete it"),
        ("allowlist: ~other/a.yaml", "the home of another user", "the whole path"),
    ],
)
def test_a_mistake_has_its_place_and_a_fix(text: str, what: str, fix: str) -> None:
    [problem, *_] = problems_of(text)

    assert what in problem.what
    assert str(problem.where).startswith(f"{PATH}:")
    assert fix in str(problem.fix)


def test_every_mistake_is_reported_at_once() -> None:
    found = problems_of("audit_days: 0\nserve: {port: x}\nnonsense: 1\nproviders: []\n")

    assert len(found) == 4


def test_a_password_is_never_quoted() -> None:
    wrong = load("upstream_proxy: http://me:hunter2@proxy.test:3128\n")
    found = problems_of("upstream_proxy: http://me:hunter2@proxy..test:3128\n")

    assert "hunter2" not in repr(wrong)
    assert "hunter2" not in "\n".join(line for problem in found for line in problem.lines())


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("lists/mine.yaml", Path("/conf/lists/mine.yaml")),
        ("/etc/a.yaml", Path("/etc/a.yaml")),
        ("~/a.yaml", Path("/home/me/a.yaml")),
    ],
)
def test_a_path_starts_at_the_file_or_at_home(text: str, path: Path) -> None:
    assert load(f"allowlist: {text}\n").value("allowlist") == path


def test_standard_output_is_no_file() -> None:
    assert load('jsonl: "-"\n').value("jsonl") == Path("-")


def test_without_a_home_no_path_may_use_it() -> None:
    [problem] = problems_of("allowlist: ~/a.yaml\n", home=None)

    assert "no home directory" in problem.what


def test_listeners_are_addresses_and_sockets_found_from_everywhere() -> None:
    config = load('serve: {listen: [9052, "127.0.0.1:1", "unix:p.sock", "unix:~/p.sock"]}\n')

    assert config.value("serve.listen") == (
        TcpListen("127.0.0.1", 9052),
        TcpListen("127.0.0.1", 1),
        UnixListen(Path("/conf/p.sock")),
        UnixListen(Path("/home/me/p.sock")),
    )


def test_exceptions_are_a_list_of_what_no_proxy_holds() -> None:
    config = load("no_upstream_proxy: [localhost, .corp.test]\n")

    assert config.value("no_upstream_proxy") == ("localhost", ".corp.test")


def test_a_project_is_bound_to_a_policy() -> None:
    config = load("projects:\n  ~/src/acme: acme\n  /srv/x: lockdown\n")

    assert config.projects == {Path("/home/me/src/acme"): "acme", Path("/srv/x"): "lockdown"}


# gateway.yaml


def test_gateway_yaml_says_what_stands_below_gateway_in_config_yaml() -> None:
    text = "provider: anthropic\nmode: strict\ntimeout: 2m\nmax_tokens_per_day: 5\n"

    config = config_yaml.load_gateway(text, Path("/conf/gateway.yaml"), HOME)

    assert config.value("gateway.mode") == "strict"
    assert config.value("gateway.timeout") == 120
    assert config.where("gateway.mode") == "/conf/gateway.yaml:2:7, mode"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- a", "not a mapping"),
        ("provider: [a]", "a list where a string belongs"),
        ("endpoint: https://a.example", "unknown key"),
        ("policy: a", "unknown key"),
        ("mode: lax", "is not a value of mode"),
        ("timeout: 0", "a timeout of 0"),
        ("max_body: 1023", "less than 1024 bytes"),
        ('max_tokens_per_day: "5"', "not a whole number"),
        ("max_requests_per_minute: 0", "out of range"),
    ],
)
def test_a_mistake_in_gateway_yaml_has_its_place(text: str, what: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        config_yaml.load_gateway(text, Path("/conf/gateway.yaml"), HOME)

    [problem] = caught.value.problems
    assert what in problem.what
    assert str(problem.where).startswith("/conf/gateway.yaml:1:")


LINES = st.sampled_from([document(field, "")[:-1] for field in KEYS] + ["projects:", "providers:"])
VALUES: st.SearchStrategy[Any] = st.text() | st.sampled_from(["true", "[a]", "~/x", "{a: b}", "1"])


@given(st.lists(st.tuples(LINES, VALUES), max_size=4) | st.text())
def test_any_text_is_read_or_refused(lines: Any) -> None:
    text = lines if isinstance(lines, str) else "\n".join(f"{a} {b}" for a, b in lines)
    with suppress(ConfigError):
        load(text)
