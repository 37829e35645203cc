"""Browsers of a sandbox are given the proxy's CA where they look for policies."""

import json
from pathlib import Path

from claude_proxy.sandbox.plan.browser_policies import DIRECTORIES, add_browser_policies, policy
from claude_proxy.sandbox.plan.model import Mount, MountKind
from claude_proxy.sandbox.plan.mount_layout import Layout
from tests.sandbox.boxes import some_facts

PEM = b"""\
a comment
-----BEGIN CERTIFICATE-----
AAAA
BBBB
-----END CERTIFICATE-----
-----BEGIN CERTIFICATE-----
CCCC
-----END CERTIFICATE-----
"""


def a_layout(*mounts: Mount) -> Layout:
    layout = Layout()
    for mount in (Mount(MountKind.EMPTY, Path("/etc"), mode="0755", sealed=True), *mounts):
        layout.put(mount)
    return layout


def test_every_certificate_of_the_file_is_trusted() -> None:
    found = json.loads(policy(PEM))

    assert found == {"CACertificates": ["AAAABBBB", "CCCC"], "EncryptedClientHelloEnabled": False}


def test_the_policy_is_where_each_browser_looks() -> None:
    layout = a_layout()

    add_browser_policies(layout, some_facts(shown={"ca.pem": PEM}))

    assert [mount.at.parent for mount in layout.mounts() if mount.kind is MountKind.FILE] == list(
        DIRECTORIES
    )
    assert {json.loads(text)["CACertificates"][0] for text in layout.files.values()} == {"AAAABBBB"}


def test_what_the_owner_shows_there_stays_as_it_is() -> None:
    etc = Path("/etc/chromium")
    layout = a_layout(Mount(MountKind.READ, etc, etc))

    add_browser_policies(layout, some_facts(shown={"ca.pem": PEM}))

    places = [mount.at for mount in layout.mounts() if mount.kind is MountKind.FILE]
    assert not any(place.is_relative_to(etc) for place in places)


def test_a_run_without_the_proxy_trusts_nothing_more() -> None:
    layout = a_layout()

    add_browser_policies(layout, some_facts(shown={}))

    assert layout.files == {}
