"""Symbolic links called `.git`: covered in a sandbox, before COMMAND starts.

Law kept: the sandbox cannot move its own wall. An agent could replace such a link by a directory
with settings of its own, which git outside would obey.
"""

import subprocess
import sys

from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox.bubblewrap import link_cover
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.git_mounts import cover_of

_PATIENCE_S = 30.0


def cover_links(git: GitMounts, init: int) -> None:
    """Cover the links in the sandbox of process `init`; ClaudeProxyError if one is not covered."""
    if not git.links:
        return
    words = [sys.executable, "-I", "-S", link_cover.__file__, str(init)]
    for number, (link, _) in enumerate(git.links):
        words += [str(cover_of(number)), str(link)]
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd="/",
            env={},
            timeout=_PATIENCE_S,
            check=False,
        )
        reason = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        covered = done.returncode == 0
    except (OSError, subprocess.TimeoutExpired) as error:
        reason, covered = str(error), False
    if not covered:
        raise ClaudeProxyError(
            f"a symbolic link called .git cannot be protected ({reason}); nothing was run",
            where=", ".join(str(link) for link, _ in git.links),
            fix="replace it by a file with one line, gitdir: and the path that it leads to",
        )
