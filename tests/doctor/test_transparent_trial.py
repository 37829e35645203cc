"""A client that ignores the proxy is tried in a run whose names have addresses."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from claude_proxy.doctor.client_trust import try_clients
from claude_proxy.doctor.clients import Client
from claude_proxy.doctor.probe_server import Identity, ProbeServer
from claude_proxy.doctor.transparent_trial import TransparentTrial
from claude_proxy.trust.certificate_authority import CertificateAuthority
from tests.conftest import FindProgram

PAST = ("curl", "--noproxy", "*", "--silent", "--max-time", "20", "{url}")


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    path = tmp_path / "confdir"
    CertificateAuthority.load_or_create(path)
    return path


@pytest.fixture
def origin(confdir: Path) -> Iterator[ProbeServer]:
    authority = CertificateAuthority.load_or_create(confdir)

    def identify(name: str) -> Identity:
        leaf = authority.leaf(name)
        return leaf.certificate, leaf.key

    with ProbeServer(identify) as found:
        yield found


def test_a_client_that_ignores_the_proxy_is_led_to_it_in_a_run(
    confdir: Path, program: FindProgram
) -> None:
    for name in ("bwrap", "curl"):
        program(name)

    [look] = try_clients(
        confdir, os.environ, address="127.0.0.1:9051", clients=[Client("past", PAST)]
    )

    assert (look.uses_proxy, look.transparent) == (False, True), look.said


def test_a_client_that_reaches_nothing_is_not_led(
    origin: ProbeServer, tmp_path: Path, program: FindProgram
) -> None:
    program("bwrap")
    project = tmp_path / "project"
    project.mkdir()
    trial = TransparentTrial(tmp_path, origin.port, os.environ["PATH"], 60)

    led = trial.is_led("a.test", ["true"], project, {}, lambda: bool(origin.requests()))

    assert led is False


def test_where_there_can_be_no_run_nothing_is_known(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    trial = TransparentTrial(tmp_path, 443, os.environ["PATH"], 60)

    assert trial.is_led("not a host", ["true"], project, {}, lambda: False) is None
