"""Closed network: a proxy with rules of its own, and the programs whose only network it is.

It is for what changes an image: a build, a package manager, debootstrap. Nothing else shares it,
so what its rules allow opens nothing for the container that an agent works in.

Law kept: fail closed. A program starts in a network namespace that has only loopback and the
sockets made in it. If the proxy, its relay or the launcher ends, so does the network; and a
program that was started in the namespace cannot leave it.
"""

import contextlib
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from claude_proxy.config import policy_files
from claude_proxy.config.settings import (
    InheritedListen,
    RunIdentity,
    Settings,
    Verbosity,
)
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import netns, own_programs, waiting_process
from claude_proxy.sandbox.container import network_entry
from claude_proxy.sandbox.helper_processes import (
    HelperProcess,
    RelaySockets,
    start_proxy_process,
    start_relay,
)
from claude_proxy.sandbox.loopback_sockets import HOST
from claude_proxy.sandbox.plan.environment import (
    BUNDLE,
    CERTIFICATE,
    HTTP_PORT,
    INSIDE,
    SOCKS_PORT,
    proxy_environment,
)
from claude_proxy.sandbox.relay.relay_target import RelayTarget
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog, open_log
from claude_proxy.system import peer_credentials
from claude_proxy.trust.published_certificate import published_certificate
from claude_proxy.trust.roots import bundle_of, system_roots

# Beside the certificates: for what does not read a variable.
APT_LINES = "apt.conf"
WGET_LINES = "wgetrc"

_RULES = "rules.yaml"
_TRUST = "trust"
_OWN_TRUST = "own-trust"
_ENTRY = "entry.sock"
_ENTRY_PATIENCE_S = 20.0
_GRACE_S = 1.0
_PIECE = 64 * 1024

type Output = Callable[[bytes], None]


@dataclass(frozen=True, slots=True)
class ClosedNetwork:
    """A proxy that is ready, and what a program needs to use it."""

    name: str  # as the audit log names it
    directory: RunDirectory
    log: RunLog
    trust: Path  # the directory that is to be /run/claude-proxy for a program in a container
    own_trust: Path  # the same for a program that sees the host's files

    def environment(self, above: Path = INSIDE) -> dict[str, str]:
        """Return the variables for a program that finds its trust in the directory `above`."""
        found = {
            name: value.replace(str(INSIDE), str(above))
            for name, value in proxy_environment().items()
        }
        files = {"APT_CONFIG": APT_LINES, "WGETRC": WGET_LINES}
        return {**found, **{name: str(above / file) for name, file in files.items()}}

    def run(
        self,
        words: Sequence[str],
        *,
        output: Output,
        environ: Mapping[str, str],
        through: Sequence[str] = (),
        stdin: bytes = b"",
    ) -> int:
        """Run a program in a namespace of its own, and return its exit code.

        `through` is a program that is to start it, such as `podman unshare`. What it prints goes
        to `output`, a piece at a time.
        """
        place = self.directory.path / _ENTRY
        with ExitStack() as stack:
            listening = stack.enter_context(self.directory.listen(place))
            stack.callback(place.unlink, missing_ok=True)
            process = stack.enter_context(_started([*through, *_entry(place, words)], environ))
            self.directory.note(process.pid)
            channel = stack.enter_context(_entered(listening, process))
            pid = peer_credentials.peer_of(channel).pid
            self.directory.note(pid)
            stack.enter_context(self.serving(pid))
            channel.sendall(network_entry.GO)
            _feed(process, stdin)
            return _copied(process, output)

    @contextlib.contextmanager
    def serving(self, pid: int) -> Iterator[HelperProcess]:
        """Make the proxy's sockets in the network namespace of a process."""
        with ExitStack() as closing:
            sockets = netns.listeners(pid, (HTTP_PORT, SOCKS_PORT))
            for sock in sockets:
                closing.enter_context(sock)
            upstream = RelayTarget(
                f"unix:{self.directory.socket_path}",
                socket.AF_UNIX,
                str(self.directory.socket_path),
            )
            relay = start_relay(RelaySockets(sockets), upstream, self.directory, self.log, None)
        with relay:
            yield relay


@contextlib.contextmanager
def closed_network(
    settings: Settings, rules: str | None, *, what: str, say: Callable[[str], None]
) -> Iterator[ClosedNetwork]:
    """Start a proxy whose only rules are `rules`, an allowlist's text; stop it on the way out.

    Without `rules` it has those of the policy that the settings name. `what` names the work in the
    audit log ("build"). Raises the error that stopped the start.
    """
    with ExitStack() as stack:
        directory = stack.enter_context(RunDirectory.make((what,)))
        log = open_log(settings.statedir, directory.name)
        stack.callback(log.close)
        own = _own_settings(settings)
        if rules is not None:
            file = directory.write(_RULES, rules.encode())
            own = replace(own, allowlist=file, policy=None)
        loaded = policy_files.load_for(own)
        with directory.listen() as listener:
            run = RunIdentity(directory.name, what)
            own = replace(own, listen=(InheritedListen(listener.fileno(), what, run),))
            waiting_process.discard()  # it may have begun for another task
            proxy = start_proxy_process(own, [listener], directory, log, loaded, say)
        stack.enter_context(proxy)
        certificate = _certificate(settings.confdir)
        trust = _write_trust(directory, _TRUST, certificate, INSIDE)
        own_trust = _write_trust(directory, _OWN_TRUST, certificate, directory.path / _OWN_TRUST)
        proxy.wait_until_ready()
        yield ClosedNetwork(directory.name, directory, log, trust, own_trust)


def _own_settings(settings: Settings) -> Settings:
    """Return the settings of the proxy: the owner's way out, and nothing of a project's."""
    return replace(
        settings,
        awaited_allowlist=None,
        narrowing=None,
        narrowing_text=None,
        learn=None,
        gateway=None,
        credentials=None,
        workers=1,
        verbosity=Verbosity.QUIET,
        limits=replace(settings.limits, grace_s=min(settings.limits.grace_s, _GRACE_S)),
    )


def _certificate(confdir: Path) -> bytes:
    certificate = published_certificate(confdir)
    if certificate is None:
        # Imports cryptography, which takes long.
        from claude_proxy.trust.certificate_authority import (  # noqa: PLC0415
            CertificateAuthority,
        )

        CertificateAuthority.load_or_create(confdir)
        certificate = published_certificate(confdir) or b""
    return certificate


def _write_trust(directory: RunDirectory, name: str, certificate: bytes, seen_as: Path) -> Path:
    """Write what a program trusts where one of any user may read it; return the directory."""
    bundle = seen_as / BUNDLE.name
    files = {
        CERTIFICATE.name: certificate,
        BUNDLE.name: bundle_of(certificate, system_roots()),
        APT_LINES: apt_lines(bundle).encode(),
        WGET_LINES: f"ca_certificate = {bundle}\n".encode(),
    }
    for file, data in files.items():
        # The directory above lets nobody in; whoever sees this one by a mount may read it.
        directory.write(f"{name}/{file}", data).chmod(0o644)
    trust = directory.path / name
    trust.chmod(0o755)
    return trust


def apt_lines(bundle: Path) -> str:
    """Return the configuration of apt (apt.conf(5)) for the proxy and its CA."""
    proxy = f"http://{HOST}:{HTTP_PORT}"
    return (
        f'Acquire::http::Proxy "{proxy}";\n'
        f'Acquire::https::Proxy "{proxy}";\n'
        f'Acquire::https::CAInfo "{bundle}";\n'
    )


# --- one program


def _entry(place: Path, words: Sequence[str]) -> list[str]:
    return own_programs.words_of(network_entry, str(place), *words)


@contextlib.contextmanager
def _started(
    words: Sequence[str], environ: Mapping[str, str]
) -> "Iterator[subprocess.Popen[bytes]]":
    try:
        process = subprocess.Popen(  # noqa: S603 - the words of a plan
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(environ),
        )
    except OSError as error:
        raise ClaudeProxyError(
            f"{words[0]} cannot be started: {(error.strerror or '').lower()}",
            where=words[0],
            fix="check that it is installed and may be run",
        ) from error
    with process:
        try:
            yield process
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_ENTRY_PATIENCE_S / 2)
            process.kill()
            raise


@contextlib.contextmanager
def _entered(
    listening: socket.socket, process: "subprocess.Popen[bytes]"
) -> Iterator[socket.socket]:
    """Wait until the program is in its namespace; yield the channel to it."""
    ended = os.pidfd_open(process.pid)
    try:
        waited_for = [listening.fileno(), ended]
        ready, _, _ = select.select(waited_for, [], [], _ENTRY_PATIENCE_S)
        if listening.fileno() not in ready:
            raise _not_entered(process)
        channel, _ = listening.accept()
    finally:
        os.close(ended)
    with channel:
        channel.settimeout(_ENTRY_PATIENCE_S)
        try:
            said = channel.recv(_PIECE)
        except TimeoutError:
            said = b""
        if not said:
            raise _not_entered(process)
        yield channel


def _not_entered(process: "subprocess.Popen[bytes]") -> ClaudeProxyError:
    process.kill()
    printed = process.stdout.read(_PIECE) if process.stdout else b""
    said = printed.decode(errors="replace").strip().splitlines()
    return ClaudeProxyError(
        "a network namespace cannot be made" + (f": {said[-1]}" if said else ""),
        where="unshare(CLONE_NEWNET)",
        fix="run `claude-proxy doctor`, which checks the namespaces of this machine",
    )


def _feed(process: "subprocess.Popen[bytes]", data: bytes) -> None:
    if process.stdin is not None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(data)
            process.stdin.close()


def _copied(process: "subprocess.Popen[bytes]", output: Output) -> int:
    """Pass on what the program prints until it ends; return its exit code."""
    if process.stdout is not None:
        while piece := os.read(process.stdout.fileno(), _PIECE):
            output(piece)
    code = process.wait()
    return code if code >= 0 else 128 - code
