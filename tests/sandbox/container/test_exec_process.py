"""A command in a container: its exit code, what is said if there is none, its signals' target."""

import os
from pathlib import Path

import pytest

from claude_proxy.sandbox.container import exec_process
from claude_proxy.sandbox.container.engine import Engine, EngineError
from claude_proxy.sandbox.container.missing_programs import NoProgramError
from claude_proxy.sandbox.container.plan.model import EngineKind
from tests.support.container_parts import Case, fake_engine


def engine(directory: Path, *cases: Case, kind: EngineKind = EngineKind.PODMAN) -> Engine:
    return Engine(kind, fake_engine(directory / "bin", *cases), {"PATH": "/usr/bin:/bin"})


def test_the_exit_code_is_that_of_the_command(tmp_path: Path) -> None:
    found = engine(tmp_path, (["exec"], "", "mine\n", 127))

    assert exec_process.execute(found, "web", ["sh"], terminal=False) == 127


@pytest.mark.parametrize(("code", "said"), [(127, "no program"), (126, "cannot be executed")])
def test_a_command_that_cannot_be_started_is_named(tmp_path: Path, code: int, said: str) -> None:
    found = engine(tmp_path, (["exec"], "", "Error: OCI runtime error\n", code))

    with pytest.raises(NoProgramError, match=said) as error:
        exec_process.execute(found, "web", ["nowhere"], terminal=False)
    assert error.value.exit_code == code


def test_a_failure_of_the_engine_is_its_own(tmp_path: Path) -> None:
    found = engine(tmp_path, (["exec"], "", "Error: out of locks\n", 125))

    with pytest.raises(EngineError, match="out of locks"):
        exec_process.execute(found, "web", ["sh"], terminal=False)


@pytest.mark.parametrize("kind", EngineKind)
def test_no_key_of_a_terminal_ends_the_attachment(tmp_path: Path, kind: EngineKind) -> None:
    words = exec_process.argv_of(engine(tmp_path, kind=kind), "web", ["sh"], terminal=True)

    assert "--tty" in words
    assert [word for word in words if word.startswith("--detach-keys=")]


def test_a_process_without_others_in_it_has_no_inner_one() -> None:
    assert exec_process.inner_process(os.getpid()) is None
