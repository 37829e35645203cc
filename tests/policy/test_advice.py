"""Laws of advice: never wider than what was asked, and none where it would not help."""

import shlex
from ipaddress import ip_address

import pytest

from claude_proxy.policy.advice import (
    WITHOUT_PROXY,
    Advice,
    DeniedAttempt,
    advice_for,
    is_this_machine,
)
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme
from claude_proxy.wire.authority import Authority

HOST = Authority.of("api.example", 443)


def command_for(attempt: DeniedAttempt) -> str | None:
    return advice_for(attempt).command()


@pytest.mark.parametrize("reason", [Reason.METHOD_NOT_ALLOWED, Reason.PATH_NOT_ALLOWED])
def test_a_denied_method_or_path_is_named_with_both(reason: Reason) -> None:
    attempt = DeniedAttempt(reason, HOST, method="POST", path="/graphql", query="a=1")

    expected = "claude-proxy allow api.example --method POST --path /graphql"
    assert command_for(attempt) == expected


@pytest.mark.parametrize(
    ("target", "scheme", "entry"),
    [
        ("api.example:443", Scheme.HTTPS, "api.example"),
        ("api.example:8443", Scheme.HTTPS, "api.example:8443"),
        ("api.example:80", Scheme.HTTP, "http://api.example"),
        ("10.1.2.3:443", Scheme.HTTPS, "10.1.2.3"),
    ],
)
def test_a_host_that_no_rule_covers_is_named_with_its_port_and_scheme(
    target: str, scheme: Scheme, entry: str
) -> None:
    attempt = DeniedAttempt(Reason.NO_RULE, Authority.parse(target), scheme)

    assert command_for(attempt) == f"claude-proxy allow {entry}"


@pytest.mark.parametrize(
    ("reason", "target", "method"),
    [
        (Reason.NOT_TLS, "api.example:5432", ""),
        (Reason.NO_RULE, "10.1.2.3:22", "CONNECT"),
        (Reason.NOT_TLS, "api.example:22", ""),
        (Reason.PORT_NOT_ALLOWED, "api.example:9418", ""),
    ],
)
def test_what_is_neither_tls_nor_http_is_advised_an_entry_for_tcp(
    reason: Reason, target: str, method: str
) -> None:
    attempt = DeniedAttempt(reason, Authority.parse(target), method=method)

    assert command_for(attempt) == f"claude-proxy allow tcp://{target}"
    assert advice_for(attempt).text == ""


def test_ssh_to_a_host_is_advised_https_which_git_then_uses_by_itself() -> None:
    attempt = DeniedAttempt(Reason.NO_RULE, Authority.parse("code.example:22"), method="CONNECT")

    assert command_for(attempt) == "claude-proxy allow code.example"
    text = advice_for(attempt).text
    assert "https://code.example/ for git@code.example:" in text
    assert text.endswith("claude-proxy allow tcp://code.example:22")


def test_where_nobody_knows_what_would_be_spoken_both_entries_are_named() -> None:
    attempt = DeniedAttempt(Reason.PORT_NOT_ALLOWED, Authority.parse("api.example:7000"))

    assert command_for(attempt) == "claude-proxy allow api.example:7000"
    assert advice_for(attempt).text.endswith(": claude-proxy allow tcp://api.example:7000")


def test_an_address_of_a_tunnel_of_tcp_is_named_with_its_scheme() -> None:
    attempt = DeniedAttempt(
        Reason.ADDRESS_NOT_ALLOWED,
        Authority.parse("db.example:5432"),
        RawScheme.TCP,
        address=ip_address("10.1.2.3"),
    )

    expected = "claude-proxy allow tcp://db.example:5432 --address 10.1.2.3"
    assert command_for(attempt) == expected


def test_nothing_but_tls_and_http_is_advised_for_the_ports_of_the_web() -> None:
    assert advice_for(DeniedAttempt(Reason.NOT_TLS, HOST)) == Advice()


def test_a_private_address_is_named_as_an_address() -> None:
    address = ip_address("10.1.2.3")
    attempt = DeniedAttempt(Reason.ADDRESS_NOT_ALLOWED, HOST, address=address)

    assert command_for(attempt) == "claude-proxy allow api.example --address 10.1.2.3"


def test_an_unknown_address_is_not_guessed() -> None:
    advice = advice_for(DeniedAttempt(Reason.ADDRESS_NOT_ALLOWED, HOST))

    assert advice.command() is None
    assert "addresses" in advice.text


@pytest.mark.parametrize(
    "target",
    [
        *("127.0.0.1:8000", "127.9.9.9:443", "0.0.0.0:80", "[::1]:8000", "[::]:80"),
        *("localhost:8000", "app.localhost:3000", "[::ffff:7f00:1]:80"),
    ],
)
@pytest.mark.parametrize(
    "reason", [Reason.NO_RULE, Reason.PORT_NOT_ALLOWED, Reason.METHOD_NOT_ALLOWED]
)
def test_this_machine_is_to_be_reached_without_the_proxy(target: str, reason: Reason) -> None:
    attempt = DeniedAttempt(reason, Authority.parse(target), Scheme.HTTP, "GET", "/")

    assert advice_for(attempt) == Advice(WITHOUT_PROXY)


def test_a_name_that_leads_to_this_machine_gets_no_command() -> None:
    named = DeniedAttempt(Reason.ADDRESS_NOT_ALLOWED, HOST, address=ip_address("127.0.0.1"))
    own = DeniedAttempt(
        Reason.ADDRESS_NOT_ALLOWED, HOST, address=ip_address("192.168.1.7"), is_own=True
    )

    assert advice_for(named) == advice_for(own) == Advice(WITHOUT_PROXY)


def test_the_proxy_itself_gets_no_command() -> None:
    assert advice_for(DeniedAttempt(Reason.PROXY_LOOP, None)) == Advice(WITHOUT_PROXY)


@pytest.mark.parametrize("host", ["169.254.169.254", "168.63.129.16"])
def test_a_metadata_service_gets_no_command(host: str) -> None:
    literal = DeniedAttempt(Reason.NO_RULE, Authority.of(host, 80), Scheme.HTTP)
    named = DeniedAttempt(Reason.ADDRESS_NOT_ALLOWED, HOST, address=ip_address(host))

    assert command_for(literal) is command_for(named) is None
    assert "metadata" in advice_for(literal).text


@pytest.mark.parametrize("host", ["metadata.google.internal", "instance-data"])
def test_a_name_of_a_metadata_service_gets_no_command(host: str) -> None:
    for reason in (Reason.NO_RULE, Reason.ADDRESS_NOT_ALLOWED):
        attempt = DeniedAttempt(reason, Authority.of(host, 80), Scheme.HTTP)

        assert command_for(attempt) is None
        assert "metadata" in advice_for(attempt).text


@pytest.mark.parametrize("path", ["/a*b", "/a//b", "/../etc", "/a;b", "/x" * 400, "*", ""])
def test_a_path_that_a_list_cannot_name_gets_no_command(path: str) -> None:
    attempt = DeniedAttempt(Reason.PATH_NOT_ALLOWED, HOST, method="GET", path=path)

    assert command_for(attempt) is None


@pytest.mark.parametrize("method", ["get", "FOO", ""])
def test_a_method_that_a_list_cannot_name_gets_no_command(method: str) -> None:
    attempt = DeniedAttempt(Reason.METHOD_NOT_ALLOWED, HOST, method=method, path="/")

    assert command_for(attempt) is None


def test_a_public_suffix_gets_no_command() -> None:
    assert command_for(DeniedAttempt(Reason.NO_RULE, Authority.of("com", 443))) is None


def test_a_push_is_advised_where_its_first_question_was_denied() -> None:
    attempt = DeniedAttempt(
        Reason.METHOD_NOT_ALLOWED,
        HOST,
        method="GET",
        path="/o/r.git/info/refs",
        query="service=git-receive-pack",
    )

    expected = "claude-proxy allow api.example --method POST --path /o/r.git/git-receive-pack"
    assert command_for(attempt) == expected


@pytest.mark.parametrize(
    "reason",
    sorted(
        set(Reason)
        - {
            Reason.NO_RULE,
            Reason.PORT_NOT_ALLOWED,
            Reason.SCHEME_NOT_ALLOWED,
            Reason.METHOD_NOT_ALLOWED,
            Reason.PATH_NOT_ALLOWED,
            Reason.ADDRESS_NOT_ALLOWED,
            Reason.PROXY_LOOP,
        }
    ),
)
def test_what_no_entry_would_fix_gets_no_advice(reason: Reason) -> None:
    attempt = DeniedAttempt(reason, HOST, method="POST", path="/", address=ip_address("10.0.0.1"))

    assert advice_for(attempt) == Advice()


def test_the_option_that_names_the_list_is_part_of_the_command() -> None:
    advice = advice_for(DeniedAttempt(Reason.NO_RULE, HOST))

    command = advice.command("--allowlist", "/home/me/my list.yaml")
    assert command is not None
    assert shlex.split(command)[2:] == ["api.example", "--allowlist", "/home/me/my list.yaml"]


@pytest.mark.parametrize("host", ["api.example", "notlocalhost", "10.0.0.1", "localhost.example"])
def test_another_machine_is_not_taken_for_this_one(host: str) -> None:
    assert not is_this_machine(Authority.of(host, 443))


def test_what_an_attack_of_our_own_asks_for_gets_no_command() -> None:
    attempt = DeniedAttempt(Reason.NO_RULE, Authority.of("denied.claude-proxy-doctor.test", 443))

    advice = advice_for(attempt)
    assert advice.command() is None
    assert "attack" in advice.text
