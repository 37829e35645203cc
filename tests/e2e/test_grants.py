"""What a person grants counts at once, for whom it is meant, and ends by itself."""

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import FindProgram
from tests.support.waiting import until

from .conftest import StartProxy
from .rig.client import CannotConnectError
from .rig.containers import BOX, Containers
from .rig.engine import EngineStorage, image_of
from .rig.internet import Internet
from .rig.launch import Launches, notices
from .rig.proxy import Proxy

LIST = """\
allow:
  - origin.test
deny: [expired.test]
"""


@pytest.fixture
def granting(start_proxy: StartProxy, tmp_path: Path) -> Proxy:
    """A proxy with two workers, whose runtime directory no other proxy has."""
    return start_proxy(LIST, "--workers", "2", XDG_RUNTIME_DIR=str(runtime(tmp_path)))


def runtime(tmp_path: Path) -> Path:
    path = tmp_path / "runtime"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def command(proxy: Proxy, tmp_path: Path, *words: str) -> str:
    """Run a command of the owner's, which must succeed, and return what it prints."""
    ran = proxy.place.claude_proxy(*words, XDG_RUNTIME_DIR=str(runtime(tmp_path)))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def status(proxy: Proxy, host: str) -> int:
    """Return the status of a request to a host, by a new client; 0: its tunnel was closed."""
    try:
        with proxy.tunnel(f"{host}:443") as tunnel:
            return tunnel.get("/").status
    except CannotConnectError as error:
        return error.answer.status
    except OSError:
        return 0


def all_statuses(proxy: Proxy, host: str) -> set[int]:
    """Return the statuses of several clients, which every worker is asked by."""
    return {status(proxy, host) for _ in range(12)}


def test_a_grant_counts_in_all_workers_once_it_is_said_to_be_applied(
    granting: Proxy, tmp_path: Path
) -> None:
    assert status(granting, "denied.test") == 403

    said = command(granting, tmp_path, "allow", "denied.test", "--for", "1h", "--reason", "docs")

    assert "Applied: " in said
    assert all_statuses(granting, "denied.test") == {200}
    assert status(granting, "other.test") == 403
    assert "denied.test" in command(granting, tmp_path, "grants")
    row = granting.decisions("denied.test:443")[-1]
    assert row.rule_source == "grant 1"
    made = notices(granting.audit(), "grant-made")
    assert len(made) == 1
    assert "by root (docs)" in made[0]["text"]


def test_a_revoked_grant_closes_its_tunnels(
    granting: Proxy, internet: Internet, tmp_path: Path
) -> None:
    command(granting, tmp_path, "allow", "denied.test", "--for", "1h")
    with granting.tunnel("denied.test:443") as gone, granting.tunnel("origin.test:443") as kept:
        gone.send(b"GET /ticking HTTP/1.1\r\nHost: denied.test\r\n\r\n")
        gone.read_line()
        exchange = internet.origin.exchanges[-1]

        said = command(granting, tmp_path, "revoke", "1")

        gone.read_rest()
        assert kept.get("/still-here").status == 200
    assert "1 open tunnel closed" in said
    until(lambda: exchange.arrival.closed, "the end of the upstream connection")
    assert all_statuses(granting, "denied.test") == {403}


def test_a_request_that_took_the_last_use_is_listed_and_can_be_revoked(
    granting: Proxy, tmp_path: Path
) -> None:
    command(granting, tmp_path, "allow", "denied.test", "--uses", "1")
    with granting.tunnel("denied.test:443") as gone:
        gone.send(b"GET /ticking HTTP/1.1\r\nHost: denied.test\r\n\r\n")
        gone.read_line()

        assert "used up; 1 request open" in command(granting, tmp_path, "grants")
        said = command(granting, tmp_path, "revoke", "--all")

        gone.read_rest()
    assert "1 open tunnel closed" in said
    assert command(granting, tmp_path, "grants") == ""


def test_one_use_is_one_request_of_many_at_once_in_two_proxies(
    granting: Proxy, start_proxy: StartProxy, internet: Internet, tmp_path: Path
) -> None:
    there = str(runtime(tmp_path))
    other = start_proxy(LIST, "--statedir", granting.statedir, XDG_RUNTIME_DIR=there)
    command(granting, tmp_path, "allow", "denied.test", "--uses", "1")

    def ask(at: int) -> int:
        return status((granting, other)[at % 2], "denied.test")

    with internet.watch() as seen, ThreadPoolExecutor(25) as pool:
        statuses = Counter(pool.map(ask, range(50)))

    assert statuses[200] == 1
    assert len([path for path in seen.targets() if path == "/"]) == 1
    assert command(granting, tmp_path, "grants") == ""


def test_a_grant_survives_a_kill_and_ends_all_the_same(granting: Proxy, tmp_path: Path) -> None:
    command(granting, tmp_path, "allow", "denied.test", "--for", "1h")
    command(granting, tmp_path, "allow", "other.test", "--for", "1s")
    until(lambda: status(granting, "other.test") != 200, "the end of the short one")

    granting.stop()
    command(granting, tmp_path, "allow", "h2.test", "--for", "1s")
    granting.restart()

    assert all_statuses(granting, "denied.test") == {200}
    assert all_statuses(granting, "other.test") == {403}
    until(lambda: status(granting, "h2.test") != 200, "the end of what began without a proxy")


def test_a_killed_proxy_spends_no_use_twice(start_proxy: StartProxy, tmp_path: Path) -> None:
    proxy = start_proxy(LIST, XDG_RUNTIME_DIR=str(runtime(tmp_path)))
    command(proxy, tmp_path, "allow", "denied.test", "--uses", "2")
    assert status(proxy, "denied.test") == 200

    proxy.signal(signal.SIGKILL)
    proxy.process.wait()
    again = start_proxy(LIST, "--statedir", proxy.statedir, XDG_RUNTIME_DIR=str(runtime(tmp_path)))

    assert [status(again, "denied.test") for _ in range(3)] == [200, 403, 403]
    proxy.process.returncode = 0  # it was ours to kill


def test_an_open_time_opens_public_hosts_and_locks_again(granting: Proxy, tmp_path: Path) -> None:
    said = command(granting, tmp_path, "open", "--for", "1h", "--reason", "a look")

    assert "Applied: " in said
    assert all_statuses(granting, "denied.test") == {200}
    assert status(granting, "expired.test") == 403  # a denial wins
    assert status(granting, "10.20.0.1") == 403  # it is private
    until(lambda: "OPEN for" in granting.stderr(), "the line on the terminal")
    assert "by root: a look" in granting.stderr()
    with granting.tunnel("denied.test:443") as tunnel:
        assert tunnel.get("/").status == 200

        command(granting, tmp_path, "close")

        assert tunnel.ended()
    assert all_statuses(granting, "denied.test") == {403}
    until(lambda: "CLOSED (closed)" in granting.stderr(), "the line that it is over")
    command(granting, tmp_path, "open", "--for", "1s")
    until(lambda: status(granting, "denied.test") != 200, "the end by itself")
    until(lambda: "CLOSED (time-over)" in granting.stderr(), "the line that it is over")


ASK = "curl -sS -f -m 10 -o /dev/null https://denied.test/"
SCRIPT = f"{ASK} || echo denied; for i in $(seq 100); do {ASK} && echo reached && exit; done"


def denied_run(runs: Launches, name: str, *options: str) -> "subprocess.Popen[bytes]":
    """Start a run that has been denied a host, and asks for it again and again for a while."""
    run = runs.start("sh", "-c", SCRIPT, options=["--name", name, *options])
    assert run.stdout is not None
    assert run.stdout.readline() == b"denied\n"
    return run


def test_a_command_that_fails_goes_on_when_its_run_is_opened(runs: Launches) -> None:
    run = denied_run(runs, "opened")

    said = owner(runs, "open", "--for", "5m", "--run", "opened")

    out, err = run.communicate(timeout=60)
    assert "Applied: opened" in said
    assert out == b"reached\n", err
    assert owner(runs, "grants") == ""  # it has ended with its run


def test_a_grant_of_a_run_or_a_project_is_not_for_other_runs(runs: Launches) -> None:
    run = denied_run(runs, "meant")
    other = runs.start(
        *("sh", "-c", f"echo begun; read line; {ASK} || echo denied"),
        options=["--name", "not-meant"],
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"begun\n"

    owner(runs, "allow", "denied.test", "--run", "meant")

    assert run.communicate(timeout=60)[0] == b"reached\n"
    assert other.communicate(b"go on\n", timeout=60)[0] == b"denied\n"


def test_a_joined_run_is_granted_what_it_asks_of_a_running_proxy(
    runs: Launches, start_proxy: StartProxy
) -> None:
    # In this order, so that the proxy ends before what the runs have left is looked for.
    proxy = start_proxy(LIST, XDG_RUNTIME_DIR=str(runs.runtime))
    where = ["--proxy", f"127.0.0.1:{proxy.port}", "--confdir", str(proxy.confdir)]
    run = denied_run(runs, "joined", *where)

    said = owner(
        *(runs, "allow", "denied.test", "--run", "joined", "--uses", "1"),
        *("--statedir", str(proxy.statedir)),
    )

    assert run.communicate(timeout=60)[0] == b"reached\n"
    assert "Applied: " in said
    assert status(proxy, "denied.test") == 403


@pytest.fixture(scope="module")
def storage(program: FindProgram) -> Iterator[EngineStorage]:
    program("runc")
    storage = EngineStorage(program("podman"))
    storage.add(image_of(program("busybox"), [program("curl")]), BOX)
    yield storage
    storage.close()


@pytest.fixture
def containers(runs: Launches, storage: EngineStorage) -> Iterator[Containers]:
    containers = Containers(runs, storage)
    yield containers
    containers("rm", "--all", "--force")


def test_a_container_is_granted_a_host_by_its_name(containers: Containers, runs: Launches) -> None:
    containers.start("web", "sleep", "600")
    ask = ("exec", "web", "--", "curl", "-sS", "-f", "-o", "/dev/null", "https://denied.test/")
    assert containers(*ask).returncode != 0

    said = owner(runs, "allow", "denied.test", "--run", "web", "--uses", "1")

    assert "Applied: web" in said
    assert [containers(*ask).returncode == 0 for _ in range(2)] == [True, False]


def owner(runs: Launches, *words: str) -> str:
    """Run a command of the owner's of runs, which must succeed, and return what it prints."""
    ran = subprocess.run(
        runs.argv([*runs.program(), *words]),
        env=runs.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    return ran.stdout.decode()
