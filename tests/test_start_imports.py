"""What a start may import: every package costs each run, so each is listed here with its reason."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import FindProgram

# Beyond the standard library, up to COMMAND's first instruction.
LAUNCHER = {
    "click": "the command line",
    "yaml": "policies and settings",
    "_yaml": "its parser in C",
}
# In the proxy of a run, until nothing can stop its start; its launcher has read the policy.
CHECKS = {
    "bcrypt": "cryptography reads OpenSSH keys with it",
    "cryptography": "the CA",
    "_cffi_backend": "of cryptography",
    "_openssl": "of cryptography",
    "idna": "host names",
}
# After that, until it serves. HTTP/2 comes with the first client that speaks it.
ENGINE = {
    "certifi": "the roots of upstreams",
    "mitmproxy": "the master and the layers",
    "mitmproxy_rs": "named by mitmproxy's modes, and not run",
    "OpenSSL": "mitmproxy's types of certificates",
    "pyparsing": "named by mitmproxy's commands, and not run",
    "ruamel": "named by mitmproxy's options, and not run",
    "typing_extensions": "what mitmproxy has in place of Python 3.13's typing",
    "uvloop": "the event loop",
}

# What the standard library has that takes long, and at which stage something needs it.
SLOW_EVERYWHERE = {"html", "http.server", "multiprocessing", "pydoc", "unittest", "xml"}
SLOW_BEFORE_THE_ENGINE = {*SLOW_EVERYWHERE, "asyncio", "concurrent.futures", "ssl"}

# What else a launcher needs only after COMMAND, or never.
SLOW_IN_A_LAUNCHER = {
    *("difflib", "importlib.metadata", "importlib.resources", "logging"),
    *("sqlite3", "traceback", "zipfile"),
}
if sys.version_info >= (3, 13):
    SLOW_IN_A_LAUNCHER.add("platform")  # the uuid of older ones imports it

# Rooms and modules of our own that have no part in a stage.
NOT_OF_LAUNCHER = (
    "claude_proxy.audit.store",  # the proxy records the start
    "claude_proxy.doctor",
    "claude_proxy.proxy.layers",
    "claude_proxy.sandbox.bubblewrap.unix_sockets",  # a program of its own, as the next ones
    "claude_proxy.sandbox.bubblewrap.watchdog",
    "claude_proxy.sandbox.git.clones",
    "claude_proxy.sandbox.macos",
    "claude_proxy.sandbox.relay.bridge",
    "claude_proxy.sandbox.relay.relay",
    "claude_proxy.sandbox.self_check",
    "claude_proxy.sandbox.stream_pump",
    "claude_proxy.server",
    "claude_proxy.trust.certificates",  # cryptography
)
# What is of containers, too, but needed only once, by other commands, or in another process.
NOT_OF_CONTAINER_LAUNCHER = (
    "claude_proxy.sandbox.container.closed_network",
    "claude_proxy.sandbox.container.exec_process",
    "claude_proxy.sandbox.container.history",
    "claude_proxy.sandbox.container.image_build",
    "claude_proxy.sandbox.container.keeper",  # a child of the launcher
    "claude_proxy.sandbox.container.project_wall",  # the keeper's
    "claude_proxy.sandbox.container.updates",
    "claude_proxy.sandbox.guard_process",
    "claude_proxy.sandbox.helper_processes",
    "claude_proxy.sandbox.proxy_process_ipc",
    "claude_proxy.sandbox.runner",
    "ctypes",
    "pickle",
    "py_compile",
    "tarfile",
    "tempfile",
)
NOT_OF_CHECKS = (
    "claude_proxy.cli",
    "claude_proxy.config.allowlist",
    "claude_proxy.doctor",
    "claude_proxy.proxy.layers",
    "claude_proxy.sandbox.plan",
    "claude_proxy.sandbox.run_spec",
    "yaml",
)
NOT_OF_ENGINE = (
    "claude_proxy.proxy.gateway.layer",
    "claude_proxy.proxy.layers.http2",
    "claude_proxy.cli",
    "claude_proxy.config.allowlist",
    "claude_proxy.doctor",
    "claude_proxy.sandbox.run_spec",
    "yaml",
    "mitmproxy.contentviews",
    "mitmproxy.dns",
    "mitmproxy.flowfilter",
    "mitmproxy.net.http",
    "mitmproxy.proxy.layers",
    "mitmproxy.proxy.mode_servers",
    "mitmproxy.proxy.server",
)

_SERVE = """
import json, os, pickle, sys
from pathlib import Path
from claude_proxy.config.settings import Settings, TcpListen, Verbosity
from claude_proxy.sandbox import proxy_process
from claude_proxy.server.app import serve
from claude_proxy.system.sd_notify import Lifeline
place = Path(sys.argv[1])
settings = Settings(place / "allowlist.yaml", place / "conf", place / "state",
    listen=(TcpListen("127.0.0.1", 0),), verbosity=Verbosity.QUIET)
def tell():
    print(json.dumps(sorted(sys.modules)), flush=True)
loaded = pickle.loads(Path(sys.argv[2]).read_bytes())
lifeline = Lifeline(tell, lambda: [tell(), os._exit(0)][:0], os.pipe()[0])
serve(settings, loaded=loaded, lifeline=lifeline)
"""
_READ = """
import pickle, sys
from pathlib import Path
from claude_proxy.config.policy_files import load
place = Path(sys.argv[1])
Path(sys.argv[2]).write_bytes(pickle.dumps(load(place / "allowlist.yaml", place / "conf")))
"""


@cache
def bare() -> frozenset[str]:
    """What this interpreter has before anything is imported, which a .pth file may add to."""
    program = [sys.executable, "-c", "import sys; print(*sys.modules)"]
    return frozenset(
        subprocess.run(program, capture_output=True, check=True, text=True).stdout.split()
    )


def foreign(modules: set[str]) -> set[str]:
    """Return the packages that are neither ours nor the standard library's."""
    own = {*sys.stdlib_module_names, "claude_proxy", "__main__"}
    names = {name.partition(".")[0] for name in modules - bare()} - own
    # Cython puts a module of its own beside each that it has compiled.
    return {name for name in names if not name.startswith("_cython_") and name != "cython_runtime"}


def below(modules: set[str], roots: tuple[str, ...]) -> list[str]:
    return sorted(
        name for name in modules for root in roots if name == root or name.startswith(f"{root}.")
    )


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """The modules of a run's proxy: when all is checked, and when it is ready."""
    place = tmp_path_factory.mktemp("place")
    place.chmod(0o700)
    (place / "allowlist.yaml").write_text("allow: [one.example]\n", "utf-8")
    loaded = place / "loaded"
    said = [
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program, str(place), str(loaded)],
            # The measurement of the coverage imports much, and is no part of a start.
            env={name: value for name, value in os.environ.items() if "COVERAGE" not in name},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for program in (_READ, _SERVE)
    ]
    checked, ready = said[1].splitlines()
    return set(json.loads(checked)), set(json.loads(ready))


def test_a_proxy_checks_everything_with_what_the_checks_need(
    stages: tuple[set[str], set[str]],
) -> None:
    checked, _ = stages

    assert foreign(checked) <= CHECKS.keys()
    assert below(checked, NOT_OF_CHECKS) == []
    assert SLOW_BEFORE_THE_ENGINE & checked == set()


def test_an_engine_imports_what_it_runs(stages: tuple[set[str], set[str]]) -> None:
    _, ready = stages

    assert foreign(ready) <= {*CHECKS, *ENGINE}
    assert below(ready, NOT_OF_ENGINE) == []
    assert SLOW_EVERYWHERE & ready == set()


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory whose path leaves room for a socket's name."""
    with tempfile.TemporaryDirectory(prefix="start-") as name:
        yield Path(name)


def test_a_launcher_imports_what_leads_to_the_command(program: FindProgram, place: Path) -> None:
    program("bwrap")
    for name in ("home", "runtime", "project"):
        (place / name).mkdir(mode=0o700, parents=True)
    environment = {
        "HOME": str(place / "home"),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "XDG_RUNTIME_DIR": str(place / "runtime"),
    }
    words = [sys.executable, "-X", "importtime", "-m", "claude_proxy", "run", "--"]

    _, said = [  # the first run makes the CA
        subprocess.run(
            [*words, "sh", "-c", "echo COMMAND >&2"],
            env=environment,
            cwd=place / "project",
            stderr=subprocess.PIPE,
            check=True,
            text=True,
        ).stderr
        for _ in range(2)
    ]
    before, command, _ = said.partition("\nCOMMAND\n")
    lines = [line for line in before.splitlines() if line.startswith("import time:")]
    modules = {line.rpartition("|")[2].strip() for line in lines} - {"imported package"}
    # Those that are asked for, and need not exist; `_wmi` is for Windows.
    modules -= {"sitecustomize", "usercustomize", "_wmi"}

    assert command
    assert SLOW_IN_A_LAUNCHER & modules == set()
    assert foreign(modules) <= LAUNCHER.keys()
    assert below(modules, NOT_OF_LAUNCHER) == []
    assert SLOW_BEFORE_THE_ENGINE & modules == set()


def test_a_launcher_of_containers_imports_what_leads_to_the_engine() -> None:
    program = "import sys, json; from claude_proxy.cli import main, container_run; "
    said = subprocess.run(
        [sys.executable, "-c", f"{program}print(json.dumps(list(sys.modules)))"],
        env={name: value for name, value in os.environ.items() if "COVERAGE" not in name},
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    modules = set(json.loads(said)) - bare()

    assert SLOW_IN_A_LAUNCHER & modules == set()
    assert foreign(modules) <= LAUNCHER.keys()
    # A new name must be no clone's.
    needed = {"claude_proxy.sandbox.git.clones"}
    not_needed = {*NOT_OF_LAUNCHER, *NOT_OF_CONTAINER_LAUNCHER} - needed
    assert below(modules, tuple(not_needed)) == []
    assert SLOW_BEFORE_THE_ENGINE & modules == set()
