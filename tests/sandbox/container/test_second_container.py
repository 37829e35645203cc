"""A second container runs beside the first one, and is gone however its program ends."""

import os
from pathlib import Path

import pytest

from claude_proxy.sandbox.container import second_container
from claude_proxy.sandbox.container.engine import Engine, EngineError
from claude_proxy.sandbox.container.plan.model import EngineKind
from tests.support.container_parts import a_plan, calls_of, fake_engine


def engine_that(directory: Path, said: str, code: int) -> Engine:
    program = fake_engine(directory / "bin", (["run"], said, "", code), (["rm"], "", "", 0))
    return Engine(EngineKind.DOCKER, program, dict(os.environ))


def call(directory: Path, engine: Engine) -> bytes:
    return second_container.call(a_plan(), engine, directory, "network_probe", "80", timeout_s=60)


def test_what_the_program_prints_is_returned(tmp_path: Path) -> None:
    engine = engine_that(tmp_path, "said", 0)

    assert call(tmp_path, engine) == b"said"
    ran = calls_of(engine.program)[-1]
    assert ran[0] == "run"
    assert ran[-1] == "80"


def test_one_whose_program_failed_is_removed(tmp_path: Path) -> None:
    engine = engine_that(tmp_path, "", 137)

    with pytest.raises(EngineError):
        call(tmp_path, engine)

    ran, removed = calls_of(engine.program)[-2:]
    assert removed == ["rm", "--volumes", "--force", "--", ran[ran.index("--name") + 1]]
