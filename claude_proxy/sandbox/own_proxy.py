"""The proxy of one run: its listening sockets in the run's directory, and its settings.

Nobody but the run reaches it. The sockets outlive the process if their owner keeps them: a proxy
that is started again serves the connections that have waited meanwhile.
"""

import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from claude_proxy.config import policy_files
from claude_proxy.config.settings import InheritedListen, RunIdentity, Settings, Verbosity
from claude_proxy.deferred.data_classes import replace
from claude_proxy.sandbox.helper_processes import ProxyProcess, start_proxy_process
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog

type Reporter = Callable[[str], None]

LISTENER = "run"  # the listener's name in the audit log
GATEWAY_LISTENER = "gateway"

_GRACE_S = 1.0  # for requests whose client has ended with the sandbox


def listen(
    settings: Settings, run_directory: RunDirectory, stack: ExitStack
) -> list[socket.socket]:
    """Return the sockets of a run's proxy, which `stack` closes: the proxy's, and a gateway's."""
    listeners = [stack.enter_context(run_directory.listen())]
    if settings.gateway is not None:
        listeners.append(stack.enter_context(run_directory.listen(run_directory.gateway_path)))
    return listeners


def start(  # noqa: PLR0913 - what a proxy of a run needs
    settings: Settings,
    run: RunIdentity,
    listeners: list[socket.socket],
    run_directory: RunDirectory,
    log: RunLog,
    say: Reporter,
    followed: Path | None = None,
) -> ProxyProcess:
    """Start a proxy that listens on the run's sockets only.

    It keeps the copy of its list up to date that is in `followed`, by default in the run's
    directory.
    """
    own = replace(
        settings,
        listen=(InheritedListen(listeners[0].fileno(), LISTENER, run),),
        workers=1,
        verbosity=Verbosity.QUIET,
        limits=replace(settings.limits, grace_s=min(settings.limits.grace_s, _GRACE_S)),
    )
    if settings.gateway is not None:
        gateway = InheritedListen(listeners[1].fileno(), GATEWAY_LISTENER, run)
        own = replace(own, gateway=replace(settings.gateway, listen=(gateway,)))
    loaded = policy_files.load_for(settings)
    return start_proxy_process(own, listeners, run_directory, log, loaded, say, followed)
