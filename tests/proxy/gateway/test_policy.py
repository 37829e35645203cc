"""The gateway's policy allows its upstream what its mode serves, and keeps what the list denies."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.config.settings import Base, Gateway, GatewayMode
from claude_proxy.policy.credentials.binding import Injection
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.policy import Policy
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.proxy.gateway.policy import CREDENTIAL, policy_of
from claude_proxy.wire.authority import Authority

API = Authority.of("api.anthropic.com", 443)


def a_gateway(base: str = "https://api.anthropic.com:443", **changes: object) -> Gateway:
    scheme, _, rest = base.partition("://")
    host, slash, path = rest.partition("/")
    upstream = Base(Scheme(scheme), Authority.parse(host), slash + path)
    key = Injection(EnvironmentSource("KEY"), strips=True)
    return replace(Gateway(listen=(), upstream=upstream, credential=key), **changes)  # type: ignore[arg-type]


def loaded(text: str = "allow: []\n") -> Policy:
    return loader.load(text, name="allowlist.yaml")


def ask(policy: Policy, method: str, path: str, target: Authority = API) -> Reason:
    scheme = Scheme.HTTPS if target == API else Scheme.HTTP
    return policy.decide_request(Request(scheme, target, target, method, path)).reason


def test_the_upstream_needs_no_other_rule() -> None:
    policy = policy_of(a_gateway(), loaded())

    assert ask(policy, "POST", "/v1/messages") is Reason.RULE_MATCHED
    assert policy.decide_connect(API).allowed


def test_another_host_is_not_allowed_though_the_list_allows_it() -> None:
    policy = policy_of(a_gateway(), loaded("allow: [other.example]\n"))

    assert not policy.decide_connect(Authority.of("other.example", 443)).allowed
    assert not policy.decide_connect(Authority.of("api.anthropic.com", 8443)).allowed


@pytest.mark.parametrize(
    ("mode", "method", "path"),
    [
        (GatewayMode.CLAUDE, "POST", "/v1/files"),
        (GatewayMode.CLAUDE, "DELETE", "/v1/messages"),
        (GatewayMode.CLAUDE, "POST", "/v1/messages/batches"),
        (GatewayMode.STRICT, "GET", "/v1/models"),
        (GatewayMode.STRICT, "POST", "/v1/messages/count_tokens"),
    ],
)
def test_what_the_mode_does_not_serve_is_denied_by_the_policy_too(
    mode: GatewayMode, method: str, path: str
) -> None:
    policy = policy_of(a_gateway(mode=mode), loaded())

    assert ask(policy, method, path) in {Reason.METHOD_NOT_ALLOWED, Reason.PATH_NOT_ALLOWED}


def test_the_path_of_the_base_belongs_to_the_rule() -> None:
    policy = policy_of(a_gateway("https://api.anthropic.com:443/api/v9"), loaded())

    assert ask(policy, "POST", "/api/v9/v1/messages") is Reason.RULE_MATCHED
    assert ask(policy, "POST", "/v1/messages") is Reason.PATH_NOT_ALLOWED


def test_a_deny_rule_of_the_list_stays_in_force() -> None:
    policy = policy_of(a_gateway(), loaded("deny: ['*.anthropic.com']\n"))

    assert ask(policy, "POST", "/v1/messages") is Reason.DENY_RULE


def test_only_the_gateways_own_credential_is_known() -> None:
    policy = policy_of(a_gateway(), loaded())

    assert [binding.name for binding in policy.credentials] == [CREDENTIAL]


def test_what_the_api_may_fetch_is_what_the_list_allows() -> None:
    policy = policy_of(a_gateway(), loaded("allow: [files.example]\n"))

    assert policy.allows_url("https://files.example/a.png")
    assert not policy.allows_url("https://api.anthropic.com/v1/messages")
    assert not policy.allows_url("https://elsewhere.example/")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
def test_plain_http_is_for_this_machine(host: str) -> None:
    policy = policy_of(a_gateway(f"http://{host}:8080"), loaded())
    target = Authority.parse(f"{host}:8080")

    assert ask(policy, "POST", "/v1/messages", target) is Reason.RULE_MATCHED
    address = target.address or ip_address("127.0.0.1")
    assert policy.decide_address(target, address).allowed


def test_a_name_that_leads_to_a_private_address_needs_the_lists_word() -> None:
    gateway = a_gateway("https://llm.corp.example:443")
    target, address = Authority.of("llm.corp.example", 443), ip_address("10.1.2.3")
    entry = "allow: [{host: llm.corp.example, addresses: [10.0.0.0/8]}]\n"

    assert not policy_of(gateway, loaded()).decide_address(target, address).allowed
    assert policy_of(gateway, loaded(entry)).decide_address(target, address).allowed
