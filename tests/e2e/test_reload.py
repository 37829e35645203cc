"""A better list is taken up at once; a worse one changes nothing and is said loudly."""

import signal
import socket

import pytest

from tests.support.waiting import until

from .conftest import StartProxy
from .rig.client import CannotConnectError, connect_head, open_tunnel
from .rig.hello import client_hello
from .rig.internet import Internet
from .rig.proxy import Proxy

BEFORE = "allow: [origin.test, allowed.test, {host: through.test, tls: passthrough}]\n"
WITHOUT_ALLOWED = "allow: [origin.test, other.test]\n"


def allowed(proxy: Proxy, host: str) -> bool:
    """Tell whether a tunnel to `host` opens."""
    try:
        proxy.tunnel(f"{host}:443").close()
    except CannotConnectError:
        return False
    return True


def applied(proxy: Proxy) -> str:
    """Wait until a list was taken up, and return what is said of it."""

    def line() -> str:
        lines = proxy.stdout().splitlines()
        return next((line for line in lines if line.startswith("Allowlist applied")), "")

    return until(line, "a list to be taken up")


@pytest.fixture
def reloading(start_proxy: StartProxy) -> Proxy:
    """A proxy whose list will change."""
    return start_proxy(BEFORE)


def test_a_changed_file_is_taken_up_without_a_signal(reloading: Proxy) -> None:
    assert allowed(reloading, "allowed.test")

    reloading.allowlist.write_text(WITHOUT_ALLOWED)

    until(lambda: allowed(reloading, "other.test"), "the new rule")
    assert not allowed(reloading, "allowed.test")


def test_a_file_put_in_place_of_the_old_one_is_taken_up(reloading: Proxy) -> None:
    new = reloading.allowlist.with_name("new.yaml")
    new.write_text(WITHOUT_ALLOWED)

    new.replace(reloading.allowlist)

    until(lambda: allowed(reloading, "other.test"), "the new rule")


def test_sighup_reloads_and_says_what_changed(reloading: Proxy) -> None:
    reloading.allowlist.write_text(WITHOUT_ALLOWED)

    reloading.signal(signal.SIGHUP)

    changes = applied(reloading).split(", ")
    assert [change.partition("https://")[2].split()[0] for change in changes] == [
        "other.test",
        "allowed.test",
        "through.test",
    ]
    assert not allowed(reloading, "allowed.test")


def test_an_open_tunnel_whose_rule_is_gone_is_closed(reloading: Proxy, internet: Internet) -> None:
    with reloading.tunnel("allowed.test:443") as gone, reloading.tunnel("origin.test:443") as kept:
        assert gone.get("/echo").status == kept.get("/echo").status == 200
        reloading.allowlist.write_text(WITHOUT_ALLOWED)
        reloading.signal(signal.SIGHUP)
        with internet.watch() as seen:
            assert gone.ended()
            assert kept.get("/still-here").status == 200

    assert seen.targets() == ["/still-here"]
    rows = reloading.decisions("allowed.test:443")
    assert rows[-1].reason == "rule-withdrawn"


def test_a_running_stream_whose_rule_is_gone_is_ended(reloading: Proxy, internet: Internet) -> None:
    with reloading.tunnel("allowed.test:443") as tunnel:
        tunnel.send(b"GET /ticking HTTP/1.1\r\nHost: allowed.test\r\n\r\n")
        tunnel.read_line()
        exchange = internet.origin.exchanges[-1]
        reloading.allowlist.write_text(WITHOUT_ALLOWED)
        reloading.signal(signal.SIGHUP)
        tunnel.read_rest()

    until(lambda: exchange.arrival.closed, "the end of the upstream connection")


def test_a_passed_through_tunnel_whose_rule_is_gone_is_closed(
    reloading: Proxy, internet: Internet
) -> None:
    with reloading.connect() as connection:
        connection.sendall(connect_head("through.test:443") + client_hello("through.test"))
        while b"\x16\x03" not in connection.recv(4096):
            pass
        arrival = internet.origin.arrivals[-1]
        reloading.allowlist.write_text(WITHOUT_ALLOWED)
        reloading.signal(signal.SIGHUP)
        while connection.recv(4096):
            pass

    until(lambda: arrival.closed, "the end of the upstream connection")


def test_a_tunnel_before_its_hello_is_judged_by_the_new_list(
    reloading: Proxy, internet: Internet
) -> None:
    with open_tunnel(reloading.connect(), "allowed.test:443", None) as tunnel:
        reloading.allowlist.write_text(WITHOUT_ALLOWED)
        reloading.signal(signal.SIGHUP)
        applied(reloading)
        with internet.watch() as seen:
            try:
                tunnel.send(client_hello("allowed.test"))
                tunnel.stream.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has hung up already
            tunnel.read_rest()

    assert seen.nothing()


BAD = {
    "broken yaml": "allow: [origin.test\n",
    "every host": 'allow: ["*"]\n',
    "an unknown key": "allow: [other.test]\nallows: [denied.test]\n",
    "not text": "allow: [\x00]\n",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_a_bad_file_keeps_the_last_good_list_and_says_so(reloading: Proxy, text: str) -> None:
    reloading.allowlist.write_text(text)

    reloading.signal(signal.SIGHUP)

    until(lambda: "rejected" in reloading.stderr(), "the complaint")
    assert str(reloading.allowlist) in reloading.stderr()
    assert allowed(reloading, "allowed.test")
    assert not allowed(reloading, "other.test")
    assert not allowed(reloading, "denied.test")
    check = reloading.place.claude_proxy(
        "check", "--allowlist", reloading.allowlist, "https://allowed.test/"
    )
    assert check.returncode == 2


def test_a_file_that_is_gone_keeps_the_last_good_list(reloading: Proxy) -> None:
    reloading.allowlist.unlink()

    reloading.signal(signal.SIGHUP)

    until(lambda: "rejected" in reloading.stderr(), "the complaint")
    assert allowed(reloading, "allowed.test")


def test_a_file_that_others_may_write_is_not_taken_up(reloading: Proxy) -> None:
    reloading.allowlist.write_text(WITHOUT_ALLOWED)
    reloading.allowlist.chmod(0o666)

    reloading.signal(signal.SIGHUP)

    until(lambda: "rejected" in reloading.stderr(), "the complaint")
    assert allowed(reloading, "allowed.test")
    assert not allowed(reloading, "other.test")


def test_a_list_that_got_stricter_binds_kept_connections(
    reloading: Proxy, internet: Internet
) -> None:
    with reloading.tunnel("allowed.test:443") as tunnel:
        assert tunnel.get("/first").status == 200
        reloading.allowlist.write_text("allow: [{host: allowed.test, methods: [HEAD]}]\n")
        reloading.signal(signal.SIGHUP)
        applied(reloading)
        with internet.watch() as seen:
            answer = tunnel.get("/second")

    assert (answer.status, answer.reason) == (403, "method-not-allowed")
    assert seen.exchanges == []


def test_reloads_are_in_the_audit_log(reloading: Proxy) -> None:
    reloading.allowlist.write_text(WITHOUT_ALLOWED)
    reloading.signal(signal.SIGHUP)
    applied(reloading)
    reloading.allowlist.write_text("allow: [\n")
    reloading.signal(signal.SIGHUP)
    until(lambda: "rejected" in reloading.stderr(), "the complaint")

    def kinds() -> list[str]:
        return [row.fields["kind"] for row in reloading.audit() if row.phase == "notice"]

    # Said first, recorded then.
    until(lambda: kinds()[:3] == ["start", "policy-applied", "policy-rejected"], "the notices")
