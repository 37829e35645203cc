"""`check`, `presets` and `schema`: what they say, what they return, and where they look."""

import io
import json
import subprocess
import sys
from pathlib import Path

import platformdirs  # noqa: F401 - before a test says that this is Windows
import pytest

import claude_proxy
from claude_proxy.cli import paths
from claude_proxy.cli.main import main
from claude_proxy.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

LIST = """
allow:
  - a.example.com
  - host: api.example.com
    methods: [GET]
    paths: ["/v1/**"]
  - host: pinned.example.com
    tls: passthrough
  - host: plain.example.com
    scheme: http
  - host: both.example.com
    ports: [443, 8443]
  - bücher.example
  - "2001:db8::1"
  - {host: raw.example.com, scheme: tcp, ports: [22, 5432]}
  - {host: ssh.example.com, ports: [22]}
deny:
  - host: a.example.com
    paths: ["/admin/**"]
"""


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    file = tmp_path / "list.yaml"
    file.write_text(LIST, "utf-8")
    return file


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def check(listed: Path, *arguments: str) -> int:
    return main(["check", "--allowlist", str(listed), *arguments])


# check

CHECKS = {
    "a listed host": (["https://a.example.com/"], 0),
    "in capitals": (["HTTPS://A.Example.COM."], 0),
    "a WebSocket": (["wss://a.example.com/socket"], 0),
    "a host that is not listed": (["https://b.example.com/"], 1),
    "another port": (["https://a.example.com:8443/"], 1),
    "a port of the rule": (["https://both.example.com:8443/"], 0),
    "plain HTTP where TLS is allowed": (["http://a.example.com/"], 1),
    "plain HTTP where it is allowed": (["http://plain.example.com/"], 0),
    "TLS where plain HTTP is allowed": (["https://plain.example.com/"], 1),
    "a WebSocket without TLS": (["ws://plain.example.com/"], 0),
    "a denied path": (["https://a.example.com/admin/x"], 1),
    "a path of the rule": (["https://api.example.com/v1/x?y=z#w"], 0),
    "another path": (["https://api.example.com/v2"], 1),
    "a path by a detour": (["https://api.example.com/v1/../v2"], 1),
    "a path without a scheme": (["a.example.com/x"], 0),
    "a denied path without a scheme": (["a.example.com/admin/x"], 1),
    "a method in small letters": (["--method", "get", "https://api.example.com/v1/x"], 0),
    "another method in small letters": (["--method", "post", "https://api.example.com/v1/x"], 1),
    "what ssh takes": (["git@a.example.com:o/r.git"], 1),
    "with blanks around it": ([" https://a.example.com/ "], 0),
    "another method": (["--method", "POST", "https://api.example.com/v1/x"], 1),
    "a tunnel": (["a.example.com:443"], 0),
    "a tunnel without a port": (["a.example.com"], 0),
    "a tunnel to another port": (["a.example.com:22"], 1),
    "a name that is not ASCII": (["https://bücher.example/"], 0),
    "an address": (["https://[2001:db8::1]/"], 0),
    "another address": (["https://[2001:db8::2]/"], 1),
}


@pytest.mark.parametrize(("arguments", "code"), CHECKS.values(), ids=CHECKS)
def test_the_exit_code_is_the_decision(listed: Path, arguments: list[str], code: int) -> None:
    assert check(listed, *arguments) == code


def test_an_allowed_request_names_the_line_that_allows_it(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(listed, "https://api.example.com/v1/x")

    assert capsys.readouterr().out.splitlines() == [
        "allowed: https://api.example.com/v1/x",
        f"  CONNECT api.example.com:443: allowed (rule-matched) by api.example.com ({listed}:4)",
        f"  GET /v1/x: allowed (rule-matched) by api.example.com ({listed}:4)",
        f"  allowlist {listed}",
    ]


def test_a_denied_request_tells_the_reason_after_the_tunnel(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(listed, "https://a.example.com/admin/x")

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "denied: https://a.example.com/admin/x"
    assert lines[1].startswith("  CONNECT a.example.com:443: allowed")
    assert lines[2] == f"  GET /admin/x: denied (deny-rule) by a.example.com ({listed}:18)"


def test_a_denied_tunnel_carries_no_request(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(listed, "https://b.example.com/")

    assert capsys.readouterr().out.splitlines() == [
        "denied: https://b.example.com/",
        "  CONNECT b.example.com:443: denied (no-rule)",
        f"  to allow it: claude-proxy allow b.example.com --allowlist {listed}",
        f"  allowlist {listed}",
    ]


def test_plain_http_is_asked_without_a_tunnel(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(listed, "http://plain.example.com/")

    assert "CONNECT" not in capsys.readouterr().out


def test_what_is_passed_through_is_said_not_to_be_judged(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(listed, "https://pinned.example.com/x") == 0

    assert "  GET /x: not judged, as TLS is passed through" in capsys.readouterr().out


def test_json_holds_both_decisions(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(listed, "--json", "https://api.example.com/v2")

    found = json.loads(capsys.readouterr().out)
    assert found == {
        "url": "https://api.example.com/v2",
        "allowed": False,
        "asks": False,
        "grants": [],
        "target": "api.example.com:443",
        "method": "GET",
        "path": "/v2",
        "connect": {
            "allowed": True,
            "reason": "rule-matched",
            "tls": "intercept",
            "rule": {"name": "api.example.com", "source": f"{listed}:4", "note": ""},
        },
        "request": {"allowed": False, "reason": "path-not-allowed", "tls": None, "rule": None},
        "content": None,
        "narrowing": None,
        "credential": None,
        "allowlist": str(listed),
        "project": None,
        "address": None,
        "allow_command": (
            "claude-proxy allow api.example.com --method GET --path /v2 --allowlist " + str(listed)
        ),
        "presets": [],
    }


def test_json_of_a_tunnel_has_no_request(listed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(listed, "--json", "a.example.com:443")

    found = json.loads(capsys.readouterr().out)
    assert (found["allowed"], found["request"], found["method"]) == (True, None, None)


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("raw.example.com:5432", "any protocol but HTTP; TLS must name the host"),
        ("git@raw.example.com:o/r.git", "any protocol but HTTP; TLS must name the host"),
        ("a.example.com:443", "TLS, and nothing else"),
        ("pinned.example.com:443", "TLS, and nothing else"),
        ("plain.example.com:80", "plain HTTP, and nothing else"),
    ],
)
def test_what_may_be_spoken_in_a_tunnel_is_told(
    listed: Path, capsys: pytest.CaptureFixture[str], url: str, inside: str
) -> None:
    assert check(listed, url) == 0

    assert f"\n  inside: {inside}\n" in capsys.readouterr().out


def test_ssh_is_denied_where_only_tls_passes(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(listed, "git@ssh.example.com:o/r.git") == 1

    assert "CONNECT ssh.example.com:22: denied (not-tls) by ssh.example.com" in (
        capsys.readouterr().out
    )


UNUSABLE = {
    "another scheme": ("ftp://a.example.com/", "the scheme ftp is not known", "begin it with"),
    "user info": ("https://me:pw@a.example.com/", "user info", "what is before the @"),
    "no host": ("https:///x", "label", "write a URL such as"),
    "nothing": ("", "label", "write a URL such as"),
    "a bad port": ("https://a.example.com:0443/", "port", "write a URL such as"),
    "a space": ("https://a.example.com/a b", "never sent", "percent-encode"),
    "a path that is not ASCII": ("https://a.example.com/ä", "never sent", "percent-encode"),
    "half a bracket": ("https://[::1/", "IPv6", "write a URL such as"),
    "a short address": ("https://127.1/", "canonical", "write a URL such as"),
    "an escape": ("https://a.example.com\x1b[2K/", "label", "write a URL such as"),
}


@pytest.mark.parametrize(("url", "what", "fix"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_no_client_can_ask_is_a_usage_error(
    listed: Path, capsys: pytest.CaptureFixture[str], url: str, what: str, fix: str
) -> None:
    assert check(listed, url) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert what in err
    assert fix in err
    assert "\x1b" not in err


@pytest.mark.parametrize("method", ["", "GE T", "GET\n"])
def test_a_method_that_is_none_is_a_usage_error(listed: Path, method: str) -> None:
    assert check(listed, "--method", method, "https://a.example.com/") == 2


def test_a_query_is_printed_without_what_a_terminal_obeys(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(listed, "https://a.example.com/?\x1b[2K\u202e")

    assert capsys.readouterr().out.startswith(r"allowed: https://a.example.com/?\x1b[2K\u202e")


def test_a_wrong_list_is_told_with_its_lines(
    listed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed.write_text('allow:\n  - "*"\n  - NO\n', "utf-8")

    assert check(listed, "https://a.example.com/") == 2
    assert capsys.readouterr().err.splitlines()[:2] == [
        'claude-proxy: error: the host pattern "*" matches every host',
        f"  where: {listed}:2:5, allow[0]",
    ]


def test_neither_mitmproxy_nor_the_network_is_needed(listed: Path) -> None:
    program = (
        "import sys\n"
        "from claude_proxy.cli.main import main\n"
        "sockets = []\n"
        "sys.addaudithook(lambda event, _: event.startswith('socket.') and sockets.append(event))\n"
        "code = main(sys.argv[1:])\n"
        "sys.exit(code or bool(sockets) or 'mitmproxy' in sys.modules)\n"
    )
    arguments = ["check", "--allowlist", str(listed), "https://a.example.com/"]

    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, check=False, capture_output=True
    )

    assert (done.returncode, done.stderr) == (0, b"")


# Where the allowlist is found


def test_an_allowlist_is_taken_from_the_option_before_the_variable(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_ALLOWLIST", "/nowhere")

    assert check(listed, "https://a.example.com/") == 0
    assert main(["check", "https://a.example.com/"]) == 2


def test_an_allowlist_is_taken_from_the_variable(
    listed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_ALLOWLIST", str(listed))

    assert main(["check", "https://a.example.com/"]) == 0


def test_without_a_list_of_ones_own_the_shipped_one_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["check", "https://api.anthropic.com/v1/messages"]) == 0
    assert main(["check", "https://a.example.com/"]) == 1

    assert "(preset claude-min:" in capsys.readouterr().out


def test_a_list_of_ones_own_replaces_the_shipped_one(tmp_path: Path, listed: Path) -> None:
    own = tmp_path / "config" / "claude-proxy" / "allowlist.yaml"
    own.parent.mkdir(parents=True)
    listed.rename(own)

    assert main(["check", "https://a.example.com/"]) == 0
    assert main(["check", "https://api.anthropic.com/"]) == 1


def test_a_confdir_is_looked_into(tmp_path: Path, listed: Path) -> None:
    listed.rename(tmp_path / "allowlist.yaml")

    assert main(["check", "--confdir", str(tmp_path), "https://a.example.com/"]) == 0


def test_a_list_that_leads_nowhere_is_not_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "allowlist.yaml").symlink_to(tmp_path / "gone.yaml")

    assert main(["check", "--confdir", str(tmp_path), "https://api.anthropic.com/"]) == 2
    assert "the allowlist cannot be read: no such file" in capsys.readouterr().err


def test_a_confdir_that_cannot_be_looked_into_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", refuse)

    with pytest.raises(ConfigError) as caught:
        paths.allowlist_path(tmp_path)
    assert caught.value.fix == "make it readable for the user who runs claude-proxy"


def test_a_directory_is_no_allowlist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a directory"):
        paths.read_allowlist(tmp_path)


def test_a_list_that_is_not_utf8_is_told_by_its_path(listed: Path) -> None:
    listed.write_bytes(b"allow:\n  - \xff\n")

    with pytest.raises(ConfigError) as caught:
        paths.read_allowlist(listed)
    assert caught.value.where == f"{listed}:2"


def test_the_shipped_list_is_found_in_the_package_and_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "claude_proxy"
    package.mkdir()
    monkeypatch.setattr(claude_proxy, "__file__", str(package / "__init__.py"))

    with pytest.raises(ConfigError, match="missing from the installation"):
        paths.shipped_allowlist()
    (tmp_path / "allowlist.yaml").touch()
    assert paths.shipped_allowlist() == tmp_path / "allowlist.yaml"
    (package / "allowlist.yaml").touch()
    assert paths.shipped_allowlist() == package / "allowlist.yaml"


def test_the_configuration_is_where_xdg_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    monkeypatch.setattr(sys, "platform", "linux")

    assert paths.default_confdir() == tmp_path / "config" / "claude-proxy"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert paths.default_confdir() == home / ".config" / "claude-proxy"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert paths.default_confdir() == home / ".config" / "claude-proxy"


def test_the_configuration_is_in_the_same_place_on_macos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    assert paths.default_confdir() == tmp_path / "home" / ".config" / "claude-proxy"


def test_windows_has_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")

    assert paths.default_confdir().name == "claude-proxy"


def test_no_home_is_an_error_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setattr(Path, "home", no_home)

    with pytest.raises(ConfigError) as caught:
        paths.default_confdir()
    assert caught.value.fix == "set HOME, or give --confdir"


def test_the_state_is_kept_apart_from_the_configuration() -> None:
    assert paths.default_statedir().name == "claude-proxy"
    assert paths.default_statedir() != paths.default_confdir()


# What narrows the Messages API, and credentials

KEPT = """
allow:
  - api.example.com
  - host: api.example.com
    scheme: http
  - host: api.example.com
    ports: [8443]
  - docs.example.com
credentials:
  - host: api.example.com
    name: ours
    inject: bearer
    from: {env: NOT_SET_ANYWHERE}
  - host: nobody.example.com
    pin: learn
anthropic:
  - host: api.example.com
    paths: [/v1/messages]
    models: ["claude-*"]
    mcp_servers: allowlisted
"""
MESSAGES = "https://api.example.com/v1/messages"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    file = tmp_path / "kept.yaml"
    file.write_text(KEPT, "utf-8")
    return file


def test_the_credential_and_the_limits_of_a_request_are_told(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(kept, "--method", "POST", MESSAGES) == 0

    limits = "paths /v1/messages; models claude-*; mcp_servers allowlisted; max_body 32M"
    printed = capsys.readouterr()
    assert printed.out.splitlines()[2:] == [
        f"  POST /v1/messages: allowed (rule-matched) by api.example.com ({kept}:3)",
        f"  narrowed: anthropic api.example.com; {limits} ({kept}:17)",
        f"  credential ours: inject bearer from environment variable NOT_SET_ANYWHERE ({kept}:10)",
        f"  allowlist {kept}",
    ]


def test_a_credential_that_no_rule_lets_anybody_use_is_warned_of(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(kept, "https://docs.example.com/") == 0

    assert capsys.readouterr().err == (
        f"warning: no rule allows a host of the credential nobody.example.com ({kept}:14)\n"
    )


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://api.example.com/", "none goes over plain HTTP"),
        ("https://api.example.com:8443/", "none goes to port 8443"),
    ],
)
def test_where_no_credential_goes_is_told(
    kept: Path, capsys: pytest.CaptureFixture[str], url: str, told: str
) -> None:
    check(kept, url)

    assert f"  credential ours: {told} ({kept}:10)" in capsys.readouterr().out


def test_another_endpoint_of_a_narrowed_api_is_denied(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(kept, "--method", "POST", "https://api.example.com/v1/files") == 1

    assert "  POST /v1/files: denied (endpoint-not-allowed)" in capsys.readouterr().out


BODIES = {
    "a model of the list": ('{"model": "claude-x", "messages": []}', 0, "allowed (rule-matched)"),
    "another model": ('{"model": "gpt-x", "messages": []}', 1, "denied (model-not-allowed)"),
    "an MCP server elsewhere": (
        '{"model": "claude-x", "mcp_servers": [{"type": "url", "url": "https://evil.test/"}]}',
        1,
        "denied (mcp-server-not-allowed)",
    ),
    "an MCP server of the list": (
        '{"model": "claude-x", "mcp_servers": [{"type": "url", "url": "https://docs.example.com/"}]}',
        0,
        "allowed (rule-matched)",
    ),
    "no JSON": ("model=claude-x", 1, "denied (body-unreadable)"),
}


@pytest.mark.parametrize(("body", "code", "told"), BODIES.values(), ids=BODIES)
def test_a_body_is_judged_as_the_proxy_judges_it(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, code: int, told: str
) -> None:
    file = tmp_path / "body.json"
    file.write_text(body, "utf-8")

    assert check(kept, "--body", str(file), f"{MESSAGES}?beta=true") == code

    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("denied" if code else "allowed")
    assert f"  body: {told}" in lines


def test_a_body_for_a_host_that_nothing_narrows_is_not_judged(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "body.json"
    file.write_bytes(b"\xff")

    assert check(kept, "--body", str(file), "https://docs.example.com/") == 0

    assert "  body: not judged" in capsys.readouterr().out


def test_a_body_comes_from_standard_input_too(
    kept: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"model": "gpt"}')))

    assert check(kept, "--json", "--body", "-", MESSAGES) == 1

    found = json.loads(capsys.readouterr().out)
    assert found["content"]["reason"] == "model-not-allowed"
    assert found["credential"] == {
        "name": "ours",
        "usable": True,
        "use": "inject bearer from environment variable NOT_SET_ANYWHERE",
        "source": f"{kept}:10",
    }
    assert found["narrowing"]["source"] == f"{kept}:17"


def test_a_body_that_is_not_there_is_a_usage_error(
    kept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(kept, "--body", str(tmp_path / "none"), MESSAGES) == 2

    assert "the body cannot be read" in capsys.readouterr().err


def test_a_tunnel_has_no_body(kept: Path, tmp_path: Path) -> None:
    file = tmp_path / "body.json"
    file.write_text("{}", "utf-8")

    assert check(kept, "--body", str(file), "api.example.com:443") == 2


def test_what_the_owner_is_asked_about_is_denied_until_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "allowlist.yaml"
    file.write_text("allow: [{host: ask.test, ask: true}]\n", encoding="utf-8")

    code = check(file, "https://ask.test/")

    assert code == 1
    assert f"  its owner is asked first, by ask.test ({file}:1)" in capsys.readouterr().out
