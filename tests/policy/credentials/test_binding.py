"""The laws of bindings: which placeholder and variables a client gets."""

import pytest

from claude_proxy.policy.credentials.binding import (
    CredentialKind,
    Form,
    Injection,
    LoginPin,
    default_placeholder,
    kind_of_value,
    placeholder_variables,
)
from claude_proxy.policy.credentials.secret import Secret
from claude_proxy.policy.credentials.sources import EnvironmentSource
from claude_proxy.policy.patterns import HostPattern
from tests.policy.credentials.cases import GIT_HOLDER, KEY, OAUTH, binding, injection


@pytest.mark.parametrize(
    ("host", "form", "holder"),
    [
        ("api.anthropic.com", Form.AUTO, "sk-ant-claude-proxy-placeholder-n"),
        ("*.anthropic.com", Form.BEARER, "sk-ant-claude-proxy-placeholder-n"),
        ("api.anthropic.com", Form.FIELD, "claude-proxy-placeholder-n"),
        ("github.com", Form.AUTO, "claude-proxy-placeholder-n"),
        ("api.anthropic.com.example", Form.AUTO, "claude-proxy-placeholder-n"),
    ],
)
def test_a_placeholder_looks_like_what_it_stands_for(host: str, form: Form, holder: str) -> None:
    assert default_placeholder("n", (HostPattern.parse(host),), form) == holder


def test_the_variable_depends_on_the_kind_of_the_credential() -> None:
    bound = binding(injection())

    assert placeholder_variables(bound, kind_of_value(Secret(KEY))) == ("ANTHROPIC_AUTH_TOKEN",)
    assert placeholder_variables(bound, kind_of_value(Secret(OAUTH))) == (
        "CLAUDE_CODE_OAUTH_TOKEN",
    )
    assert placeholder_variables(bound, CredentialKind.OTHER) == ("ANTHROPIC_AUTH_TOKEN",)


def test_the_owners_variables_are_taken_as_they_are() -> None:
    use = Injection(EnvironmentSource("K"), placeholder=GIT_HOLDER, variables=("GH_TOKEN",))

    assert placeholder_variables(binding(use, "github.com"), CredentialKind.OTHER) == ("GH_TOKEN",)
    assert placeholder_variables(binding(injection(), "github.com"), CredentialKind.OTHER) == ()
    assert placeholder_variables(binding(LoginPin(learn=True)), CredentialKind.OTHER) == ()
