"""A client that ignores the proxy is distinguished from one that does not trust the CA."""

import os
from pathlib import Path

import pytest

from claude_proxy.doctor import client_trust
from claude_proxy.doctor.client_trust import ClientResult, exit_code_of, try_clients
from claude_proxy.doctor.clients import CLIENTS, Client
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.trust.certificate_authority import CertificateAuthority, rotate

ADDRESS = "127.0.0.1:9999"
ASK = "import ssl, sys, urllib.request as u\n"
PAST = "u.install_opener(u.build_opener(u.ProxyHandler({}), u.HTTPSHandler(context=c)))\n"
OPEN = "u.urlopen(sys.argv[1], timeout=20)"
TRUSTING = "c = ssl.create_default_context()\n"
FAITHLESS = "c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"


def python(name: str, script: str) -> Client:
    argv = ("python3", "-c", script, "{url}")
    return Client(name, argv, proxy_fix="proxy {proxy}", trust_fix="trust it")


FAKES = (
    python("well", ASK + OPEN),
    python("past", ASK + TRUSTING + PAST + OPEN),
    python("faithless", ASK + FAITHLESS + "u.urlopen(sys.argv[1], timeout=20, context=c)"),
    python("neither", ASK + FAITHLESS + PAST + OPEN),
    python("broken", "import sys; sys.exit('boom: no certificate store')"),
    python("without-library", "import sys; sys.exit(77)"),
    Client("absent", ("no-such-program-anywhere", "{url}")),
    Client("unfit", ("unfit-program", "{url}")),
)


@pytest.fixture(scope="module")
def confdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trust") / "confdir"
    CertificateAuthority.load_or_create(path)
    return path


def test_progress_names_each_client_before_it_is_tried(confdir: Path) -> None:
    tried = []

    try_clients(
        confdir,
        os.environ,
        address=ADDRESS,
        clients=[Client(name, (f"no-such-{name}",)) for name in ("one", "two")],
        progress=lambda *said: tried.append(said),
    )

    assert sorted(tried) == [("one", 1, 2), ("two", 2, 2)]


def test_a_client_reads_the_settings_of_the_user_that_its_fix_is_written_to(
    confdir: Path, tmp_path: Path
) -> None:
    (tmp_path / "settings").write_text("from the user")
    script = "import os; print(open(os.environ['SETTINGS']).read(), 'TLS'); raise SystemExit(1)"
    client = Client("reader", ("python3", "-c", script), own={"SETTINGS": "settings"})
    environ = {**os.environ, "HOME": str(tmp_path)}

    [look] = try_clients(confdir, environ, address=ADDRESS, clients=[client])

    assert look.said == "from the user TLS"


@pytest.fixture(scope="module")
def looks(confdir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClientResult]:
    programs = tmp_path_factory.mktemp("programs")
    unfit = programs / "unfit-program"
    unfit.write_bytes(b"\x7fnothing")
    unfit.chmod(0o755)
    environ = {**os.environ, "PATH": f"{os.environ['PATH']}:{programs}"}
    found = try_clients(confdir, environ, address=ADDRESS, clients=FAKES)
    return {look.client: look for look in found}


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("well", (True, True, None)),
        ("past", (False, True, f"proxy http://{ADDRESS}")),
        ("faithless", (True, False, "trust it")),
        ("neither", (False, False, f"proxy http://{ADDRESS}")),
        ("broken", (None, None, "find out why `python3` fails")),
        ("unfit", (None, None, "find out why `unfit-program` fails")),
    ],
)
def test_each_client_is_reported_by_its_behaviour(
    looks: dict[str, ClientResult], client: str, expected: tuple[object, ...]
) -> None:
    look = looks[client]

    assert (look.uses_proxy, look.trusts, look.fix) == expected
    assert look.good is (client == "well")


def test_the_error_message_of_a_client_is_reported(looks: dict[str, ClientResult]) -> None:
    assert "CERTIFICATE_VERIFY_FAILED" in looks["faithless"].said
    assert looks["broken"].said == "boom: no certificate store"
    assert looks["unfit"].said == "exec format error"
    assert looks["well"].said == ""


def test_a_client_that_does_not_end_is_ended(
    confdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_trust, "_LIMIT_S", 0.2)
    slow = python("slow", "import time; time.sleep(600)")

    [look] = try_clients(confdir, os.environ, address=ADDRESS, clients=[slow])

    assert (look.uses_proxy, look.trusts) == (None, None)
    assert look.said == "it did not end in 0 s"


def test_a_client_that_is_not_there_is_nothing_to_fix(looks: dict[str, ClientResult]) -> None:
    for name in ("absent", "without-library"):
        assert (looks[name].present, looks[name].good) == (False, True)


def test_the_worst_client_makes_the_exit_code(looks: dict[str, ClientResult]) -> None:
    assert exit_code_of([looks["well"], looks["absent"]]) == 0
    assert exit_code_of([looks["well"], looks["broken"]]) == 2
    assert exit_code_of([looks["broken"], looks["past"]]) == 1
    assert exit_code_of([looks["faithless"]]) == 1


def test_without_a_ca_nothing_is_run(tmp_path: Path) -> None:
    with pytest.raises(ClaudeProxyError, match="there is no CA yet"):
        try_clients(tmp_path, os.environ, address=ADDRESS, clients=FAKES)

    assert list(tmp_path.iterdir()) == []


def test_a_ca_that_is_bound_to_hosts_is_tried_with_a_name_below_one(tmp_path: Path) -> None:
    rotate(tmp_path, constrain=["10.0.0.0/8", "*.good.example"])

    well, past = try_clients(tmp_path, os.environ, address=ADDRESS, clients=FAKES[:2])

    assert (well.uses_proxy, well.trusts) == (True, True)
    assert (past.uses_proxy, past.trusts) == (False, None)


def test_a_ca_that_is_bound_to_addresses_cannot_be_tried(tmp_path: Path) -> None:
    rotate(tmp_path, constrain=["10.0.0.0/8"])

    with pytest.raises(ClaudeProxyError, match="addresses only"):
        try_clients(tmp_path, os.environ, address=ADDRESS, clients=FAKES)


def test_nothing_is_left_and_the_configuration_is_as_it_was(
    confdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in confdir.iterdir()}
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    try_clients(confdir, os.environ, address=ADDRESS, clients=FAKES[:1])

    assert {path.name: path.stat().st_mtime_ns for path in confdir.iterdir()} == before
    assert list(tmp_path.iterdir()) == []


def test_a_shim_finds_its_program_although_the_home_is_empty(tmp_path: Path) -> None:
    (tmp_path / ".pyenv").mkdir()

    assert client_trust._shims_of({"HOME": str(tmp_path)}) == {
        "PYENV_ROOT": str(tmp_path / ".pyenv")
    }


def test_the_clients_are_the_documented_ones() -> None:
    promised = "curl wget git node python-requests pip uv npm cargo go java deno gh"

    assert {client.name.replace(" ", "-") for client in CLIENTS} == set(promised.split())
    assert all(client.proxy_fix and client.trust_fix for client in CLIENTS)


def test_an_incomplete_line_of_the_record_is_ignored() -> None:
    assert client_trust._target_of('{"host": "a.exa') == ""
