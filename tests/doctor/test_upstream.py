"""Laws of the checks: what the rest of this machine uses on its way out is named."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from claude_proxy.config.settings import Settings, UpstreamProxy
from claude_proxy.doctor import upstream
from claude_proxy.doctor.context import Subject
from claude_proxy.doctor.finding import Finding, Level
from claude_proxy.doctor.upstream import check_upstream
from claude_proxy.trust.roots import AddedRoot
from claude_proxy.wire.authority import Authority
from tests.doctor.test_listeners import OURS, SOMEBODY, tcp

SETTINGS = Settings(Path("a"), Path("c"), Path("s"))
PROXY = "http://me:hunter2@proxy.corp.test:3128"


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> list[AddedRoot]:
    """The CAs that were added to the machine, none at first."""
    found: list[AddedRoot] = []
    monkeypatch.setattr(upstream, "added_roots", lambda: tuple(found))
    return found


def found_of(settings: Settings) -> list[Finding]:
    return check_upstream(Subject(settings, {"HTTPS_PROXY": PROXY}, "linux"))


def test_a_proxy_of_the_shell_is_named_without_its_password() -> None:
    (proxy, _) = found_of(replace(SETTINGS, unused_proxy_variable="HTTPS_PROXY"))

    assert proxy.level is Level.WARNING
    assert "HTTPS_PROXY names http://proxy.corp.test:3128" in proxy.what
    assert str(proxy.fix).endswith("--upstream-proxy http://proxy.corp.test:3128")


def test_a_proxy_that_is_used_or_not_there_is_in_order() -> None:
    used = UpstreamProxy(Authority.of("proxy.corp.test", 3128), "me:hunter2")

    for settings in (SETTINGS, replace(SETTINGS, upstream_proxy=used)):
        (proxy, _) = found_of(settings)
        assert proxy.level is Level.OK
        assert "hunter2" not in proxy.what


def test_a_shell_whose_proxy_is_claude_proxy_itself_is_in_order() -> None:
    with tcp(OURS) as place:
        environ = {"HTTPS_PROXY": f"http://{place}"}
        settings = replace(SETTINGS, unused_proxy_variable="HTTPS_PROXY")
        (proxy, _) = check_upstream(Subject(settings, environ, "linux"))

    assert (proxy.level, proxy.fix) == (Level.OK, None)


def test_another_program_on_this_machine_may_be_the_upstream_proxy() -> None:
    with tcp(SOMEBODY) as place:
        environ = {"HTTPS_PROXY": f"http://{place}"}
        settings = replace(SETTINGS, unused_proxy_variable="HTTPS_PROXY")
        (proxy, _) = check_upstream(Subject(settings, environ, "linux"))

    assert proxy.level is Level.WARNING


def test_a_proxy_of_this_machine_that_is_not_running_is_not_advised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    settings = replace(SETTINGS, unused_proxy_variable="HTTPS_PROXY")
    (proxy, _) = check_upstream(Subject(settings, {"HTTPS_PROXY": url}, "linux"))

    assert "nothing listens" in proxy.what
    assert "--upstream-proxy" not in str(proxy.fix)


def test_a_ca_that_was_added_is_named_with_the_option(added: list[AddedRoot]) -> None:
    added.append(AddedRoot("Corp CA", Path("/corp.crt")))

    (_, roots) = found_of(SETTINGS)
    assert "Corp CA (/corp.crt)" in roots.what
    assert "--upstream-ca" in roots.what

    (_, roots) = found_of(replace(SETTINGS, upstream_ca=Path("/corp.crt")))
    assert "those of /corp.crt are trusted" in roots.what


def test_without_added_cas_there_is_nothing_to_name() -> None:
    (_, roots) = found_of(SETTINGS)

    assert (roots.level, "--upstream-ca" in roots.what) == (Level.OK, False)
