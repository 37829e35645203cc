"""Helper process that brings the commits of a run over while it runs."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from claude_proxy.sandbox.git import periodic
from claude_proxy.sandbox.helper_processes import HelperProcess
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog
from claude_proxy.sandbox.waiting_process import harmless


@contextlib.contextmanager
def commit_bringer(git: GitMounts, run_directory: RunDirectory, log: RunLog) -> Iterator[None]:
    """Run it, if the run has Git directories of its own.

    A run does not depend on it: what it has not brought over is brought over at the end.
    """
    if not git.directories:
        yield
        return
    place = git.directories[0].private.parent
    until, lifeline = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-I", "-S", periodic.__file__, str(until), str(place)],
            pass_fds=(until,),
            stdin=subprocess.DEVNULL,
            stdout=log.file,
            stderr=log.file,
            cwd="/",
            env=harmless(os.environ),
            start_new_session=True,
        )
    except OSError:
        os.close(lifeline)
        yield
        return
    finally:
        os.close(until)
    run_directory.note(process.pid)
    with HelperProcess("commit bringer", process, lifeline):
        yield
