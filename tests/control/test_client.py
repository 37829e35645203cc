"""The control client: which proxy is meant, and what is said when one does not answer."""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from claude_proxy.control import client, places, protocol
from claude_proxy.control.client import AmbiguousError, Proxy, UnreachableError
from claude_proxy.control.protocol import ControlError, ProxyFacts
from claude_proxy.errors import ConfigError
from claude_proxy.system.peer_credentials import Peer
from tests.support.control import Running, facts, says


@pytest.fixture
def running(base: Path) -> Iterator[Running]:
    with ExitStack() as stack:
        yield Running(base, stack)


def echo(request: dict[str, object]) -> bytes:
    return protocol.encode_answer({"asked": request})


def test_a_proxy_is_asked_with_arguments(running: Running) -> None:
    running.starts(facts("web"), echo)

    answer = running.one("web").ask("stop", seconds=3)

    assert answer == {"asked": {"op": "stop", "seconds": 3}}


def test_every_worker_is_asked_once(running: Running) -> None:
    running.starts(facts("web", workers=2), says(worker=0), says(worker=1))

    assert running.one("web").ask_workers("status") == [{"worker": 0}, {"worker": 1}]


def test_a_worker_that_does_not_answer_is_an_error(running: Running) -> None:
    running.starts(facts("web", workers=2), says(worker=0))

    with pytest.raises(UnreachableError, match="web cannot be asked"):
        running.one("web").ask_workers("status", patience_s=0.1)


def test_a_stream_is_read_line_by_line(running: Running) -> None:
    lines = [protocol.encode_answer(one) for one in ({"more": True, "at": 1}, {"at": 2})]
    running.starts(facts("web"), lambda _: b"".join(lines))

    found = list(running.one("web").stream("questions"))

    assert found == [{"more": True, "at": 1}, {"at": 2}]


def test_a_refusal_is_raised_with_its_parts(running: Running) -> None:
    refusal = ControlError("no", where="here", fix="ask again")
    running.starts(facts("web"), lambda _: protocol.encode_refusal(refusal))

    with pytest.raises(ControlError) as raised:
        running.one("web").ask("stop")

    assert raised.value.lines() == refusal.lines()


@pytest.mark.parametrize(
    "answer", [b"", b"hello\n", b"a" * (protocol.ANSWER_BYTES + 2)], ids=["nothing", "text", "huge"]
)
def test_no_answer_is_an_error_that_the_user_can_read(running: Running, answer: bytes) -> None:
    running.starts(facts("web"), lambda _: answer)

    with pytest.raises(ControlError):
        running.one("web").ask("status")


def test_who_never_answers_is_given_up(running: Running) -> None:
    place = places.claim(running.base, "web")
    place.write(protocol.encode_facts(facts("web")))
    with place.listen(0), pytest.raises(UnreachableError, match="does not answer"):
        running.one("web").ask("status", patience_s=0.05)
    place.remove()


def test_the_process_behind_a_socket_must_be_this_users(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.starts(facts("web"), echo)
    proxy, uid = running.one("web"), os.geteuid()
    monkeypatch.setattr(client, "peer_of", lambda _: Peer(7, uid + 1, "sh"))

    with pytest.raises(ControlError, match="another user's"):
        proxy.ask("status")


# --- which one is meant


def proxies(*given: ProxyFacts) -> list[Proxy]:
    return [Proxy(one, Path("/run") / one.name) for one in given]


HERE = Path("/code/web")
SERVE, WEB, DEEP, API = (
    facts("proxy-9051"),
    facts("web", project="/code/web"),
    facts("deep", project="/code/web/deep"),
    facts("api", project="/code/api"),
)


@pytest.mark.parametrize(
    ("given", "directory", "meant"),
    [
        ([SERVE], "/", "proxy-9051"),
        ([WEB], "/elsewhere", "web"),
        ([SERVE, WEB, API], "/code/web", "web"),
        ([SERVE, WEB, API], "/code/web/src", "web"),
        ([WEB, DEEP], "/code/web", "web"),
    ],
    ids=["the only one", "the only run", "of the directory", "around the directory", "nearest"],
)
def test_the_proxy_of_the_directory_is_meant(
    given: list[ProxyFacts], directory: str, meant: str
) -> None:
    assert client.choose(proxies(*given), Path(directory)).name == meant


@pytest.mark.parametrize(
    ("given", "directory"),
    [([SERVE, WEB], "/elsewhere"), ([WEB, DEEP], "/code/web/deep/src"), ([SERVE, SERVE], "/")],
)
def test_where_several_could_be_meant_the_error_names_them(
    given: list[ProxyFacts], directory: str
) -> None:
    with pytest.raises(AmbiguousError) as raised:
        client.choose(proxies(*given), Path(directory))

    assert raised.value.where == ", ".join(one.name for one in given)


def test_no_proxy_is_an_error_that_says_how_to_start_one() -> None:
    with pytest.raises(ControlError, match="no proxy of this user runs"):
        client.choose([], HERE)


@pytest.mark.parametrize("name", ["web", "7"])
def test_a_proxy_is_named_by_its_name_or_its_process(name: str) -> None:
    assert client.choose(proxies(WEB), HERE, name=name).name == "web"


@pytest.mark.parametrize("name", ["other", "", "we", "web/"])
def test_an_unknown_name_is_an_error(name: str) -> None:
    with pytest.raises(ControlError, match="runs"):
        client.choose(proxies(WEB, API), HERE, name=name)


def test_a_directory_that_others_can_enter_is_an_error(base: Path) -> None:
    (base / "claude-proxy").mkdir()
    (base / "claude-proxy").chmod(0o755)

    with pytest.raises(ConfigError, match="other users can"):
        client.find({"XDG_RUNTIME_DIR": str(base)})


def test_facts_that_cannot_be_read_hide_nothing_else(running: Running) -> None:
    running.starts(facts("web"), echo)
    place = places.claim(running.base, "odd")
    place.write(b"{not json")

    found = client.find(running.environ)
    place.remove()

    assert [one.name for one in found] == ["web"]


def test_a_link_where_the_directory_would_be_is_an_error(base: Path) -> None:
    (base / "elsewhere").mkdir(mode=0o700)
    (base / "claude-proxy").symlink_to(base / "elsewhere")

    with pytest.raises(ControlError, match="cannot be listed"):
        client.find({"XDG_RUNTIME_DIR": str(base)})
