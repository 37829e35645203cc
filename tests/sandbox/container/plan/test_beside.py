"""A container beside another one is as hard, in its network, and attached to nothing of it."""

from pathlib import Path, PurePosixPath

from claude_proxy.sandbox.container.plan.beside import beside
from tests.support.container_parts import ROOTLESS, a_plan, a_spec

AT = PurePosixPath("/run/lent")


def words(*, terminal: bool = False, remove: bool = False) -> tuple[str, ...]:
    plan = a_plan(a_spec(terminal=terminal, remove=remove))
    return beside(plan, "web-second", Path("/lent"), AT, ("/run/lent/ld.so", "program"))


def test_it_is_as_hard_and_in_the_same_network() -> None:
    found = words(terminal=True, remove=True)

    assert found[found.index("--network") + 1] == "container:web"
    assert {"--cap-drop", "ALL", "--read-only", "no-new-privileges"} <= {*found}
    assert any(word.startswith("seccomp=") for word in found)
    assert found.count("--name") == found.count("--rm") == found.count("--interactive") == 1
    assert not {"--tty", "--label", "--hostname", "none"} & {*found}


def test_it_shows_what_the_other_one_shows_and_the_lent_program() -> None:
    found = words()

    plan = a_plan()
    assert set(plan.mount_options) <= {*found}
    assert "/lent:/run/lent:ro" in found
    assert found[-2:] == (plan.image, "program")


def test_without_root_it_is_in_the_namespace_that_owns_the_network() -> None:
    plan = a_plan(facts=ROOTLESS)

    found = beside(plan, "web-second", Path("/lent"), AT, ("a",))

    assert found[found.index("--userns") + 1] == "container:web"
