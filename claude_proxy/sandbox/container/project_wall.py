"""Protection of a project that a container works in, from before its start to after its end.

What is mounted is compared with what was planned, by device and inode. The mount guard puts back
what the host takes away by replacing an entry. What is committed comes over while the container
runs, and at its end; what programs outside obey and was created or changed is named. Laws kept: the
sandbox cannot move its own wall, nothing is lost, no quiet downgrade.
"""

import os
import select
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

from claude_proxy.deferred.patterns import lazy_pattern
from claude_proxy.errors import ClaudeProxyError
from claude_proxy.sandbox import guard_process, named_scripts, proxy_process_ipc
from claude_proxy.sandbox.bubblewrap import mountinfo
from claude_proxy.sandbox.bubblewrap.mount_sources import MountSources
from claude_proxy.sandbox.commit_bringer import commit_bringer
from claude_proxy.sandbox.container import container_repositories
from claude_proxy.sandbox.container.plan.model import WORKSPACE
from claude_proxy.sandbox.container.walled_project import WalledProject
from claude_proxy.sandbox.guard_process import MountGuard
from claude_proxy.sandbox.obeyed_states import ObeyedStates
from claude_proxy.sandbox.plan.model import GuardedMount
from claude_proxy.sandbox.plan.protected_files import protected_files
from claude_proxy.sandbox.run_directory import RunDirectory
from claude_proxy.sandbox.run_log import RunLog

type Reporter = Callable[[str], None]

_MOUNTED_PATIENCE_S = 30.0
_PAUSE_S = 0.002
_INSIDE = lazy_pattern(rf"(?<!\S){WORKSPACE}(?=[/\s:;]|$)")
_BRING_AFTER_S = 1.0  # what a short run commits is brought over at its end
_GRACE_S = 2.0  # for a container to end, whose guard has


class ProjectWall:
    """The keeper's part of it."""

    def __init__(self, project: WalledProject, say: Reporter) -> None:
        self._project, self._say = project, say
        self._guard: MountGuard | None = None
        self._pid = 0
        self._bring: Callable[[], None] | None = None
        self._bringing = ExitStack()
        self.due: float | None = None  # when to begin to bring commits over
        self._before: ObeyedStates | None = None
        self._is_checked = project.sources is None

    def look(self) -> None:
        """Note the state of all that programs outside obey, before the command runs."""
        from claude_proxy.sandbox import obeyed_states  # noqa: PLC0415 - while the engine starts

        plan = self._project.planned
        scripts = named_scripts.scripts_of(plan)
        self._before = obeyed_states.states_before(plan.watched_trees, plan.watched, scripts)

    def check(self, pid: int) -> None:
        """Compare what is mounted in the container with the plan; ClaudeProxyError if it differs.

        It may still be about to change its root.
        """
        sources = self._project.sources
        if sources is None or self._is_checked:
            return
        self._is_checked = True
        wanted = {mount.at for mount in self._project.inside.mounts if mount.shows}
        root = _root_of(pid, wanted)
        if root is None:
            raise ClaudeProxyError(
                "the engine has not mounted what was planned; nothing was run",
                where=f"/proc/{pid}/mountinfo",
                fix="try again; report it as a bug if it happens again",
            )
        try:
            _check_as_owner(sources, pid, root)
        except OSError as error:  # above all: the process has ended
            raise ClaudeProxyError(
                f"the container's mounts cannot be compared: {(error.strerror or '').lower()}",
                where=f"/proc/{pid}",
                fix="try again; report it as a bug if it happens again",
            ) from error
        finally:
            sources.close()

    def begin(self, pid: int, run_directory: RunDirectory, log: RunLog, stack: ExitStack) -> None:
        """Guard the mounts and bring commits over from now on; the container runs."""
        self._pid = pid
        stack.enter_context(self._bringing)
        bringer = commit_bringer(self._project.git, run_directory, log)
        self._bring = lambda: self._bringing.enter_context(bringer)
        self.due = time.monotonic() + _BRING_AFTER_S
        guarded = self._project.inside.guarded
        if not guarded:
            return
        try:
            self._guard = self._start_guard(guarded, run_directory, log, stack)
        except ClaudeProxyError:
            if is_alive(pid):  # nothing would protect the project
                self._kill()
                raise
        except BaseException:
            self._kill()
            raise

    def _start_guard(
        self,
        guarded: Sequence[GuardedMount],
        run_directory: RunDirectory,
        log: RunLog,
        stack: ExitStack,
    ) -> MountGuard | None:
        """Start the guard; None if the container has ended, or this user may not enter it."""
        pid = self._pid
        if not _wait_until_rooted(pid):
            return None
        if not os.access(f"/proc/{pid}/ns/mnt", os.R_OK):
            if is_alive(pid):
                self._say(
                    "warning: this user may not enter the container, so protected files of the "
                    "project that a program outside replaces are not protected again until it is "
                    "restarted"
                )
            return None
        self.check(pid)  # where no hook could hold the container
        guard = guard_process.start_mount_guard(guarded, pid, run_directory, log, whole=True)
        stack.enter_context(guard)
        guard.say = self._say_by_host_path
        guard.watch()
        return guard

    def look_after(self, now: float) -> None:
        """Begin to bring commits over when it is time."""
        if self.due is not None and self.due <= now and self._bring is not None:
            self.due = None
            self._bring()

    def fileno(self) -> int | None:
        """Return the descriptor that is readable when the guard says something."""
        return None if self._guard is None else self._guard.fileno()

    def hear(self) -> None:
        """Tell what the guard says; without it, the container is ended: fail closed."""
        guard = self._guard
        if guard is None or guard.tell():
            return
        self._guard = None
        deadline = time.monotonic() + _GRACE_S
        while is_alive(self._pid) and time.monotonic() < deadline:
            time.sleep(_PAUSE_S)
        if is_alive(self._pid):
            guard.lost()
            self._kill()
        self._say_why(guard)

    def _say_why(self, guard: MountGuard) -> None:
        """Say why the guard has ended the container, if it has."""
        for line in guard.ended.lines() if guard.ended is not None else ():
            self._say_by_host_path(line)

    def _say_by_host_path(self, line: str) -> None:
        """Say a line of the guard, which knows the paths of the container only."""
        project = str(self._project.planned.project)
        self._say(_INSIDE.sub(lambda _: project, line))

    def _kill(self) -> None:
        with suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)

    def end(self) -> None:
        """Say what was created or changed, and bring over what was committed."""
        from claude_proxy.sandbox import obeyed_report, obeyed_states  # noqa: PLC0415 - at the end

        self._bringing.close()
        if self._guard is not None:
            self._guard.finish()
            self._say_why(self._guard)
        plan, before = self._project.planned, self._before
        if before is not None:
            after = obeyed_states.states_after(plan.watched_trees, plan.watched, before.scripts)
            changes = list(after.changed_since(before))
            protected = {str(path) for path in protected_files(plan.mounts)}
            watched = {str(path) for path in plan.watched}
            unknown = after.not_looked_at(before)
            for line in obeyed_report.report(changes, unknown, protected, watched):
                self._say(line)
        container_repositories.finish(self._project.directory, self._project.statedir, self._say)


def _check_as_owner(sources: MountSources, pid: int, root: Path) -> None:
    """Compare in the user namespace of a container, whose root this user may not search otherwise.

    In a child, as nothing leaves a user namespace.
    """
    namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        own = os.stat("/proc/self/ns/user").st_ino  # noqa: PTH116 - of no path's file
        if os.fstat(namespace).st_ino == own:
            sources.check(pid, root)
            return
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _report_check(namespace, sources, pid, root, writing)
        os.close(writing)
        with open(reading, "rb") as said:  # noqa: PTH123 - a descriptor
            error = proxy_process_ipc.decode_error(said.read())
        if os.waitpid(child, 0)[1] != 0:
            raise error or ClaudeProxyError("the container's mounts cannot be compared")
    finally:
        os.close(namespace)


def _report_check(
    namespace: int, sources: MountSources, pid: int, root: Path, writing: int
) -> NoReturn:
    """Do the work of the child."""
    code = 1
    try:
        sources.check(pid, root, lambda: os.setns(namespace, os.CLONE_NEWUSER))
        code = 0
    except ClaudeProxyError as error:
        os.write(writing, proxy_process_ipc.encode_error(error))
    finally:
        os._exit(code)


def _root_of(pid: int, wanted: set[Path]) -> Path | None:
    """Return where the root of a container is for its first process, which may not use it yet."""
    try:
        mounted = mountinfo.places_in(Path(f"/proc/{pid}/mountinfo").read_bytes())
    except OSError:
        return None
    below = str(WORKSPACE)
    for place in mounted:
        root = Path(str(place).removesuffix(below) or "/")
        is_project = str(place).endswith(below)
        if is_project and all(root / at.relative_to("/") in mounted for at in wanted):
            return root
    return None


def _wait_until_rooted(pid: int) -> bool:
    """Wait until a container's first process has its root; return whether it still runs.

    ClaudeProxyError if it runs without one for too long.
    """
    deadline = time.monotonic() + _MOUNTED_PATIENCE_S
    while is_alive(pid):
        with suppress(OSError):
            mounted = mountinfo.places_in(Path(f"/proc/{pid}/mountinfo").read_bytes())
            if Path(WORKSPACE) in mounted and _has_own_root(pid):
                return True
        if time.monotonic() > deadline:
            raise ClaudeProxyError(
                "the container does not get its root, so its project cannot be protected",
                where=f"/proc/{pid}/mountinfo",
                fix="see whether the machine is busy, and try again",
            )
        time.sleep(_PAUSE_S)
    return False


def _has_own_root(pid: int) -> bool:
    with suppress(OSError):
        root, own = Path(f"/proc/{pid}/root").stat(), Path("/").stat()
        return (root.st_dev, root.st_ino) != (own.st_dev, own.st_ino)
    return True  # this user may not look


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended, and was not waited for, does not."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        return not select.select([descriptor], [], [], 0)[0]
    finally:
        os.close(descriptor)
