"""A policy decides as an allowlist does; learning writes down which hosts were met."""

import signal
from pathlib import Path

import pytest

from claude_proxy.config.allowlist import loader
from tests.support.waiting import until

from .conftest import StartProxy
from .rig.client import CannotConnectError
from .rig.internet import Internet
from .rig.proxy import Proxy, Workplace

WORK = """\
allow: [allowed.test, "*.wild.test"]
deny: [other.wild.test]
"""
MOST = """\
default: allow
deny: [denied.test, "*.denied.test", "10.30.0.0/16"]
"""


@pytest.fixture
def confdir(tmp_path: Path) -> Path:
    """A directory of a configuration with two policies."""
    confdir = tmp_path / "conf"
    (confdir / "policies").mkdir(mode=0o700, parents=True)
    (confdir / "policies" / "work.yaml").write_text(WORK)
    (confdir / "policies" / "most.yaml").write_text(MOST)
    return confdir


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where is learned."""
    return tmp_path / "learned.yaml"


def with_policy(start_proxy: StartProxy, confdir: Path, name: str) -> Proxy:
    """Start a proxy with a policy of the configuration, which holds its CA, too."""
    proxy = start_proxy(None, "--policy", name, "--confdir", confdir)
    proxy.confdir = confdir
    return proxy


def reason(proxy: Proxy, target: str) -> str | None:
    """Return why a tunnel to `target` is denied; None: it is not."""
    try:
        proxy.tunnel(target).close()
    except CannotConnectError as error:
        return error.answer.reason
    return None


def visit(proxy: Proxy, host: str, path: str = "/echo?secret=1") -> int:
    """Send a request to `host` and return the status of the answer."""
    with proxy.tunnel(f"{host}:443") as tunnel:
        return tunnel.get(path).status


def learned(file: Path) -> list[str]:
    """Return the hosts that were learned; the file must be a valid preset whenever it is read."""
    if not file.exists():
        return []
    library = loader.Library(preset=lambda _: file.read_text())
    return list(loader.preset_policy("learned", library).hosts())


def test_a_denial_always_wins(start_proxy: StartProxy, confdir: Path) -> None:
    proxy = with_policy(start_proxy, confdir, "work")

    assert visit(proxy, "allowed.test") == visit(proxy, "one.wild.test") == 200
    assert reason(proxy, "other.wild.test:443") == "deny-rule"
    assert reason(proxy, "origin.test:443") == "no-rule"
    assert reason(proxy, "allowed.test:8443") == "port-not-allowed"
    assert "policy:         work (3 rules)" in proxy.stdout()
    assert "All other hosts are denied" in proxy.stdout()


def test_a_default_allow_keeps_every_other_law(
    start_proxy: StartProxy, confdir: Path, internet: Internet
) -> None:
    proxy = with_policy(start_proxy, confdir, "most")

    assert visit(proxy, "origin.test") == 200
    assert "All other hosts are allowed" in proxy.stdout()
    with internet.watch() as seen:
        assert reason(proxy, "denied.test:443") == "deny-rule"
        assert reason(proxy, "10.30.0.1:443") == "deny-rule"
        assert reason(proxy, "127.0.0.1:443") == "address-not-allowed"
        assert reason(proxy, "169.254.169.254:80") == "address-not-allowed"
    assert seen.nothing()
    internet.names.answer("metadata.test", ["169.254.169.254"])
    with internet.watch() as seen, proxy.tunnel("metadata.test:443") as tunnel:
        answer = tunnel.get("/")
    assert (answer.status, answer.reason) == (403, "address-not-allowed")
    assert seen.dialled() == set()
    with proxy.tunnel("origin.test:443") as tunnel:
        fronted = tunnel.request("GET", "/", host="denied.test")
    assert (fronted.status, fronted.reason) == (403, "host-mismatch")


def test_a_changed_policy_is_taken_up_and_a_bad_one_is_not(
    start_proxy: StartProxy, confdir: Path
) -> None:
    file = confdir / "policies" / "work.yaml"
    proxy = with_policy(start_proxy, confdir, "work")

    file.write_text(WORK.replace("allowed.test", "origin.test"))
    until(lambda: reason(proxy, "origin.test:443") is None, "the new policy")
    assert reason(proxy, "allowed.test:443") == "no-rule"
    file.write_text(WORK.replace("allow:", "allw:"))
    until(lambda: "the policy was rejected" in proxy.stderr(), "the complaint")

    assert reason(proxy, "origin.test:443") is None
    assert f'error: unknown key "allw"\nclaude-proxy:   where: {file}:1:1' in proxy.stderr()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("lockdown", "there is nothing to serve"),
        ("open", "nothing is filtered"),
        ("nope", 'there is no policy "nope"'),
    ],
)
def test_what_cannot_be_served_does_not_start(place: Workplace, name: str, says: str) -> None:
    ran = place.claude_proxy("serve", "--port", "0", "--policy", name)

    assert ran.returncode == 2
    assert says in ran.stderr


def test_learning_lets_through_and_writes_down_what_was_reached(
    start_proxy: StartProxy, file: Path
) -> None:
    proxy = start_proxy("allow: []\ndeny: [denied.test]\n", "--learn", file)

    assert "THIS PROXY LETS EVERYTHING THROUGH" in proxy.stderr()
    assert visit(proxy, "origin.test") == visit(proxy, "allowed.test") == 200
    assert reason(proxy, "denied.test:443") == "deny-rule"
    assert visit(proxy, "no-such-host.test") == 502
    assert reason(proxy, "127.0.0.1:443") == "address-not-allowed"
    proxy.signal(signal.SIGTERM)
    proxy.stop()

    assert learned(file) == ["allowed.test", "origin.test"]
    assert "secret" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


def test_what_was_learned_makes_a_policy(start_proxy: StartProxy, file: Path) -> None:
    teacher = start_proxy("allow: []\n", "--learn", file)
    assert visit(teacher, "origin.test") == 200
    teacher.signal(signal.SIGINT)
    teacher.stop()
    line = 'include: ["' + str(file) + '"]'
    assert line in teacher.stderr()

    proxy = start_proxy(line + "\n")

    assert visit(proxy, "origin.test") == 200
    assert reason(proxy, "allowed.test:443") == "no-rule"


def test_learning_denials_lets_nothing_through(
    start_proxy: StartProxy, tmp_path: Path, internet: Internet
) -> None:
    file = tmp_path / "denied.yaml"
    proxy = start_proxy("allow: [origin.test]\n", "--learn-deny", file)

    assert visit(proxy, "origin.test") == 200
    with internet.watch() as seen:
        assert reason(proxy, "Denied.test:443") == "no-rule"
        assert reason(proxy, "denied.test:443") == "no-rule"
    assert seen.nothing()
    # Nobody stops it: it writes by itself.
    until(lambda: learned(file), "what was denied")

    assert learned(file) == ["denied.test"]
