"""What is recorded is judged as it was when it was made."""

from ipaddress import ip_address

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.recorded_attempt import Form, RecordedAttempt, judged
from claude_proxy.policy.request import Scheme
from claude_proxy.wire.authority import Authority

POLICY = loader.load(
    """\
allow:
  - host: api.example.com
    methods: [GET]
    paths: [/v1/*]
  - host: git.example.com
    methods: [GET]
  - {host: db.example.com, scheme: tcp, ports: [5432]}
  - {host: pinned.example.com, tls: passthrough}
  - {host: plain.example.com, scheme: http}
  - {host: inside.example.com, addresses: [10.1.2.3]}
""",
    name="allowlist.yaml",
)


def attempt(form: Form, target: str, path: str = "", **changes: object) -> RecordedAttempt:
    method = "GET" if form is Form.REQUEST else ""
    made = RecordedAttempt(form, Scheme.HTTPS, Authority.parse(target), method, path)
    return made._replace(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("recorded", "reason"),
    [
        (attempt(Form.REQUEST, "api.example.com:443", "/v1/x"), Reason.RULE_MATCHED),
        (attempt(Form.REQUEST, "api.example.com:443", "/v2/x"), Reason.PATH_NOT_ALLOWED),
        (attempt(Form.REQUEST, "other.example.com:443", "/"), Reason.NO_RULE),
        (
            attempt(Form.REQUEST, "git.example.com:443", "/r/info/refs"),
            Reason.RULE_MATCHED,
        ),
        (
            attempt(
                Form.REQUEST,
                "git.example.com:443",
                "/r/info/refs",
                query="service=git-receive-pack",
            ),
            Reason.METHOD_NOT_ALLOWED,
        ),
        (attempt(Form.TUNNEL, "api.example.com:443"), Reason.RULE_MATCHED),
        (attempt(Form.TUNNEL, "api.example.com:444"), Reason.PORT_NOT_ALLOWED),
        (attempt(Form.RAW, "db.example.com:5432"), Reason.RULE_MATCHED),
        (attempt(Form.RAW, "api.example.com:443"), Reason.NOT_TLS),
        (attempt(Form.PASSTHROUGH, "pinned.example.com:443"), Reason.RULE_MATCHED),
        (attempt(Form.PASSTHROUGH, "plain.example.com:80"), Reason.SCHEME_NOT_ALLOWED),
        (attempt(Form.LOOKUP, "api.example.com:443"), Reason.RULE_MATCHED),
        (attempt(Form.LOOKUP, "other.example.com:443"), Reason.NO_RULE),
        (
            attempt(Form.REQUEST, "inside.example.com:443", "/", address=ip_address("10.1.2.3")),
            Reason.RULE_MATCHED,
        ),
        (
            attempt(Form.REQUEST, "inside.example.com:443", "/", address=ip_address("10.1.2.4")),
            Reason.ADDRESS_NOT_ALLOWED,
        ),
    ],
)
def test_an_attempt_is_judged_by_what_is_recorded(
    recorded: RecordedAttempt, reason: Reason
) -> None:
    decision = judged(POLICY, recorded)

    assert decision.reason is reason


ASKING = loader.load(
    """\
allow:
  - {host: a.example.com, ask: true}
  - {host: "*.wild.example.com", ask: true}
  - {host: part.example.com, ask: true, methods: [GET], paths: [/v1/*]}
  - {host: inside.example.com, ask: true, addresses: [10.1.2.3]}
  - {host: db.example.com, ask: true, scheme: tcp, ports: [5432]}
  - {host: pinned.example.com, ask: true, tls: passthrough}
  - listed.example.com
deny:
  - {host: a.example.com, paths: [/secret/**]}
""",
    name="allowlist.yaml",
)


@pytest.mark.parametrize(
    ("recorded", "reason"),
    [
        (attempt(Form.REQUEST, "a.example.com:443", "/one"), Reason.ASK),
        (attempt(Form.REQUEST, "a.example.com:443", "/secret/x"), Reason.DENY_RULE),
        (attempt(Form.REQUEST, "a.example.com:8443", "/one"), Reason.PORT_NOT_ALLOWED),
        (attempt(Form.REQUEST, "x.wild.example.com:443", "/one"), Reason.ASK),
        (attempt(Form.REQUEST, "part.example.com:443", "/v1/x"), Reason.ASK),
        (attempt(Form.REQUEST, "part.example.com:443", "/v2/x"), Reason.PATH_NOT_ALLOWED),
        (
            attempt(Form.REQUEST, "part.example.com:443", "/v1/x", method="POST"),
            Reason.METHOD_NOT_ALLOWED,
        ),
        (
            attempt(Form.REQUEST, "inside.example.com:443", "/", address=ip_address("10.1.2.3")),
            Reason.ASK,
        ),
        (
            attempt(Form.REQUEST, "inside.example.com:443", "/", address=ip_address("10.1.2.4")),
            Reason.ADDRESS_NOT_ALLOWED,
        ),
        (
            attempt(Form.REQUEST, "a.example.com:443", "/one", address=ip_address("93.184.216.34")),
            Reason.ASK,
        ),
        (attempt(Form.TUNNEL, "a.example.com:443"), Reason.ASK),
        (attempt(Form.RAW, "db.example.com:5432"), Reason.ASK),
        (attempt(Form.RAW, "a.example.com:443"), Reason.NOT_TLS),
        (attempt(Form.REQUEST, "db.example.com:5432", "/x"), Reason.ASK),
        (attempt(Form.PASSTHROUGH, "pinned.example.com:443"), Reason.ASK),
        (attempt(Form.LOOKUP, "a.example.com:443"), Reason.ASK),
        (attempt(Form.REQUEST, "listed.example.com:443", "/x"), Reason.RULE_MATCHED),
        (attempt(Form.REQUEST, "other.example.com:443", "/x"), Reason.NO_RULE),
    ],
)
def test_what_a_rule_asks_about_is_neither_allowed_nor_denied_by_another_rule(
    recorded: RecordedAttempt, reason: Reason
) -> None:
    decision = judged(ASKING, recorded)

    assert (decision.reason, decision.asks) == (reason, reason is Reason.ASK)


def test_requests_in_a_tunnel_for_any_protocol_are_seen_by_nobody() -> None:
    recorded = attempt(Form.REQUEST, "db.example.com:5432", "/anything")

    assert judged(POLICY, recorded).allowed
