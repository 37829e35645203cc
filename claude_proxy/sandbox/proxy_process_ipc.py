"""Messages between a launcher and the proxy process of its run, over two pipes.

The launcher sends a pickled task. That is safe here and nowhere else: the only writer of the pipe
is the process that started the reader, as the same user and with the same code; the pipe has no
name, and nothing in the task comes from a client or a file. The proxy process answers with lines,
the last of them READY or an error as JSON, because the launcher does not trust a process that talks
to clients.
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path

from claude_proxy.config.loaded_policy import Loaded
from claude_proxy.config.settings import Settings
from claude_proxy.deferred.data_classes import dataclass
from claude_proxy.errors import ClaudeProxyError, ConfigError, ConfigErrors

CHECKED = b"checked\n"  # policy, CA, credentials, audit log and listeners; the engine follows
READY = b"ready\n"
REPORT_LIMIT = 64 * 1024

# Run with -I, so that neither the working directory nor PYTHONPATH can put another module first. It
# then takes over the launcher's module path, so that both processes run the same code.
BOOT = (
    "import pickle, sys; file = open(int(sys.argv[1]), 'rb'); sys.path[:] = pickle.load(file); "
    "from claude_proxy.sandbox.proxy_process import run; run(file)"
)


@dataclass(frozen=True, slots=True)
class Task:
    """The task of a proxy process; it inherits the descriptors under these numbers."""

    settings: Settings
    report: int  # a pipe to write READY or an error to
    lifeline: int  # a pipe to read: end of file means that the launcher is gone
    loaded: Loaded | None = None  # the policy of the settings, if it has been read
    followed: Path | None = None  # the directory of the list's copy, which the sandbox sees
    # Variables that may contain credentials. They go through the pipe, because all processes of the
    # user can read the environment that a process was started with.
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)


def encode(task: Task, path: Sequence[str]) -> bytes:
    """Return what is written to the pipe: the path of modules, then the task."""
    return pickle.dumps([entry for entry in path if entry]) + pickle.dumps(task)


def encode_error(error: ClaudeProxyError) -> bytes:
    """Return an error, or several gathered in one, as a line."""
    problems = error.problems if isinstance(error, ConfigErrors) else (error,)
    found = [{"what": one.what, "where": one.where, "fix": one.fix} for one in problems]
    while True:
        data = json.dumps({"code": error.exit_code, "problems": found}).encode() + b"\n"
        if len(data) <= REPORT_LIMIT or len(found) == 1:
            return data
        found = found[: len(found) // 2]  # as many as fit


def decode_error(data: bytes) -> ClaudeProxyError | None:
    """Return the error in a report; None if it contains none."""
    try:
        found = json.loads(data)
        kind = ConfigError if found["code"] == ConfigError.exit_code else ClaudeProxyError
        problems = [
            kind(str(one["what"]), where=one["where"], fix=one["fix"]) for one in found["problems"]
        ]
    except (ValueError, KeyError, TypeError):
        return None
    configs = [one for one in problems if isinstance(one, ConfigError)]
    if len(configs) > 1:
        return ConfigErrors(configs)
    return problems[0] if problems else None
