"""Laws of findings: what `check` knows beyond the policy is judged by the policy, too."""

import json
from pathlib import Path
from typing import Any

import pytest

from claude_proxy.cli import entry_warnings
from claude_proxy.cli.check_findings import Findings
from claude_proxy.cli.main import main
from claude_proxy.trust.certificate_authority import rotate

LIST = """
allow:
  - host: github.com
    methods: [GET]
  - gist.github.com
  - git.corp.test
  - localhost
deny:
  - x.test
"""


@pytest.fixture(autouse=True)
def confdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, a project and a hosts file of the test's own."""
    found = tmp_path / "conf"
    found.mkdir(mode=0o700)
    (found / "allowlist.yaml").write_text(LIST)
    (tmp_path / "hosts").write_text("10.1.2.3 git.corp.test\n")
    (tmp_path / "project").mkdir()
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(found))
    monkeypatch.setattr(entry_warnings, "HOSTS_FILE", tmp_path / "hosts")
    monkeypatch.chdir(tmp_path / "project")
    return found


def checked(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    code = main(["check", "--json", *arguments])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert code == (0 if found["allowed"] else 1)
    return found


def test_a_denied_request_names_just_what_would_allow_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = checked(capsys, "--method", "post", "https://github.com/graphql")

    assert found["allow_command"] == ("claude-proxy allow github.com --method POST --path /graphql")


def test_a_denied_host_names_the_presets_that_cover_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = checked(capsys, "https://codeload.github.com/o/r/x")

    assert found["presets"][0] == "github"
    assert main(["check", "https://codeload.github.com/o/r/x"]) == 1
    shown = capsys.readouterr().out
    assert "the preset github allows it: claude-proxy allow --preset github" in shown


def test_a_preset_is_named_only_if_it_would_allow_the_very_request(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    body = tmp_path / "body.json"
    messages = "https://api.anthropic.com/v1/messages"
    ask = {"model": "claude-x", "max_tokens": 1, "messages": []}
    body.write_text(json.dumps(ask))
    named = checked(capsys, "--body", str(body), messages)["presets"]
    assert "claude-min" in named
    assert "claude-min" not in checked(capsys, "https://api.anthropic.com/v1/files")["presets"]

    server = {"type": "url", "url": "https://mcp.test/", "name": "x"}
    body.write_text(json.dumps(ask | {"mcp_servers": [server]}))
    assert "claude-min" not in checked(capsys, "--body", str(body), messages)["presets"]


def test_no_preset_is_named_against_the_restrictions_of_an_api(
    capsys: pytest.CaptureFixture[str], confdir: Path, tmp_path: Path
) -> None:
    (confdir / "allowlist.yaml").write_text("allow:\n  - preset: claude-min\n")
    server = {"type": "url", "url": "https://mcp.test/", "name": "x"}
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model": "m", "mcp_servers": [server]}))

    denied = checked(capsys, "--body", str(body), "https://api.anthropic.com/v1/messages")
    assert denied["content"]["reason"] == "mcp-server-not-allowed"
    assert denied["presets"] == []
    assert checked(capsys, "https://api.anthropic.com/v1/files")["presets"] == []


@pytest.mark.parametrize("listed", ["[]", "[{host: a.test, ports: [22, 2222]}]"])
@pytest.mark.parametrize(("url", "port"), [("git@a.test:x/y", 22), ("ssh://a.test:2222/x", 2222)])
def test_ssh_is_advised_an_entry_for_tcp(
    capsys: pytest.CaptureFixture[str], confdir: Path, listed: str, url: str, port: int
) -> None:
    (confdir / "allowlist.yaml").write_text(f"allow: {listed}\n")

    assert main(["check", url]) == 1
    shown = capsys.readouterr().out
    assert f"to allow it: claude-proxy allow tcp://a.test:{port}" in shown


def test_where_it_is_not_known_what_is_spoken_both_entries_are_named(
    capsys: pytest.CaptureFixture[str], confdir: Path
) -> None:
    (confdir / "allowlist.yaml").write_text("allow: [a.test]\n")

    assert main(["check", "a.test:7000"]) == 1
    shown = capsys.readouterr().out
    assert "to allow it: claude-proxy allow a.test:7000" in shown
    assert "neither TLS nor HTTP" in shown
    assert "claude-proxy allow tcp://a.test:7000" in shown


def test_a_private_address_of_a_tunnel_of_tcp_is_named_with_its_scheme(
    capsys: pytest.CaptureFixture[str], confdir: Path
) -> None:
    (confdir / "allowlist.yaml").write_text(
        "allow: [{host: 10.1.2.3, scheme: tcp, ports: [5432]}]\n"
    )

    found = checked(capsys, "tcp://10.1.2.3:5432")

    assert found["allowed"]
    assert found["connect"]["raw"]
    assert not checked(capsys, "tcp://10.1.2.3:5433")["allowed"]


def test_commands_name_the_configuration_that_was_given(
    capsys: pytest.CaptureFixture[str], confdir: Path, tmp_path: Path
) -> None:
    place = tmp_path / "other place"
    place.mkdir(mode=0o700)
    given = ("--confdir", str(place))

    (place / "allowlist.yaml").write_text("allow: []\n")
    assert checked(capsys, *given, "https://a.test/")["allow_command"] == (
        f"claude-proxy allow a.test --confdir '{place}'"
    )
    assert main(["check", *given, "https://codeload.github.com/o/r/x"]) == 1
    assert f"allow --preset github --confdir '{place}'" in capsys.readouterr().out
    named = ("--allowlist", str(confdir / "allowlist.yaml"), *given)
    assert checked(capsys, *named, "https://a.test/")["allow_command"].endswith(
        f" --allowlist {confdir}/allowlist.yaml --confdir '{place}'"
    )


def test_no_preset_and_no_command_help_against_a_denial_rule(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = checked(capsys, "https://x.test/")

    assert (found["allow_command"], found["presets"]) == (None, [])


def test_what_the_projects_own_file_denies_is_denied(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "project" / ".claude-proxy.yaml").write_text("deny:\n  - gist.github.com\n")

    found = checked(capsys, "https://gist.github.com/")

    assert found["project"]["reason"] == "deny-rule"
    assert checked(capsys, "--dir", str(tmp_path), "https://gist.github.com/")["allowed"]


def test_a_broken_file_of_the_project_is_a_warning(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "project" / ".claude-proxy.yaml").write_text("allow:\n  - a.test\n")

    assert main(["check", "https://gist.github.com/"]) == 0
    assert ".claude-proxy.yaml" in capsys.readouterr().err


def test_a_name_that_leads_to_a_private_address_is_denied_as_the_proxy_denies_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = checked(capsys, "https://git.corp.test/")

    assert (found["allowed"], found["address"]) == (False, "10.1.2.3")
    assert found["allow_command"] == "claude-proxy allow git.corp.test --address 10.1.2.3"


def test_this_machine_is_to_be_reached_without_the_proxy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert checked(capsys, "https://localhost/")["allow_command"] is None
    assert main(["check", "http://127.0.0.1:8000/"]) == 1
    assert "reach it without the proxy" in capsys.readouterr().out


def test_a_host_that_the_ca_may_not_sign_for_is_warned_of(
    capsys: pytest.CaptureFixture[str], confdir: Path
) -> None:
    rotate(confdir, ["github.com"])

    assert main(["check", "https://gist.github.com/"]) == 0
    assert "name constraints" not in capsys.readouterr().err  # it is below github.com
    assert main(["check", "git.corp.test"]) == 1
    assert "the CA may not sign for git.corp.test" in capsys.readouterr().err


def test_a_name_that_does_not_resolve_is_said_to_be_so_where_it_is_looked_up(
    capsys: pytest.CaptureFixture[str], confdir: Path
) -> None:
    (confdir / "allowlist.yaml").write_text("allow: [nosuch.test, git.corp.test]\n")

    assert main(["check", "--look-up", "https://nosuch.test/"]) == 0
    assert "nosuch.test does not resolve" in capsys.readouterr().err
    assert main(["check", "https://nosuch.test/"]) == 0
    assert main(["check", "--look-up", "https://git.corp.test/"]) == 1
    assert "resolve" not in capsys.readouterr().err


def test_nothing_found_denies_nothing() -> None:
    assert Findings().allowed
