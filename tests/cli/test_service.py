"""`claude-proxy service` describes, installs, compares and removes; what cannot work is refused."""

import plistlib
import re
import sys
from pathlib import Path

import pytest

from claude_proxy.cli import main, service
from claude_proxy.sandbox.container.plan import wrappers
from claude_proxy.server.service.names import names_of
from claude_proxy.server.service.plan import ServiceKind
from tests.cli.services import Run, exec_start

ROOT = Path(__file__).resolve().parents[2]


def test_a_system_service_is_printed_whole(run: Run) -> None:
    code, out, _ = run("print", "--system")

    assert code == 0
    assert "# /etc/systemd/system/claude-proxy.service\n" in out
    assert "# /etc/sysusers.d/claude-proxy.conf\n" in out
    assert "--allowlist=/etc/claude-proxy/allowlist.yaml" in exec_start(out)


@pytest.mark.parametrize("kind", ServiceKind)
def test_what_a_system_service_goes_by_is_not_where_it_can_write(
    run: Run, kind: ServiceKind
) -> None:
    _, out, _ = run("print", "--system", "--kind", kind.value)

    names, words = names_of(kind), exec_start(out).split()
    # gateway.yaml and policies/ are in --confdir.
    assert f"--confdir={names.configuration}" in words
    assert f"--cadir={names.state}" in words
    assert f"--statedir={names.state}" in words
    assert "ReadWritePaths" not in out
    assert "ProtectSystem=strict" in out


def test_a_users_service_keeps_to_the_users_own_directories(run: Run, tmp_path: Path) -> None:
    _, out, _ = run("print", "--user")

    assert f"--confdir={tmp_path}/config/claude-proxy" in exec_start(out)
    assert f"--statedir={tmp_path}/state/claude-proxy" in exec_start(out)
    assert f"ReadWritePaths={tmp_path}/config/claude-proxy {tmp_path}/state/claude-proxy" in out
    assert "sysusers" not in out
    assert "\nUser=" not in out


def test_launchds_file_is_printed(run: Run) -> None:
    _, out, _ = run("print", "--init", "launchd", "--", "--port", "9052")

    agent = plistlib.loads(out.encode())
    assert agent["ProgramArguments"][-1] != "serve"
    assert "--listen=127.0.0.1:9052" in agent["ProgramArguments"]


def test_launchds_gateway_reads_the_key_itself(run: Run) -> None:
    words = ("--kind", "gateway", "--key-file", "/k", "--", "--provider=anthropic")
    _, out, _ = run("print", "--init", "launchd", *words)

    agent = plistlib.loads(out.encode())
    assert agent["ProgramArguments"][-1] == "--key-file=/k"


@pytest.mark.parametrize(
    ("words", "some", "never"),
    [
        (["service", ""], "install", "serve"),
        (["service", "print", "--kind", "gateway", "--", "--pro"], "--provider", "--listen"),
        (["service", "print", "--", "--"], "--listen", "--confdir"),
    ],
)
def test_what_can_be_said_is_completed(
    words: list[str],
    some: str,
    never: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COMP_WORDS", " ".join(["claude-proxy", *words]))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    monkeypatch.setenv(main.COMPLETE_VARIABLE, "bash_complete")

    main.main([])

    shown = {line.partition(",")[2] for line in capsys.readouterr().out.splitlines()}
    assert some in shown
    assert never not in shown


@pytest.mark.usefixtures("visible")
def test_a_service_is_installed_told_of_and_removed(run: Run, tmp_path: Path) -> None:
    assert run("status", "--user")[0] == service.EXIT_MISSING

    code, out, err = run("install", "--user", "--", "--port", "9052")

    assert (code, err) == (0, "")
    unit = tmp_path / "config" / "systemd" / "user" / "claude-proxy.service"
    assert f"wrote {unit}" in out
    assert "systemctl --user enable --now claude-proxy.service" in out
    assert (tmp_path / "state" / "claude-proxy").is_dir()
    code, out, _ = run("status", "--user")
    assert code == service.EXIT_STOPPED
    assert f"{unit} (up to date)" in out
    assert "up to date: yes" in out
    code, out, _ = run("uninstall", "--user", "--dry-run")
    assert (code, out) == (0, f"would remove {unit}\n")
    code, out, _ = run("uninstall", "--user")
    assert code == 0
    assert f"Kept: {tmp_path}/config/claude-proxy" in out
    assert not unit.exists()
    assert run("uninstall", "--user")[0] == service.EXIT_MISSING


@pytest.mark.usefixtures("visible")
def test_a_unit_of_another_version_is_out_of_date(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("install", "--user", "--socket-activated", "--", "--port", "9052")
    (tmp_path / "config" / "systemd" / "user" / "claude-proxy.socket").unlink()
    monkeypatch.setattr(sys, "executable", "/usr/bin/another-python3")

    _, out, _ = run("status", "--user")

    assert "claude-proxy.service (out of date)" in out
    assert "claude-proxy.socket (missing)" in out
    again = "claude-proxy service install --user --kind serve --socket-activated"
    assert f"{again} -- --listen=127.0.0.1:9052" in out


@pytest.mark.parametrize(
    "head", ["", "# Written by claude-proxy 9: claude-proxy service install --new"]
)
def test_a_unit_that_this_version_does_not_understand_is_told_of(
    head: str, run: Run, tmp_path: Path
) -> None:
    unit = tmp_path / "config" / "systemd" / "user" / "claude-proxy.service"
    unit.parent.mkdir(parents=True)
    digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # of nothing
    unit.write_text(f"{head}\n# sha256 of the lines below: {digest}\n")

    code, out, _ = run("status", "--user")

    assert code == service.EXIT_STOPPED
    assert ("out of date" if head else "not written by claude-proxy") in out


def fake_systemctl(tmp_path: Path, active: str) -> None:
    program = tmp_path / "bin" / "systemctl"
    program.write_text(
        '#!/bin/sh\ncase "$*" in *is-system-running) echo running;; '
        f"*is-active*) echo {active};; esac\n"
    )
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("active", "code", "shown"),
    [("active", 0, "yes (claude-proxy.service)"), ("inactive", 3, "no (claude-proxy.service)")],
)
@pytest.mark.usefixtures("visible")
def test_whether_it_runs_is_told_where_systemd_does(
    active: str, code: int, shown: str, run: Run, tmp_path: Path
) -> None:
    fake_systemctl(tmp_path, active)
    run("install", "--user")

    found, out, _ = run("status", "--user")

    assert found == code
    assert f"running:    {shown}" in out


@pytest.mark.usefixtures("visible")
def test_a_running_service_that_is_out_of_date_has_an_exit_code_of_its_own(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_systemctl(tmp_path, "active")
    run("install", "--user")
    monkeypatch.setattr(sys, "executable", "/usr/bin/another-python3")

    assert run("status", "--user")[0] == service.EXIT_STALE


def test_a_dry_run_shows_everything_and_does_nothing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run("install", "--system", "--nftables", "--dry-run")

    assert code == 0
    assert "would write /etc/systemd/system/claude-proxy.service:" in out
    assert "    ExecStartPre=+nft -f /etc/claude-proxy/egress.nft" in out
    assert "would run systemctl enable claude-proxy.service" in out
    assert not (tmp_path / "config").exists()


def test_what_stands_in_its_way_stops_an_installation(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "prefix", "/var/tmp/venv")

    code, out, err = run("install", "--user", "--", "--allowlist", "/var/tmp/list.yaml")

    assert (code, out) == (2, "")
    assert "could not see the program" in err


@pytest.mark.usefixtures("visible")
def test_who_installs_a_gateway_beside_a_proxy_is_told_what_keeps_its_key(
    run: Run, key: Path
) -> None:
    gateway = ("--", "--gateway=127.0.0.1:9053", "--gateway-provider=anthropic")
    code, _, err = run("install", "--user", *gateway)
    assert code == 2
    assert "--key-file, and add --gateway-key-systemd anthropic after --" in err

    handed = ("--key-file", str(key), *gateway, "--gateway-key-systemd=anthropic")
    code, out, _ = run("install", "--user", *handed)

    assert code == 0
    assert "--gateway-token-file, says who may" in out


@pytest.mark.usefixtures("visible")
def test_who_installs_a_proxy_with_a_key_is_told_its_name(run: Run, key: Path) -> None:
    _, out, _ = run("install", "--user", "--key-file", str(key))

    assert "from: {systemd: anthropic}" in out


def test_the_documents_say_the_same_names() -> None:
    pages = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").rglob("*.md")]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    names = [names_of(kind) for kind in ServiceKind]

    known = {
        place
        for one in names
        for place in (one.configuration, one.state, one.runtime, one.sysusers)
    }
    mentioned = re.findall(r"/(?:etc|run|var/lib|etc/sysusers\.d)/claude-proxy[\w.-]*", text)
    inside = {str(wrappers.DIRECTORY)}  # of a container
    assert {place.rstrip(".") for place in mentioned} <= known | inside
    units = re.findall(r"[\w-]*claude-proxy[\w-]*\.(?:service|socket)\b", text)
    assert set(units) <= {unit for one in names for unit in (one.service, one.socket)}
    for one in names:
        assert one.service in text
    assert names[0].table in text
    assert names[0].log_prefix.strip() in text


def test_the_names_of_the_commands_are_told_in_the_examples() -> None:
    assert service.EXAMPLES.count("claude-proxy service") >= 5


def test_nothing_to_uninstall_is_told_by_a_dry_run_too(run: Run) -> None:
    code, out, _ = run("uninstall", "--user", "--dry-run")

    assert (code, out) == (
        service.EXIT_MISSING,
        "claude-proxy.service is not installed (looked for --user)\n",
    )


def test_a_gateway_whose_file_says_the_rest_is_left_to_it(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config" / "claude-proxy").mkdir(parents=True)
    (tmp_path / "config" / "claude-proxy" / "gateway.yaml").write_text("mode: claude\n")

    _, _, said = run("install", "--dry-run", "--user", "--kind", "gateway")

    assert "the gateway would have no" not in said
