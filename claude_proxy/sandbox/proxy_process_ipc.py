"""Messages between a launcher and the proxy process of its run, over a socket and a pipe.

The launcher sends a pickled task. That is safe here and nowhere else: the only writer of the socket
is the process that started the reader, as the same user and with the same code; it has no name, and
nothing in the task comes from a client or a file. The proxy process answers with lines on a pipe,
the last of them READY or an error as JSON, because the launcher does not trust a process that talks
to clients.
"""

import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Self

from claude_proxy.config.loaded_policy import Loaded
from claude_proxy.config.settings import InheritedListen, Listen, Settings
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ClaudeProxyError, ConfigError, ConfigErrors

CHECKED = b"checked\n"  # policy, CA, credentials, audit log and listeners; the engine follows
READY = b"ready\n"
REPORT_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Task:
    """The task of a proxy process, with the numbers that its descriptors have in the launcher."""

    settings: Settings
    report: int  # a pipe to write READY or an error to
    lifeline: int  # a pipe to read: end of file means that the launcher is gone
    log: int  # where it prints
    descriptors: tuple[int, ...]  # all that are sent, in this order
    unrecorded: int | None = None  # a pipe to write to, at the end, what could not be recorded
    loaded: Loaded | None = None  # the policy of the settings, if it has been read
    followed: Path | None = None  # the directory of the list's copy, which the sandbox sees
    # Variables that may contain credentials. They go through the socket, because all processes of
    # the user can read the environment that a process was started with.
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def received(self, descriptors: Sequence[int]) -> Self:
        """Return the task with the numbers under which the descriptors were received."""
        number = dict(zip(self.descriptors, descriptors, strict=True))

        def listening(listen: tuple[Listen, ...]) -> tuple[Listen, ...]:
            return tuple(
                replace(one, descriptor=number[one.descriptor])
                if isinstance(one, InheritedListen)
                else one
                for one in listen
            )

        settings = replace(self.settings, listen=listening(self.settings.listen))
        if (gateway := settings.gateway) is not None:
            settings = replace(settings, gateway=replace(gateway, listen=listening(gateway.listen)))
        return replace(
            self,
            settings=settings,
            report=number[self.report],
            lifeline=number[self.lifeline],
            log=number[self.log],
            unrecorded=None if self.unrecorded is None else number[self.unrecorded],
            descriptors=tuple(descriptors),
        )


def encode(task: Task) -> bytes:
    """Return a task as it is sent."""
    return pickle.dumps(task)


def decode(data: bytes) -> Task:
    """Return a task that our own launcher has sent; TypeError if it is none."""
    task = pickle.loads(data)  # noqa: S301 - our own parent wrote it
    if not isinstance(task, Task):
        raise TypeError("not a task for a proxy process")
    return task


def encode_unrecorded(count: int, why: ClaudeProxyError) -> bytes:
    """Return how many decisions could not be recorded, and why, as it is written to a pipe."""
    return b"%d " % count + encode_error(why)


def decode_unrecorded(data: bytes) -> tuple[int, ClaudeProxyError] | None:
    """Return how many decisions could not be recorded, and why; None if nothing says so."""
    count, _, rest = data.partition(b" ")
    why = decode_error(rest)
    return (int(count), why) if why is not None and count.isdigit() else None


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
