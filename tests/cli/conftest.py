"""What the tests of commands share."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import claude_proxy
from claude_proxy.cli import main
from claude_proxy.config.settings import Settings
from claude_proxy.control import client
from tests.cli.services import Run
from tests.support.control import Running

type Served = Callable[..., Settings]


@pytest.fixture
def served() -> Served:
    """Return a function that runs a command line and returns the settings that serve was given."""

    def run(*arguments: str) -> Settings:
        taken: list[Settings] = []

        def start(settings: Settings) -> int:
            taken.append(settings)
            return 0

        assert main.main(arguments, start=start) == 0
        return taken[0]

    return run


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run one command in a home of its own, where no service manager is to be found."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run_one(*words: str) -> tuple[int, str, str]:
        code = main.main(["service", *words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_one


@pytest.fixture
def visible(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the program lie where a service sees it, wherever these tests are run."""
    monkeypatch.setattr(claude_proxy, "__file__", "/usr/lib/python3/claude_proxy/__init__.py")
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.setattr(sys, "prefix", "/usr")
    monkeypatch.setattr(sys, "base_prefix", "/usr")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "llm.key"
    file.write_text("sk-ant-api03-canary\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A machine on which no proxies run but those that the test starts."""
    with tempfile.TemporaryDirectory(prefix="control-") as name, ExitStack() as stack:
        machine = Running(Path(name), stack)
        for variable, value in machine.environ.items():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("CLAUDE_PROXY_STATEDIR", str(Path(name) / "state"))
        yield machine


type Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    """Run one command with directories of its own, where no proxy is to be found."""
    monkeypatch.setenv("CLAUDE_PROXY_STATEDIR", str(tmp_path / "state"))
    monkeypatch.setenv("CLAUDE_PROXY_CONFDIR", str(tmp_path / "conf"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(client, "find", lambda _: [])

    def run_one(*words: str) -> tuple[int, str, str]:
        code = main.main(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run_one
