"""Helpers of the tests of plans: what a plan mounts, and why it is refused."""

from pathlib import Path

import pytest

from claude_proxy.errors import ConfigError
from claude_proxy.sandbox.plan.model import SandboxPlan
from claude_proxy.sandbox.plan.planner import plan_sandbox
from tests.sandbox.boxes import some_facts


def triples(planned: SandboxPlan, kind: str) -> list[tuple[str, str]]:
    """Return source and place of each mount of one kind, in order."""
    words = planned.options
    return [(words[at + 1], words[at + 2]) for at, word in enumerate(words) if word == f"--{kind}"]


def written(planned: SandboxPlan) -> set[str]:
    return {place for _, place in triples(planned, "bind")}


def read(planned: SandboxPlan) -> set[str]:
    return {place for _, place in triples(planned, "ro-bind")}


def refused(spec: object, found: object = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        plan_sandbox(spec, found or some_facts())  # type: ignore[arg-type]
    assert caught.value.where
    assert caught.value.fix
    return caught.value


def is_covered(planned: SandboxPlan, inside: Path, place: Path) -> bool:
    """Tell whether something deeper than `place` is mounted over `inside`."""
    words = planned.options
    deeper = [Path(words[at + 1]) for at, word in enumerate(words) if word == "--tmpfs"]
    deeper += [Path(there) for _, there in triples(planned, "bind") + triples(planned, "ro-bind")]
    return any(inside.is_relative_to(path) and path != place for path in deeper)
