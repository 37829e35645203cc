"""Few of the user's variables are passed on, and none can replace those of the proxy."""

import pytest

from claude_proxy.config.allowlist.model import NetworkMode
from claude_proxy.sandbox.plan.model import (
    Profile,
)
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import (
    HOME,
    PROJECT,
    a_spec,
    some_facts,
)
from tests.sandbox.plan.plans import refused


def test_few_of_the_users_variables_are_passed_on() -> None:
    given_variables = {
        "PATH": "/usr/bin",
        "LC_TIME": "C",
        "TZ": "UTC",
        "AWS_SECRET_ACCESS_KEY": "x",
        "SSH_AUTH_SOCK": "/tmp/agent",
        "LD_PRELOAD": "x.so",
    }

    found = plan_sandbox(
        a_spec(network=NetworkMode.NONE), some_facts(environ=given_variables)
    ).environment

    assert found == {
        "HOME": str(HOME),
        "LC_TIME": "C",
        "LOGNAME": "ann",
        "PATH": "/usr/bin",
        "PWD": str(PROJECT),
        "SHELL": "/bin/sh",
        "TMPDIR": "/tmp",
        "TZ": "UTC",
        "USER": "ann",
        "XDG_RUNTIME_DIR": "/run/user/1000",
    }


def test_every_client_is_pointed_to_the_relay_and_one_variable_names_socks() -> None:
    found = plan_sandbox(a_spec(), some_facts()).environment

    assert found["HTTPS_PROXY"] == found["https_proxy"] == "http://127.0.0.1:3128"
    assert {name for name, value in found.items() if "socks" in value} == {"ALL_PROXY"}
    assert found["NODE_EXTRA_CA_CERTS"] == "/run/claude-proxy/ca.pem"
    assert found["SSL_CERT_FILE"] == "/run/claude-proxy/bundle.pem"


def test_a_profile_sets_and_passes_but_cannot_change_the_proxy() -> None:
    profile = Profile(
        "own",
        pass_env=("KEY", "UNSET", "HTTPS_PROXY"),
        set_env=(("A", "1"), ("HOME", "/x"), ("http_proxy", "http://evil.example")),
    )
    facts = some_facts(environ={"KEY": "k", "HTTPS_PROXY": "http://corporate.example"})

    found = plan_sandbox(a_spec(profile=profile), facts).environment

    assert (found["A"], found["KEY"], found["HOME"]) == ("1", "k", str(HOME))
    assert "UNSET" not in found
    assert found["HTTPS_PROXY"] == found["http_proxy"] == "http://127.0.0.1:3128"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("TOKEN", "is not set"),
        ("TOKEN=x", "not its value"),
        ("1x", "not a variable name"),
        ("HTTPS_PROXY", "set for the run itself"),
        ("HOME", "set for the run itself"),
        ("SSH_AUTH_SOCK", "a socket"),
        ("DOCKER_HOST", "a socket"),
    ],
)
def test_a_variable_that_cannot_be_passed_is_an_error(name: str, expected: str) -> None:
    error = refused(a_spec(pass_env=(name,)), some_facts(environ={"HTTPS_PROXY": "x"}))

    assert expected in error.what
    assert "=x" not in (error.where or "")
