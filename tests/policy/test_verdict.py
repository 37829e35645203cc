"""The laws of verdicts: everything about one request's head, decided once."""

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.credentials.decision import NO_CREDENTIAL
from claude_proxy.policy.decision import CREDENTIALS_CHANGED
from claude_proxy.policy.location import Location
from claude_proxy.policy.messages.restrictions import ApiRestrictions
from claude_proxy.policy.patterns import HostPattern
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.policy.verdict import Verdict
from claude_proxy.wire.authority import Authority
from tests.policy.cases import rule
from tests.policy.credentials.cases import HOLDER, INJECTED, KEY, SECRETS

API = Authority("api.anthropic.com", 443)
RULES = (rule("api.anthropic.com"),)
LIMITS = ApiRestrictions(
    (HostPattern.parse("api.anthropic.com"),),
    Location("allowlist.yaml", 1, 1),
    models=("claude-*",),
    max_bytes=1000,
)


def asked(
    *fields: tuple[bytes, bytes], method: str = "POST", path: str = "/v1/messages"
) -> Request:
    return Request(Scheme.HTTPS, API, API, method, path, "", fields)


def test_a_verdict_is_that_of_the_rules_where_nothing_else_applies() -> None:
    verdict = Policy(RULES).evaluate(asked())

    assert verdict == Verdict(Policy(RULES).decide_request(asked()))
    assert verdict.body_limit(asked()) is None
    assert not verdict.is_metered(asked())


def test_a_verdict_is_that_of_the_head_where_the_api_is_restricted() -> None:
    policy = Policy(RULES, restrictions=(LIMITS,))

    for request in (asked(), asked(method="GET", path="/v1//models"), asked(path="/v1/%41")):
        assert policy.evaluate(request).decision == policy.decide_head(request)
    verdict = policy.evaluate(asked())
    assert (verdict.restrictions, verdict.body_limit(asked())) == (LIMITS, 1000)
    assert verdict.decision.restricted


def test_a_verdict_holds_the_credential_of_the_request() -> None:
    policy = Policy(RULES, credentials=INJECTED)
    request = asked((b"x-api-key", HOLDER.encode()))

    verdict = policy.evaluate(request, SECRETS)

    assert verdict.decision.allowed
    assert verdict.credential == policy.decide_credential(request, SECRETS)
    assert (b"x-api-key", KEY) in verdict.credential.extra


@pytest.mark.parametrize(
    ("key", "secrets", "reason"),
    [
        (b"somebody-elses", SECRETS, Reason.FOREIGN_CREDENTIAL),
        (HOLDER.encode(), {}, Reason.CREDENTIAL_UNAVAILABLE),
    ],
    ids=["foreign", "unavailable"],
)
def test_a_credential_that_may_not_pass_denies_the_request(
    key: bytes, secrets: dict[str, None], reason: Reason
) -> None:
    verdict = Policy(RULES, credentials=INJECTED).evaluate(asked((b"x-api-key", key)), secrets)

    assert (verdict.decision.allowed, verdict.decision.reason) == (False, reason)
    assert verdict.credential.extra == ()


def test_a_request_that_no_rule_allows_gets_no_credential() -> None:
    verdict = Policy(credentials=INJECTED).evaluate(asked(), SECRETS)

    assert verdict.decision.reason is Reason.NO_RULE
    assert verdict.credential is NO_CREDENTIAL


def test_only_a_call_for_a_message_is_metered() -> None:
    verdict = Policy(RULES, restrictions=(LIMITS,)).evaluate(asked())

    assert verdict.is_metered(asked())
    assert not verdict.is_metered(asked(method="GET"))
    assert not verdict.is_metered(asked(path="/v1/models"))


def test_a_request_departs_only_with_the_credentials_it_was_judged_by() -> None:
    before, other = Policy(RULES, credentials=INJECTED), Policy(RULES)
    verdict = before.evaluate(asked(), SECRETS)

    same = Policy(RULES, credentials=(*INJECTED,))
    assert before.decide_departure(asked(), verdict) is verdict.decision
    assert same.decide_departure(asked(), verdict) is verdict.decision
    assert other.decide_departure(asked(), verdict) is CREDENTIALS_CHANGED


def test_a_request_to_a_host_of_the_apis_provider_departs_only_while_no_account_is_bound() -> None:
    def policy(credentials: str) -> Policy:
        return loader.load(f"allow: [claude.ai]\n{credentials}", name="test")

    host = Authority.of("claude.ai", 443)
    login = ((b"x-api-key", b"sk-ant-api03-of-somebody-else"),)
    request = Request(Scheme.HTTPS, host, host, "POST", "/api", "", login)
    # A credential for another host, so that credentials are looked at all the same.
    before = policy("credentials: [{host: github.com, pin: learn}]")
    after = policy("credentials: [{host: api.anthropic.com, pin: learn}]")
    verdict = before.evaluate(request)

    assert verdict.decision.allowed
    assert after.decide_departure(request, verdict) is CREDENTIALS_CHANGED
    assert after.evaluate(request).decision.reason is Reason.FOREIGN_CREDENTIAL


def test_the_api_opens_no_host_of_its_provider_where_an_account_is_bound() -> None:
    url = "https://mcp-proxy.anthropic.com/v1/mcp/a"
    open_ = loader.load("allow: [{preset: claude}]", name="test")
    bound = loader.load(
        "allow: [{preset: claude}]\ncredentials: [{host: api.anthropic.com, pin: learn}]",
        name="test",
    )

    assert open_.allows_url(url, "POST")
    assert not bound.allows_url(url, "POST")


def test_a_verdict_cannot_be_changed() -> None:
    verdict = Policy(RULES).evaluate(asked())

    with pytest.raises(AttributeError):
        verdict.decision = CREDENTIALS_CHANGED  # type: ignore[misc]
