"""Launcher of containers: starts one with its keeper, and returns the exit code of its command.

Law kept: no quiet downgrade. CMD runs only after the sockets listen in the container's network
namespace, which leads nowhere else, and after the proxy has checked all that may stop its start.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from claude_proxy import __version__
from claude_proxy.deferred.data_classes import dataclass, replace
from claude_proxy.errors import ClaudeProxyError, ConfigError
from claude_proxy.sandbox import credentials, run_reports, run_spec
from claude_proxy.sandbox.container import enter, next_image, project_plan, removal, store
from claude_proxy.sandbox.container.attached import Attached
from claude_proxy.sandbox.container.engine import Call, Engine
from claude_proxy.sandbox.container.keeper import KeeperTask, start_keeper
from claude_proxy.sandbox.container.plan.model import (
    NAME_LABEL,
    PLAN_LABEL,
    ContainerPlan,
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    EngineFacts,
    ImageFacts,
)
from claude_proxy.sandbox.container.plan.planner import (
    HOME,
    SHOWN,
    ContainerPlace,
    plan_container,
)
from claude_proxy.sandbox.container.store import StoredContainer
from claude_proxy.sandbox.container.way_making import WayMaker
from claude_proxy.sandbox.container.ways_in import WayTask
from claude_proxy.sandbox.credentials import Bindings

type Reporter = Callable[[str], None]

_ENVIRONMENT = "environment"  # a file for the engine, removed once the container is made
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known before anything is made."""

    spec: ContainerSpec
    engine: Engine
    facts: EngineFacts
    image: ImageFacts
    bindings: Bindings
    directory: Path


def prepare(spec: ContainerSpec, engine: Engine, asked: Call) -> Prepared:
    """Look at the engine, the image and the credentials; `asked` is the question for the image."""
    settings = spec.run.settings
    cache = store.cache_in(settings.statedir)
    run_spec.refuse_reachable(spec.run)
    bindings = credentials.bindings_of(spec.run)
    credentials.refuse_reachable(spec.run, bindings, os.environ)
    facts = engine.facts(cache / f"{engine.kind}.json")
    image = engine.image_of(asked, spec.image, cache)
    directory = store.directory_of(settings.statedir, spec.name)
    return Prepared(spec, engine, facts, image, bindings, directory)


def plan_of(prepared: Prepared, *, dry: bool = False) -> tuple[ContainerPlan, Mapping[str, bytes]]:
    """Return the plan of a container, and the files that it shows; nothing is made."""
    spec = prepared.spec
    planned, shown = project_plan.plan_of_run(spec.run, prepared.bindings, dry=dry)
    owner = spec.run.sandbox.project.stat()
    place = ContainerPlace(
        prepared.directory, (owner.st_uid, owner.st_gid), __version__, _policy_of(spec)
    )
    plan = plan_container(spec, prepared.facts, prepared.image, planned, place)
    return plan, shown


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
    )


def run(spec: ContainerSpec, *, say: Reporter, engine: Engine, asked: Call) -> int:
    """Make a container and run CMD in it; return its exit code."""
    prepared = prepare(spec, engine, asked)
    statedir = spec.run.settings.statedir
    replaced = _replace_older(prepared, say)
    plan, shown = plan_of(prepared)
    plan, way = way_of(prepared, plan)
    for note in plan.notes:
        say(f"note: {note}")
    for warning in (*plan.warnings, *credentials.warnings_of(spec.run)):
        say(f"warning: {warning}")
    if spec.run.show_plan:
        for line in plan.lines():
            say(line)
    stored = _stored(prepared, plan)
    _write_files(plan, shown)
    store.save(statedir, stored)
    next_image.forget(statedir, stored.name)
    try:
        with _environment_file(plan) as file:
            words = ["run", *(["--detach"] if spec.detach else []), "--env-file", str(file)]
            call = _Call([*words, *plan.words], spec.detach)
            return _start(prepared, stored, way, say, call)
    except NotStartedError as error:
        _undo(engine, stored, statedir, keep_home=replaced)
        raise error.reason from error
    finally:
        if spec.remove and not spec.detach:
            removal.forget(statedir, stored, engine)


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
    spec = replace(spec, way=stored.way)
    state = ours(engine, stored)
    image = next_image.of(spec.run.settings.statedir, stored.name)
    if image is not None and state.status is not ContainerStatus.RUNNING:
        say("note: it was updated, and is made again from its new image")
        spec = replace(spec, image=image, detach=not attach)
        return run(spec, say=say, engine=engine, asked=engine.begin_image(image))
    prepared = prepare(spec, engine, engine.begin_image(stored.image_id))
    plan, shown = plan_of(prepared)
    _write_shown(prepared.directory, shown)
    if state.status is ContainerStatus.RUNNING:
        return _keep_running(prepared, stored, plan, state, say)
    _, way = way_of(prepared, plan)
    if way is not None:
        way = replace(way, makes_holder=False)
    words = ["start", *(["--attach", "--interactive"] if attach else []), stored.name]
    try:
        return _start(prepared, stored, way, say, _Call(words, detached=not attach))
    except NotStartedError as error:
        raise error.reason from error


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
    if state.status is ContainerStatus.RUNNING:
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
    )


def _write_files(plan: ContainerPlan, shown: Mapping[str, bytes]) -> None:
    store.make_directory(plan.directory)
    for name, content in plan.files.items():
        mode = _PROGRAM_MODE if content.startswith(b"#!") else _SHOWN_MODE
        store.write(plan.directory, name, content, mode)
    if any(mount.source == plan.directory / HOME for mount in plan.mounts):
        _make_home(plan)
    _write_shown(plan.directory, shown)


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


@contextlib.contextmanager
def _environment_file(plan: ContainerPlan) -> Iterator[Path]:
    """Write the variables for the engine into a file, which exists until the container is made."""
    lines = []
    for name, value in plan.environment.items():
        if "\n" in value:
            raise ConfigError(
                f"the value of {name} has several lines, which an engine cannot take",
                where=f"--pass-env {name}",
                fix="leave it out; mount a file instead: --allow-ro PATH",
            )
        lines.append(f"{name}={value}\n")
    path = store.write(
        plan.directory, _ENVIRONMENT, "".join(lines).encode("utf-8", "surrogateescape")
    )
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
        hook = enter.place_hook(prepared.directory)
        hooks = [*map(str, prepared.facts.hooks), str(hook.hooks)]
        words = [*(f"--hooks-dir={path}" for path in hooks), *words]
    began_ns = time.time_ns()
    task = KeeperTask(
        spec.run,
        spec.name,
        prepared.directory,
        engine,
        image_digest=prepared.image.digest,
        hook=hook,
        way=way,
        detached=detached and way is None,
        removed=stored if spec.remove else None,
    )
    with contextlib.closing(start_keeper(task)) as keeper:
        if way is not None:
            try:
                keeper.wait_for("ready", say)
            except ClaudeProxyError as error:
                raise NotStartedError(error) from error
        attached = Attached(engine, engine.words(*words), keeper, hook, quiet=detached)
        with contextlib.closing(attached):
            try:
                if way is None:
                    attached.wait_until_started(say)
                code = attached.wait(lambda: _has_run(engine, stored))
            except ClaudeProxyError as error:
                raise NotStartedError(error) from error
            if detached:
                return code
            keeper.send("exit", code=code)
        keeper.wait_for("ended", say)
    if spec.run.sandbox.has_proxy:
        run_reports.report_denials(spec.run, spec.name, began_ns, say)
    return code


def _has_run(engine: Engine, stored: StoredContainer) -> bool:
    """Tell whether CMD was started; one that removed itself has run."""
    with contextlib.suppress(ClaudeProxyError):
        state = engine.inspect(stored.name)
        if state is None:
            return True
        return is_ours(state, stored) and not state.started.startswith("0001-")
    return False


def _keep_running(
    prepared: Prepared,
    stored: StoredContainer,
    plan: ContainerPlan,
    state: ContainerState,
    say: Reporter,
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
            detached=True,
        )
    )
    with contextlib.closing(channel):
        channel.wait_for("started", say)
    return 0


def _policy_of(spec: ContainerSpec) -> str:
    settings = spec.run.settings
    if not spec.run.sandbox.has_proxy:
        return "no network"
    return settings.policy or str(settings.allowlist)
