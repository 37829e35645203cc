"""Soaks claude-proxy: crowds, garbage, silence, aborts; then sees that nothing is left of them.

Not a measurement. It ends by itself, after some minutes, with exit code 1 and a list of what is
wrong if anything is. One round warms the proxy up (caches, the allocator's arenas, the largest
crowd so far); what the rounds after it leave behind is compared with what that one left.
"""

import argparse
import random
import resource
import signal
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import inspection, rude_clients
from bench.inspection import Descriptors
from bench.loads import LoadError, Work, load
from bench.place import JSON_BYTES, REPOSITORY, Place
from bench.processes import LOOPBACK, Child, StartError, free_port
from bench.proxies import Running, allowlist_for, environment_of
from bench.rude_clients import DOMAIN, Client, Ledger, Scene
from claude_proxy.proxy.warm_keys import MOST_OF_OWNER

STREAMS = 500
TUNNELS = 2000
GARBAGE = 5000
SILENT = 200
ABORTS = 400
HTTP2 = 160

SOFT_LIMIT = 1024
_EVENTS = 40
_EVENTS_A_SECOND = 2
_HELD_BACK_S = 8  # --head-timeout and --handshake-timeout: silence is ended within the soak
_LINGER_S = 10  # how long the proxy itself may keep a connection that it has ended
_GRACE_S = 30.0
_IDLE_S = 3.0
_IDLE_CPU = 0.2  # of a core, when there is nothing to do
_MEMORY_MIB = 12.0
_THREADS = 48
_LIMIT_S = 900
_FAULTS = ("Traceback", "claude-proxy: error", "claude-proxy: critical")
_SEED = 20260101


class SoakTimeoutError(Exception):
    """The soak did not end by itself."""


@dataclass(slots=True)
class Findings:
    """What is wrong, and what is worth knowing."""

    wrong: list[str] = field(default_factory=list)

    def check(self, what: str, *, good: bool, seen: object = "") -> None:
        """Print what was looked at, and remember it if it is wrong."""
        print(
            f"  {'ok   ' if good else 'WRONG'} {what}{f': {seen}' if str(seen) else ''}", flush=True
        )
        if not good:
            self.wrong.append(f"{what}: {seen}")


@dataclass(slots=True)
class Soak:
    """The proxy that is soaked, and everything around it."""

    place: Place
    child: Child
    port: int
    ca: Path
    database: Path
    http2_port: int | None
    scale: float
    ledger: Ledger = field(default_factory=Ledger)
    findings: Findings = field(default_factory=Findings)

    @property
    def scene(self) -> Scene:
        """What the rude clients are told."""
        tls, plain = self.place.origin_tls, self.place.origin_plain
        return Scene(self.port, self.ca, tls, plain, self.http2_port, self.ledger)

    @property
    def running(self) -> Running:
        """The proxy, as the load generator is told of it."""
        return Running(f"{LOOPBACK}:{self.port}", self.ca, child=self.child)

    def scaled(self, count: int) -> int:
        """Return how many of something there are in this soak."""
        return max(1, round(count * self.scale))


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2, help="after the first (%(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="of all counts (%(default)s)")
    parser.add_argument(
        "--tree", type=Path, default=REPOSITORY, metavar="DIR", help="another working tree's proxy"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave the log and the audit log where they are"
    )
    parser.add_argument("serve", nargs="*", help="after --: more options for `serve`")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGALRM, _give_up)
    signal.alarm(_LIMIT_S)
    try:
        with Place([f"*.{DOMAIN}"]) as place:
            soak = _started(place, _fitting(options.scale), options.tree.resolve(), options.serve)
            _run(soak, options.rounds)
            if options.keep:
                place.keep()
                print(f"\nThe logs are in {place.directory}.")
    except (StartError, LoadError, SoakTimeoutError) as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2 if isinstance(error, StartError) else 1
    finally:
        signal.alarm(0)
    wrong = soak.findings.wrong
    print(f"\n{len(wrong)} things are wrong:" if wrong else "\nNothing is wrong.")
    for line in wrong:
        print(f"  {line}")
    return 1 if wrong else 0


def _give_up(*_: object) -> None:
    raise SoakTimeoutError(f"it was not over after {_LIMIT_S} s")


def _fitting(scale: float) -> float:
    """Return the scale at which all find room under the hard limit of descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The proxy takes half as many connections as it may open files: each may need an upstream.
    fitting = (hard // 2 - 2 * _THREADS) / (TUNNELS + STREAMS + SILENT)
    if fitting < scale:
        print(f"Scaled to {fitting:.2f}: no process may open more than {hard} files (ulimit -Hn).")
    return min(scale, fitting)


def _started(place: Place, scale: float, tree: Path, more: Iterable[str]) -> Soak:
    """Start the proxy with few descriptors, as a login shell would have it."""
    nginx = place.start_nginx()
    port, http2_port = free_port(), None if nginx is None else nginx[0]
    secure = [place.origin_tls] if http2_port is None else [place.origin_tls, http2_port]
    directory = place.directory / "proxy"
    directory.mkdir()
    passed = [f"{name}.{DOMAIN}" for name in rude_clients.PASSTHROUGH]
    allowlist = directory / "allowlist.yaml"
    # A host of its own for each kind of client, so that the rows of one can be told from another's.
    allowlist.write_text(
        allowlist_for({f".{DOMAIN}": secure}, {f".{DOMAIN}": place.origin_plain})
        + "".join(
            f"  - {{host: {host}, ports: {secure}, tls: passthrough, addresses: [127.0.0.0/8]}}\n"
            for host in passed
        )
    )
    confdir, statedir = directory / "config", directory / "state"
    options: list[str | Path] = ["--port", str(port), "--allowlist", allowlist]
    options += ["--confdir", confdir]
    options += ["--statedir", statedir, "--upstream-ca", place.origin_ca]
    options += ["--head-timeout", f"{_HELD_BACK_S}s", "--handshake-timeout", f"{_HELD_BACK_S}s"]
    for name in (*rude_clients.kinds(), "streams", "idle", "kept", "new"):
        for target in (*secure, place.origin_plain):
            options += ["--resolve", f"{name}.{DOMAIN}:{target}:{LOOPBACK}"]
    few = f'ulimit -S -n {SOFT_LIMIT} && exec "$@"'
    command = ["sh", "-c", few, "sh", sys.executable, "-m", "claude_proxy", "serve", *options]
    child = place.child("claude-proxy", *command, *more, environment=environment_of(tree))
    child.wait_for(port)
    ca = confdir / "mitmproxy-ca-cert.pem"
    return Soak(place, child, port, ca, statedir / "audit.sqlite3", http2_port, scale)


def _run(soak: Soak, rounds: int) -> None:
    findings = soak.findings
    soft = inspection.soft_limit_of(soak.child.pid)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    print(f"Descriptors: soft limit {SOFT_LIMIT} at the start, {soft} now, hard limit {hard}.")
    needed = soak.scaled(TUNNELS) + 2 * soak.scaled(STREAMS) + SILENT + 2 * _THREADS
    findings.check("the limit of descriptors was raised", good=soft > needed, seen=soft)
    fresh_mib = inspection.rss_mib(soak.child.pid)
    print("\nRound 0, to warm up")
    _round(soak, random.Random(_SEED))
    before = _left_over(soak, None)
    warm_mib = inspection.rss_mib(soak.child.pid)
    print(f"        memory: {fresh_mib:.1f} MiB at the start, {warm_mib:.1f} MiB now")
    for number in range(1, rounds + 1):
        print(f"\nRound {number}")
        _round(soak, random.Random(_SEED + number))
        _left_over(soak, before)
        _check_memory(soak, warm_mib)
    print("\nAll rounds together")
    _check_audit(soak)
    _check_end(soak)


# --- one round


def _round(soak: Soak, draw: random.Random) -> None:
    """Let everybody in at once, and an ordinary client with them that must always be served."""
    start = time.monotonic()
    ledger = soak.ledger
    done = ledger.done.copy()
    with _watched(soak), ExitStack() as crowd:
        silent = _fall_silent(soak, draw)
        tunnels = soak.scaled(TUNNELS)
        origin = soak.place.origin_tls
        idle = crowd.enter_context(
            load(Work("idle", tunnels, origin, host=f"idle.{DOMAIN}").argv(soak.running))
        )
        ledger.expect(f"idle.{DOMAIN}:{origin}", "connect", tunnels, allowed=True)
        streams = soak.scaled(STREAMS)
        path = f"/events?n={_EVENTS}&rate={_EVENTS_A_SECOND}"
        work = Work("events", streams, origin, ("--path", path), host=f"streams.{DOMAIN}")
        events = crowd.enter_context(load(work.argv(soak.running)))
        ledger.expect(f"streams.{DOMAIN}:{origin}", "connect", streams, allowed=True)
        # One to warm up and the stream itself.
        ledger.expect(f"streams.{DOMAIN}:{origin}", "request", 2 * streams, allowed=True)
        listening = _in_thread(events.go)
        _misbehave(soak, draw)
        result = listening()
        soak.findings.check(
            f"{streams} event streams were whole",
            good=result["errors"] == 0 and result["count"] == streams * _EVENTS,
            seen=f"{result['count']} events, {result['errors']} errors {result['error']}, "
            f"late by {result['p50_us'] / 1000:.1f} ms in the median",
        )
        _check_ended(soak, silent)
        result = idle.go()
        soak.findings.check(
            f"{tunnels} idle tunnels were left alone",
            good=result["count"] == tunnels,
            seen=f"{result['count']} are open {result['error']}",
        )
    counts = {name: ledger.done[name] - done[name] for name in rude_clients.kinds()}
    soak.findings.check(
        "the rude clients got nothing that they must not",
        good=not ledger.failures,
        seen=", ".join(f"{what} ({count}×)" for what, count in ledger.failures.items())
        or f"{sum(counts.values())} of {len(counts)} kinds, {time.monotonic() - start:.0f} s",
    )


def _misbehave(soak: Soak, draw: random.Random) -> None:
    """Let all rude clients loose, in no order."""
    scene = soak.scene
    jobs: list[tuple[str, Callable[[Client], None], int]] = []
    for kinds, count in (
        (rude_clients.GARBAGE, GARBAGE),
        (rude_clients.ABORTS, ABORTS),
        (rude_clients.HTTP2, HTTP2),
    ):
        names = list(kinds)
        jobs += [
            (names[number % len(names)], kinds[names[number % len(names)]], draw.getrandbits(64))
            for number in range(soak.scaled(count))
        ]
    draw.shuffle(jobs)
    with ThreadPoolExecutor(_THREADS) as threads:
        list(threads.map(lambda job: _play(scene, *job), jobs))


def _play(scene: Scene, name: str, act: Callable[[Client], None], seed: int) -> None:
    try:
        client = Client(scene, name, random.Random(seed))
        try:
            act(client)
        finally:
            client.socket.close()
    except Exception as error:  # noqa: BLE001 - the edge of a thread; told at the end of the round
        scene.ledger.fail(f"{name}: {type(error).__name__}: {error}")
    scene.ledger.count(name)


def _fall_silent(soak: Soak, draw: random.Random) -> list[Client]:
    """Open the connections that only a time limit ends."""
    scene, clients = soak.scene, []
    for number in range(soak.scaled(SILENT)):
        name = list(rude_clients.SILENCE)[number % len(rude_clients.SILENCE)]
        client = Client(scene, name, draw)
        rude_clients.SILENCE[name](client)
        scene.ledger.count(name)
        clients.append(client)
    return clients


def _check_ended(soak: Soak, silent: Iterable[Client]) -> None:
    """See that the proxy has ended the silent ones."""
    late = 0
    for client in silent:
        client.socket.settimeout(_HELD_BACK_S + _GRACE_S)
        try:
            while client.socket.recv(65536):
                pass
        except TimeoutError:
            late += 1
        except OSError:
            pass
        client.socket.close()
    soak.findings.check("silence was ended by the time limits", good=not late, seen=f"{late} not")


# --- the ordinary client


@contextmanager
def _watched(soak: Soak) -> Iterator[None]:
    """Meanwhile ask for something that is allowed, over a kept tunnel and over new ones."""
    over = threading.Event()
    kept, new = _Ordinary(soak, "kept"), _Ordinary(soak, "new")
    threads = [
        threading.Thread(target=kept.keep_asking, args=(over, 0.1)),
        threading.Thread(target=new.ask_anew, args=(over, 0.2)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
        for ordinary in (kept, new):
            soak.findings.check(
                f"an allowed request works meanwhile ({ordinary.name} tunnels)",
                good=ordinary.served > 0 and not ordinary.failures,
                seen=f"{ordinary.served} served, the slowest in {ordinary.slowest_s:.2f} s "
                + "; ".join(ordinary.failures[:3]),
            )


class _Ordinary:
    """A client that does as it should."""

    def __init__(self, soak: Soak, name: str) -> None:
        self.name = name
        self.served = 0
        self.slowest_s = 0.0
        self.failures: list[str] = []
        self._scene = soak.scene

    def keep_asking(self, over: threading.Event, pause_s: float) -> None:
        """Ask again and again over one tunnel."""
        try:
            client = self._tunnel()
            while not over.wait(pause_s):
                self._ask(client)
            client.socket.close()
        except Exception as error:  # noqa: BLE001 - the edge of a thread
            self.failures.append(f"{type(error).__name__}: {error}")

    def ask_anew(self, over: threading.Event, pause_s: float) -> None:
        """Ask again and again, each time over a tunnel of its own."""
        while not over.wait(pause_s):
            self.ask_once()

    def ask_once(self) -> None:
        """Ask over a tunnel of its own."""
        try:
            client = self._tunnel()
            self._ask(client)
            client.socket.close()
        except Exception as error:  # noqa: BLE001 - the edge of a thread, or of the soak
            self.failures.append(f"{type(error).__name__}: {error}")

    def _tunnel(self) -> Client:
        client = Client(self._scene, self.name, random.Random(0))
        client.secure()
        return client

    def _ask(self, client: Client) -> None:
        start = time.monotonic()
        client.expect("request", allowed=True)
        client.send(client.request_head("POST", "/json", "Content-Length: 10000") + bytes(10000))
        head, left = client.read_head(), JSON_BYTES
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"answered {head[:60]!r}")
        while left > 0:
            piece = client.socket.recv(left)
            if not piece:
                raise ConnectionError("the answer was cut off")
            left -= len(piece)
        self.served += 1
        self.slowest_s = max(self.slowest_s, time.monotonic() - start)


def _in_thread[T](act: Callable[[], T]) -> Callable[[], T]:
    """Begin to act; return what waits for the result."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(act)
    pool.shutdown(wait=False)
    return future.result


# --- afterwards


def _left_over(soak: Soak, before: Descriptors | None) -> Descriptors:
    """Wait until nobody is there any more, and see that nothing of them is."""
    give_up = time.monotonic() + _LINGER_S + _GRACE_S
    while True:
        now = inspection.descriptors_of(soak.child.pid, soak.port)
        more = Counter[str]() if before is None else now.more_than(before)
        calm = not (now.clients or now.upstreams > MOST_OF_OWNER or now.dead or more)
        if calm or time.monotonic() > give_up:
            break
        time.sleep(0.25)
    soak.findings.check("no descriptor is left over", good=calm, seen=f"{now} {list(more) or ''}")
    left = _open_at_origin(soak)
    soak.findings.check(
        "no connection is left at the origin but those kept ready for one client",
        good=left <= MOST_OF_OWNER,
        seen=left,
    )
    cpu_s = inspection.cpu_s_over(soak.child.pid, _IDLE_S)
    share = cpu_s / _IDLE_S
    soak.findings.check("it rests", good=share < _IDLE_CPU, seen=f"{share:.2f} of a core")
    after = _Ordinary(soak, "new")
    after.ask_once()
    soak.findings.check(
        "an allowed request works afterwards",
        good=after.served == 1,
        seen="; ".join(after.failures),
    )
    return now


def _open_at_origin(soak: Soak) -> int:
    """Ask the origin how many connections it has, besides the one that asks."""
    context = ssl.create_default_context(cafile=soak.place.origin_ca)
    with (
        socket.create_connection((LOOPBACK, soak.place.origin_tls)) as plain,
        context.wrap_socket(plain, server_hostname=f"x.{DOMAIN}") as stream,
    ):
        stream.sendall(b"GET /open HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while piece := stream.recv(4096):
            answer += piece
    return int(answer.partition(b'"connections": ')[2].partition(b",")[0]) - 1


def _check_memory(soak: Soak, warm_mib: float) -> None:
    now_mib = inspection.rss_mib(soak.child.pid)
    soak.findings.check(
        f"memory is back, to within {_MEMORY_MIB:g} MiB of the first round's",
        good=now_mib - warm_mib < _MEMORY_MIB,
        seen=f"{now_mib:.1f} MiB, {now_mib - warm_mib:+.1f}",
    )


def _check_audit(soak: Soak) -> None:
    """Compare the audit log with what the clients know that they did."""
    time.sleep(1.0)  # outcomes are written together, a few times a second
    found, ledger = inspection.decisions_in(soak.database), soak.ledger
    wrong = []
    for kind in sorted({*found, *ledger.most}):
        least, most, count = ledger.least[kind], ledger.most[kind], found[kind]
        if not least <= count <= most:
            target, phase, allowed = kind
            expected = str(least) if least == most else f"{least} to {most}"
            judged = "allowed" if allowed else "denied"
            wrong.append(f"{target or 'nothing'} {phase} {judged}: {count}, not {expected}")
    soak.findings.check(
        "the audit log has a row for each decision",
        good=not wrong,
        seen="; ".join(wrong) or f"{sum(found.values())} rows of {len(found)} kinds agree",
    )
    endless = inspection.endless_in(soak.database)
    soak.findings.check(
        "every decision has an outcome",
        good=not endless,
        seen=", ".join(f"{' '.join(kind)} ({count}×)" for kind, count in endless.most_common(8)),
    )


def _check_end(soak: Soak) -> None:
    """See that it ends well, and what it has said."""
    told = inspection.told_in(soak.database)
    code = soak.child.stop(_GRACE_S)
    soak.findings.check("it ends when asked to", good=code == 0, seen=f"exit code {code}")
    lines = soak.child.log.read_text(errors="replace").splitlines()
    faults = [line for line in lines if any(fault in line for fault in _FAULTS)]
    soak.findings.check(
        "its log tells of no fault",
        good=not faults,
        seen=f"{len(faults)}: {' | '.join(sorted(set(faults))[:5])}" if faults else "",
    )
    # A tunnel that was allowed is no news, but that it has failed is.
    words = ("Allowed: ", "Denied: ", "Failed: ")
    printed = sum(
        line.startswith(words) and not line.startswith("Failed: CONNECT ") for line in lines
    )
    lost = [line for line in lines if line.endswith("lines not printed")]
    soak.findings.check(
        "the console has a line for each decision that is news, or says how many it left out",
        # What goes on for long is shown as allowed first, and as failed when it has.
        good=printed >= told or bool(lost),
        seen=f"{printed} of {told} {' '.join(lost)}",
    )
    for line in sorted({line for line in lines if "warning" in line}):
        print(f"  said: {line}")


if __name__ == "__main__":
    sys.exit(main())
