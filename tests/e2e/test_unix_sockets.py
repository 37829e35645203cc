"""Programs of a sandbox talk over Unix sockets of its own, and reach none of the host's."""

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import FindProgram

from .conftest import Launch
from .rig.launch import Launches

AGENT = """
eval "$(ssh-agent)"
ssh-keygen -q -t ed25519 -N '' -f /tmp/key
ssh-add -q /tmp/key
ssh-add -l | cut -d ' ' -f 1
stat -c %a "$SSH_AUTH_SOCK"
ssh-agent -k
"""
TERMINAL = """
tmux -f /dev/null new-session -d -s work
tmux send-keys -t work 'tmux wait-for -S spoken' Enter
tmux wait-for spoken
tmux list-sessions -F '#{session_name}'
tmux kill-server
"""
COPIED = """
socat UNIX-LISTEN:"$XDG_RUNTIME_DIR/echo" EXEC:cat &
socat ABSTRACT-LISTEN:echo EXEC:cat &
printf 'by a file' | socat -t 9 - UNIX-CONNECT:"$XDG_RUNTIME_DIR/echo",retry=90,interval=0.1
printf ', by a name' | socat -t 9 - ABSTRACT-CONNECT:echo,retry=90,interval=0.1
wait
"""
FORKED = """
import asyncio, multiprocessing
async def served():
    async def answer(reader, writer):
        writer.write(await reader.readline())
        writer.close()
    server = await asyncio.start_unix_server(answer, "/tmp/served")
    reader, writer = await asyncio.open_unix_connection("/tmp/served")
    writer.write(b"line\\n")
    print(await reader.readline(), server.sockets[0].getsockname())
    writer.close()
    server.close()
if __name__ == "__main__":
    multiprocessing.set_start_method("forkserver")
    with multiprocessing.Manager() as manager, multiprocessing.Pool(2) as pool:
        print(dict(manager.dict(a=1)), pool.map(abs, [-1, -2]))
    asyncio.run(served())
"""
REACHES = """
import os, socket, sys
names = sys.argv[1:]
os.symlink(os.getcwd(), "/tmp/link")
for name in (*names, *(f"/tmp/link/{os.path.basename(name)}" for name in names),
             *(f"/proc/{os.getpid()}/root{name}" for name in names), "late"):
    try:
        socket.socket(socket.AF_UNIX).connect(name)
    except OSError:
        continue
    print("reached", name)
for name in ("made", "/tmp/link/made", f"/proc/{os.getpid()}/cwd/made"):
    try:
        socket.socket(socket.AF_UNIX).bind(name)
    except OSError:
        continue
    print("made", name)
print("tried")
"""


@contextmanager
def listening(*paths: Path) -> Iterator[list[str]]:
    """Listen outside; yield what connects."""
    seen: list[str] = []
    listeners = []

    def watch(listener: socket.socket, path: Path) -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return
            seen.append(str(path))

    threads = []
    for path in paths:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen()
        listeners.append(listener)
        threads.append(threading.Thread(target=watch, args=(listener, path)))
        threads[-1].start()
    try:
        yield seen
    finally:
        for listener in listeners:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for thread in threads:
            thread.join()


# As many connects that wait as there may be processes, and one more connection.
CROWDED = """
import os, socket, sys, threading
full = socket.socket(socket.AF_UNIX)
full.bind("/tmp/full")
full.listen(0)
socket.socket(socket.AF_UNIX).connect("/tmp/full")
def wait():
    socket.socket(socket.AF_UNIX).connect("/tmp/full")
try:
    for _ in range(200):
        threading.Thread(target=wait, daemon=True).start()
except RuntimeError:
    print("full")
print(socket.create_connection(("127.0.0.1", 3128)).getpeername()[1], flush=True)
os._exit(0)
"""


def done(ran: "subprocess.CompletedProcess[str]") -> list[str]:
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_ssh_agent_holds_a_key(anybody: Launches, program: FindProgram) -> None:
    program("ssh-agent")

    lines = done(anybody.run("sh", "-euc", AGENT))

    assert lines[1:3] == ["256", "600"]


def test_tmux_has_a_server(anybody: Launches, program: FindProgram) -> None:
    program("tmux")

    lines = done(anybody.run("sh", "-euc", TERMINAL, variables={"TERM": "xterm"}))

    assert lines == ["work"]


def test_socat_copies_by_a_file_and_by_an_abstract_name(
    anybody: Launches, program: FindProgram
) -> None:
    program("socat")

    assert done(anybody.run("sh", "-euc", COPIED)) == ["by a file, by a name"]


def test_python_forks_from_a_server_and_serves(anybody: Launches) -> None:
    script = anybody.project / "forked.py"
    script.write_text(FORKED, encoding="utf-8")

    lines = done(anybody.run("/usr/bin/python3", "forked.py"))

    assert lines == ["{'a': 1} [1, 2]", "b'line\\n' /tmp/served"]


def test_sockets_that_programs_outside_make_are_not_reached(anybody: Launches) -> None:
    early, late, shown = (
        anybody.project / "early",
        anybody.project / "late",
        anybody.directory / "shown",
    )
    shown.mkdir()
    script = anybody.project / "reaches.py"
    script.write_text(REACHES, encoding="utf-8")
    anybody.give(anybody.project)
    command = ["sh", "-c", 'echo begun; read _; exec /usr/bin/python3 reaches.py "$@"', "sh"]
    options: list[str | Path] = ["--allow-rw", shown]

    with (
        listening(early, shown / "agent") as seen,
        anybody.start(*command, early, late, shown / "agent", options=options) as process,
    ):
        assert process.stdout is not None
        process.stdout.readline()
        with listening(late) as seen_late:
            out, err = process.communicate(b"go\n", timeout=60)

    assert (process.returncode, out.splitlines()) == (0, [b"tried"]), err
    assert seen == seen_late == []
    assert not (anybody.project / "made").exists()


def test_a_sandbox_full_of_processes_keeps_its_network(launch: Launch) -> None:
    runs = launch(ordinary=True)

    options = ["--max-processes", "40"]
    lines = done(runs.run("/usr/bin/python3", "-c", CROWDED, options=options))

    assert lines == ["full", "3128"]


def test_none_denies_every_unix_socket(runs: Launches) -> None:
    act = "import socket; socket.socketpair(); socket.socket(socket.AF_UNIX)"

    ran = runs.run("/usr/bin/python3", "-c", act, options=["--unix-sockets", "none"])

    assert "Address family not supported" in ran.stderr


@pytest.mark.parametrize("sockets", ["none", "private"])
def test_a_run_without_the_filter_promises_nothing_about_sockets(
    runs: Launches, sockets: str
) -> None:
    ran = runs.run("true", options=["--without-seccomp", "--unix-sockets", sockets])

    assert (ran.returncode, "drop one of the two" in ran.stderr) == (2, True)
