"""Spells what a launcher and the proxy of its run tell each other, over pipes of their own.

Down goes a task, pickled. That is safe here and nowhere else: the only writer of that pipe is the
process that started the reader, as the same user and with the same code, and it made the pipe for
this alone; no name leads to it, and nothing of it comes from a client or a file. Up comes one
line, as plain JSON: the launcher trusts nobody that talks to clients.
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from claude_proxy.config.settings import Settings
from claude_proxy.errors import ClaudeProxyError, ConfigError, ConfigErrors

READY = b"ready\n"
REPORT_LIMIT = 64 * 1024

# Isolated, so that neither the working directory nor PYTHONPATH can put another module before
# ours; then on the launcher's own path, as only that surely leads to the same code.
BOOT = (
    "import pickle, sys; file = open(int(sys.argv[1]), 'rb'); sys.path[:] = pickle.load(file); "
    "from claude_proxy.sandbox.proxy_process import main; sys.exit(main(file))"
)


@dataclass(frozen=True, slots=True)
class Task:
    """What a companion is to do; the descriptors are inherited under these numbers."""

    settings: Settings
    report: int  # to be written to: READY, or what went wrong
    lifeline: int  # at its end, when the launcher is gone
    # Variables that credentials may stand in: by the pipe, as everybody of the same user can read
    # what a process was started with.
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)


def encode(task: Task, path: Sequence[str]) -> bytes:
    """Return what is written to the pipe: where modules are found, then the task."""
    return pickle.dumps([entry for entry in path if entry]) + pickle.dumps(task)


def encode_error(error: ClaudeProxyError) -> bytes:
    """Return an error, or several in one, as a line."""
    problems = error.problems if isinstance(error, ConfigErrors) else (error,)
    found = [{"what": one.what, "where": one.where, "fix": one.fix} for one in problems]
    while True:
        data = json.dumps({"code": error.exit_code, "problems": found}).encode() + b"\n"
        if len(data) <= REPORT_LIMIT or len(found) == 1:
            return data
        found = found[: len(found) // 2]  # as many as can be shown


def decode_error(data: bytes) -> ClaudeProxyError | None:
    """Return the error that a report holds; None if it holds none."""
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
