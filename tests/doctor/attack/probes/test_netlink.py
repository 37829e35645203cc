"""Netlink probes see a network namespace that can be changed."""

import subprocess
import sys

from tests.doctor.cage import (
    ROOT,
    got_through,
    routed,
    run_probe,
    tool,
)


def test_a_network_that_can_be_changed_is_seen() -> None:
    assert "an address" in got_through(run_probe("netlink", around=routed()))


def test_what_could_be_changed_is_changed_back() -> None:
    script = (
        "from claude_proxy.doctor.attack.probes.netlink import netlink; "
        "print([each.outcome for each in netlink({})])"
    )
    shown = f"{tool('ip')} address; {tool('ip')} route; {tool('ip')} -br link"
    inside = f'{shown}; echo; "$0" -c "$1"; echo; {shown}'

    done = subprocess.run(
        [*routed(), tool("sh"), "-c", inside, sys.executable, script],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )

    before, tried, after = done.stdout.split("\n\n")
    assert "through" in tried
    assert after.strip() == before.strip()
