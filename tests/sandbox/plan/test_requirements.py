"""The error for a machine that lacks something names what to install or to enable."""

from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.plan import requirements
from claude_proxy.sandbox.plan.requirements import (
    APPARMOR_USERNS,
    MAX_USERNS,
    USERNS_CLONE,
    BwrapSupport,
)

BWRAP = Path("/usr/bin/bwrap")
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\n'


def only_problem(**changes: object) -> ClaudeProxyError:
    refusal = {"bwrap": BWRAP, "version": (0, 8, 0), "refusal": "bwrap: setting up uid map: no"}
    [problem] = requirements.problems_of(BwrapSupport(**{**refusal, **changes}))  # type: ignore[arg-type]
    assert problem.exit_code == 1
    assert problem.fix
    return problem


@pytest.mark.parametrize(
    ("os_release", "line"),
    [
        (DEBIAN, "sudo apt install bubblewrap"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", "sudo apt install bubblewrap"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "sudo dnf install bubblewrap"),
        ("ID=arch\n", "sudo pacman -S bubblewrap"),
        ("ID=alpine\n", "sudo apk add bubblewrap"),
        ('ID="opensuse-tumbleweed"\n', "sudo zypper install bubblewrap"),
        ("ID=plan9\n", "the package manager"),
        ("ID='\n", "the package manager"),
    ],
)
def test_a_machine_without_bwrap_gets_the_install_command(os_release: str, line: str) -> None:
    problem = only_problem(bwrap=None, os_release=os_release)

    assert problem.what == "bwrap not found"
    assert line in (problem.fix or "")


def test_an_old_bwrap_is_reported() -> None:
    assert "0.4.1" in only_problem(version=(0, 4, 1)).what
    assert "unknown" in only_problem(version=()).what


@pytest.mark.parametrize(
    ("changes", "what", "fix"),
    [
        ({"settings": {MAX_USERNS: "0"}}, MAX_USERNS, "sysctl -w user.max_user_namespaces="),
        ({"settings": {USERNS_CLONE: "0"}}, USERNS_CLONE, "sysctl -w kernel.unprivileged_userns"),
        ({"settings": {APPARMOR_USERNS: "1"}}, "AppArmor", "profile bwrap /usr/bin/bwrap flags"),
        ({"user_namespaces": False}, "no user namespaces", "CONFIG_USER_NS"),
        ({"container": True}, "container", "--security-opt"),
        ({"sandbox": True, "container": True}, "already inside a sandbox", "from outside"),
        ({}, "cannot create a sandbox", "doctor"),
        ({"settings": {USERNS_CLONE: "0"}, "root": True}, "cannot create a sandbox", "doctor"),
    ],
)
def test_a_refusal_is_explained_by_the_setting_that_causes_it(
    changes: dict[str, object], what: str, fix: str
) -> None:
    problem = only_problem(**changes)

    assert what in problem.what
    assert fix in (problem.fix or "")
    assert "setting up uid map" in (problem.where or "")


def test_a_machine_on_which_bwrap_works_lacks_nothing_whatever_its_settings() -> None:
    machine = BwrapSupport(BWRAP, (0, 8, 0), settings={USERNS_CLONE: "0", APPARMOR_USERNS: "1"})

    assert requirements.problems_of(machine) == []
