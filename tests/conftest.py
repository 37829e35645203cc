"""Fixtures of every test, and the report of what was left out: in CI nothing may be."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
NOT_INSTALLED = "is not installed"
_INSTALLED = Path(os.environ.get("E2E_TOOLS", ROOT / "build" / "e2e"))
TOOLS = _INSTALLED / "node_modules" / ".bin"
PYTHON_TOOLS = _INSTALLED / "python" / "bin"

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


@pytest.fixture(autouse=True)
def _signals_as_a_terminal_has_them() -> None:
    """Undo what `nohup` and a shell's `&` ignore, as every process that is started inherits it.

    Before each test, because a proxy that a test has served in this process ignores SIGHUP as well,
    and the entry point leaves SIGINT at its default action.
    """
    for number, handler in (
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGQUIT, signal.SIG_DFL),
        (signal.SIGINT, signal.default_int_handler),
    ):
        if signal.getsignal(number) in {signal.SIG_IGN, signal.SIG_DFL}:
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def program() -> FindProgram:
    """Return a function that finds a program, and skips the test that has none."""

    def find(name: str) -> str:
        tools = (shutil.which(name, path=place) for place in (TOOLS, PYTHON_TOOLS))
        found = next(filter(None, tools), None) or shutil.which(name)
        if found is None:
            pytest.skip(f"{name} {NOT_INSTALLED}")
        return found

    return find


class LeftOut:
    """Says at the end what was skipped and how to have it; in CI a skip fails the run.

    A law that was not tested in CI is not kept.
    """

    def __init__(self, *, allowed: bool) -> None:
        self._allowed = allowed
        self._reasons: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        # A skip is reported as (file, line, reason).
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        nodeids = self._reasons.setdefault(reason.removeprefix("Skipped: "), [])
        if report.nodeid not in nodeids:
            nodeids.append(report.nodeid)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over what a worker of pytest-xdist skipped while it collected."""
        for reason, nodeids in getattr(node, "workeroutput", {}).get("left_out", {}).items():
            known = self._reasons.setdefault(reason, [])
            known.extend(nodeid for nodeid in nodeids if nodeid not in known)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        yield
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["left_out"] = self._reasons
        elif self._reasons and not self._allowed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._reasons:
            return
        if not self._allowed:
            terminalreporter.section("skipped, which CI does not allow", red=True)
        else:
            terminalreporter.section("left out", yellow=True)
        for reason, nodeids in sorted(self._reasons.items()):
            count = f"{len(nodeids)} test{'s'[: len(nodeids) > 1]}"
            terminalreporter.line(f"{count}: {reason}")
            if not self._allowed:
                for nodeid in nodeids:
                    terminalreporter.line(f"    {nodeid}")
        if any(reason.endswith(NOT_INSTALLED) for reason in self._reasons):
            terminalreporter.line("")
            terminalreporter.line("To run what needs a program (Debian, Ubuntu; asks for sudo):")
            terminalreporter.line("    make e2e-tools E2E=--system")


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
    config.pluginmanager.register(LeftOut(allowed=not os.environ.get("CI")))
