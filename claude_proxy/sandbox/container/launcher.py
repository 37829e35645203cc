"""Launcher of containers: starts one with its keeper, and returns the exit code of its command.

Law kept: no quiet downgrade. CMD runs only after the sockets listen in the container's network
namespace, which leads nowhere else, and after the proxy has checked all that may stop its start.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from claude_proxy import __version__
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import created_paths, credentials, run_reports, run_spec
from claude_proxy.sandbox.container import (
    container_clone,
    container_repositories,
    enter,
    first_process,
    keeper_link,
    missing_programs,
    name_lock,
    next_image,
    process_state,
    project_plan,
    removal,
    store,
    untold,
    walled_project,
)
from claude_proxy.sandbox.container.attached import Attached
from claude_proxy.sandbox.container.container_clone import HeldClone
from claude_proxy.sandbox.container.engine import Engine, ImageQuestion
from claude_proxy.sandbox.container.enter import HookFiles
from claude_proxy.sandbox.container.keeper_link import KeeperChannel, KeeperEndedError
from claude_proxy.sandbox.container.keeper_start import start_keeper
from claude_proxy.sandbox.container.keeper_task import KeeperTask
from claude_proxy.sandbox.container.plan import least_limits, project_mounts
from claude_proxy.sandbox.container.plan.bind_words import listed
from claude_proxy.sandbox.container.plan.model import (
    NAME_LABEL,
    PLAN_LABEL,
    ContainerPlan,
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    EngineFacts,
    ImageFacts,
    Way,
)
from claude_proxy.sandbox.container.plan.planner import (
    HOME,
    SHOWN,
    ContainerPlace,
    plan_container,
)
from claude_proxy.sandbox.container.store import StoredContainer
from claude_proxy.sandbox.container.walled_project import WalledProject
from claude_proxy.sandbox.container.way_making import WayMaker
from claude_proxy.sandbox.container.ways_in import WayTask
from claude_proxy.sandbox.credentials import Bindings
from claude_proxy.sandbox.plan.environment import INSIDE
from claude_proxy.sandbox.plan.git_facts import GitMounts
from claude_proxy.sandbox.plan.model import SandboxPlan

type Reporter = Callable[[str], None]

_ENVIRONMENT = "environment"  # a file for the engine, removed once the container is made
_NO_INIT = (
    "without an init (install catatonit or tini), Ctrl-C does nothing to a CMD that has no handler "
    "for it; to end it: claude-proxy container stop {name}"
)
_MOST_STATUS = 125  # from here on, exit codes of podman may be its own
_SHOWN_MODE = 0o444  # other users of the container read it
_PROGRAM_MODE = 0o555


class NotStartedError(Exception):
    """CMD was not started, for this reason."""

    def __init__(self, reason: ClaudeProxyError) -> None:
        super().__init__(reason.what)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Call:
    """How the engine is called to start a container."""

    words: Sequence[str]
    detached: bool
    project: WalledProject


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known before anything is made."""

    spec: ContainerSpec
    engine: Engine
    facts: EngineFacts
    image: ImageFacts
    bindings: Bindings
    directory: Path
    clone: HeldClone | None = None

    def in_clone(self, clone: HeldClone) -> "Prepared":
        """Return what is known with the clone that the container works in, if there is one."""
        return replace(self, spec=clone.spec, clone=clone)


def prepare(spec: ContainerSpec, engine: Engine, asked: ImageQuestion) -> Prepared:
    """Look at the engine, the image and the credentials; `asked` is the question for the image."""
    settings = spec.run.settings
    cache = store.cache_in(settings.statedir)
    least_limits.check(spec.run.sandbox.limits, spec.cpus)
    run_spec.refuse_reachable(spec.run)
    bindings = credentials.bindings_of(spec.run)
    credentials.refuse_reachable(spec.run, bindings, os.environ)
    facts = engine.facts(cache / f"{engine.kind}.json")
    image = engine.image_of(asked, spec.image, cache)
    if not (spec.run.sandbox.command or image.command or image.entrypoint):
        raise ConfigError(
            "there is nothing to run: the image names no command, and none was given",
            where=f"--image {spec.image}",
            fix="name one after --: claude-proxy container run ... -- CMD",
        )
    directory = store.directory_of(settings.statedir, spec.name)
    return Prepared(spec, engine, facts, image, bindings, directory)


def plan_of(prepared: Prepared, *, dry: bool = False) -> tuple[ContainerPlan, Mapping[str, bytes]]:
    """Return the plan of a container, and the files that it shows; nothing is made."""
    prepared = replace(prepared, spec=container_clone.as_planned(prepared.spec))
    git = container_repositories.found_in(prepared.spec.run.sandbox, prepared.directory)
    found = _planned(prepared, git, dry=dry)
    return found.plan, found.shown


@dataclass(frozen=True, slots=True)
class _Planned:
    """The plan of a container, and what it was made of."""

    plan: ContainerPlan
    shown: Mapping[str, bytes]  # files
    by_host: SandboxPlan  # the plan of a run of the same project
    inside: SandboxPlan  # what of that a container has, by the paths there


def _planned(prepared: Prepared, git: GitMounts, *, dry: bool = False) -> _Planned:
    spec = prepared.spec
    planned, shown = project_plan.plan_of_run(spec.run, prepared.bindings, git=git, dry=dry)
    inside = project_mounts.inside(planned, spec.run.sandbox, git)
    place = ContainerPlace(
        prepared.directory, _owner_of(spec), __version__, _policy_of(spec), git, inside
    )
    plan = plan_container(spec, prepared.facts, prepared.image, planned, place)
    return _Planned(plan, shown, planned, inside)


def _owner_of(spec: ContainerSpec) -> tuple[int, int]:
    owner = spec.run.sandbox.project.stat()
    return owner.st_uid, owner.st_gid


def way_of(
    prepared: Prepared, plan: ContainerPlan, *, dry: bool = False
) -> tuple[ContainerPlan, WayTask | None]:
    """Return the plan of a container for its way, and what the keeper sets up for that."""
    return _way_maker(prepared, dry=dry).plan(plan, prepared.spec.way)


def _way_maker(prepared: Prepared, *, dry: bool = False) -> WayMaker:
    run = prepared.spec.run
    return WayMaker(
        prepared.facts,
        prepared.image,
        run.settings.statedir,
        run.settings.gateway is not None,
        dry,
        run.sandbox.transparent,
        forwards=bool(run.forwards),
        publishes=run.publishes,
    )


def run(
    spec: ContainerSpec,
    *,
    say: Reporter,
    engine: Engine,
    asked: ImageQuestion,
    again: StoredContainer | None = None,
) -> int:
    """Make a container and run CMD in it; return its exit code.

    `again` is the one that is made once more, as it is to be started: if that fails, it stays.
    """
    prepared = prepare(spec, engine, asked)
    with name_lock.held(spec.run.settings.statedir, spec.name):
        untold.tell(spec.run.settings.statedir, spec.name, say)
        replaced = _replace_older(prepared, say if again is None else lambda _: None)
        had_clone = again is not None and again.clone
        with container_clone.held(spec, _owner_of(spec), say, again=had_clone) as clone:
            return _make_and_run(prepared.in_clone(clone), say, again, replaced=replaced)


def _make_and_run(
    prepared: Prepared, say: Reporter, again: StoredContainer | None, *, replaced: bool
) -> int:
    spec, engine, statedir = (
        prepared.spec,
        prepared.engine,
        prepared.spec.run.settings.statedir,
    )
    is_new = not prepared.directory.exists()
    store.make_directory(prepared.directory)
    try:
        project, plan, shown = _walled(prepared, say)
    except BaseException:
        _forget_empty(prepared.directory)
        raise
    try:
        plan, way = way_of(prepared, plan)
        variables = _environment_lines(plan)
        _report_plan(spec, plan, say)
        stored = _stored(prepared, plan)
        _write_files(plan, shown)
        store.save(statedir, stored)
        next_image.forget(statedir, stored.name)
    except BaseException:
        project.abandon(say)
        if is_new:  # nothing is in it but what was to be shown
            store.remove(statedir, spec.name)
        raise
    try:
        with _environment_file(plan, variables) as file:
            attached = ["--detach"] if spec.detach else engine.attached_words()
            words = ["run", *attached, "--env-file", listed(file, engine.kind)]
            call = _Call([*words, *plan.words], spec.detach, project)
            code = _start(prepared, stored, way, say, call)
        if not spec.detach:
            container_clone.report(statedir, stored, say)
        return code  # noqa: TRY300
    except NotStartedError as error:
        project.abandon(say)
        _undo(engine, stored, statedir, keep_home=replaced)
        if again is not None:
            store.make_directory(prepared.directory)
            store.save(statedir, again)
        raise _of_start(error.reason) from error
    finally:
        if spec.remove and not spec.detach:
            removal.forget(statedir, stored, engine)


def _of_start(reason: ClaudeProxyError) -> ClaudeProxyError:
    """Return what a start failed of; of a keeper that is gone there is no container to go on."""
    if isinstance(reason, KeeperEndedError):
        return ClaudeProxyError(
            f"{reason.what}, before CMD was started",
            where=reason.where,
            fix="try again; if it comes back, see what ends your processes, such as a lack of "
            "memory (dmesg)",
        )
    return reason


def notes_of(spec: ContainerSpec, plan: ContainerPlan) -> Iterator[str]:
    """Yield what to say of a container before it is made."""
    yield from plan.notes
    # With the way inside, the relay is the first process.
    if spec.terminal and not (spec.detach or "--init" in plan.options or plan.way is Way.INSIDE):
        yield _NO_INIT.format(name=spec.name)


def _report_plan(spec: ContainerSpec, plan: ContainerPlan, say: Reporter) -> None:
    for note in notes_of(spec, plan):
        say(f"note: {note}")
    for warning in (*plan.warnings, *credentials.warnings_of(spec.run)):
        say(f"warning: {warning}")
    if spec.run.show_plan:
        for line in plan.lines():
            say(line)


def _walled(
    prepared: Prepared, say: Reporter
) -> tuple[WalledProject, ContainerPlan, Mapping[str, bytes]]:
    """Make what protects the project; return it, the plan, and the files that it shows."""
    sandbox, directory = prepared.spec.run.sandbox, prepared.directory
    statedir = prepared.spec.run.settings.statedir
    container_repositories.finish(directory, statedir, say)  # of a keeper that was killed
    git = container_repositories.found_in(sandbox, directory)
    if not git.complete:
        say(f"note: {container_repositories.INCOMPLETE}")
    owner = _owner_of(prepared.spec)
    container_repositories.make(git, sandbox, directory, owner)
    try:
        found = _planned(prepared, git)
        for created in created_paths.create(found.by_host):
            if os.geteuid() == 0:
                os.chown(created.path, *owner, follow_symlinks=False)
        project = walled_project.walled(
            found.by_host, sandbox, git, directory, statedir, found.inside
        )
    except BaseException:
        container_repositories.finish(directory, statedir, say)
        _forget_empty(directory)
        raise
    return project, found.plan, found.shown


def _forget_empty(directory: Path) -> None:
    """Remove the directory of a container that was refused, unless it was there before."""
    with contextlib.suppress(OSError):
        directory.rmdir()


def _undo(engine: Engine, stored: StoredContainer, statedir: Path, *, keep_home: bool) -> None:
    """Remove a container that was made, and could not be started."""
    with contextlib.suppress(ClaudeProxyError):
        state = engine.inspect(stored.name)
        if state is not None and state.labels.get(PLAN_LABEL) == stored.plan:
            engine.remove(stored.name, force=True)
    if keep_home:
        store.remove(statedir, stored.name)
    else:
        removal.forget(statedir, stored, engine)


def start(
    spec: ContainerSpec, stored: StoredContainer, engine: Engine, *, attach: bool, say: Reporter
) -> int:
    """Start a container that has been made, or give a running one its way out again."""
    with name_lock.held(spec.run.settings.statedir, stored.name):
        return _start_again(spec, stored, engine, attach=attach, say=say)


def _start_again(
    spec: ContainerSpec, stored: StoredContainer, engine: Engine, *, attach: bool, say: Reporter
) -> int:
    spec = replace(spec, way=stored.way)
    state = None if engine.inspect(stored.name) is None else ours(engine, stored)
    if state is None or not process_state.is_running(state, engine.kind):
        # Made again: its root is read-only, so nothing of it is lost, and what the project has by
        # now, and the policy says by now, is protected and passed in as for a new one.
        image = next_image.of(spec.run.settings.statedir, stored.name)
        if image is not None:
            say("note: it was updated, and is made again from its new image")
            spec = replace(spec, image=image)
        spec = replace(spec, detach=not attach)
        cache = store.cache_in(spec.run.settings.statedir)
        asked = engine.begin_image(image or stored.image_id, cache)
        return run(spec, say=say, engine=engine, asked=asked, again=stored)
    directory = store.directory_of(spec.run.settings.statedir, stored.name)
    if keeper_link.ask(directory, "status") is not None:
        say(f"{stored.name} runs already, and has its proxy")
        return 0
    prepared = prepare(spec, engine, engine.begin_image(stored.image_id))
    untold.tell(spec.run.settings.statedir, spec.name, say)
    with container_clone.held(spec, _owner_of(spec), say, again=stored.clone) as clone:
        return _start_running(prepared.in_clone(clone), stored, state, say)


def _start_running(
    prepared: Prepared, stored: StoredContainer, state: ContainerState, say: Reporter
) -> int:
    spec = prepared.spec
    git = container_repositories.found_in(spec.run.sandbox, prepared.directory)
    found = _planned(prepared, git)
    _write_shown(prepared.directory, found.shown)
    project = walled_project.walled_again(
        found.by_host, spec.run.sandbox, git, prepared.directory, spec.run.settings.statedir
    )
    return _keep_running(prepared, stored, found.plan, state, say, project)


def is_ours(state: ContainerState, stored: StoredContainer) -> bool:
    """Tell whether a container is the one that is kept here, by its labels."""
    labels = state.labels
    return labels.get(NAME_LABEL) == stored.name and labels.get(PLAN_LABEL) == stored.plan


def ours(engine: Engine, stored: StoredContainer) -> ContainerState:
    """Return a container as the engine knows it; ClaudeProxyError if it is not the one we made."""
    state = engine.inspect(stored.name)
    if state is None:
        raise ClaudeProxyError(
            f'the container "{stored.name}" was removed without claude-proxy',
            where=f"{engine.kind} ps --all",
            fix=f"forget it: claude-proxy container rm {stored.name}",
        )
    if not is_ours(state, stored):
        raise ClaudeProxyError(
            f'the container "{stored.name}" was not made by this claude-proxy',
            where=f"{engine.kind} inspect {stored.name}",
            fix="rename or remove it, or use another --name",
        )
    return state


# --- steps


def _replace_older(prepared: Prepared, say: Reporter) -> bool:
    """Remove a stopped container of the same name; its home stays. One that runs is an error.

    Returns whether there was one.
    """
    spec, engine = prepared.spec, prepared.engine
    if not (prepared.directory / store.RECORD).exists():
        return False
    state = engine.inspect(spec.name)
    if state is None:
        return True
    if process_state.is_running(state, engine.kind):
        raise ClaudeProxyError(
            f'the container "{spec.name}" runs already',
            where=f"--name {spec.name}",
            fix=f"use it: claude-proxy container exec {spec.name}; or stop it first: "
            f"claude-proxy container stop {spec.name}",
        )
    if state.labels.get(NAME_LABEL) != spec.name:
        raise ClaudeProxyError(
            f'there is a container "{spec.name}" that claude-proxy did not make',
            where=f"{engine.kind} ps --all",
            fix="use another --name",
        )
    say(f'note: the stopped container "{spec.name}" is replaced; its home is kept')
    removal.remove_container(engine, store.load(spec.run.settings.statedir, spec.name))
    return True


def _stored(prepared: Prepared, plan: ContainerPlan) -> StoredContainer:
    spec = prepared.spec
    label = next(word for word in plan.options if word.startswith(f"{PLAN_LABEL}="))
    return StoredContainer(
        name=spec.name,
        engine=prepared.engine.kind,
        image=spec.image,
        image_id=prepared.image.id,
        image_digest=prepared.image.digest,
        way=plan.way,
        created=time.time(),
        project=str(spec.run.sandbox.project),
        command=plan.command,
        words=spec.words,
        plan=label.partition("=")[2],
        user=plan.user,
        home=str(plan.home),
        volume=plan.volume,
        policy=plan.policy,
        remove=spec.remove,
        clone=spec.run.clone,
    )


def _write_files(plan: ContainerPlan, shown: Mapping[str, bytes]) -> None:
    store.make_directory(plan.directory)
    for name, content in plan.files.items():
        mode = _PROGRAM_MODE if content.startswith(b"#!") else _SHOWN_MODE
        store.write(plan.directory, name, content, mode)
    if any(mount.source == plan.directory / HOME for mount in plan.mounts):
        _make_home(plan)
    _write_shown(plan.directory, shown)
    _make_places(plan)


def _make_places(plan: ContainerPlan) -> None:
    """Make the directories on which more is mounted, in what is shown read-only."""
    for mount in plan.mounts:
        at = Path(mount.at)
        if at != INSIDE and at.is_relative_to(INSIDE):
            place = plan.directory / SHOWN / at.relative_to(INSIDE)
            if isinstance(mount.source, Path) and mount.source.is_dir():
                place.mkdir(mode=0o755, parents=True, exist_ok=True)


def _make_home(plan: ContainerPlan) -> None:
    """Create the directory that is the home, for the user of the container."""
    home = plan.directory / HOME
    store.make_directory(home)
    uid, gid = (int(each) for each in plan.user.split(":"))
    if (uid, gid) == (0, 0) or home.stat().st_uid == uid:
        return  # root of the container is root here, or this user
    try:
        os.chown(home, uid, gid)
    except OSError as error:
        raise ConfigError(
            "the project is another user's, and only root can make a home for that user",
            where=f"user id {uid}",
            fix="use a directory of your own, or podman: --engine podman",
        ) from error


def _write_shown(directory: Path, shown: Mapping[str, bytes]) -> None:
    place = directory / SHOWN
    store.make_directory(place)
    place.chmod(0o755)
    for name, content in shown.items():
        if not (place / name).is_file() or (place / name).read_bytes() != content:
            # In place: a mount shows the file, and not what later gets its name.
            store.write(place, name, content, _SHOWN_MODE)


def _environment_lines(plan: ContainerPlan) -> bytes:
    """Return the variables as an engine reads them from a file."""
    for name, value in plan.environment.items():
        if "\n" in value:
            raise ConfigError(
                f"the value of {name} has several lines, which an engine cannot take",
                where=f"--pass-env {name}",
                fix="leave it out; mount a file instead: --allow-ro PATH",
            )
    lines = (f"{name}={value}\n" for name, value in plan.environment.items())
    return "".join(lines).encode("utf-8", "surrogateescape")


@contextlib.contextmanager
def _environment_file(plan: ContainerPlan, lines: bytes) -> Iterator[Path]:
    """Write the variables for the engine into a file, which exists until the container is made."""
    path = store.write(plan.directory, _ENVIRONMENT, lines)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _start(
    prepared: Prepared, stored: StoredContainer, way: WayTask | None, say: Reporter, call: _Call
) -> int:
    """Start the keeper and the engine, and wait for the end of CMD unless it is detached."""
    spec, engine, detached = prepared.spec, prepared.engine, call.detached
    hook, words = None, call.words
    if way is None:
        hook = enter.place_pipes(prepared.directory)
        hooks = [*map(str, prepared.facts.hooks), str(hook.hooks)]
        words = [*(f"--hooks-dir={listed(path, engine.kind)}" for path in hooks), *words]
    began_ns = time.time_ns()
    task = KeeperTask(
        spec.run,
        spec.name,
        prepared.directory,
        engine,
        image_digest=prepared.image.digest,
        hook=hook,
        way=way,
        attended=not detached,
        removed=stored if spec.remove else None,
        project=call.project,
    )
    with contextlib.closing(start_keeper(task)) as keeper:
        _place_hook(hook, keeper)
        _leave_clone(prepared)
        if way is not None:
            try:
                keeper.wait_for("ready", say)
            except ClaudeProxyError as error:
                keeper.fail(error.exit_code, say)
                raise NotStartedError(error) from error
        attached = Attached(engine, engine.words(*words), keeper, hook, quiet=detached)
        with contextlib.closing(attached):
            try:
                if way is None:
                    attached.wait_until_started(say)
                _leave_name(spec)
                if spec.run.sandbox.has_proxy and not detached:
                    run_reports.load()  # while CMD runs
                code = _wait(attached, prepared, stored, say, call)
            except ClaudeProxyError as error:
                keeper.fail(error.exit_code, say)
                raise NotStartedError(error) from error
            if detached:
                keeper.wait_for("walled", say)
                keeper.leave(say)
                return code
            keeper.send("exit", code=code)
        try:
            keeper.wait_for("ended", say)
        except KeeperEndedError as error:  # CMD has ended: its exit code must not be lost
            say(f"warning: {error.what} before CMD; after that the container had no network")
    if spec.run.sandbox.has_proxy:
        run_reports.report_denials(spec.run, spec.name, began_ns, say)
    return code


def _place_hook(hook: HookFiles | None, keeper: KeeperChannel) -> None:
    if hook is not None:
        enter.place_hook(hook, keeper.pid)


def _leave_name(spec: ContainerSpec) -> None:
    """Let other commands have the name of a container that this one only waits for."""
    if not spec.detach:
        name_lock.release(spec.run.settings.statedir, spec.name)


def _end_deaf(engine: Engine, stored: StoredContainer, number: int, say: Reporter) -> bool:
    """End a CMD to which a signal does nothing only because it is a container's first process.

    Returns whether it was ended: the signal would have ended it anywhere else.
    """
    with contextlib.suppress(ClaudeProxyError):
        state = engine.inspect(stored.name)
        if state is None or not is_ours(state, stored):
            return False
        if state.status is ContainerStatus.RUNNING and first_process.drops(state.pid, number):
            engine.kill(stored.name, "KILL")
            name = signal.Signals(number).name
            say(
                f"CMD has no handler for {name}, as a container's first process needs: it was ended"
            )
            return True
    return False


def _wait(
    attached: Attached, prepared: Prepared, stored: StoredContainer, say: Reporter, call: _Call
) -> int:
    """Wait for the end of CMD, or of the engine's call if CMD is in the background."""
    spec, engine = prepared.spec, prepared.engine
    code = attached.wait(
        lambda: _has_run(engine, stored),
        lambda number: _end_deaf(engine, stored, number, say),
    )
    if spec.terminal and not call.detached and "--init" in call.words:
        error = missing_programs.said_by_init(engine, spec.name, code)
        if error is not None:
            raise error
    return code


def _has_run(engine: Engine, stored: StoredContainer) -> bool | None:
    """Tell whether CMD was started; None if its container is gone, which removes itself."""
    with contextlib.suppress(ClaudeProxyError):
        state = engine.inspect(stored.name)
        if state is None:
            return None
        return is_ours(state, stored) and not state.started.startswith("0001-")
    return False


def _keep_running(  # noqa: PLR0913 - what is known of it
    prepared: Prepared,
    stored: StoredContainer,
    plan: ContainerPlan,
    state: ContainerState,
    say: Reporter,
    project: WalledProject,
) -> int:
    """Give a container that has lost its keeper a new one; the container goes on meanwhile."""
    spec = prepared.spec
    maker = _way_maker(prepared)
    way = maker.again(plan, maker.way(spec.way))
    channel = start_keeper(
        KeeperTask(
            spec.run,
            spec.name,
            prepared.directory,
            prepared.engine,
            image_digest=prepared.image.digest,
            removed=stored if stored.remove else None,
            pid=state.pid,
            way=way,
            project=project,
        )
    )
    with contextlib.closing(channel):
        _leave_clone(prepared)
        channel.wait_for("walled", say)
        channel.leave(say)
    return 0


def _leave_clone(prepared: Prepared) -> None:
    """Leave the clone to the keeper, so that nothing else holds it when that has ended."""
    if prepared.clone is not None:
        prepared.clone.leave()


def _policy_of(spec: ContainerSpec) -> str:
    settings = spec.run.settings
    if not spec.run.sandbox.has_proxy:
        return "no network"
    return settings.policy or str(settings.allowlist)
