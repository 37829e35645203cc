"""Interfaces, addresses and routes are made as the kernel then shows them, or an error says why."""

import subprocess
import sys

import pytest

from tests.conftest import FindProgram

IN_NAMESPACES = """
import os, pathlib
from claude_proxy.system.rtnetlink import Rtnetlink
os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
other = os.open("/proc/self/ns/net", os.O_RDONLY)
os.unshare(os.CLONE_NEWNET)
MACS = (b"\\2\\0\\0\\0\\0\\1", b"\\2\\0\\0\\0\\0\\2")
def tried(work, *words):
    try:
        work(*words)
    except OSError as error:
        return error.strerror or str(error)
    return "done"
def rows(name):
    return [line.split() for line in pathlib.Path("/proc/self/net", name).read_text().splitlines()]
with Rtnetlink() as here:
    here.bring_up("lo")
    here.add_local_network("lo", "198.18.0.0/15")
    here.add_pair("cable", other, 9000, MACS)
    here.omit_ipv6("cable")
    here.add_address("cable", "192.0.0.9")
    here.bring_up("cable")
    here.add_link_route("cable", "192.0.0.8/32")
    here.add_route("cable", "198.51.100.0/24", "192.0.0.8", "192.0.0.9")
    print(*sorted(row[0] for row in rows("dev")[2:]))
    print([row[:3] for row in rows("route")[1:]])
    here.add_neighbour("cable", "192.0.0.8", MACS[1])
    print(tried(here.add_pair, "cable", other, 9000, MACS))
    print(tried(here.bring_up, "none"))
    print(tried(here.add_link_route, "cable", "192.0.0.8/32"))
print(rows("arp")[1])
os.setns(other, os.CLONE_NEWNET)
print(*sorted(row[0] for row in rows("dev")[2:]))
"""


def test_a_network_is_made_and_what_cannot_be_made_is_an_error(program: FindProgram) -> None:
    program("bwrap")  # where it works, there are user namespaces

    found = subprocess.run(
        [sys.executable, "-c", IN_NAMESPACES], capture_output=True, text=True, check=False
    )

    assert (found.stderr, found.returncode) == ("", 0)
    lines = found.stdout.splitlines()
    assert lines[5] == "['192.0.0.8', '0x1', '0x6', '02:00:00:00:00:02', '*', 'cable']"
    assert (lines[0], lines[6]) == ("cable: lo:", "cable: lo:")
    assert "['cable', '006433C6', '080000C0']" in lines[1]
    assert "['cable', '080000C0', '00000000']" in lines[1]
    assert lines[2:5] == ["File exists", "no interface with this name", "File exists"]


@pytest.mark.parametrize("name", ["import dataclasses", "import typing"])
def test_it_is_light(name: str) -> None:
    module = name.removeprefix("import ")
    code = (
        f"import sys; before = {module!r} in sys.modules; "
        "import claude_proxy.system.rtnetlink; "
        f"print(before or {module!r} not in sys.modules)"
    )

    out = subprocess.check_output([sys.executable, "-c", code], text=True)

    assert out == "True\n"
