"""Port mappings of one sandbox: its forwards, its published ports, and what is said and recorded.

Both ways are off until they are asked for, and nothing of this is imported before. Whatever has the
sandbox's first process and the run's socket can use it, however the sandbox was made.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence

from claude_proxy.config import policy_files
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ConfigError
from claude_proxy.events import Notice
from claude_proxy.sandbox import forwards, published_ports
from claude_proxy.sandbox.published_ports import HostListener, PortPublisher
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog
from claude_proxy.sandbox.run_spec import RunSpec
from claude_proxy.system import proxy_listeners

type Reporter = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class RunPorts:
    """The port mappings of a run that is being started."""

    run_spec: RunSpec
    listeners: tuple[HostListener, ...]  # of this machine

    @property
    def places(self) -> list[tuple[str, int]]:
        """Where to listen inside, for `netns.listeners`."""
        return forwards.places(self.run_spec.forwards)

    def tunnels(self, sockets: Sequence[socket.socket]) -> list[tuple[socket.socket, str]]:
        """Return the sockets at `places`, each with where it leads, for `RelaySockets`."""
        targets = (str(forward.target) for forward in self.run_spec.forwards)
        return list(zip(sockets, targets, strict=True))

    @contextlib.contextmanager
    def published(
        self, init: int, run_directory: RunDirectory, log: RunLog, terminal: int = 2
    ) -> Iterator[tuple[PortPublisher, ...]]:
        """Serve the published ports; none: nothing is published.

        Wait for the publisher before COMMAND starts. What it finds later it says on `terminal`.
        """
        if not self.run_spec.publishes:
            yield ()
            return
        with published_ports.start(
            self.listeners,
            init,
            run_directory,
            log,
            self.run_spec.settings,
            forwards=self.run_spec.forwards,
            auto=self.run_spec.publishes_new,
            terminal=terminal,
        ) as publisher:
            yield (publisher,)

    def notices(self, run: str) -> list[Notice]:
        """Return what is recorded at the start; the publisher records its own."""
        return list(forwards.notices(self.run_spec.forwards, run))


@contextlib.contextmanager
def opened(run_spec: RunSpec, say: Reporter) -> Iterator[RunPorts]:
    """Open the listeners on this machine, and say what the user should know; ConfigError."""
    _refuse_proxies(run_spec)
    if run_spec.forwards and run_spec.join is None:  # the policy of a running proxy is unknown
        policy = policy_files.load_for(run_spec.settings).policy
        options = run_spec.settings.list_options
        for line in forwards.warnings(run_spec.forwards, policy, options):
            say(f"warning: {line}")
    with published_ports.opened(run_spec.published) as listeners:
        for listener, asked in zip(listeners, run_spec.published, strict=True):
            if asked.host_port == 0 or asked.is_remote:
                say(f"note: {listener}")
        yield RunPorts(run_spec, listeners)


def _refuse_proxies(run_spec: RunSpec) -> None:
    """Refuse to lead a run to another proxy, whose policy is not the run's."""
    for forward in run_spec.forwards:
        if forward.to_host and proxy_listeners.is_proxy(forward.target.port):
            raise ConfigError(
                f"claude-proxy itself listens on port {forward.target.port} of this machine, and "
                "its policy is another one than this run's",
                where=f"--forward {forward}",
                fix="drop it; to use that proxy, and no other: --proxy "
                f"127.0.0.1:{forward.target.port}",
            )


def lines(run_spec: RunSpec) -> Iterator[str]:
    """Yield what --dry-run prints."""
    yield from forwards.lines(run_spec.forwards)
    for one in run_spec.published:
        where = f"a free port of {one.address}" if one.host_port == 0 else one.listens_at
        yield f"# {where} on this machine leads to port {one.port} inside (--publish)"
    if run_spec.publishes_new:
        yield "# ports that programs inside begin to listen on are published (--publish auto)"
