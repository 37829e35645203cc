"""Measures what a first request costs where the internet is far: direct, claude-proxy, squid.

    python -m bench.round_trips --rtt 40 --clients curl,git --against ../other-tree

The clients and the proxies are in a network namespace, their origins in another, and a link
between them delays every frame by half a round trip (`tests/e2e/rig/delaying_link.py`). Each client
goes to its host once before it is measured, so what is measured is the first request to a host that
was used `--idle` seconds ago. Nothing can leave the machine.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import pki
from bench.far_clients import CLIENTS, HOSTS, REPOSITORY, Client, put_sites
from bench.far_clients import Place as ClientPlace
from bench.place import BUILT
from bench.processes import LOOPBACK, Child, StartError
from bench.proxies import SQUID_MAKERS, give_to_squid
from bench.report import number
from tests.e2e.rig.internet import Internet
from tests.e2e.rig.proxy import Proxy as RigProxy

_PORTS = iter(range(20_000, 21_000))  # the namespace is ours alone
_PATIENCE_S = 60.0
DIRECT = "no proxy"
_KEPT = ("PATH", "LANG")

type Row = dict[str, Any]


class Way(ABC):
    """One way to the origins: none in between, or a proxy that decrypts."""

    name: str

    def __init__(self, internet: Internet, directory: Path) -> None:
        self.internet = internet
        self.directory = directory / "".join(c if c.isalnum() else "-" for c in self.name)
        self.directory.mkdir()

    @abstractmethod
    def start(self, stack: ExitStack) -> Mapping[str, str]:
        """Start what it needs, and return what clients have in their environment for it."""


class DirectWay(Way):
    """Nothing in between."""

    name = DIRECT

    def start(self, stack: ExitStack) -> Mapping[str, str]:
        """Start nothing."""
        del stack
        return trusting(self.internet.pki.root_file)


class OurWay(Way):
    """claude-proxy of a working tree, with the shipped preset and the hosts."""

    def __init__(self, internet: Internet, directory: Path, tree: Path, more: str = "") -> None:
        self._tree, self._more = tree, more.split()
        self.name = "claude-proxy" if tree == REPOSITORY else f"claude-proxy in {tree.name}"
        self.name += f" {more}" if more else ""
        super().__init__(internet, directory)

    def start(self, stack: ExitStack) -> Mapping[str, str]:
        """Start `serve`, and return what `claude-proxy env` would say."""
        allowlist = self.directory / "allowlist.yaml"
        allowlist.write_text("\n".join(["allow:", "  - preset: claude", *_entries(), ""]))
        port = next(_PORTS)
        words: list[str | Path] = ["serve", "--port", str(port), "--allowlist", allowlist]
        words += ["--upstream-ca", self.internet.pki.root_file, *self._more]
        # Safe path: else the directory we are in, a tree as well, would come first.
        tree = {"PYTHONPATH": str(self._tree), "PYTHONSAFEPATH": "1"}
        proxy = RigProxy(self.internet, self.directory, words, port=port, variables=tree)
        stack.callback(proxy.stop)
        proxy.wait_until_listening()
        return {**trusting(proxy.ca_file), **through(port)}


class SquidWay(Way):
    """squid with `ssl_bump`, as its manual has it, and a P-256 CA."""

    name = "squid"

    def start(self, stack: ExitStack) -> Mapping[str, str]:
        """Start it in the foreground."""
        program = shutil.which("squid", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        maker = next((path for path in SQUID_MAKERS if Path(path).exists()), None)
        if program is None or maker is None:
            raise StartError("squid is not installed")
        pki.make_p256_ca(self.directory, "ca")
        port, ca, config = next(_PORTS), self.directory / "ca.pem", self.directory / "squid.conf"
        store = self.directory / "certificates"
        made = [maker, "-c", "-s", str(store), "-M", "4MB"]
        subprocess.run(made, check=True, capture_output=True)
        config.write_text(
            _SQUID.format(
                address=f"{LOOPBACK}:{port}",
                ca=ca,
                key=ca.with_suffix(".key"),
                maker=maker,
                store=store,
                origin_ca=self.internet.pki.root_file,
                run=self.directory,
                hosts=" ".join(HOSTS),
            )
        )
        if os.geteuid() == 0:
            give_to_squid(self.directory)
        words = self.internet.host.argv([program, "-N", "-f", str(config)])
        child = Child(words, self.directory / "log")
        stack.callback(child.stop)
        _wait_until_open(self.internet, port, child)
        return {**trusting(ca), **through(port)}


_SQUID = """\
http_port {address} ssl-bump tls-cert={ca} tls-key={key} generate-host-certificates=on \
dynamic_cert_mem_cache_size=4MB
sslcrtd_program {maker} -s {store} -M 4MB
tls_outgoing_options cafile={origin_ca}
acl step1 at_step SslBump1
ssl_bump peek step1
ssl_bump bump all
acl allowed dstdomain {hosts}
http_access deny !allowed
http_access allow all
cache deny all
cache_mem 0
access_log none
cache_store_log none
cache_log {run}/cache.log
pid_filename {run}/squid.pid
coredump_dir {run}
shutdown_lifetime 0 seconds
via off
forwarded_for delete
"""


def _entries() -> list[str]:
    return [f"  - {host}" for host in HOSTS if host.endswith(".test")]


def _wait_until_open(internet: Internet, port: int, child: Child) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            internet.host.connect(LOOPBACK, port).close()
        except OSError:
            if child.ended:
                raise StartError(f"it ended at once: {child.last_words()}") from None
            time.sleep(0.01)
        else:
            return
    raise StartError(f"it does not listen: {child.last_words()}")


def trusting(ca: Path) -> dict[str, str]:
    """Return the variables by which every client here trusts `ca` alone, or besides others."""
    names = ("SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "npm_config_cafile")
    return {**dict.fromkeys(names, str(ca)), "NODE_EXTRA_CA_CERTS": str(ca)}


def through(port: int) -> dict[str, str]:
    """Return the variables by which every client here uses a proxy."""
    return dict.fromkeys(("https_proxy", "HTTPS_PROXY"), f"http://{LOOPBACK}:{port}")


class Course:
    """All ways and all clients, on one internet."""

    def __init__(self, internet: Internet, directory: Path) -> None:
        self._internet = internet
        self._directory = directory
        self._places = 0

    def take(self, client: Client, program: str, environment: Mapping[str, str]) -> Row:
        """Have a client work once; return how long it took, and what it cost on the link."""
        self._places += 1
        place = self._directory / f"place-{self._places}"
        place.mkdir()
        kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
        everything = {**kept, "HOME": str(place), "TMPDIR": "/tmp", **environment}
        try:
            with self._internet.watch() as seen:
                took_s = client.work(ClientPlace(self._internet, place, everything), program)
        except (StartError, subprocess.TimeoutExpired) as error:
            return {"value": None, "count": 0, "errors": 1, "error": str(error)}
        finally:
            shutil.rmtree(place, ignore_errors=True)
        dialled = sum(packet.protocol == "tcp" for packet in seen.packets)
        return {"value": round(took_s * 1000, 1), "count": 1, "errors": 0, "dialled": dialled}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print a table, and return the exit code."""
    options = _parser().parse_args(arguments)
    wanted = options.clients.split(",") if options.clients else [each.name for each in CLIENTS]
    directory = Path(tempfile.mkdtemp(prefix="claude-proxy-far."))
    # squid gives up its rights, and reads its files here afterwards.
    directory.chmod(0o711)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        internet = Internet(directory, rtt_ms=options.rtt)
        stack.callback(internet.close)
        put_sites(internet, directory)
        ways: list[Way] = [DirectWay(internet, directory)]
        ways += [OurWay(internet, directory, REPOSITORY)]
        ways += [OurWay(internet, directory, tree.resolve()) for tree in options.against]
        ways += [OurWay(internet, directory, REPOSITORY, more) for more in options.also]
        ways += [SquidWay(internet, directory)]
        started = list(_started(ways, stack))
        clients = [client for client in CLIENTS if client.name in wanted]
        rows = list(_rounds(Course(internet, directory), started, clients, options))
    print(table(rows, options.rtt))
    ours = [row for row in rows if row["proxy"] == "claude-proxy"]
    return 1 if not ours or any(row["errors"] for row in ours) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.round_trips", description=__doc__)
    names = ", ".join(client.name for client in CLIENTS)
    parser.add_argument("--rtt", type=float, default=40.0, help="of the link, in ms (%(default)g)")
    parser.add_argument("--rounds", type=int, default=5, help="how often all of it (%(default)s)")
    parser.add_argument("--idle", type=float, default=6.0, help="seconds before each (%(default)g)")
    parser.add_argument("--clients", default="", help=f"which, with commas between: {names}")
    parser.add_argument("--against", type=Path, action="append", default=[], metavar="DIR")
    parser.add_argument("--also", action="append", default=[], metavar="OPTIONS")
    parser.add_argument("--out", type=Path, default=BUILT / "round-trips.jsonl")
    return parser


def _started(ways: Sequence[Way], stack: ExitStack) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Start every proxy; leave out, with a line, what does not start."""
    for way in ways:
        try:
            yield way.name, way.start(stack)
        except (StartError, AssertionError, OSError) as error:
            print(f"{way.name}: left out: {error}", flush=True)


def _rounds(
    course: Course,
    ways: Sequence[tuple[str, Mapping[str, str]]],
    clients: Sequence[Client],
    options: argparse.Namespace,
) -> Iterator[Row]:
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("w") as out:
        for number_ in range(-1, options.rounds):  # the first one makes hosts known
            first = max(number_, 0) % len(ways)
            if number_ >= 0:
                time.sleep(options.idle)
            for client in clients:
                program = client.found()
                if program is None:
                    continue
                for name, environment in (*ways[first:], *ways[:first]):
                    row = course.take(client, program, environment)
                    if number_ < 0:
                        continue
                    row |= {"test": f"first-{client.name}", "proxy": name, "round": number_}
                    row |= {"place": [known for known, _ in ways].index(name)}
                    out.write(json.dumps(row) + "\n")
                    out.flush()
                    yield row


def table(rows: Sequence[Row], rtt_ms: float) -> str:
    """Return the medians as markdown; a ratio is the median of the ratios within each round."""
    names = list(dict.fromkeys(str(row["proxy"]) for row in sorted(rows, key=_place)))
    lines = [f"Round trip of {rtt_ms:g} ms; ms, in brackets x {DIRECT}; connections dialled.", ""]
    lines += [f"| | {' | '.join(names)} |", f"| --- |{' ---: |' * len(names)}"]
    for client in CLIENTS:
        own = [row for row in rows if row["test"] == f"first-{client.name}"]
        if own:
            cells = [_cell(own, name) for name in names]
            lines.append(f"| {client.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _place(row: Row) -> int:
    return int(row["place"])


def _cell(rows: Sequence[Row], name: str) -> str:
    own = {row["round"]: row for row in rows if row["proxy"] == name and row["value"] is not None}
    if not own:
        errors = [str(row.get("error")) for row in rows if row["proxy"] == name]
        return f"nothing: {errors[:1]}"
    direct = {row["round"]: row["value"] for row in rows if row["proxy"] == DIRECT and row["value"]}
    ratios = [row["value"] / direct[at] for at, row in own.items() if at in direct]
    ratio = f" ({statistics.median(ratios):.2f})" if ratios and name != DIRECT else ""
    value = number(statistics.median(row["value"] for row in own.values()))
    dialled = statistics.median(row["dialled"] for row in own.values())
    return f"{value}{ratio}; {dialled:g}"


if __name__ == "__main__":
    sys.exit(main())
