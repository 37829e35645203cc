"""A container is entered only if its network is its own, and leads nowhere."""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import netns
from claude_proxy.sandbox.container import enter
from claude_proxy.sandbox.container.enter import HookCall, HookFiles
from tests.conftest import FindProgram
from tests.support.waiting import until


@pytest.fixture
def files(tmp_path: Path) -> HookFiles:
    return enter.place_pipes(tmp_path)


def hook_of(files: HookFiles, keeper: int | None = None) -> "subprocess.Popen[bytes]":
    """Start the hook as a runtime does."""
    enter.place_hook(files, os.getpid() if keeper is None else keeper)
    (path,) = files.hooks.iterdir()
    hook = json.loads(path.read_text())
    assert hook["stages"] == ["createRuntime"]
    words = [hook["hook"]["path"], *hook["hook"]["args"][1:]]
    return subprocess.Popen(words, stdin=subprocess.PIPE)


@pytest.mark.parametrize(("go", "code"), [(True, 0), (False, 1)])
def test_a_hook_waits_for_the_answer(files: HookFiles, *, go: bool, code: int) -> None:
    with closing(HookCall(files)) as call, hook_of(files) as process:
        assert process.stdin is not None
        process.stdin.write(b'{"pid": 4711}')
        process.stdin.close()

        pid = enter.wait_for_hook(call, [], print, 60)
        waited = process.poll()
        call.answer(go=go)

        assert (pid, waited, process.wait(60)) == (4711, None, code)


def test_an_answer_waits_for_a_hook_that_comes_to_read_it_late(files: HookFiles) -> None:
    with closing(HookCall(files)) as call:
        files.asked.write_bytes(b'{"pid": 4711}')
        enter.wait_for_hook(call, [], print, 60)
        call.answer(go=True)

        with hook_of(files) as late:
            assert late.stdin is not None
            late.stdin.close()

            assert late.wait(60) == 0


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("is_collected", [True, False])
def test_a_hook_ends_with_its_keeper(files: HookFiles, *, asks: bool, is_collected: bool) -> None:
    keeper = subprocess.Popen(["sleep", "1000"])
    with hook_of(files, keeper.pid) as process:
        assert process.stdin is not None
        if asks:
            process.stdin.write(b'{"pid": 4711}')
            process.stdin.close()
        keeper.kill()
        if is_collected:
            keeper.wait()

        assert process.wait(60) != 0
    keeper.wait()


def test_a_hook_that_does_not_come_is_an_error(files: HookFiles) -> None:
    with closing(HookCall(files)) as call, pytest.raises(ClaudeProxyError, match="not started"):
        enter.wait_for_hook(call, [], print, 0.01)


def test_who_waits_for_a_hook_sees_other_events(files: HookFiles) -> None:
    reading, writing = os.pipe()
    os.close(writing)

    def give_up(descriptor: int) -> None:
        raise ClaudeProxyError(f"given up by {descriptor}")

    with closing(HookCall(files)) as call, pytest.raises(ClaudeProxyError, match="given up"):
        enter.wait_for_hook(call, [reading], give_up, 60)
    os.close(reading)


def test_a_state_without_a_process_is_refused(
    files: HookFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enter, "_STATE_LIMIT", 4)
    with closing(HookCall(files)) as call:
        files.asked.write_bytes(b'{"a": 1}')

        with pytest.raises(ClaudeProxyError, match="does not say which process"):
            call.process()


def test_the_pipes_are_the_owners_alone(files: HookFiles) -> None:
    for path in (files.asked, files.answer):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_ISFIFO(path.stat().st_mode)


def test_the_network_of_the_host_is_refused() -> None:
    with pytest.raises(ClaudeProxyError, match="host's network"):
        enter.check_network(os.getpid())


@pytest.fixture
def isolated(program: FindProgram) -> Iterator["subprocess.Popen[bytes]"]:
    words = [program("unshare"), "--net", "--map-root-user", "--", "cat"]
    with subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        own = Path("/proc/self/ns/net").stat().st_ino
        until(
            lambda: (
                Path(f"/proc/{process.pid}/cmdline").read_bytes() == b"cat\0"
                and Path(f"/proc/{process.pid}/ns/net").stat().st_ino != own
            ),
            "the namespace",
        )
        yield process
        process.kill()


def test_a_network_with_only_loopback_is_accepted(isolated: "subprocess.Popen[bytes]") -> None:
    enter.check_network(isolated.pid)


def test_another_interface_is_refused(
    isolated: "subprocess.Popen[bytes]", program: FindProgram
) -> None:
    inside = [program("nsenter"), "--target", str(isolated.pid), "--net", "--user"]
    if os.geteuid() == 0:
        inside = [*inside[:4]]
    added = subprocess.run(
        [*inside, program("ip"), "link", "add", "more", "type", "veth", "peer", "other"],
        check=False,
        capture_output=True,
    )
    if added.returncode:
        pytest.skip(f"this kernel makes no such interface: {added.stderr.decode()}")

    with pytest.raises(ClaudeProxyError, match="more network"):
        enter.check_network(isolated.pid)


def test_the_fake_addresses_are_accepted_only_where_they_were_asked_for(
    isolated: "subprocess.Popen[bytes]", program: FindProgram
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives a process fake addresses without its helper")
    namespace, sockets = netns.fake_network(isolated.pid, [443])
    try:
        enter.check_network(isolated.pid, transparent=True)
        with pytest.raises(ClaudeProxyError, match="more network"):
            enter.check_network(isolated.pid)
        words = ["--target", str(isolated.pid), "--net", program("ip"), "route", "add"]
        route = ["93.184.0.0/16", "dev", "claude-proxy"]
        subprocess.run([program("nsenter"), *words, *route], check=True)

        with pytest.raises(ClaudeProxyError, match="more network"):
            enter.check_network(isolated.pid, transparent=True)
    finally:
        os.close(namespace)
        for sock in sockets:
            sock.close()


def test_a_process_that_is_gone_cannot_be_checked() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()

    with pytest.raises(ClaudeProxyError, match="cannot be checked"):
        enter.check_network(process.pid)
