"""A running proxy is seen, reloaded and stopped by its owner, and by nothing in a sandbox."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .conftest import StartProxy
from .rig.client import CannotConnectError
from .rig.launch import Launches
from .rig.proxy import Proxy

BEFORE = "allow: [origin.test]\n"
AFTER = "allow: [origin.test, allowed.test]\n"


def runtime(tmp_path: Path) -> Path:
    path = tmp_path / "runtime"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


@pytest.fixture
def served(start_proxy: StartProxy, tmp_path: Path) -> Proxy:
    """A proxy with two workers, whose runtime directory no other proxy has."""
    return start_proxy(BEFORE, "--workers", "2", XDG_RUNTIME_DIR=str(runtime(tmp_path)))


def command(proxy: Proxy, tmp_path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return proxy.place.claude_proxy(*words, XDG_RUNTIME_DIR=str(runtime(tmp_path)))


def statuses(proxy: Proxy, host: str) -> set[int]:
    """Return the answers to several clients, which every worker is asked by."""
    found = set()
    for _ in range(12):
        try:
            with proxy.tunnel(f"{host}:443") as tunnel:
                found.add(tunnel.get("/").status)
        except CannotConnectError as error:
            found.add(error.answer.status)
    return found


def test_a_reload_is_applied_in_every_worker_when_it_says_so(served: Proxy, tmp_path: Path) -> None:
    before = json.loads(command(served, tmp_path, "status", "--json").stdout)
    served.allowlist.write_text(AFTER)

    ran = command(served, tmp_path, "reload")

    assert ran.returncode == 0, ran.stderr
    assert "applied: + " in ran.stdout
    assert "allowed.test" in ran.stdout
    assert statuses(served, "allowed.test") == {200}
    after = json.loads(command(served, tmp_path, "status", "--json").stdout)
    assert after["versions"] == [after["policy"]["version"]]
    assert before["versions"] != after["versions"]


def test_a_list_that_is_rejected_changes_nothing_and_is_explained(
    served: Proxy, tmp_path: Path
) -> None:
    served.allowlist.write_text("allow: [origin.test, bad..test]\n")

    ran = command(served, tmp_path, "reload")

    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"{served.allowlist}:1:" in ran.stderr
    assert "NOT applied" in ran.stderr
    assert statuses(served, "origin.test") == {200}
    assert "REJECTED" in command(served, tmp_path, "status").stdout


def test_open_tunnels_of_all_workers_are_shown(served: Proxy, tmp_path: Path) -> None:
    tunnels = [served.tunnel("origin.test:443") for _ in range(4)]
    try:
        shown = command(served, tmp_path, "status").stdout
    finally:
        for tunnel in tunnels:
            tunnel.close()

    assert "origin.test:443 x 4" in shown


def owner(runs: Launches, *words: str) -> "subprocess.CompletedProcess[bytes]":
    """Run a command of the owner's, on the host."""
    return subprocess.run(
        runs.argv([*runs.program(), *words]),
        env=runs.environment(),
        capture_output=True,
        check=False,
    )


def status(runs: Launches) -> list[dict[str, Any]]:
    return [json.loads(line) for line in owner(runs, "status", "--json").stdout.splitlines()]


def test_a_run_is_seen_and_stopped_from_outside_and_sees_no_socket(
    runs: Launches, program: FindProgram
) -> None:
    program("bwrap")
    script = "find / -xdev -type s 2>/dev/null; find / -name control -path '*claude-proxy*'; echo ."
    run = runs.start("sh", "-c", f"{script}; exec sleep 600", options=("--name", "web"))
    assert run.stdout is not None
    seen = iter(run.stdout.readline, b".\n")

    found = list(seen)
    (row,) = until(lambda: status(runs), "its proxy to be there")
    stopped = owner(runs, "stop", "web")

    assert [line for line in found if b"control" in line or b"claude-proxy" in line] == []
    assert (row["name"], row["kind"], row["project"]) == ("web", "run", str(runs.project))
    assert stopped.returncode == 0, stopped.stderr
    assert run.wait() == 128 + signal.SIGTERM
    assert (status(runs), runs.left()) == ([], [])
    run.communicate()
