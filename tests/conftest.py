"""Holds what every test may use, and the rule that in CI nothing is skipped."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ROOT / "build" / "e2e" / "node_modules" / ".bin"

type FindProgram = Callable[[str], str]


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_the_users(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests from the settings and files of whoever runs them, and the other way round."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(("CLAUDE_PROXY_", "XDG_")) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _signals_as_a_terminal_has_them() -> None:
    """Undo what `nohup` and a shell's `&` ignore, as every process that is started inherits it."""
    for number, handler in (
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def program() -> FindProgram:
    """Return a function that finds a program, and skips the test that has none."""

    def find(name: str) -> str:
        found = shutil.which(name, path=TOOLS) or shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed; try `make e2e-tools`")
        return found

    return find


class NothingSkips:
    """Fails a run that skipped anything: a law that was not tested in CI is not kept."""

    def __init__(self) -> None:
        self._skipped: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped.append(report.nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        yield
        if self._skipped and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._skipped:
            terminalreporter.section("skipped, which CI does not allow", red=True)
            for nodeid in self._skipped:
                terminalreporter.line(nodeid)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what lies in `e2e/`, so that `make unit` can leave it out."""
    if ROOT / "tests" / "e2e" in item.path.parents:
        item.add_marker("e2e")


def pytest_configure(config: pytest.Config) -> None:
    """Put the rule in force where CI says that it is CI, and have its fuzzing repeat itself."""
    # No test fails for being slow: the machine may be busy.
    patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("anywhere", patient)
    settings.register_profile("ci", patient, derandomize=True)
    settings.load_profile("ci" if os.environ.get("CI") else "anywhere")
    if os.environ.get("CI"):
        config.pluginmanager.register(NothingSkips())
