"""Service plans: what a command line becomes in the files of a service."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from claude_proxy.cli import main, service_plan
from claude_proxy.errors import ConfigError
from claude_proxy.server import workers
from claude_proxy.server.service.plan import Scope
from claude_proxy.system import processors
from tests.cli.services import Run, exec_start


def test_the_options_behind_the_dashes_are_the_commands(run: Run) -> None:
    _, out, _ = run("print", "--system", "--", "--port", "9052", "--quiet", "--client", "::1")

    assert "--listen=127.0.0.1:9052" in exec_start(out)
    assert exec_start(out).endswith("--quiet --client=::1")


def test_a_path_among_them_leads_there_from_everywhere(run: Run, tmp_path: Path) -> None:
    _, out, _ = run("print", "--user", "--", "--allowlist", "mine.yaml", "--jsonl", "-")

    assert f"--allowlist={Path.cwd()}/mine.yaml --jsonl=-" in exec_start(out)
    _, out, _ = run("print", "--user", "--", "--jsonl", str(tmp_path / "log" / "x.jsonl"))
    assert f" {tmp_path}/log\n" in out


def test_a_policy_takes_the_place_of_the_allowlist(run: Run) -> None:
    _, out, _ = run("print", "--system", "--", "--policy", "claude")

    assert "--allowlist" not in exec_start(out)


def test_the_key_of_a_gateway_is_handed_over(run: Run) -> None:
    words = ("--kind", "gateway", "--key-file", "/etc/llm.key", "--", "--provider", "anthropic")
    _, out, _ = run("print", "--system", *words)

    assert "\nLoadCredential=anthropic:/etc/llm.key\n" in out
    assert "--key-systemd anthropic" in exec_start(out)
    assert "/etc/llm.key" not in exec_start(out)


def test_a_gateway_on_a_unix_socket_is_for_the_users_that_are_named(run: Run) -> None:
    words = ("--", "--provider=anthropic", "--uds=/run/claude-proxy-gateway/g.sock")
    _, out, _ = run("print", "--system", "--kind", "gateway", *words, f"--socket-uid={os.getuid()}")

    assert "--uds=/run/claude-proxy-gateway/g.sock" in exec_start(out)


def test_a_socket_outside_the_services_own_directory_can_be_made(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    inside, outside = tmp_path / "runtime" / "claude-proxy" / "p.sock", tmp_path / "s" / "p.sock"

    _, out, _ = run("print", "--user", "--", "--listen", f"unix:{inside}")
    assert f"{tmp_path}/runtime" not in re.findall(r"ReadWritePaths=(.*)", out)[0]
    _, out, _ = run("print", "--user", "--", "--listen", f"unix:{outside}")
    assert f" {tmp_path}/s\n" in out


def test_sockets_are_systemds_if_that_is_asked_for(run: Run) -> None:
    listen = ("--port", "9052", "--listen", "unix:/run/claude-proxy/p.sock", "--socket-uid", "0")
    _, out, _ = run("print", "--system", "--socket-activated", "--", *listen)

    assert "# /etc/systemd/system/claude-proxy.socket\n" in out
    assert "ListenStream=127.0.0.1:9052\nListenStream=/run/claude-proxy/p.sock\n" in out
    assert "--listen" not in exec_start(out)


@pytest.mark.parametrize(
    ("words", "cores"),
    [
        pytest.param((), 1, id="for this machine"),
        pytest.param(("--host", "0.0.0.0", "--allow-remote"), 3, id="for other machines"),
        pytest.param(("--host", "0.0.0.0", "--allow-remote", "--workers=2"), 2, id="as it is said"),
    ],
)
def test_a_service_may_use_as_many_processors_as_it_has_workers(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], cores: int
) -> None:
    monkeypatch.setattr(workers, "CAN_SPREAD", True)
    monkeypatch.setattr(processors, "usable", lambda: 3)

    _, out, _ = run("print", "--system", "--", *words)

    assert f"\nCPUQuota={cores}00%\n" in out
    assert f"\nMemoryMax={cores * 1024}M\n" in out


def test_the_packet_filters_rules_are_printed_alone(run: Run) -> None:
    upstream = ("--upstream-proxy", "http://proxy.corp.example:3128")
    more = ("--upstream-port", "8443", "--dns-server", "192.0.2.53")
    _, out, _ = run("print", "--system", "--nftables", *more, "--", *upstream)

    assert "[Service]" not in out
    assert "tcp dport { 443, 3128, 8443 } accept" in out
    assert "elements = { 192.0.2.53 }" in out


def test_the_ports_of_a_gateways_upstream_are_open(run: Run) -> None:
    words = ("--kind", "gateway", "--nftables", "--", "--upstream", "https://llm.example:8443")
    _, out, _ = run("print", "--system", *words)

    assert "tcp dport { 443, 8443 } accept" in out


def test_an_upstream_on_this_machine_opens_no_port_to_others(run: Run) -> None:
    words = ("--kind", "gateway", "--nftables", "--", "--upstream", "http://127.0.0.1:8080")
    _, out, _ = run("print", "--system", *words)

    assert "tcp dport { 443 } accept" in out


def test_the_program_is_this_installations_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "bin dir" / "python"
    python.parent.mkdir()
    monkeypatch.setattr(sys, "executable", str(python))

    assert service_plan.program() == (str(python), "-I", "-m", "claude_proxy")
    script = python.with_name("claude-proxy")
    script.touch(mode=0o755)
    assert service_plan.program() == (str(script),)


def test_a_program_that_a_service_could_not_see_is_warned_of(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", "/home/me/.local/share/pipx/venvs/claude-proxy")
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")

    code, _, err = run("print", "--system")

    assert code == 0
    assert "could not see the program" in err
    assert "/home/me/" in err
    assert "pipx install dist/claude_proxy-" in err


REFUSED = {
    "an unknown option": (["print", "--", "--no-such"], "no such option"),
    "an argument": (["print", "--", "word"], "is not an option"),
    "help": (["print", "--", "--help"], "cannot be given this"),
    "a value that is none": (["print", "--", "--listen", "nowhere"], "does not end in a port"),
    "directories": (["print", "--", "--confdir", "/x"], "cannot be given this"),
    "a password": (
        ["print", "--", "--upstream-proxy", "http://u:hunter2@h:1"],
        "could read the password",
    ),
    "a new token": (["print", "--kind=gateway", "--", "--new-token"], "printed into the journal"),
    "other machines": (["print", "--", "--host", "0.0.0.0"], "reached from other machines"),
    "any port": (["print", "--", "--port", "0"], "would not know the port"),
    "a socket for nobody": (
        ["print", "--system", "--", "--listen", "unix:/run/x.sock"],
        "only claude-proxy",
    ),
    "other users": (
        ["print", "--user", "--", "--listen", "unix:/x.sock", "--socket-uid", "12345"],
        "cannot identify other users",
    ),
    "a user's packet filter": (["print", "--user", "--nftables"], "would apply to all programs"),
    "ports without a filter": (["print", "--upstream-port", "80"], "only to the packet filter"),
    "an address that is none": (["print", "--nftables", "--dns-server", "x"], "not an IP address"),
    "an address with a zone": (
        ["print", "--system", "--nftables", "--dns-server", "fe80::1%eth0"],
        "names an interface",
    ),
    "a gateway for other machines": (
        ["print", "--", "--gateway", "0.0.0.0:9053"],
        "reached from other machines",
    ),
    "a gateway's socket for nobody": (
        ["print", "--system", "--", "--gateway", "unix:/run/claude-proxy/g.sock"],
        "only claude-proxy",
    ),
    "two keys": (
        ["print", "--kind=gateway", "--key-file=/k", "--", "--key-env=KEY"],
        "given twice",
    ),
    "a line's end": (["print", "--", "--jsonl", "/a\nUser=root"], "cannot be written"),
    "a line's end for launchd": (
        ["print", "--init=launchd", "--", "--jsonl", "/a\nx"],
        "cannot be written",
    ),
    "launchd's system": (["print", "--init=launchd", "--system"], "only a user service"),
    "launchd's sockets": (
        ["print", "--init=launchd", "--socket-activated"],
        "not supported with launchd",
    ),
    "launchd's credentials": (["print", "--init=launchd", "--key-file=/k"], "names its keys"),
    "to install launchd's": (["install", "--init=launchd"], "can only be printed"),
}


@pytest.mark.parametrize(("words", "what"), REFUSED.values(), ids=REFUSED)
def test_what_a_service_could_not_keep_is_refused(words: list[str], what: str, run: Run) -> None:
    code, out, err = run(*words)

    assert code == 2
    assert out == ""
    assert what in err
    assert "Traceback" not in err
    assert "hunter2" not in err


@pytest.mark.usefixtures("visible")
def test_a_file_that_a_service_could_not_see_is_warned_of(run: Run) -> None:
    _, _, err = run("print", "--system", "--", "--allowlist", "/home/me/list.yaml")

    assert "could not see the file" in err
    assert "put it into /etc/claude-proxy" in err


def test_a_key_file_of_ones_own_is_taken(key: Path) -> None:
    service_plan.check_key_file(key, Scope.USER)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_key_file_that_others_may_read_is_refused(mode: int, key: Path) -> None:
    key.chmod(mode)

    with pytest.raises(ConfigError, match="other than the owner can read") as caught:
        service_plan.check_key_file(key, Scope.USER)

    assert caught.value.fix == f"chmod 600 {key}"
    assert "canary" not in " ".join(caught.value.lines())


def test_a_key_file_that_is_none_is_refused(key: Path) -> None:
    link = key.with_name("link")
    link.symlink_to(key)
    empty = key.with_name("empty")
    empty.touch(0o600)

    for path, what in (
        (link, "not a regular file"),
        (empty, "is empty"),
        (key.with_name("missing"), "cannot be checked"),
        (key.parent, "not a regular file"),
    ):
        with pytest.raises(ConfigError, match=what):
            service_plan.check_key_file(path, Scope.USER)


@pytest.mark.usefixtures("visible")
def test_the_installation_looks_at_the_key_file_and_shows_nothing_of_it(
    run: Run, key: Path
) -> None:
    words = ("install", "--user", "--kind", "gateway", "--key-file", str(key))
    more = ("--", "--provider", "anthropic")
    key.chmod(0o644)
    code, _, err = run(*words, *more)
    assert code == 2
    assert "other than the owner can read" in err

    key.chmod(0o600)
    code, out, err = run(*words, *more)

    assert code == 0
    assert "canary" not in out + err
    assert "Every user of this machine can use the key" in out


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        ((), ("no upstream", "no key")),
        (("--", "--provider=anthropic"), ("no key",)),
        (("--", "--upstream=https://llm.example", "--key-command=pass show llm"), ()),
    ],
)
def test_a_gateway_that_could_not_start_is_told_so(
    run: Run, words: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    _, _, said = run("install", "--dry-run", "--user", "--kind", "gateway", *words)

    assert tuple(text for text in ("no upstream", "no key") if text in said) == missing


@pytest.mark.parametrize(
    ("words", "missing"),
    [
        (("--gateway=127.0.0.1:9053",), ("no upstream", "no key")),
        (("--gateway-provider=anthropic", "--gateway=127.0.0.1:9053"), ("no key",)),
        ((), ()),
    ],
)
def test_a_proxys_own_gateway_that_could_not_start_is_told_so(
    run: Run, words: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    _, _, said = run("print", "--system", "--", *words)

    assert tuple(text for text in ("no upstream", "no key") if text in said) == missing


def test_a_provider_that_nobody_knows_is_told(run: Run) -> None:
    words = ("--kind=gateway", "--key-file=/k", "--", "--provider=antropic")
    _, _, said = run("print", "--user", *words)

    assert "antropic" in said
    assert "--provider" in said


def test_a_variable_holds_no_key_of_a_services(run: Run) -> None:
    words = ("--kind=gateway", "--", "--provider=anthropic", "--key-env=MY_KEY")
    _, _, said = run("print", "--system", *words)

    assert "no key for its upstream: a service inherits no variables" in said


def test_variables_that_the_service_does_not_hear_are_named(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLAUDE_PROXY_PORT", "9999")
    monkeypatch.setenv("PROXY_API_KEY", "sk-ant-api03-CANARY")

    _, out, said = run("print", "--system")
    assert "will not see these variables: CLAUDE_PROXY_PORT\n" in said
    assert "9999" not in out
    _, out, said = run("print", "--system", "--kind=gateway")
    assert "these variables: PROXY_API_KEY\n" in said
    assert "CANARY" not in out + said


@pytest.mark.parametrize(
    "words",
    [("--listen=unix:/tmp/p.sock",), ("--gateway=unix:/tmp/g.sock", "--gateway-mode=claude")],
)
def test_a_socket_that_no_client_could_see_is_warned_of(run: Run, words: tuple[str, ...]) -> None:
    _, _, said = run("print", "--system", "--", *words, "--socket-uid=0")

    assert "no client could see the socket" in said
    assert "put it into /run/claude-proxy" in said


def test_a_directory_that_is_not_there_is_warned_of(run: Run, tmp_path: Path) -> None:
    _, _, said = run("print", "--system", "--", f"--jsonl={tmp_path}/none/x.jsonl")

    assert "there is no such directory" in said
    assert f"{tmp_path}/none" in said


def test_a_packet_filter_that_is_not_there_is_warned_of(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_plan, "_PROGRAMS", str(tmp_path))

    assert "nft is not installed" in run("print", "--system", "--nftables")[2]
    assert "nft is not installed" not in run("print", "--system")[2]


def test_a_relative_socket_of_the_gateway_leads_there_from_everywhere(run: Run) -> None:
    _, out, _ = run("print", "--system", "--", "--gateway=unix:g.sock", "--socket-uid=0")

    assert f"--gateway=unix:{Path.cwd()}/g.sock" in exec_start(out)


# config.yaml


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that writes config.yaml of a user whose home is empty."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)

    def write(text: str) -> Path:
        path = tmp_path / ".config" / "claude-proxy" / "config.yaml"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.write_text(text, "utf-8")
        path.chmod(0o600)
        return path

    return write


def test_a_service_is_planned_with_what_config_yaml_says(
    config: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config("jsonl: ~/log/out.jsonl\nserve: {listen: [9055]}\n")

    assert main.main(["service", "print", "--user"]) == 0

    unit = capsys.readouterr().out
    assert str(tmp_path / "log") in unit  # it may write there
    assert "--listen=127.0.0.1:9055" in unit
    assert "--jsonl" not in unit  # config.yaml goes on saying it


def test_an_option_of_the_service_wins_over_config_yaml(
    config: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    config("serve: {listen: [9055]}\n")

    assert main.main(["service", "print", "--user", "--", "--port", "9056"]) == 0

    unit = capsys.readouterr().out
    assert "9056" in unit
    assert "9055" not in unit


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("audit_dayz: 1\n", "unknown key"),
        ("allow_remote: false\nserve: {listen: ['0.0.0.0:1']}\n", "reached from other machines"),
    ],
)
def test_a_service_that_config_yaml_would_keep_from_starting_is_not_made(
    config: Callable[[str], Path], capsys: pytest.CaptureFixture[str], text: str, what: str
) -> None:
    config(text)

    assert main.main(["service", "print", "--user"]) == 2
    assert what in capsys.readouterr().err
