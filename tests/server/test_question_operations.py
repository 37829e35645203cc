"""The words by which `claude-proxy allow` writes what an answer would open."""

from claude_proxy.policy.questions import Access, Subject
from claude_proxy.policy.request import Scheme
from claude_proxy.policy.rules import RawScheme, Tls
from claude_proxy.server.question_operations import allow_arguments
from claude_proxy.wire.authority import Authority
from tests.policy.cases import rule

SUBJECT = Subject("r", Scheme.HTTPS, Authority.of("a.test", 443), Access.READ)


def test_an_entry_for_always_says_no_more_than_the_rule() -> None:
    opens = rule("a.test", methods=["HEAD", "GET"], paths=["/v1/**"], addresses=["10.0.0.1"])

    assert allow_arguments(opens, SUBJECT, ("--policy", "mine")) == [
        *("allow", "https://a.test:443", "--method", "GET", "--method", "HEAD"),
        *("--path", "/v1/**", "--address", "10.0.0.1/32", "--policy", "mine"),
    ]


def test_bytes_of_any_protocol_are_allowed_as_such() -> None:
    subject = Subject("r", RawScheme.TCP, Authority.of("a.test", 22), Access.TUNNEL)

    assert allow_arguments(rule("a.test", scheme=RawScheme.TCP, ports=(22,)), subject, ()) == [
        "allow",
        "tcp://a.test:22",
    ]


def test_an_exemption_from_tls_is_written_by_hand() -> None:
    assert allow_arguments(rule("a.test", tls=Tls.PASSTHROUGH), SUBJECT, ()) is None
