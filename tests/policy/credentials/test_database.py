"""Laws of logins to databases: the bound one by its placeholder, and no other."""

from dataclasses import replace

import pytest

from claude_proxy.config.allowlist import loader
from claude_proxy.policy.credentials.database import (
    AskedLogin,
    database_use,
    databases_at,
    is_for_requests,
    judge_login,
)
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.host_services import with_host_services
from claude_proxy.policy.reason import Reason
from claude_proxy.policy.request import Request, Scheme
from claude_proxy.wire.authority import Authority

TARGET = Authority.of("db.test", 5432)
PLACEHOLDER = b"claude-proxy-placeholder-db.test"
TEXT = """\
allow: [{host: db.test, scheme: tcp, ports: [5432, 5433]}, db.test]
credentials: [{host: db.test, inject: postgres, user: app, %s from: {env: PASSWORD}}]
"""
POLICY = loader.load(TEXT % "", name="a.yaml")
(BINDING,) = POLICY.credentials
SECRETS = {"db.test": Secret(b"s3cret")}
ASKED = AskedLogin("app", "shop", PLACEHOLDER)


def test_the_bound_login_is_allowed_by_its_placeholder() -> None:
    assert judge_login(BINDING, ASKED) is None
    assert POLICY.decide_login(TARGET, ASKED, SECRETS).allowed
    assert POLICY.database_at(TARGET) is BINDING
    assert not is_for_requests(BINDING)
    use = database_use(BINDING)
    assert use is not None
    assert use.tls


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (replace(ASKED, user="admin"), Reason.FOREIGN_CREDENTIAL),
        (replace(ASKED, user="APP"), Reason.FOREIGN_CREDENTIAL),
        (replace(ASKED, password=b""), Reason.FOREIGN_CREDENTIAL),
        (replace(ASKED, password=b"s3cret"), Reason.FOREIGN_CREDENTIAL),
        (replace(ASKED, password=PLACEHOLDER + b"x"), Reason.FOREIGN_CREDENTIAL),
        (replace(ASKED, replicates=True), Reason.METHOD_REFUSED),
    ],
)
def test_another_login_is_a_foreign_one(asked: AskedLogin, reason: Reason) -> None:
    assert POLICY.decide_login(TARGET, asked, SECRETS).reason is reason


def test_another_database_than_the_owner_named_is_a_foreign_login() -> None:
    policy = loader.load(TEXT % "database: shop,", name="a.yaml")

    assert policy.decide_login(TARGET, ASKED, SECRETS).allowed
    other = replace(ASKED, database="postgres")
    assert policy.decide_login(TARGET, other, SECRETS).reason is Reason.FOREIGN_CREDENTIAL


def test_without_a_value_nobody_is_logged_in() -> None:
    decision = POLICY.decide_login(TARGET, ASKED, {"db.test": None})

    assert decision.reason is Reason.CREDENTIAL_UNAVAILABLE


def test_the_binding_is_for_its_port_alone() -> None:
    other = Authority.of("db.test", 5433)

    assert databases_at(other, POLICY.credentials) == []
    assert POLICY.decide_connect(other).raw
    assert not POLICY.decide_login(other, ASKED, SECRETS).allowed


def test_requests_to_the_host_do_not_carry_the_password() -> None:
    target = Authority.of("db.test", 443)
    asked = Request(Scheme.HTTPS, target, target, "GET", "/")

    verdict = POLICY.evaluate(asked, SECRETS)

    assert verdict.decision.allowed
    assert verdict.credential.extra == ()
    held = replace(asked, fields=((b"Authorization", b"Bearer " + PLACEHOLDER),))
    assert POLICY.evaluate(held, SECRETS).decision.reason is Reason.PLACEHOLDER_MISPLACED


def test_two_logins_at_one_place_are_none() -> None:
    twice = replace(POLICY, credentials=(BINDING, replace(BINDING, name="other")))

    assert not twice.decide_connect(TARGET).allowed


def test_a_service_of_this_machine_may_be_a_database_too() -> None:
    bound = loader.load(
        "credentials: [{host: localhost, inject: postgres, user: app, from: {env: PASSWORD}}]",
        name="a.yaml",
    )
    policy = with_host_services(bound, [5432])
    target = Authority.of("localhost", 5432)
    asked = AskedLogin("app", "app", b"claude-proxy-placeholder-localhost")

    assert policy.decide_login(target, asked, {"localhost": Secret(b"s")}).allowed
    assert not bound.decide_login(target, asked, {"localhost": Secret(b"s")}).allowed
