"""The way "enter": sockets that are made in a container's network namespace from outside.

Nothing is added to the container. The engine's runtime calls a hook when the namespaces exist and
before CMD runs; the hook names the first process, and waits until the sockets listen. Law kept:
fail closed: a container whose network is the host's, or that has more than `lo`, or a route, is not
started.
"""

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import netns
from claude_proxy.sandbox.container import store

HOOKS = "hooks"  # in the container's directory

_ASKED, _ANSWER = "hook.asked", "hook.answer"
_GO, _STOP = b"go\n", b"stop\n"
_HOOK_TIMEOUT_S = 150  # longer than a proxy may take to start
_STATE_LIMIT = 64 * 1024
# It ends with the keeper, as the engine holds the container for as long as it runs. Nothing in it
# waits for the other side to open a pipe, and what watches has none of its streams, which the
# runtime reads to their end.
_SCRIPT = """\
keeper=$3 hook=$$
alive() { read -r state < "/proc/$keeper/stat" && case "$state" in *") "[ZX]" "*) false ;; esac; }
exec 3<> "$1" 4<> "$2" && alive || exit 1
{ while alive; do sleep 1; done; kill -KILL "$hook"; } < /dev/null > /dev/null 2>&1 &
cat >&3 && read -r answer <&4 && [ "$answer" = go ]
code=$?
kill "$!"
exit "$code"
"""
_LOOPBACK = "lo"
INTERFACE = "claude-proxy"  # of `fake_network`, with the one route that it has: 198.18.0.0/15
_MULTICAST = "ff" + 30 * "0"  # ff00::/8, which the kernel adds for each link
_FAKE_ROUTE = tuple(
    f"{int.from_bytes(part, sys.byteorder):08X}"
    for part in (bytes((198, 18, 0, 0)), bytes((255, 254, 0, 0)))
)
_NO_ROUTE_HEADINGS = 1


@dataclass(frozen=True, slots=True)
class HookFiles:
    """The hook of one container, and the two pipes by which it talks to the keeper."""

    directory: Path

    @property
    def asked(self) -> Path:
        """Where the hook writes the state of the container."""
        return self.directory / _ASKED

    @property
    def answer(self) -> Path:
        """Where it reads whether CMD may start."""
        return self.directory / _ANSWER

    @property
    def hooks(self) -> Path:
        """The directory that is named to the engine."""
        return self.directory / HOOKS


def place_pipes(directory: Path) -> HookFiles:
    """Make the pipes of a hook in the directory of a container."""
    files = HookFiles(directory)
    store.make_directory(files.hooks)
    for path in (files.asked, files.answer):
        path.unlink(missing_ok=True)
        os.mkfifo(path, 0o600)
    return files


def place_hook(files: HookFiles, keeper: int) -> None:
    """Write the hook, which waits for as long as the process `keeper` runs."""
    words = ["sh", "-c", _SCRIPT, "hook", str(files.asked), str(files.answer), str(keeper)]
    hook = {
        "version": "1.0.0",
        "hook": {"path": "/bin/sh", "args": words, "timeout": _HOOK_TIMEOUT_S},
        "when": {"always": True},
        "stages": ["createRuntime"],
    }
    store.write(files.hooks, "claude-proxy.json", json.dumps(hook).encode())


class HookCall:
    """The keeper's end of the pipes."""

    def __init__(self, files: HookFiles) -> None:
        # For both directions, so that neither side ever waits for the other to open.
        flags = os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
        self._asked = os.open(files.asked, flags)
        self._answer = os.open(files.answer, flags)
        self._said = b""

    def fileno(self) -> int:
        """Return the descriptor that is readable when the hook says something."""
        return self._asked

    def process(self) -> int | None:
        """Return the first process of the container, once the hook has named it."""
        self._said += os.read(self._asked, _STATE_LIMIT)
        try:
            state = json.loads(self._said)
            return int(state["pid"])
        except (ValueError, KeyError, TypeError):
            if len(self._said) >= _STATE_LIMIT:
                raise ClaudeProxyError(
                    "the container's runtime does not say which process it has started",
                    where="createRuntime hook",
                    fix="use another runtime: runc or crun",
                ) from None
            return None

    def answer(self, *, go: bool) -> None:
        """Let CMD start, or have the engine give up."""
        os.write(self._answer, _GO if go else _STOP)

    def close(self) -> None:
        """Close the pipes; a hook that still waits ends with this process."""
        for descriptor in (self._asked, self._answer):
            os.close(descriptor)


def sockets(
    pid: int, ports: Sequence[int], datagram_ports: Sequence[int] = ()
) -> list[socket.socket]:
    """Return sockets in the network namespace of `pid`, which is checked before."""
    check_network(pid)
    return netns.listeners(pid, ports, datagram_ports)


def check_network(pid: int, *, transparent: bool = False) -> None:
    """Raise unless the network of `pid` is its own, and leads nowhere.

    With `transparent`, it may lead to the fake addresses, by the interface that is made for them.
    """
    try:
        own = os.stat(f"/proc/{pid}/ns/net").st_ino != os.stat("/proc/self/ns/net").st_ino  # noqa: PTH116 - not of a path's file
        names = _interfaces(Path(f"/proc/{pid}/net/dev").read_text("ascii"))
        version_4 = Path(f"/proc/{pid}/net/route").read_text("ascii")
        version_6 = _text_of(Path(f"/proc/{pid}/net/ipv6_route"))
        if transparent:
            version_4, version_6 = _others(version_4), _others(version_6)
        routes = [*_routes(version_4, 0, _NO_ROUTE_HEADINGS), *_routes(version_6, -1, 0)]
    except (OSError, ValueError) as error:
        raise ClaudeProxyError(
            "the container's network cannot be checked",
            where=f"/proc/{pid}/net",
            fix="look whether /proc is mounted with hidepid, and run as the user of the engine",
        ) from error
    known = {_LOOPBACK, INTERFACE} if transparent else {_LOOPBACK}
    if own and set(names) <= known and not set(routes) - {_LOOPBACK}:
        return
    found = "it has the host's network" if not own else f"it has {', '.join([*names, *routes])}"
    raise ClaudeProxyError(
        f"the container has more network than the proxy: {found}",
        where="--network none",
        fix="remove what adds networks to every container (containers.conf, hooks)",
    )


def _others(text: str) -> str:
    """Leave out the route to the fake addresses and, on that link, that of multicast."""
    return "\n".join(line for line in text.splitlines() if not _is_fake(line.split()))


def _is_fake(route: Sequence[str]) -> bool:
    if [*route[:2], *route[7:8]] == [INTERFACE, *_FAKE_ROUTE]:
        return True
    return route[:2] == [_MULTICAST, "08"] and route[-1:] == [INTERFACE]


def _text_of(path: Path) -> str:
    try:
        return path.read_text("ascii")
    except FileNotFoundError:
        return ""  # a kernel without IPv6


def _interfaces(text: str) -> list[str]:
    return [line.partition(":")[0].strip() for line in text.splitlines() if ":" in line]


def _routes(text: str, at: int, headings: int) -> list[str]:
    return [line.split()[at] for line in text.splitlines()[headings:] if line.strip()]


def wait_for_hook(
    call: HookCall, watched: Sequence[int], on_event: Callable[[int], None], patience_s: float
) -> int:
    """Wait until the hook names the container's first process; `on_event` sees other descriptors.

    ClaudeProxyError if nothing comes.
    """
    deadline = time.monotonic() + patience_s
    others = list(watched)
    while (left := deadline - time.monotonic()) > 0:
        ready, _, _ = select.select([call.fileno(), *others], [], [], left)
        for one in ready:
            if one != call.fileno():
                on_event(one)
            elif (pid := call.process()) is not None:
                return pid
    raise ClaudeProxyError(
        "the engine has not started the container",
        where=f"after {patience_s:.0f} seconds",
        fix="see `podman ps --all`, and whether this machine is busy",
    )
