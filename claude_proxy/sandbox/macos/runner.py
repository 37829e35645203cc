"""macOS runner: starts COMMAND under sandbox-exec, with only the port of its own proxy open.

Seatbelt has no namespaces: the proxy listens on a port of the host's loopback interface, and there
is no relay. This module has never run on a Mac; the profile is built by `seatbelt`, which is pure.
"""

import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace

from claude_proxy.config.settings import InheritedListen, RunIdentity, Verbosity
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import credentials, host_facts
from claude_proxy.sandbox.helper_processes import start_proxy_process
from claude_proxy.sandbox.macos.seatbelt import seatbelt
from claude_proxy.sandbox.plan.requirements import SANDBOX_EXEC
from claude_proxy.sandbox.run_directory import RunDirectory, program_of
from claude_proxy.sandbox.run_log import RunLog, open_log
from claude_proxy.sandbox.run_spec import RunSpec, refuse_reachable, shown_files
from claude_proxy.system.runs import base_of

_LOOPBACK = "127.0.0.1"


def run(run_spec: RunSpec, environ: Mapping[str, str]) -> int:
    """Run COMMAND and return its exit code as a shell does (128+n for signal n)."""
    if not SANDBOX_EXEC.exists():
        raise ClaudeProxyError(
            "sandbox-exec not found",
            where=str(SANDBOX_EXEC),
            fix="it is part of macOS; on Linux, `claude-proxy run` uses bwrap",
        )
    _refuse_unknown(run_spec)
    refuse_reachable(run_spec)
    bindings = credentials.bindings_of(run_spec)
    credentials.refuse_reachable(run_spec, bindings, environ)
    with ExitStack() as stack:
        run_directory = stack.enter_context(
            RunDirectory.make(run_spec.words, name=run_spec.name, project=run_spec.sandbox.project)
        )
        log = open_log(run_spec.settings.statedir, run_directory.name)
        stack.callback(log.close)
        port = (
            _start_proxy(run_spec, run_directory, log, stack) if run_spec.sandbox.has_proxy else 0
        )
        temporary, shown = run_directory.path / "tmp", run_directory.path / "shown"
        for directory in (temporary, shown):
            directory.mkdir(mode=0o700)
        for name, content in shown_files(run_spec).items():
            run_directory.write(f"shown/{name}", content)
        spec = credentials.with_isolation(run_spec, bindings, environ)
        seen = host_facts.gather(
            spec,
            environ=environ,
            confdir=run_spec.settings.confdir,
            statedir=run_spec.settings.statedir,
            run_directory=base_of(environ),
            shown={},
        )
        planned = seatbelt(spec, seen, port=port, temporary=temporary, shown=shown)
        return _wait(list(planned.argv), dict(planned.environment), run_spec)


def _refuse_unknown(run_spec: RunSpec) -> None:
    """Refuse options that exist only on Linux."""
    linux_only = {
        "--verify": run_spec.verify,
        "--proxy": run_spec.join is not None,
        "--gateway": run_spec.settings.gateway is not None,
        "--clone": run_spec.clone,
        "--forward": bool(run_spec.forwards),
        "--publish": run_spec.publishes,
        "--transparent": run_spec.sandbox.transparent,
    }
    for option, given in linux_only.items():
        if given:
            raise ConfigError(
                "this option is not available on macOS",
                where=option,
                fix="leave it out; the run starts its own proxy",
            )


def _start_proxy(
    run_spec: RunSpec, run_directory: RunDirectory, log: RunLog, stack: ExitStack
) -> int:
    """Start the run's proxy on a free port, wait until it is ready, and return the port."""
    run = RunIdentity(run_directory.name, program_of(run_spec.words))
    with socket.create_server((_LOOPBACK, 0)) as listener:
        own = replace(
            run_spec.settings,
            listen=(InheritedListen(listener.fileno(), "run", run),),
            workers=1,
            verbosity=Verbosity.QUIET,
        )
        proxy_process = stack.enter_context(
            start_proxy_process(own, (listener,), run_directory, log)
        )
        port: int = listener.getsockname()[1]
    proxy_process.wait_until_ready()
    return port


def _wait(words: list[str], environment: dict[str, str], run_spec: RunSpec) -> int:
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT,)}
    try:
        # Ctrl-C is for COMMAND, which gets it from the terminal, with the default handler.
        process = subprocess.Popen(  # noqa: S603 - sandbox-exec, with the arguments of a plan
            words,
            env=environment,
            cwd=run_spec.sandbox.project,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads
        )
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
