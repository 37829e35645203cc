"""Laws of `import claude-code`: the domains of its sandbox and of WebFetch, denials first."""

import json
from typing import Any

import pytest

from claude_proxy.config.imports import claude_code
from claude_proxy.config.imports.draft import Draft
from claude_proxy.errors import ConfigError
from tests.config.imports.squid_model import Target, policy_allows


def _converted(settings: dict[str, Any]) -> Draft:
    return claude_code.convert(json.dumps(settings, indent=2), name="settings.json")


def _allows(draft: Draft, host: str) -> bool:
    return policy_allows(draft.policy(), Target("https", host, 443, "GET", "/"))


def _told(draft: Draft) -> str:
    return "\n".join(map(str, draft.remarks))


def test_domains_of_the_sandbox_and_of_permissions_count_alike() -> None:
    draft = _converted(
        {
            "sandbox": {"network": {"allowedDomains": ["*.a.com"], "deniedDomains": ["x.a.com"]}},
            "permissions": {
                "allow": ["Bash(ls:*)", "WebFetch(domain:b.org)", "WebFetch(domain:y.a.com)"],
                "deny": ["WebFetch(domain:y.a.com)", "Read(./.env)"],
            },
        }
    )

    assert _allows(draft, "z.a.com")
    assert _allows(draft, "b.org")
    for host in ("x.a.com", "y.a.com", "a.com"):
        assert not _allows(draft, host)


def test_what_is_asked_about_is_not_open() -> None:
    draft = _converted(
        {
            "sandbox": {"network": {"allowedDomains": ["*.a.com"]}},
            "permissions": {"ask": ["WebFetch(domain:x.a.com)"]},
        }
    )

    assert not _allows(draft, "x.a.com")
    assert (
        '"x.a.com" is asked about there, and denied here; fix: allow it by an entry with ask'
        in (_told(draft))
    )


def test_rules_for_the_whole_tool_open_nothing() -> None:
    draft = _converted({"permissions": {"allow": ["WebFetch", "WebSearch"], "deny": ["WebFetch"]}})

    assert not draft.allow
    assert 'permissions.allow: "WebFetch" is about the tool for every host' in _told(draft)


def test_other_keys_of_the_sandbox_are_told() -> None:
    draft = _converted(
        {
            "model": "opus",
            "sandbox": {
                "enabled": True,
                "excludedCommands": ["docker"],
                "network": {"httpProxyPort": 8080},
                "filesystem": {"allowWrite": ["/tmp"]},
            },
        }
    )

    for key in ("sandbox.excludedCommands", "sandbox.network.httpProxyPort",
                "sandbox.filesystem.allowWrite"):  # fmt: skip
        assert f"{key}: " in _told(draft)
    assert "model" not in _told(draft)


@pytest.mark.parametrize("settings", [{"permissions": []}, {"permissions": {"allow": {}}}])
def test_settings_of_another_form_are_an_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not what it should be"):
        _converted(settings)
